"""A layout that names a source in Python: what its options are given is found below the root, unless the command line says it."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins
from shards.layout import engine
from shards.layout.begun import MARK, begin_anew, remove
from shards.layout.choice import LeftOut
from shards.layout.nearly import BEGUN, nearly
from shards.layout.packed import packed_away, packed_fix
from shards.layout.schema import Argument, Sourced
from shards.pack.manifest import Manifest
from shards.tables.identity import few

IMAGE, PATIENT = "image", "patient"
OF_LISTS = ("--partial", "--views", "--window", "--burned-in")
"""Options of the engine that mean something where it lists the samples."""


class _Eased(argparse.ArgumentParser):
    """Hands options on to a parser, and asks for nothing: what is not given is looked for below the root."""

    def __init__(self, parser: argparse.ArgumentParser, allowed: Callable[[str], bool] = lambda flag: True):
        super().__init__(add_help=False)
        self.parser, self.allowed = parser, allowed
        self.given: dict[str, str] = {}

    def add_argument(self, *flags: str, **how: object) -> argparse.Action:
        how.pop("required", None)
        if not self.allowed(flags[0]):
            return super().add_argument(*flags, **how)  # type: ignore[arg-type]
        action = self.parser.add_argument(*flags, **how)  # type: ignore[arg-type]
        self.given[action.dest] = flags[0]
        return action


def options(
    layout: Sourced, parser: argparse.ArgumentParser, of_source: Callable[[argparse.ArgumentParser], None]
) -> None:
    """The source's own options, none of them needed, and the root.

    Raises:
        DataError: the layout gives an option that the source does not have.
    """
    parser.add_argument("--root", type=Path, required=True, help="folder that the set was unpacked in")
    eased = _Eased(parser)
    of_source(eased)
    more = [n for a in layout.arguments.values() for given in a.also.values() for n in given]
    if odd := [n for n in (*layout.arguments, *more) if n not in eased.given]:
        what = f"arguments: the source '{layout.source}' has no option '{odd[0]}'; it has {', '.join(eased.given)}"
        raise bad(what, "the layout", "mend the layout (docs/layouts.md lists its keys)")
    parser.set_defaults(**{n: a.value for n, a in layout.arguments.items() if a.value is not None})
    if layout.samples is not None:
        engine.options(_Eased(parser, lambda flag: flag in OF_LISTS))
        parser.set_defaults(splits=engine.BY_PATIENT)


def resolve(layout: Sourced, args: argparse.Namespace) -> tuple[list[str], Path | None, Sequence[tuple[str, str]]]:
    """Gives `args` what lies below the root; returns lines on it, the folder of work that is removed when all is packed, and what the
    engine left out.

    Raises:
        DataError: everything that is not there, or there several times.
    """
    root: Path = args.root
    if not root.is_dir():
        raise bad("no such folder", root, "give --root the folder that the set was unpacked in")
    notes, problems = [*layout.notes], list[Problem]()
    for name, argument in layout.arguments.items():
        if argument.file and getattr(args, name) is None:
            _give(args, name, argument, notes, problems)
    if problems:
        raise DataError(problems)
    scratch, left_out = _scratch(layout, args), LeftOut()
    for name, argument in layout.arguments.items():
        if argument.listed and getattr(args, name) is None:
            setattr(args, name, _table(layout, args, notes, left_out))
    return notes, scratch, left_out


def _give(args: argparse.Namespace, name: str, argument: Argument, notes: list[str], problems: list[Problem]) -> None:
    """Gives an option what its patterns find, and others what goes with it; what is wrong, several things too, goes to `problems`."""
    root: Path = args.root
    patterns = (*argument.file, *argument.apart)
    by_pattern = {p: [f for f in no_twins(root.glob(p)) if not BEGUN.search(f.name)] for p in patterns}
    found = sorted({p for paths in by_pattern.values() for p in paths})
    several = argument.several or not any(by_pattern[pattern] for pattern in argument.file)
    shown, flag = few([p.relative_to(root).as_posix() for p in found]), f"--{name.replace('_', '-')}"
    if not found:
        packed, near = packed_away(root, by_pattern) if argument.optional else [], nearly(root, patterns)
        if argument.optional and not packed and not near:
            notes.append(f"{argument.file[0]} is not there: nothing is known of {flag}")
        else:
            fix = near or packed_fix(root, packed or None) or f"bring it, or say where it is: {flag} PATH"
            problems.append(Problem(f"no {' or '.join(argument.file)}", str(root), fix))
        return
    if len(found) > 1 and not several:
        problems.append(
            Problem(f"{len(found)} could be meant by {flag}: {shown}", str(root), f"say which: {flag} FILE")
        )
        return
    setattr(args, name, found if several else found[0])
    also = {n: v for pattern, given in argument.also.items() if by_pattern[pattern] for n, v in given.items()}
    also = {n: v for n, v in also.items() if getattr(args, n) is None}
    for other, value in also.items():
        setattr(args, other, value)
    notes.append(" ".join([f"{flag} {shown}", *(f"--{n.replace('_', '-')} {v}" for n, v in also.items())]))


def _scratch(layout: Sourced, args: argparse.Namespace) -> Path | None:
    """The folder of work, if it is this run's own: one that it makes, or that a command like it has left.

    Raises:
        DataError: something else lies where it belongs.
    """
    given = getattr(args, "work", None)
    if given and given.is_dir() and not (given / MARK).is_file():
        return None
    work = given or Path(f"{args.out}-work")
    if layout.samples is None:  # the engine begins it where there are
        begin_anew(work)
    return work


def _table(layout: Sourced, args: argparse.Namespace, notes: list[str], left_out: LeftOut) -> Path:
    """The samples that the engine finds, as a table for the source: paths, patients and labels, whose kinds are said to it."""
    assert layout.samples is not None
    laid = engine.find(layout.samples, args)
    if laid.manifest.problems:
        remove(laid.pack["scratch"])
        raise DataError(laid.manifest.problems)
    notes += laid.notes
    left_out.extend(laid.unmatched)
    labels = list(laid.manifest.label_kinds)
    said = [f"{n}={k}" for n, k in laid.manifest.label_kinds.items()]
    args.label_kind = [*said, *(getattr(args, "label_kind", None) or ())]
    path: Path = laid.pack["scratch"] / "listed.csv"
    try:
        _list(laid.manifest, labels, path)
    except BaseException:
        remove(laid.pack["scratch"])
        raise
    return path


def _list(manifest: Manifest, labels: Sequence[str], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow([IMAGE, PATIENT, *labels])
        for e in manifest.entries:
            image = e.fields[IMAGE].path.resolve()
            writer.writerow([image, e.patient, *(_text(e.labels.get(n, "")) for n in labels)])


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.15g}"
