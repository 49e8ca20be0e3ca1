"""result.json: what a setting came to, with all that decided it. Written last, whole; reused only when every hash agrees.

The file's form is fixed (trainer/reporting reads it): see `write_result`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.registry import baseline_names
from shards.format.info import sha256_of
from shards.untyped import Json
from trainer.downstream.metrics.doubts import doubts
from trainer.downstream.metrics.floor import narrow
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import CALIBRATED, Recalibration, bounded, calibrated_entry, read_over_time
from trainer.downstream.metrics.simulated import LEVEL, How, of_gap, outside
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.subgroups import by_group, told_of, write_groups
from trainer.downstream.predict import Example
from trainer.downstream.task.schema import Task
from trainer.errors import UserError
from trainer.state.files import write_atomic
from trainer.state.run_folder import versions
from trainer.tracking.intervals import BOOTSTRAP, interval_text

FORMAT = 1
GROUPS = "groups.npz"
MOST_FEATURES = 2000  # more points than that, evenly chosen, are no clearer picture


def hash_of(values: Json) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def reusable(
    out: Path, hashes: Mapping[str, Any], accept_code: bool = False, config_before: str | None = None
) -> dict[str, Any] | None:
    """The result that `out` holds, if it was made from the same things (`accept_code`: or by other code from them).

    config_before: hash of this very configuration under the names of before.

    Raises:
        UserError: it holds one that was made from others: it is not overwritten.
    """
    path = out / "result.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        old = found["hashes"]
    except (ValueError, KeyError) as e:
        raise UserError(f"{path}: damaged ({e!r}); remove it to measure again") from e
    changed = {k: f"{k} {old.get(k)} -> {v}" for k, v in hashes.items() if old.get(k) != v}
    if old.get("config") == config_before:
        changed.pop("config", None)
    if accept_code:
        changed.pop("code", None)
    if changed:
        taken = "" if changed.keys() - {"code"} else "; resume.accept_code=true takes it as it is"
        raise UserError(
            f"{path} was made from other things ({'; '.join(changed.values())}): give another out=FOLDER, or remove {out} to measure "
            f"again{taken}"
        )
    return found


def write_result(
    out: Path,
    task: Task,
    about: Mapping[str, Any],
    predictions: Sequence[Predictions],
    metrics: Sequence[str],
    examples: Sequence[Example] = (),
    groups: Mapping[str, Mapping[str, str]] | None = None,
    fits: Sequence[Recalibration] = (),
) -> dict[str, Any]:
    """Keeps predictions and examples, measures, and writes result.json last.

    Args:
        about: method, mode, init, inputs, control, leak, first_line, n, chosen, seeds, wall_s, hashes.
        predictions: one a seed, of the same test cases.
        metrics: names; the first is the primary one.
        groups: of each label the word of every test case, by its key ("" where unknown); the primary metric is measured within them.
        fits: one a seed, what the validation split says of how scores are to be read; survival over time is written into predictions.
    """
    predictions = read_over_time(predictions, fits)
    b, kept = task.bootstrap, _keep_predictions(out, about["seeds"], predictions)
    measured = {m: entry(predictions, m, b.draws, b.seed, b.level) for m in metrics}
    content: dict[str, Any] = {
        "format": FORMAT,
        "task": task.name,
        "kind": task.kind,
        **about,
        "fraction": None if task.protocol.shots else task.protocol.fraction,
        "shots": task.protocol.shots,
        "draw": task.protocol.draw,
        "primary": metrics[0],
        "metrics": measured,
        "versions": versions(),
        **kept,
        "examples": [_keep_example(out, e, i) for i, e in enumerate(examples)],
        "reference": [r.model_dump() for r in task.reference],
        "question": _question(task, predictions[0]),
        **_recalibrated(task, predictions, metrics, fits),
    }
    warnings = [
        *doubts(metrics[0], about.get("chosen", ()), measured[metrics[0]]["constant"]),
        *(*narrow(predictions[0]), *_simulated(predictions[0], measured, b.level), *bounded(fits)),
        *(line for part in ("sites", "near", "external") for line in about.get(part, {}).get("warnings", ())),
        *_simulated(predictions[0], content.get("calibrated", {}), b.level, "calibrated"),
    ]
    if groups:
        found, gaps = _within(out, task, predictions, metrics[0], groups)
        content |= found
        warnings += gaps
    content["warnings"] = warnings
    write_atomic(out / "result.json", json.dumps(content, indent=1).encode())
    return content


def _keep_predictions(out: Path, seeds: Sequence[int], predictions: Sequence[Predictions]) -> dict[str, Any]:
    """Writes a file for each seed; their names and hashes."""
    names = [f"predictions/seed-{s}.npz" for s in seeds]
    for name, p in zip(names, predictions, strict=True):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        p.save(out / name)
    return {"predictions": names, "predictions_sha256": [sha256_of(out / name) for name in names]}


def _question(task: Task, p: Predictions) -> dict[str, Any]:
    """What was asked: classes, labels, and which class of a binary task is 1."""
    positive = p.classes[1] if task.kind == "binary" and p.classes else None
    return {"classes": list(p.classes), "labels": list(task.labels), "positive": positive}


def _simulated(
    p: Predictions, measured: Mapping[str, Mapping[str, Any]], level: float, how: How | None = None
) -> list[str]:
    """What simulation says of the intervals; of 95 %, as they were simulated, and by resamples alone."""
    return outside(p, [m for m, v in measured.items() if v["interval_by"] == BOOTSTRAP], how) if level == LEVEL else []


def _within(
    out: Path, task: Task, predictions: Sequence[Predictions], metric: str, groups: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Any], list[str]]:
    """A metric within the groups of each label, and what simulation says of the gaps between the worst and the best of them."""
    write_groups(out / GROUPS, groups)
    b, lines = task.bootstrap, list[str]()
    each = {n: by_group(predictions, words, metric, b.draws, b.seed, b.level) for n, words in groups.items()}
    if b.level == LEVEL:
        lines = [
            f"{n}: {line}" for n, found in each.items() for line in _of_groups(predictions[0], groups[n], found, metric)
        ]
    return {"groups": each, "groups_file": GROUPS, "groups_sha256": sha256_of(out / GROUPS)}, lines


def _of_groups(p: Predictions, word_of: Mapping[str, str], found: Mapping[str, Any], metric: str) -> Iterator[str]:
    """What simulation says of the intervals within groups, each sentence with the groups that it is true of, and of the gap."""
    word_N, said = np.array([word_of[k] for k in p.keys_N.tolist()], dtype=object), dict[str, list[str]]()
    for word, g in found["groups"].items():
        for line in outside(p.take(word_N == word), [metric], "group") if g["interval"] else ():
            said.setdefault(line, []).append(word)
    yield from (f"{', '.join(words)}: {line}" for line, words in said.items())
    if found["gap_interval"] is not None:
        for how in of_gap(sum(g["value"] is not None for g in found["groups"].values())):
            yield from outside(p, [metric], how)


def _recalibrated(
    task: Task, predictions: Sequence[Predictions], metrics: Sequence[str], fits: Sequence[Recalibration]
) -> dict[str, Any]:
    """What the validation split says of how scores are to be read, and where the task asks for it the metrics of that reading."""
    if not fits:
        return {}
    found, b = {"recalibration": [f.plain() for f in fits]}, task.bootstrap
    if task.calibration == "none":
        return found
    names = [m for m in metrics if m in CALIBRATED]
    return found | {"calibrated": {m: calibrated_entry(predictions, fits, m, b.draws, b.seed, b.level) for m in names}}


def keep_features(out: Path, p: Predictions, pooled_ND: np.ndarray | None) -> None:
    """Writes features.npz, key_N, x_ND and label_N, which a report draws in two dimensions; nothing where a case has no single label."""
    if pooled_ND is None or p.kind not in ("binary", "multiclass", "ordinal", "regression") or p.target.ndim != 1:
        return
    kept = np.unique(np.linspace(0, len(p) - 1, min(len(p), MOST_FEATURES)).astype(int))
    np.savez(
        out / "features.npz", key_N=p.keys_N[kept], x_ND=pooled_ND[kept].astype(np.float32), label_N=p.target[kept]
    )


def _keep_example(out: Path, e: Example, number: int) -> str:
    name = f"examples/case-{number}.npz"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    masks: dict[str, Any]
    if e.names:
        masks = {"truth_KHW": e.truth_KHW, "predicted_KHW": e.predicted_KHW, "names": np.array(e.names)}
    else:
        masks = {"truth_HW": e.truth_KHW[0], "predicted_HW": e.predicted_KHW[0]}
    np.savez(out / name, key=e.key, image_HWC=e.image_HWC, **masks)
    return name


def summary(result: Mapping[str, Any], out: Path) -> str:
    """The result for a person; warnings first."""
    lines = ["", *filter(None, [result["first_line"], *result.get("meaning", ())])]
    lines += [f"warning: {line}" for line in result.get("warnings", ())]
    n = result["n"]
    share = f"{result['shots']} a class" if result["shots"] else f"{100 * result['fraction']:g} % of labels"
    control = f", control: {result['control']}" if result["control"] else ""
    alone = "fitted to training reports" if result["method"] in baseline_names() else "nothing trained or chosen"
    learned = f"{share}, trained on {n['train']}, chosen on {n['val']}" if n["train"] else alone
    lines.append(
        f"{result['task']}, {result['method']} ({result['init']['kind']}), {result['mode']}{control}: {learned}, "
        f"tested once on {n['test']} cases of {n['test_patients']} patients"
    )
    lines += _aligned(_table(result))
    level, draws = next((f"{100 * m['level']:g} %", m["draws"]) for m in result["metrics"].values())
    notes = f"  interval: {level} over {draws} resamples of test patients; spread over seeds apart from it. * chosen on"
    if any(any(_constant(m)) for m in result["metrics"].values()):
        notes += ". = one answer for all cases"
    lines.append(notes)
    lines += [
        f"  {name} with log odds divided by what validation says: {_number(m['value'])} ({interval_text(m)}); as they are "
        f"{_number(result['metrics'][name]['value'])}"
        for name, m in result.get("calibrated", {}).items()
    ]
    lines += [f"  {line}" for name, found in result.get("groups", {}).items() for line in told_of(name, found)]
    lines += [f"  {line}" for line in result.get("sites", {}).get("lines", ())]
    if accepted := result.get("code_accepted"):
        lines.append(
            f"  trained in part by other versions of the code ({', '.join(accepted)}), as resume.accept_code=true allows"
        )
    lines.append(f"  {out / 'result.json'}")
    return "\n".join(lines)


def _table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of cells a metric, under their heads."""
    rows: list[tuple[str, ...]] = [("metric", "value", "interval", "over seeds", "right", "per seed")]
    for name, m in result["metrics"].items():
        rows.append(
            (
                name + " *" * (name == result["primary"]),
                _number(m["value"]),
                interval_text(m),
                "" if m["spread"] is None else f"sd {m['spread']:.4f}",
                " ".join(f"{k}/{m['n']}" for k in m["k"]) if m["k"] else "",
                " ".join(_number(v) + "=" * same for v, same in zip(m["per_seed"], _constant(m), strict=True)),
            )
        )
    return rows


def _constant(m: Mapping[str, Any]) -> list[bool]:
    """For each seed whether it gave one answer to all cases; not known of results of earlier versions."""
    return m.get("constant") or [False] * len(m["per_seed"])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as what stands in them."""
    wide = [max(len(c) for c in column) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, wide, strict=True)).rstrip() for row in rows]


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.4f}"
