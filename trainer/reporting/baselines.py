"""Which tables hold no baseline, and the command that makes one: a report trains nothing, so it says what is missing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.registry import baseline_names
from trainer.downstream.task.read import build_task, find_task
from trainer.errors import UserError
from trainer.reporting.groups import Amount, Entry, Group
from trainer.sweep.baselines import FOLDER, PROBE, WORDS, network_of, side_of
from trainer.sweep.points import safe_name, words_of
from trainer.sweep.runner import last_words

OF_LABELS = ("seeds", "fraction", "shots", "draw")
"""What a probe shares of a protocol; a network shares all of it."""
OF_SYSTEM = (
    "name", "kind", "recipe", "inputs", "controls", "mode", "method", "protocol", "augment", "output", "precision", "zero", "deepspeed",
)  # fmt: skip
"""What a task says of the system alone, or is said otherwise."""


def missing(g: Group) -> list[str]:
    """A sentence an amount of labels without a baseline; nothing of other data, where a probe has no weights to be looked at with."""
    if g.external:
        return []
    return [f"{g.name}, {a.name} of labels: {_said(g, a)}" for a in g.amounts if not any(map(_is_one, g.at(a)))]


def _is_one(entry: Entry) -> bool:
    c = entry.first.content
    small = c.kind == "segmentation" and c.method == network_of("masks")[0] and entry.setting.scratch
    return small or c.method in baseline_names()


def _said(g: Group, amount: Amount) -> str:
    first = g.at(amount)[0].first
    task, path = _asked(first.folder)
    why = "these results were made one by one, or by points of a sweep that have not all ended"
    if failed := [f"{p.name}: {' '.join(last_words(p).split())}" for p in _failed(g)]:
        why = f"the sweep's failed ({'; '.join(failed)})"
    data_there = bool(path) and Path(path).exists()
    where = (
        ""
        if data_there
        else f"; its data are not at {path or 'a place that is known'} any more, so give DIR as they are now"
    )
    if not _known(g.task):
        where += f"; task {g.task} is none of configs/task, so give its file as TASK.yaml"
    command = shlex.join(["python", "launch/finetune.py", *_words(g, amount, task, path if data_there else "DIR")])
    return f"no baseline is in this table: {why}{where}. Make one, and give compare its folder too: {command}"


def _failed(g: Group) -> Iterator[Path]:
    """Baselines of a sweep beside these results that failed."""
    for folder in dict.fromkeys(r.folder.parent / FOLDER for e in g.entries for r in e.results):
        for status in sorted(folder.glob("*/status.json")):
            try:
                failed = json.loads(status.read_bytes())["state"] == "failed"
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if failed and (status.parent / "log.txt").is_file():
                yield status.parent


def _words(g: Group, amount: Amount, task: Mapping[str, Any], path: str) -> Iterator[str]:
    """The command line of a baseline."""
    first = g.at(amount)[0].first
    if g.kind == "segmentation":
        method: Sequence[str] = (*network_of("masks"), "--init", "scratch")
    elif g.kind == "retrieval":
        method = (WORDS, "--init", "scratch", "--mode", "zeroshot")
    else:
        method = ("mean_features", *PROBE, f"method.reads={side_of(first.content.method)}")
    yield from (
        "--task",
        g.task if _known(g.task) else "TASK.yaml",
        "--method",
        *method,
        *_differing(g.task, task, g.kind == "segmentation"),
    )
    yield f"data.path={path}"
    yield f"out={first.folder.parent / FOLDER / safe_name(f'{g.name}-{method[0]}-{amount.name}')}"


def _known(task: str) -> bool:
    """Whether `--task` finds a task by this name alone."""
    try:
        find_task(task)
    except UserError:
        return False
    return True


def _asked(folder: Path) -> tuple[Mapping[str, Any], str]:
    """The task of a run as it was asked, and the path of its data; nothing and "" where the run has not kept them."""
    try:
        config = json.loads((folder / "config.json").read_bytes())["config"]
        return dict(config["about"]["task"]), str(config["data"]["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, ""


def _differing(name: str, task: Mapping[str, Any], network: bool) -> Iterator[str]:
    """The words that make of the task's file this task, as far as a baseline hears them; none of a file that is not known by its name."""
    try:
        file = build_task(name, [])[0].model_dump(mode="json")
    except UserError:
        return
    for section, value in task.items():
        if not isinstance(value, Mapping):
            some = {section: value} if section not in OF_SYSTEM and value != file.get(section) else {}
        elif section == "protocol" or section not in OF_SYSTEM:
            heard = {k: v for k, v in value.items() if section != "protocol" or network or k in OF_LABELS}
            of_file = file.get(section) or {}
            some = {f"{section}.{k}": v for k, v in heard.items() if v != of_file.get(k)}
        else:
            some = {}
        for key, said in some.items():
            yield from words_of(key, said)
