"""Inside a bag's file: which of its members holds the features, and what the file says of itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.errors import Problem, bad
from shards.format.archive import no_twins
from shards.format.bags import FIX, attributes, told_by
from shards.format.canonical import same
from shards.format.describe import HeaderError
from shards.pack.torch_file import BARE, tensors_of
from shards.sources._barcode import slide_of
from shards.tables.identity import few
from shards.tables.instead import LOOKED_AT, instead_of

MEMBERS = ("features", "feats")
COORDS = "coords"
Shapes = Mapping[str, tuple[int, ...]]  # of the members that hold plain numbers


@dataclass(frozen=True)
class BagFile:
    """A bag's file looked into. `folder` is the set it belongs to; `meaning` what it says of its patches."""

    path: Path
    folder: Path
    member: str | None
    coords: Path | None  # the file that holds the coordinates
    shape: tuple[int, ...]
    meaning: Mapping[str, str]
    unit: str | None = None
    chosen: bool = False  # the member is the only one with the form of a bag, under a name of its own
    regions: bool = False  # [regions, patches, features], of which the shape is that of all patches


@dataclass(frozen=True)
class Why:
    """Why no member holds a bag. left_out: the file is something else, which is listed and no problem."""

    what: str = ""
    fix: str = ""
    left_out: bool = False


def members_of(path: Path) -> tuple[Shapes, dict[str, Any]]:
    """Shapes of the members that hold numbers, and the attributes that a bag's file has (of the file and of its coordinates)."""
    if path.suffix.lower() == ".pt":
        return {n: tuple(t.shape) for n, t in tensors_of(path).items()}, {}
    import h5py

    try:
        with h5py.File(path, "r") as file:
            kept: dict[str, h5py.Dataset] = {}
            file.visititems(lambda n, d: kept.update({n: d}) if isinstance(d, h5py.Dataset) else None)
            told = attributes(file, kept.get(COORDS))
            return {n: tuple(d.shape) for n, d in kept.items() if d.dtype.kind in "biuf"}, told
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as e:
        with open(path, "rb") as begun:
            if found := instead_of(begun.read(LOOKED_AT)):
                raise HeaderError(*found) from e
        raise HeaderError(
            "cannot be read as HDF5", "write the file again; it may have been cut while it was written"
        ) from e


def feature_member(shapes: Shapes, member: str | None) -> tuple[str | None, Why]:
    """The member that holds the features: the one asked for, `features` or `feats`, or the only one with two axes."""
    has = ", ".join(n for n in shapes if n != BARE) or "nothing with numbers"
    if member is not None and BARE not in shapes:
        if shapes.get(member):
            return member, Why()
        return None, Why(f"no member '{member}'; they have {has}", "name another with --member")
    named = [n for n in (BARE, *MEMBERS) if n in shapes]
    flat = [
        n for n, s in shapes.items() if n.rpartition("/")[2] != COORDS and (len(s) == 2 or (len(s) == 3 and s[0] == 1))
    ]
    chosen = named or flat
    if len(chosen) == 1:
        name = chosen[0]
        if len(shapes[name]) > 1:
            return name, Why()
        one = len(shapes[name]) == 1
        return None, Why(
            "one vector of the whole slide, not a bag" if one else "a single number, not a bag", FIX, left_out=one
        )
    if not chosen and set(shapes) <= {COORDS}:
        return None, Why(what="coordinates without features", left_out=True)
    what = f"which of {', '.join(chosen)} holds the features?" if chosen else f"no features in them; they have {has}"
    return None, Why(what, "say it with --member NAME")


def with_coords(
    of: Mapping[str, list[BagFile]], folder: Path
) -> tuple[dict[str, list[BagFile]], list[Problem], list[str]]:
    """The bags with the coordinates of a folder, and what these say; problems; and what to tell.

    Raises:
        DataError: no such folder, or none of the slides in it.
    """
    here: dict[str, list[Path]] = defaultdict(list)
    for path in no_twins(p for p in folder.rglob("*") if p.suffix.lower() in (".h5", ".hdf5") and p.is_file()):
        here[slide_of(path.stem)].append(path)
    out, problems = dict(of), list[Problem]()
    for slide in sorted(set(of) & set(here)):
        try:
            out[slide] = [_with(file, here[slide], problems) for file in of[slide]]
        except HeaderError as e:
            problems.append(Problem(str(e), str(here[slide][0]), e.fix))
    lacking = sorted(set(of) - set(here))
    if len(lacking) == len(of):
        shown = next((p.name for paths in here.values() for p in paths), "no .h5 file")
        what = f"no coordinates of any of {len(of)} slides (such as {lacking[0]}; there is {shown})"
        raise bad(what, folder, "give --coords the folder in which CLAM or TRIDENT keep an .h5 a slide (patches)")
    notes = [f"bags: coordinates of {len(of) - len(lacking)} of {len(of)} slides are those in {folder.name}"]
    notes += [f"bags: no coordinates there of {len(lacking)} slides, such as {lacking[0]}"] if lacking else []
    return out, problems, notes


def _with(file: BagFile, paths: Sequence[Path], problems: list[Problem]) -> BagFile:
    """A bag with the coordinates of its slide; what does not fit becomes a problem."""
    path = paths[0]
    if len(paths) > 1:
        what = f"a slide has {len(paths)} files: {few([p.name for p in paths])}"
        problems.append(Problem(what, str(path.parent), "keep the one that the features were made with"))
        return file
    shapes, told = members_of(path)
    shape = shapes.get(COORDS, (0, 0))
    if len(shape) < 2 or shape[-2] != file.shape[-2]:
        what = f"{file.shape[-2]} patches in {file.path.name}, and coordinates of the shape {shape}"
        problems.append(Problem(what, str(path), "bring the coordinates that the features were made with"))
        return file
    meaning, unit = told_by(told)
    odd = [k for k in meaning if k in file.meaning and not same(k, meaning[k], file.meaning[k])]
    if odd or (unit and file.unit not in (None, unit)):
        what = f"the coordinates say other things than {file.path.name} of {', '.join(odd) or 'their unit'}"
        problems.append(Problem(what, str(path), "bring the coordinates that the features were made with"))
    return replace(file, coords=path, meaning={**meaning, **file.meaning}, unit=unit or file.unit)
