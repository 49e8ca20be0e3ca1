"""Fine-tune results side by side: `python launch/compare.py runs/... --out report/`.

Finds result.json under the folders given, at any depth, and writes compare.md, compare.csv, index.html (one file, plots inside) and each
table as CSV and LaTeX into tables/.
Runs that have no result yet are listed; give the command again when they are done. docs/compare.md says how to read the report.
Exit status: 0 written, 2 something to change in the input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="compare.py", description="Fine-tune results as tables, tests and plots.")
    p.add_argument(
        "runs", nargs="+", type=Path, metavar="FOLDER", help="folders that hold fine-tune runs, at any depth"
    )
    p.add_argument(
        "--out", type=Path, default=Path("report"), help="where compare.md, compare.csv, index.html and tables/ go"
    )
    p.add_argument("--draws", type=_count, default=1000, help="bootstrap draws of a paired test (1000)")
    p.add_argument("--seed", type=int, default=0, help="seed of paired tests and of t-SNE (0)")
    p.add_argument(
        "--rope", type=_region, default=0.01, help="difference that counts as none over several tasks (0.01)"
    )
    add_all(p)
    return p


def _region(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0 and below 1")
    return value


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 100:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 100")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from shards.errors import told
    from trainer.errors import EXIT_OK, EXIT_USER, UserError
    from trainer.reporting.report import build, write

    try:
        report = build(args.runs, args.draws, args.seed, args.rope)
        files = write(report, args.out)
    except UserError as e:
        print(f"error: {told(e)}", file=sys.stderr)
        return EXIT_USER
    from trainer.reporting.baselines import missing
    from trainer.reporting.words import warnings

    for line in (*warnings(report.groups)[0], *(m for g in report.groups for m in missing(g))):
        print(f"warning: {line}")
    results = sum(len(e.results) for g in report.groups for e in g.entries)
    print(
        f"{results} results of {len({g.name for g in report.groups})} tasks, {len(report.running)} runs without one yet"
    )
    print("\n".join(f"  {f}" for f in files))
    return EXIT_OK


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
