"""Runs in a folder: `medpair runs ls FOLDER...`, `medpair runs best FOLDER... --task NAME`, `medpair runs diff A B`.

ls     every run below the folders: state, method, data, steps, last loss, the metric reached with its interval, when it last wrote
best   finished fine-tunes of one task, the best first
diff   what two runs differ in: options, data, code, results

Files are read, nothing is loaded or changed; `--json` gives the same for a program. docs/training.md says what a state means.
Exit status: 0 done, 2 something to change in the input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.runs.best import Ranked


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="medpair runs", description="What is in a folder of runs.")
    commands = p.add_subparsers(dest="command", required=True)
    ls = commands.add_parser("ls", help="every run and where it stands")
    ls.add_argument("folders", nargs="*", type=Path, default=[Path("runs")], help="folders to look below (runs)")
    ls.add_argument("--state", choices=("running", "stopped", "finished", "failed", "waiting", "unreadable"))
    best = commands.add_parser("best", help="finished fine-tunes of a task, the best first")
    best.add_argument("folders", nargs="*", type=Path, default=[Path("runs")], help="folders to look below (runs)")
    best.add_argument("--task", help="a task's name; needed where there are results of several")
    best.add_argument("--metric", help="a metric of the results (the task's primary one)")
    best.add_argument("--top", type=_count, default=10, help="how many (10)")
    diff = commands.add_parser("diff", help="what two runs differ in")
    diff.add_argument("a", type=Path, help="the out=FOLDER of a run")
    diff.add_argument("b", type=Path, help="the out=FOLDER of another")
    for one in (ls, best, diff):
        one.add_argument("--json", action="store_true", help="for a program")
        add_all(one)
    return p


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from trainer.errors import exit_status

    return exit_status(
        {"ls": lambda: _ls(args), "best": lambda: _best(args), "diff": lambda: _diff(args)}[args.command]
    )


def _ls(args: argparse.Namespace) -> None:
    from trainer.runs.read import read_all
    from trainer.runs.words import plain, table

    runs = [r for r in read_all(args.folders) if args.state in (None, r.state)]
    if args.json:
        _print([plain(r) for r in runs])
    else:
        print(table(runs) if runs else f"no run is {args.state}")


def _best(args: argparse.Namespace) -> None:
    from trainer.runs.best import MANY, OTHER_CASES, best, of_other_cases
    from trainer.runs.read import read_all
    from trainer.runs.words import plain

    found = best(read_all(args.folders), args.folders, args.task, args.metric)
    if args.json:
        _print(
            [
                plain(r.run)
                | {"metric": r.reached.name, "value": r.reached.value, "validation": r.validation, "doubt": r.doubt}
                | dict(zip(("data_set", "hold_out", "test_cases"), r.cases, strict=True))
                for r in found[: args.top]
            ]
        )
        return
    print("\n".join(_lines(found, args.top)))
    if len(found) > 1:
        print(f"{len(found)} results; {MANY}")
    if others := of_other_cases(found):
        print(f"warning: {len(others)} results ({', '.join(str(r.run.path) for r in others[:3])}) were {OTHER_CASES}")


def _lines(found: Sequence[Ranked], top: int) -> list[str]:
    from trainer.runs.words import aligned, reached_text

    head = ("run", "method", "mode", "start", "seeds", "test", "validation", "doubt")
    rows = [
        (
            str(r.run.path), r.run.title or r.run.method, str(r.run.result["mode"]), str(r.run.result["init"]["kind"]), r.run.seed,
            reached_text(r.reached), "" if r.validation is None else f"{r.validation:.4f}", r.doubt,
        )
        for r in found[:top]
    ]  # fmt: skip
    return aligned([head, *rows])


def _diff(args: argparse.Namespace) -> None:
    from trainer.errors import UserError
    from trainer.runs.difference import differing, one, plain, text

    runs, problems = [], []
    for path in (args.a, args.b):
        try:
            runs.append(one(path))
        except UserError as e:
            problems += e.problems
    if problems:
        raise UserError(problems)
    found = differing(*runs)
    if args.json:
        _print(plain(found))
    else:
        print(text(found, *runs))


def _print(content: object) -> None:
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
