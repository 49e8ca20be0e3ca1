"""What a run says when it ends: what improved, against what chance would give, and where everything is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from trainer.tracking.metrics_file import read_metrics
from trainer.tracking.tracker import loss_text


def yardstick(row: dict[str, Any], term: str, part: str = "") -> float | None:
    """The chance value of a term: of the very batches where it is measured, or as the method states it, or the loss of a constant
    answer, or of samples shuffled. A last batch that is smaller has a chance of its own, so the measured one goes first."""
    names = (f"{part}{term}_chance", f"chance/{term}", f"{part}{term}_baseline", f"{part}{term}_shuffled")
    return next((row[n] for n in names if n in row), None)


def improvement(
    rows: list[dict[str, Any]], metrics: Collection[str] = ()
) -> list[tuple[str, str, float, float, float | None]]:
    """(stage, term, first, last, chance) for every loss term: means over the first and the last tenth of a stage's steps,
    at least one. Held-back losses (and the diagnostics named by `metrics`) compare the first evaluation with the last.
    Chance is what the data give without learning, see `yardstick`."""
    out = []
    for stage in dict.fromkeys(r["stage"] for r in rows):
        here = [r for r in rows if r["stage"] == stage and not r["skipped"]]
        out += [(stage, *values) for part in (_training(here), _held_back(here, metrics)) for values in part]
    return out


Improvement = tuple[str, float, float, float | None]
"""What, at first, at last, by chance."""


def _training(rows: list[dict[str, Any]]) -> Iterator[Improvement]:
    span = max(1, len(rows) // 10)
    for name in [k for k in (rows[-1] if rows else {}) if k.startswith("loss/")]:
        term = name.removeprefix("loss/")
        first, last = (fmean(r[name] for r in part) for part in (rows[:span], rows[-span:]))
        yield f"{term} (training)", first, last, yardstick(rows[-1], term)


def _held_back(rows: list[dict[str, Any]], metrics: Collection[str]) -> Iterator[Improvement]:
    evaluated = [r for r in rows if any(k.startswith("val/") for k in r)]
    shown = [f"val/{m}" for m in metrics]
    for name in [k for k in (evaluated[-1] if evaluated else {}) if k.startswith("val/loss/") or k in shown]:
        term = name.removeprefix("val/").removeprefix("loss/")
        chance = yardstick(evaluated[-1], term, "val/") if "loss/" in name else None
        yield f"{term} (held back)", evaluated[0][name], evaluated[-1][name], chance


def report(out: Path, title: str, method: str, demo: bool, metrics: Collection[str] = ()) -> str:
    """The text printed at a run's end."""
    rows = read_metrics(out)
    lines = [f"\n{title}", f"  {'stage':<12}{'what':<32}{'at first':>10}{'at last':>10}{'chance':>10}"]
    for stage, what, first, last, chance in improvement(rows, metrics):
        lines.append(
            f"  {stage:<12}{what:<32}{loss_text(first):>10}{loss_text(last):>10}"
            + f"{loss_text(chance) if chance is not None else '-':>10}"
        )
    lines += [
        f"\n  metrics      {out / 'metrics.jsonl'}",
        f"  TensorBoard  tensorboard --logdir {out / 'tensorboard'}",
        f"  checkpoints  {out / 'checkpoints'}",
        f"  weights      {out / 'weights.safetensors'}",
    ]
    if (out / "projection.png").exists():
        lines.append(f"  features     {out / 'projection.png'} (held-back samples, t-SNE)")
    if demo:
        lines += [
            "\nThis was the built-in demo cohort: made-up patients with a planted factor that all their modalities share.",
            "With your own data (docs/data.md):",
            "  python -m shards pack manifest.csv --out DIR && python -m shards lint DIR",
            f"  deepspeed launch/pretrain.py --method {method} data.path=DIR out=runs/mine",
        ]
    return "\n".join(lines)
