"""Many runs of one command: `python launch/sweep.py FILE.yaml [--out DIR] [--jobs N] [--retries N] [--dry-run] [--point I]`.

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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.sweep.file import Point, Sweep

ROOT = Path(__file__).resolve().parent.parent


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="sweep.py", description="Many runs of one command, in folders of their own.")
    p.add_argument("file", type=Path, help="YAML: command, words, grid, points")
    p.add_argument("--out", type=Path, help="where the runs go, a folder each; runs/NAME OF THE FILE by default")
    p.add_argument("--jobs", type=int, default=1, help="runs at a time")
    p.add_argument("--retries", type=int, default=1, help="how often a failed run is tried again")
    p.add_argument("--dry-run", action="store_true", help="check and print all command lines; run nothing")
    p.add_argument("--point", type=int, metavar="I", help="run this point alone, counted from 0 (for job arrays)")
    p.add_argument(
        "--no-preload", action="store_true", help="each point loads everything itself, instead of being forked"
    )
    add_all(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from models.contract import MethodError
    from shards.errors import told
    from trainer.errors import EXIT_USER, UserError

    try:
        return _run(args)
    except (UserError, MethodError) as e:
        print(f"error: {told(e)}", file=sys.stderr)
        return EXIT_USER


def _run(args: argparse.Namespace) -> int:
    from trainer.errors import EXIT_OK, EXIT_USER
    from trainer.sweep.file import read_sweep
    from trainer.sweep.runner import Runner, statuses, table

    sweep = read_sweep(args.file, args.out)
    points = chosen(sweep, args)
    check(sweep)
    if args.dry_run:
        print("\n".join(f"{p.index:>4}  {p.name}\n      {shlex.join(sweep.command_line(p))}" for p in points))
        return EXIT_OK
    runner = Runner(sweep, args.jobs, args.retries, lambda line: print(line, flush=True), not args.no_preload)
    code = runner.run(points)
    print(f"\n{table(sweep, points)}\n{sweep.out}", flush=True)
    if args.point is not None and code == 1 and statuses(sweep, points)[0].exit == EXIT_USER:
        return EXIT_USER
    return code


def chosen(sweep: Sweep, args: argparse.Namespace) -> tuple[Point, ...]:
    """All points, or the one asked for.

    Raises:
        UserError: numbers out of range.
    """
    from trainer.errors import UserError

    problems = []
    if args.jobs < 1:
        problems.append(f"--jobs {args.jobs}: at least 1")
    if args.retries < 0:
        problems.append(f"--retries {args.retries}: at least 0")
    if args.point is not None and not 0 <= args.point < len(sweep.points):
        problems.append(f"--point {args.point}: {sweep.file} has the points 0 to {len(sweep.points) - 1}")
    if problems:
        raise UserError(problems)
    return sweep.points if args.point is None else (sweep.points[args.point],)


# ---------------------------------------------------------------------------------------------------------------- checking


def check(sweep: Sweep) -> None:
    """Refuses what the command would refuse of its configuration, before anything runs: problems of all points at once.

    Raises:
        UserError: unknown keys, wrong values, unknown methods, points that come to the same run.
    """
    from models.contract import MethodError
    from trainer.errors import UserError
    from trainer.sweep.file import refuse_doubles, text_of

    problems: dict[str, list[str]] = {}
    runs = []
    for point in sweep.points:
        try:
            runs.append(json.dumps(resolved(sweep, point), sort_keys=True, default=str))
        except (UserError, MethodError) as e:
            for problem in e.problems:
                problems.setdefault(problem, []).append(text_of(point.values))
    if problems:
        raise UserError([f"{sweep.file}: {what} (at {_some(where)})" for what, where in problems.items()])
    refuse_doubles(sweep.file, sweep.points, runs)


def _some(where: list[str]) -> str:
    return where[0] if len(where) == 1 else f"{where[0]} and {len(where) - 1} more points"


def resolved(sweep: Sweep, point: Point) -> object:
    """The whole configuration of a point, equal for equal runs.

    Raises:
        UserError, MethodError: what the command would refuse.
    """
    from launch import finetune, pretrain
    from trainer.errors import UserError

    parse = (pretrain if sweep.command == "pretrain" else finetune).parser().parse_intermixed_args
    try:
        args = parse(list(point.words))
    except SystemExit:
        raise UserError(f"`{shlex.join(point.words)}` is no command line of launch/{sweep.command}.py") from None
    return _pretraining(args) if sweep.command == "pretrain" else _finetuning(args)


def _pretraining(args: argparse.Namespace) -> dict[str, Any]:
    from models.registry import get_method
    from trainer.config.recipe import build_config

    config, _ = build_config(args.method, args.recipe, args.overrides)
    options = get_method(config.method_name).Options.parse(config.method)
    return {**config.model_dump(mode="json"), "method": options.model_dump(mode="json")}


def _finetuning(args: argparse.Namespace) -> list[object]:
    from models.registry import get_method
    from trainer.downstream.init import stated
    from trainer.downstream.task.schema import build_task
    from trainer.errors import UserError

    get_method(args.method)
    init = stated(args.method, args.init)
    if init != "scratch" and not Path(init).exists():
        raise UserError(f"--init {init}: not there; give a finished pre-training run, a file of weights, or `scratch`")
    words = [f"protocol.{w}" if w.startswith("seeds=") else w for w in args.overrides]
    task, _ = build_task(args.task, words, args.mode)
    return [args.method, init, args.recipe, args.random, task.model_dump(mode="json")]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
