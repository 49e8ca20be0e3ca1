"""Held-back losses of pre-training runs over their steps, as one Markdown table.

    python tests/real/curves.py RUN [RUN ...] [--points 6]

A row is a loss term of a stage: its held-back value at evenly spread evaluations, each with its step, the best one, the yardstick where
the run logged one (chance, the term's own baseline, or its value for shuffled samples), and the mean in training since the last
evaluation but one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trainer.tracking.metrics_file import read_metrics

PREFIX = "val/loss/"


def lines(run: Path, points: int) -> Iterator[str]:
    rows = read_metrics(run)
    for stage in dict.fromkeys(r["stage"] for r in rows):
        here = [r for r in rows if r["stage"] == stage]
        looks = [i for i, r in enumerate(here) if any(k.startswith(PREFIX) for k in r)]
        if len(looks) < 2:
            continue
        for term in [k.removeprefix(PREFIX) for k in here[looks[0]] if k.startswith(PREFIX)]:
            training = np.mean([r[f"loss/{term}"] for r in here[looks[-2] + 1 : looks[-1] + 1]])
            yield f"| `{run.name}` {term} | {_cells(term, [here[i] for i in looks], points)} | {_short(training)} |"


def _cells(term: str, looks: Sequence[dict[str, Any]], points: int) -> str:
    chosen = sorted({round(x) for x in np.linspace(0, len(looks) - 1, min(points, len(looks)))})
    curve = ", ".join(_at(looks[i], term) for i in chosen)
    best = min(looks, key=lambda r: r[PREFIX + term])
    yardsticks = (f"val/{term}_chance", f"val/{term}_baseline", f"val/{term}_shuffled", f"chance/{term}")
    known = next((looks[-1][k] for k in yardsticks if looks[-1].get(k) is not None), None)
    return f"{curve} | {_at(best, term)} | {'-' if known is None else _short(known)}"


def _at(row: dict[str, Any], term: str) -> str:
    return f"{_short(row[PREFIX + term])} ({row['step']})"


def _short(x: float) -> str:
    return f"{x:.2e}" if 0 < abs(x) < 0.001 else f"{x:.3f}" if abs(x) < 1 else f"{x:.3g}"


def main() -> int:
    p = argparse.ArgumentParser(description="Held-back losses over steps.")
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("--points", type=int, default=6)
    args = p.parse_args()
    print("| run, term | held back (step) | best | chance or baseline | training, last |\n|---|---|--:|--:|--:|")
    for run in args.runs:
        print("\n".join(lines(run, args.points)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
