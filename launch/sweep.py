"""Many runs of one command: `python launch/sweep.py FILE.yaml [section.key=value ...] [--out DIR] [--jobs N] [--dry-run] [--point I]`.

The file says what the runs share and what differs (trainer/sweep/file.py, docs/finetune.md). The same command goes on where a sweep stopped
or was killed. Exit status: 0 all points are done, 75 stopped and resumable, 1 some points failed, 2 something to change in the input.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.sweep.file import Point, Sweep
    from trainer.sweep.preloaded import Preloaded

ROOT = Path(__file__).resolve().parent.parent
OF_ANY_DATA = ("report_retrieval",)
"""Tasks of whatever images and reports there are, those of the demo cohort among them."""


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
    from trainer.errors import EXIT_OK, EXIT_STOPPED, EXIT_USER
    from trainer.sweep.file import read_sweep
    from trainer.sweep.preloaded import Preloaded
    from trainer.sweep.runner import Runner, statuses, table

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
    if args.dry_run:
        beside = beside_all(sweep, args, points)
        for one, some in ((sweep.first, started_from(sweep, points)), (sweep, points), (beside, beside.points)):
            for p in some:
                print(f"{p.index:>4}  {p.name}\n      {shlex.join((one or sweep).command_line(p))}")
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
    if args.point is not None and points and code == 1 and statuses(sweep, points)[0].exit == EXIT_USER:
        return EXIT_USER
    return code


def with_their_starts(
    sweep: Sweep, first: Sweep, points: Sequence[Point], needed: Sequence[Point]
) -> tuple[Point, ...]:
    """The points whose runs of pre-training are done; the others are said."""
    from trainer.sweep.runner import statuses

    failed = {p.name for p, s in zip(needed, statuses(first, needed), strict=True) if s.state != "done"}
    left = [p.name for p in points if sweep.starts.get(p.name) in failed]
    for name in left:
        print(f"{name}: left out, since what it starts from failed ({first.out / sweep.starts[name]}/log.txt)")
    return tuple(p for p in points if p.name not in left)


def beside_all(sweep: Sweep, args: argparse.Namespace, points: Sequence[Point]) -> Sweep:
    """The baselines of a sweep; of rows and columns their own; of a point alone (a job of an array) all, if it is the last to end."""
    from dataclasses import replace

    from trainer.downstream.task.read import kind_of
    from trainer.sweep.baselines import beside

    if args.point is not None and (args.dry_run or going_on(sweep)):
        return replace(sweep, points=())
    whole = beside(sweep, kind_of)
    if args.point is not None or not (args.row or args.column):
        return whole
    # Their folders are those of the whole, where some have a number.
    own = {p.words for p in beside(replace(sweep, points=tuple(points)), kind_of).points}
    return replace(whole, points=tuple(p for p in whole.points if p.words in own))


def going_on(sweep: Sweep) -> list[Point]:
    """The points that have not ended yet, or never began."""
    from trainer.sweep.runner import statuses

    states = [s.state for s in statuses(sweep, sweep.points)]
    return [p for p, state in zip(sweep.points, states, strict=True) if state not in ("done", "failed")]


def chosen(sweep: Sweep, args: argparse.Namespace) -> tuple[Point, ...]:
    """All points, or those asked for.

    Raises:
        UserError: numbers out of range, rows and columns that are not there.
    """
    from trainer.errors import UserError

    problems = []
    if args.jobs < 1:
        problems.append(f"--jobs {args.jobs}: at least 1")
    if args.retries < 0:
        problems.append(f"--retries {args.retries}: at least 0")
    if args.point is not None and not 0 <= args.point < len(sweep.points):
        problems.append(f"--point {args.point}: {sweep.file} has the points 0 to {len(sweep.points) - 1}")
    some = sweep.points if args.point is None or problems else (sweep.points[args.point],)
    for what, asked, of in (("row", args.row, _row_of), ("column", args.column, _columns_of)):
        known = dict.fromkeys(n for p in sweep.points for n in of(p)) if sweep.rows else {}
        for name in (n for n in asked or () if n not in known):
            problems.append(f"--{what} {name}: {sweep.file} has {_names(what, known)}")
        some = tuple(p for p in some if asked is None or set(of(p)) & set(asked))
    if problems:
        raise UserError(problems)
    if not some:
        raise UserError(f"--point {args.point} is in another row or column; leave one of them out")
    return some


def _row_of(point: Point) -> Sequence[str]:
    return (point.values["row"],) if "row" in point.values else ()


def _columns_of(point: Point) -> Sequence[str]:
    return point.values.get("columns", ())


def _names(what: str, known: Collection[str]) -> str:
    return f"the {what}s {', '.join(known)}" if known else f"no {what}s"


def started_from(sweep: Sweep, points: Sequence[Point]) -> list[Point]:
    """The runs of pre-training that these points start from."""
    needed = {sweep.starts.get(p.name) for p in points}
    return [p for p in (sweep.first.points if sweep.first else ()) if p.name in needed]


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


def refuse_missing_data(sweep: Sweep, points: Sequence[Point]) -> None:
    """A run without data takes the demo cohort: of a table of published tasks that is hours of pre-training before a row is refused.

    Raises:
        UserError: rows of tasks that the demo cohort has not, and what they start from, where no word says which data they read.
    """
    from trainer.errors import UserError

    tasks = {p.name: Path(task).stem for p in points for flag, task in itertools.pairwise(p.words) if flag == "--task"}
    studies, demo = sweep.command == "gwas", sweep.of_methods == "demo"

    def is_real(task: str) -> bool:
        return not (demo if studies or task in OF_ANY_DATA else task.startswith("demo_"))

    real = [p for p in points if is_real(tasks.get(p.name, "demo_"))]
    rows = [p.name for p in real if not studies and not _has_data(p)]
    starts = [p.name for p in started_from(sweep, real) if not _has_data(p)]
    problems = []
    if rows:
        named = ", ".join(dict.fromkeys(tasks[name] for name in rows))
        problems.append(
            f"{sweep.file}: no data for the rows of {named}, which the demo cohort does not have: give data.path=DIR "
            "(COLUMN:data.path=DIR where columns differ), or --recipe demo where the table has one"
        )
    if starts:
        problems.append(
            f"{sweep.file}: no data for the pre-training ({_some(starts)}), which would be made on the demo "
            "cohort: give pretrain:data.path=DIR"
        )
    if problems:
        raise UserError(problems)


def _has_data(point: Point) -> bool:
    return any(w.startswith("data.") for w in point.words)


def _some(where: list[str]) -> str:
    return where[0] if len(where) == 1 else f"{where[0]} and {len(where) - 1} more"


def resolved(sweep: Sweep, point: Point) -> object:
    """The whole configuration of a point, equal for equal runs.

    Raises:
        UserError, MethodError: what the command would refuse.
    """
    from launch import finetune, gwas, pretrain
    from trainer.errors import UserError

    if sweep.command == "gwas":
        refuse_no_people(point)
    command = {"pretrain": pretrain, "finetune": finetune, "gwas": gwas}[sweep.command]
    try:
        args = command.parser().parse_intermixed_args(list(point.words))
    except SystemExit:
        raise UserError(f"`{shlex.join(point.words)}` is no command line of launch/{sweep.command}.py") from None
    if sweep.command == "gwas":
        return vars(args)
    promised = {str(sweep.first.folder(p)) for p in sweep.first.points} if sweep.first else set()
    return _pretraining(args) if sweep.command == "pretrain" else _finetuning(args, promised)


def refuse_no_people(point: Point) -> None:
    """Raises: UserError: what a study of genotypes is of is not among its words."""
    from trainer.errors import UserError

    missing = [key for key in ("data", "bed", "covariates") if f"--{key}" not in point.words]
    if missing:
        raise UserError(
            f"no {', '.join(missing)} of the people who are tested: give data=DIR bed=FILE covariates=FILE "
            "(`python -m shards demo DIR --people 2000` makes DIR/images, DIR/chip.bed and DIR/covariates.csv)"
        )


def _pretraining(args: argparse.Namespace) -> dict[str, Any]:
    from models.registry import get_method
    from trainer.config.recipe import build_config

    config, _ = build_config(args.method, args.recipe, args.overrides)
    options = get_method(config.method_name).Options.parse(config.method)
    return {**config.model_dump(mode="json"), "method": options.model_dump(mode="json")}


def _finetuning(args: argparse.Namespace, promised: Collection[str]) -> list[object]:
    from models.registry import get_method
    from trainer.downstream.init import options_by_recipe, stated
    from trainer.downstream.task.read import build_task
    from trainer.errors import UserError

    get_method(args.method)
    init = stated(args.method, args.init)
    if init != "scratch" and init not in promised and not Path(init).exists():
        raise UserError(f"--init {init}: not there; give a finished pre-training run, a file of weights, or `scratch`")
    words = [f"protocol.{w}" if w.startswith("seeds=") else w for w in args.overrides]
    task, _ = build_task(args.task, words, args.mode)
    made = task.model_dump(mode="json")
    # Which recipe it is without a name hangs on the data, which nobody has looked at yet.
    if init == "scratch" and args.recipe is not None:
        made["method"] = options_by_recipe(args.method, args.recipe, task)
    return [args.method, init, args.recipe, args.random, made]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
