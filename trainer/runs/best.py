"""Finished fine-tunes of one task, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from trainer.errors import UserError
from trainer.runs.read import Listed, Reached, measured

MANY = "the best of several by their test values is better by chance: in a paper choose on validation"
OTHER_CASES = "tested on other cases than the first: these values do not rank against each other"


@dataclass(frozen=True)
class Ranked:
    run: Listed
    reached: Reached
    validation: float | None
    """Mean over seeds of what the primary metric was on validation."""
    doubt: str
    """Why the value is not to be trusted; such a run stands after the others."""
    cases: tuple[object, ...]
    """Data set, site that is held out and number of test cases, by which results of other test cases are told."""


def best(runs: Sequence[Listed], roots: Sequence[Path], task: str | None, metric: str | None) -> list[Ranked]:
    """Runs of the task whose results hold the metric (the primary one by default), the best first; controls and other hospitals' data
    are no runs of their own.

    Raises:
        UserError: no result, several tasks and none named, a metric that no result of the task has.
    """
    done = [r for r in runs if r.state == "finished" and r.result and not r.result.get("control")]
    where = ", ".join(map(str, roots))
    tasks = sorted({r.task for r in done})
    if not done:
        raise UserError(f"no finished fine-tune under {where}; give folders that launch/finetune.py wrote (out=FOLDER)")
    if task is None and len(tasks) > 1:
        raise UserError(f"results of {len(tasks)} tasks under {where}; give --task NAME: {', '.join(tasks)}")
    if task is not None and task not in tasks:
        raise UserError(f"--task {task}: no result of it under {where}; there: {', '.join(tasks)}")
    of_task = [r for r in done if r.task == (task or tasks[0])]
    named = metric or of_task[0].result["primary"]
    found = [r for r in of_task if named in r.result["metrics"]]
    if not found:
        known = sorted({m for r in of_task for m in r.result["metrics"]})
        raise UserError(f"--metric {named}: no result of {of_task[0].task} has it; there: {', '.join(known)}")
    return sorted((_ranked(r, named) for r in found), key=lambda x: _order(x, x.run.result["metrics"][named]))


def _order(ranked: Ranked, entry: Mapping[str, Any]) -> tuple[bool, float, str]:
    value = ranked.reached.value
    if value is None or value != value:
        return True, float("inf"), str(ranked.run.path)
    ideal = entry.get("ideal")
    worse = abs(value - ideal) if ideal is not None else -value if entry["higher_is_better"] else value
    return bool(ranked.doubt), worse, str(ranked.run.path)


def _ranked(run: Listed, metric: str) -> Ranked:
    entry = run.result["metrics"][metric]
    values = [c["val"] for c in run.result.get("chosen", ()) if isinstance(c.get("val"), int | float)]
    val = fmean(values) if values and metric == run.result["primary"] else None
    return Ranked(run, measured(run.result, metric), val, _doubt(run.result, entry), _cases(run.result))


def _cases(result: Mapping[str, Any]) -> tuple[object, ...]:
    return result.get("hashes", {}).get("data"), result.get("hold_out"), result.get("n", {}).get("test")


def of_other_cases(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Those that were tested on other cases than the first: another data set, a site held out, another split."""
    return [r for r in ranked if r.cases != ranked[0].cases]


def _doubt(result: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    leak = result["leak"]
    seen = sum(leak.get(n, 0) for n in ("shared", "in_training", "images", "images_in_training"))
    if seen:
        return f"{seen} test cases were learned from"
    if entry.get("constant") and all(entry["constant"]):
        return "one answer for all cases"
    return "" if leak["checked"] else "no leak check"
