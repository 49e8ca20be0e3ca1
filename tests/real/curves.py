"""Held-back losses of pre-training runs over their steps, as Markdown tables.

    python tests/real/curves.py RUN [RUN ...] [--points 8]

A row is an evaluation of a stage: the held-back value of each loss term, in brackets its yardstick where the run logged one (chance, or
the term's own baseline), and behind the bar the value in training, as the mean of the steps since the row before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trainer.tracking import read_metrics


def table(run: Path, points: int) -> str:
    rows = read_metrics(run)
    lines = []
    for stage in dict.fromkeys(r["stage"] for r in rows):
        lines += ["", f"{run.name}, stage {stage}", "", *_stage([r for r in rows if r["stage"] == stage], points)]
    return "\n".join(lines)


def _stage(rows: Sequence[dict[str, Any]], points: int) -> list[str]:
    looks = [i for i, r in enumerate(rows) if any(k.startswith("val/loss/") for k in r)]
    if not looks:
        return ["no held-back evaluation"]
    chosen = sorted({looks[round(x)] for x in np.linspace(0, len(looks) - 1, min(points, len(looks)))})
    terms = [k.removeprefix("val/loss/") for k in rows[looks[0]] if k.startswith("val/loss/")]
    lines = [f"| step | {' | '.join(terms)} |", "|--:|" + "--:|" * len(terms)]
    before = -1
    for i in chosen:
        cells = [_cell(rows[i], term, [r[f"loss/{term}"] for r in rows[before + 1 : i + 1]]) for term in terms]
        lines.append(f"| {rows[i]['step']} | {' | '.join(cells)} |")
        before = i
    return lines


def _cell(row: dict[str, Any], term: str, training: Sequence[float]) -> str:
    yardsticks = (f"val/{term}_chance", f"val/{term}_baseline", f"val/{term}_shuffled", f"chance/{term}")
    known = next((row[k] for k in yardsticks if row.get(k) is not None), None)
    beside = "" if known is None else f" ({known:.3g})"
    return f"{row[f'val/loss/{term}']:.3g}{beside} / {np.mean(training):.3g}"


def main() -> int:
    p = argparse.ArgumentParser(description="Held-back losses over steps.")
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("--points", type=int, default=8)
    args = p.parse_args()
    print("\n".join(table(run, args.points) for run in args.runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
