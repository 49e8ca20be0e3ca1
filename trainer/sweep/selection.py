"""Which points of a sweep are asked for, what they start from, and which of them have not ended."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence

from trainer.errors import UserError
from trainer.sweep.points import Point, Sweep
from trainer.sweep.runner import statuses


def chosen(sweep: Sweep, args: argparse.Namespace) -> tuple[Point, ...]:
    """All points, or those asked for.

    Raises:
        UserError: numbers out of range, rows and columns that are not there.
    """
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


def with_their_starts(
    sweep: Sweep, first: Sweep, points: Sequence[Point], needed: Sequence[Point]
) -> tuple[Point, ...]:
    """The points whose runs of pre-training are done; the others are said."""
    failed = {p.name for p, s in zip(needed, statuses(first, needed), strict=True) if s.state != "done"}
    left = [p.name for p in points if sweep.starts.get(p.name) in failed]
    for name in left:
        print(f"{name}: left out, since what it starts from failed ({first.out / sweep.starts[name]}/log.txt)")
    return tuple(p for p in points if p.name not in left)


def going_on(sweep: Sweep) -> list[Point]:
    """The points that have not ended yet, or never began."""
    states = [s.state for s in statuses(sweep, sweep.points)]
    return [p for p, state in zip(sweep.points, states, strict=True) if state not in ("done", "failed")]
