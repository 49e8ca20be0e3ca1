"""Many runs of one command: `python launch/sweep.py FILE.yaml [section.key=value ...] [--out DIR] [--jobs N] [--dry-run] [--point I]`.

The file says what the runs share and what differs (trainer/sweep/file.py, docs/finetune.md). The same command goes on where a sweep stopped
or was killed. Exit status: 0 all points are done, 75 stopped and resumable, 1 some points failed, 2 something to change in the input.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.sweep.points import Point, Sweep
    from trainer.sweep.preloaded import Preloaded

ROOT = Path(__file__).resolve().parent.parent


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="sweep.py", description="Many runs of one command, in folders of their own.")
    p.add_argument("file", type=Path, help="YAML: command, words, grid, points; or rows of a table")
    p.add_argument("words", nargs="*", metavar="section.key=value", help="words of all runs, e.g. data.path=DIR")
    p.add_argument("--recipe", help="rows of a table: the recipe of every run, e.g. demo")
    p.add_argument("--out", type=Path, help="where the runs go, a folder each; runs/NAME OF THE FILE by default")
    p.add_argument("--jobs", type=int, default=1, help="runs at a time")
    p.add_argument("--retries", type=int, default=1, help="how often a failed run is tried again")
    p.add_argument("--dry-run", action="store_true", help="check and print all command lines; run nothing")
    p.add_argument("--point", type=int, metavar="I", help="run this point alone, counted from 0 (for job arrays)")
    p.add_argument("--row", action="append", metavar="ROW", help="of a table: this row alone; may be given again")
    p.add_argument(
        "--column", action="append", metavar="COLUMN", help="of a table: this column alone; may be given again"
    )
    p.add_argument(
        "--pretrained",
        type=Path,
        action="append",
        metavar="DIR",
        help="of a table: rows start from the finished runs below DIR (another table's folder) that are those of its "
        "pretrain; may be given again",
    )
    p.add_argument(
        "--no-preload", action="store_true", help="each point loads everything itself, instead of being forked"
    )
    add_all(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    from trainer.sweep.preloaded import Preloaded, environment

    # Before anything else is imported: it loads while this looks at the file. One point alone loads what it needs itself.
    several = not (args.dry_run or args.no_preload or args.point is not None)
    forking = Preloaded(environment(max(1, args.jobs))) if several else None
    from models.contract import MethodError
    from shards.errors import told
    from trainer.errors import EXIT_USER, UserError

    try:
        return _run(args, forking)
    except (UserError, MethodError) as e:
        print(f"error: {told(e)}", file=sys.stderr)
        return EXIT_USER
    finally:
        if forking is not None:
            forking.close()


def _run(args: argparse.Namespace, forking: Preloaded | None) -> int:
    from trainer.errors import EXIT_OK, EXIT_STOPPED
    from trainer.sweep.preloaded import Preloaded
    from trainer.sweep.runner import Runner, table
    from trainer.sweep.selection import going_on, started_from, with_their_starts

    sweep, points = read(args, forking)
    if args.dry_run:
        show(sweep, points, beside_all(sweep, args, points))
        return EXIT_OK
    if not Preloaded.fits():
        forking = None

    def run(one: Sweep, some: Sequence[Point]) -> int:
        code = Runner(one, args.jobs, args.retries, lambda line: print(line, flush=True), forking).run(some)
        print(f"\n{table(one, some)}\n{one.out}", flush=True)
        return code

    before = EXIT_OK
    if sweep.first is not None and (needed := started_from(sweep, points)):
        before = run(sweep.first, needed)
        if before == EXIT_STOPPED:
            return before
        points = with_their_starts(sweep, sweep.first, points, needed)
    code = max(before, run(sweep, points)) if points else before
    beside = beside_all(sweep, args, points)
    if args.point is not None and sweep.baselines is not None and (left := going_on(sweep)):
        print(f"baselines: made by the point that ends last; {len(left)} have not ended", flush=True)
    if beside.points and code != EXIT_STOPPED:
        print("baselines (baselines: false in the sweep's file leaves them out)", flush=True)
        # One that the data do not fit, or that failed, is told in the table and ends nothing.
        if run(beside, beside.points) == EXIT_STOPPED:
            return EXIT_STOPPED
    if sweep.rows:
        from trainer.reporting.rows import write_table

        print(write_table(sweep, [beside.folder(p) for p in beside.points]), flush=True)
    return of_one_point(sweep, points, code) if args.point is not None else code


def read(args: argparse.Namespace, forking: Preloaded | None) -> tuple[Sweep, tuple[Point, ...]]:
    """The sweep of the file, checked, and the points that are asked for.

    Raises:
        UserError, MethodError: see `chosen`, `check`, `with_runs` and `refuse_missing_data`.
    """
    from trainer.sweep.data_given import refuse_missing_data
    from trainer.sweep.file import read_sweep
    from trainer.sweep.selection import chosen

    sweep = read_sweep(args.file, args.out, args.recipe, args.words)
    points = chosen(sweep, args)
    if forking is not None:
        made = [s for s in (sweep, sweep.first) if s is not None]
        forking.prepare([s.command for s in made], sorted({m for s in made for m in s.methods()}))
    if sweep.first is not None:
        check(sweep.first)
    if args.pretrained:
        sweep = with_runs(sweep, args.pretrained)
        points = tuple(p for p in sweep.points if p.index in {q.index for q in points})
    check(sweep)
    if sweep.rows:
        refuse_missing_data(sweep, points)
    return sweep, points


def show(sweep: Sweep, points: Sequence[Point], beside: Sweep) -> None:
    """Prints the command lines of all that would be run, in its order."""
    from trainer.sweep.selection import started_from

    for one, some in ((sweep.first, started_from(sweep, points)), (sweep, points), (beside, beside.points)):
        for p in some:
            print(f"{p.index:>4}  {p.name}\n      {shlex.join((one or sweep).command_line(p))}")


def of_one_point(sweep: Sweep, points: Sequence[Point], code: int) -> int:
    """The exit status of a point alone: it is the point's own where that says that the input has to change."""
    from trainer.errors import EXIT_USER
    from trainer.sweep.runner import statuses

    refused = points and code == 1 and statuses(sweep, points)[0].exit == EXIT_USER
    return EXIT_USER if refused else code


def beside_all(sweep: Sweep, args: argparse.Namespace, points: Sequence[Point]) -> Sweep:
    """The baselines of a sweep; of rows and columns their own; of a point alone (a job of an array) all, if it is the last to end."""
    from dataclasses import replace

    from trainer.downstream.task.read import kind_of
    from trainer.sweep.baselines import beside
    from trainer.sweep.selection import going_on

    if args.point is not None and (args.dry_run or going_on(sweep)):
        return replace(sweep, points=())
    whole = beside(sweep, kind_of)
    if args.point is not None or not (args.row or args.column):
        return whole
    # Their folders are those of the whole, where some have a number.
    own = {p.words for p in beside(replace(sweep, points=tuple(points)), kind_of).points}
    return replace(whole, points=tuple(p for p in whole.points if p.words in own))


def with_runs(sweep: Sweep, folders: Sequence[Path]) -> Sweep:
    """The sweep with rows that start from runs below `folders`, each of them said in a line.

    Raises:
        UserError, DataError: see trainer/sweep/pretrained.py.
    """
    from launch import pretrain
    from trainer.config.recipe import build_config
    from trainer.sweep.pretrained import with_pretrained

    wanted = {}
    for point in sweep.first.points if sweep.first else ():
        args = pretrain.parser().parse_intermixed_args(list(point.words))
        wanted[point.name], _ = build_config(args.method, args.recipe, args.overrides)
    changed, found = with_pretrained(sweep, folders, wanted)
    for name in wanted:
        print(f"{name}: {found[name]}" if name in found else f"{name}: no such run there, it is made", flush=True)
    return changed


# ---------------------------------------------------------------------------------------------------------------- checking


def check(sweep: Sweep) -> None:
    """Refuses what the command would refuse of its configuration, before anything runs: problems of all points at once.

    Raises:
        UserError: unknown keys, wrong values, unknown methods, points that come to the same run.
    """
    from models.contract import MethodError
    from trainer.errors import UserError
    from trainer.sweep.points import refuse_doubles, some_of, text_of

    problems: dict[str, list[str]] = {}
    runs = []
    for point in sweep.points:
        try:
            runs.append(json.dumps(resolved(sweep, point), sort_keys=True, default=str))
        except (UserError, MethodError) as e:
            for problem in e.problems:
                problems.setdefault(problem, []).append(text_of(point.values))
    if problems:
        raise UserError([f"{sweep.file}: {what} (at {some_of(where)})" for what, where in problems.items()])
    refuse_doubles(sweep.file, sweep.points, runs)


def resolved(sweep: Sweep, point: Point) -> object:
    """The whole configuration of a point, equal for equal runs.

    Raises:
        UserError, MethodError: what the command would refuse.
    """
    from launch import finetune, gwas, pretrain
    from trainer.errors import UserError
    from trainer.sweep.data_given import refuse_no_people

    if sweep.command == "gwas":
        refuse_no_people(point)
    command = {"pretrain": pretrain, "finetune": finetune, "gwas": gwas}[sweep.command]
    try:
        args = command.parser().parse_intermixed_args(list(point.words))
    except SystemExit:
        raise UserError(f"`{shlex.join(point.words)}` is no command line of launch/{sweep.command}.py") from None
    if sweep.command == "gwas":
        return vars(args)
    if sweep.command == "pretrain":
        return pretrain.resolved(args)
    promised = {str(sweep.first.folder(p)) for p in sweep.first.points} if sweep.first else set()
    return finetune.resolved(args, promised)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
