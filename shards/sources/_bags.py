"""Bags of patch features as the usual tools write them: which files, which member of them, and what they say of encoder and patches.

TRIDENT   JOB/20x_256px_0px_overlap/features_conch_v15/SLIDE.h5   features, coords (attributes patch_size, target_magnification)
CLAM      h5_files/SLIDE.h5 (features, coords) beside pt_files/SLIDE.pt
STAMP     SLIDE.h5 with feats and coords in micrometres, attributes extractor, tile_size_px, tile_size_um
HIPT      SLIDE.pt, a tensor; others keep a dictionary of tensors
one .npz  features [N, D] of all slides one after the other, offsets [S + 1], slide [S]

A slide has one bag. Two folders that both hold it, two encoders, magnifications or patch sizes are refused with the names of both.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem, bad, typed
from shards.format.archive import no_twins
from shards.format.bags import told_by, told_by_name, whole_slide
from shards.format.describe import HeaderError
from shards.format.meaning import Meanings, check_agreement
from shards.format.npy import UNREADABLE_NPZ
from shards.pack.reference import Reference
from shards.pack.torch_file import BARE
from shards.sources._bag_files import COORDS, MEMBERS, BagFile, feature_member, members_of, with_coords
from shards.sources._barcode import slide_of

SUFFIXES = (".h5", ".hdf5", ".pt")
OF_SLIDE = "coords_slide"
CLAM = ("h5_files", "pt_files")
SHOWN = 3


@dataclass(frozen=True)
class Bag:
    """One slide's bag: its name, where its features and coordinates are, and how many patches it has."""

    name: str
    features: Reference
    coords: Reference | None = None
    patches: int = 0


@dataclass
class Bags:
    """What was found; `meanings` is what the bags say of themselves."""

    bags: list[Bag] = field(default_factory=list)
    unmatched: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    meanings: dict[str, dict[str, str]] = field(default_factory=dict)


def options(parser: argparse.ArgumentParser, required: bool) -> None:
    """The options of a source that takes bags."""
    parser.add_argument(
        "--features",
        type=Path,
        required=required,
        help="bags: a folder of TRIDENT, CLAM, STAMP or HIPT (.h5, .pt), or an .npz with features, offsets, slide",
    )
    parser.add_argument("--member", help="the data set or tensor that holds the features (default: features or feats)")
    parser.add_argument(
        "--coords",
        type=Path,
        help="folder of coordinates, an .h5 a slide (CLAM's and TRIDENT's patches), of bags that have none or say nothing of theirs",
    )
    parser.add_argument(
        "--regions",
        choices=("flatten",),
        help="HIPT's [regions, patches, features]: the patches of all regions are one bag",
    )
    parser.add_argument("--frozen", action="store_true", help="take frozen sections (TS, MS, BS) of the tumour too")


def find_bags(
    path: Path,
    member: str | None,
    unfit: Callable[[str], str | None],
    coords: Path | None = None,
    regions: str | None = None,
) -> Bags:
    """All bags whose slide is fit; `unfit` says why a slide's name is left out.

    Args:
        coords: a folder with the coordinates of slides, as CLAM and TRIDENT keep them beside their features.
        regions: `flatten` takes [M, P, D] for the M x P patches of a slide.

    Raises:
        DataError: no bags, files without a bag in them, a slide with bags in two folders, or bags that mean different things.
    """
    if path.is_dir():
        return _Folder(path, member, unfit, coords, regions is not None).found()
    if path.suffix.lower() != ".npz" or not path.is_file():
        raise bad(
            "neither a folder of bags nor an .npz", path, "give --features a folder with .h5/.pt files, or an .npz"
        )
    return _packed(path, member or MEMBERS[0], unfit)


def together(slides: Sequence[Bag], name: str, work: Path) -> dict[str, Reference]:
    """The fields of one bag made of several, in this order: `patches`, `coords` where all have them, and `coords_slide` [N, 1], which
    says of each patch on which of the slides it lies, from 0 (`work` takes its file)."""
    fields = {"patches": _joined([s.features for s in slides])}
    if coords := [s.coords for s in slides if s.coords]:
        fields |= {COORDS: _joined(coords)} if len(coords) == len(slides) else {}
    work.mkdir(parents=True, exist_ok=True)
    slide_N1 = np.repeat(np.arange(len(slides), dtype=np.int32), [s.patches for s in slides])[:, None]
    np.save(work / f"{name}.npy", slide_N1, allow_pickle=False)
    return fields | {OF_SLIDE: Reference(" + ".join(s.name for s in slides), work / f"{name}.npy")}


def _joined(parts: Sequence[Reference]) -> Reference:
    return replace(parts[0], text=" + ".join(p.text for p in parts), more=tuple(parts[1:]))


# -------------------------------------------------------------------------------------------------------------------- an npz


def _packed(path: Path, member: str, unfit: Callable[[str], str | None]) -> Bags:
    names, offsets, rows, coords = _parts(path, member)
    if (
        len(offsets) != len(names) + 1
        or offsets.dtype.kind not in "iu"
        or (np.diff(offsets.astype(np.int64)) <= 0).any()
        or (offsets[0], offsets[-1]) != (0, rows)
    ):
        what = f"{len(offsets)} offsets for {len(names)} slides and {rows} rows, or an empty bag"
        raise bad(
            what, path, "offsets must be whole numbers that rise from 0 to the rows of features, one more than slides"
        )

    def part(name: str, i: int) -> Reference:
        start, stop = int(offsets[i]), int(offsets[i + 1])
        return Reference(f"{path.name}#{name}[{start}:{stop}]", path, name, (start, stop))

    if twice := sorted(n for n, k in Counter(map(slide_of, names)).items() if k > 1):
        raise bad(f"{len(twice)} slides stand twice: {_few(twice)}", path, "keep one bag of each slide")
    found = Bags()
    for i, name in enumerate(names):
        if why := unfit(name):
            found.unmatched.append((name, why))
        else:
            rows_of_it = int(offsets[i + 1] - offsets[i])
            found.bags.append(Bag(name, part(member, i), part(COORDS, i) if coords else None, rows_of_it))
    return found


def _parts(path: Path, member: str) -> tuple[list[str], np.ndarray, int, bool]:
    """Slide names, offsets, rows of the features, and whether there are coordinates."""
    try:
        with np.load(path, allow_pickle=False) as packed:
            lacking = sorted({member, "offsets", "slide"} - set(packed.files))
            if lacking:
                fix = "the .npz needs features [N, D] (or --member), offsets [S + 1] and slide [S]"
                raise bad(f"has no {', '.join(lacking)}", path, fix)
            names, offsets = [str(n) for n in packed["slide"]], np.atleast_1d(packed["offsets"])
            return names, offsets, len(packed[member]), COORDS in packed.files
    except UNREADABLE_NPZ as e:
        if isinstance(e, DataError):
            raise
        fix = "give an .npz of plain arrays; names of slides as text: slide=np.array(names, dtype=str)"
        raise bad(f"cannot be read ({e})", path, fix) from e


# ------------------------------------------------------------------------------------------------------------------ a folder


class _Folder:
    """A folder of files, one a slide, at any depth."""

    def __init__(
        self, path: Path, member: str | None, unfit: Callable[[str], str | None], coords: Path | None, flatten: bool
    ):
        self.path, self.member, self.unfit = path, member, unfit
        self.coords, self.flatten = coords, flatten
        self.out = Bags()
        self.wrong: dict[tuple[str, str], list[str]] = defaultdict(list)  # (what, fix) -> files

    def found(self) -> Bags:
        of: dict[str, list[BagFile]] = defaultdict(list)
        doubled = 0
        for paths in self._files():
            looked = (self._look(p) for p in paths)
            if (file := next((f for f in looked if f is not None), None)) is not None:
                of[slide_of(file.path.stem)].append(file)
                doubled += file.path != paths[-1]
        if doubled:
            which = "the .h5 is read, which has the coordinates"
            self.out.notes.append(f"bags: {doubled} slides have a .h5 and a .pt; {which}")
        problems = [Problem(f"{len(f)} files: {what}", self._some(f), fix) for (what, fix), f in self.wrong.items()]
        problems += self._twice(of)
        if self.coords and not problems:
            of, wrong, notes = with_coords(of, self.coords)
            problems += wrong
            self.out.notes += notes
        everyone = [f for same in of.values() for f in same]
        if not problems:
            problems += self._disagreeing(everyone)
        if problems:
            raise DataError(problems)
        if not everyone:
            fix = "give --features the folder that holds TRIDENT's features_ENCODER, CLAM's h5_files or pt_files, STAMP's or HIPT's files"
            raise bad("no .h5 or .pt file named by a TCGA barcode with a bag in it", self.path, fix)
        self._describe(everyone)
        self.out.bags = [self._bag(same[0]) for _, same in sorted(of.items())]
        return self.out

    def _files(self) -> list[list[Path]]:
        """Fit files; those of one name in one set together, the .h5 before the .pt, since it has the coordinates."""
        paths = no_twins(p for p in self.path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        of: dict[tuple[str, Path], list[Path]] = defaultdict(list)
        for path in sorted(paths, key=lambda p: p.suffix.lower() == ".pt"):
            if why := self.unfit(path.stem):
                self.out.unmatched.append((path.name, why))
            else:
                of[path.stem, _set_of(path)].append(path)
        return [same for _, same in sorted(of.items())]

    def _look(self, path: Path) -> BagFile | None:
        """The file, or None where it holds no bag, which is then listed or a problem."""
        try:
            shapes, told = members_of(path)
        except HeaderError as e:
            self.wrong[str(e), e.fix].append(self._name(path))
            return None
        name, why = feature_member(shapes, self.member)
        if name is not None and (kind := whole_slide(told)):
            self.out.unmatched.append((self._name(path), f"features of a whole {kind}, not a bag"))
            return None
        if name is None:
            if why.left_out:
                self.out.unmatched.append((self._name(path), why.what))
            else:
                self.wrong[why.what, why.fix].append(self._name(path))
            return None
        meaning, unit = told_by(told)
        shape, coords = shapes[name], path if COORDS in shapes else None
        if regions := len(shape) == 3 and shape[0] != 1:
            if not self.flatten:
                what = f"regions of patches, such as {shape}, no patches"
                self.wrong[what, "--regions flatten takes the patches of all regions for one bag"].append(
                    self._name(path)
                )
                return None
            shape, coords = (shape[0] * shape[1], shape[2]), None  # those are the places of regions
        named = name if name != BARE else None
        chosen = self.member is None and name not in (*MEMBERS, BARE)
        return BagFile(path, _set_of(path), named, coords, shape, meaning, unit, chosen, regions)

    def _twice(self, of: Mapping[str, Sequence[BagFile]]) -> list[Problem]:
        """Slides whose bag lies in several folders, grouped by these folders, or in several files of one."""
        places: dict[tuple[Path, ...], list[Sequence[BagFile]]] = defaultdict(list)
        for same in of.values():
            if len(same) > 1:
                places[tuple(sorted({f.folder for f in same}))].append(same)
        problems = []
        for folders, slides in places.items():
            if len(folders) > 1:
                names = " and ".join(map(self._name, folders))
                what = f"{len(slides)} slides have a bag in several folders, {names}: {_few([s[0].path.stem for s in slides])}"
                fix = _one_of(folders)
            else:
                what = (
                    f"{len(slides)} slides have several files: {_few([self._name(f.path) for s in slides for f in s])}"
                )
                fix = (
                    "keep one file of each slide, or put each kind into a folder of its own and give one as --features"
                )
            problems.append(Problem(what, str(self.path), fix))
        return problems

    def _disagreeing(self, files: Sequence[BagFile]) -> list[Problem]:
        """Encoders, magnifications, patch sizes, units and widths that differ, by folder or by file."""
        problems: list[Problem] = []
        by_folder: dict[Path, list[BagFile]] = defaultdict(list)
        for f in files:
            by_folder[f.folder].append(f)
        sets: list[tuple[object, Meanings]] = [(self._name(d), {"patches": told_by_name(d)}) for d in sorted(by_folder)]
        sets += [
            (self._name(f.path), {"patches": f.meaning, "coords": {"unit": f.unit} if f.unit else {}}) for f in files
        ]
        try:
            check_agreement(sets)
        except DataError as e:
            more = f" (and {len(e.problems) - SHOWN} more such)" if len(e.problems) > SHOWN else ""
            shown = [p.what for p in e.problems[:SHOWN]]
            problems.append(Problem("; ".join(shown) + more, str(self.path), _one_of(sorted(by_folder))))
        first: dict[int, Path] = {}
        for folder, inside in sorted(by_folder.items()):
            first.setdefault(inside[0].shape[-1], folder)
        if len(first) > 1:
            listed = ", ".join(f"{w} wide in {self._name(d)}" for w, d in first.items())
            problems.append(Problem(f"bags of differing width: {listed}", str(self.path), _one_of([*first.values()])))
        return problems

    def _describe(self, files: Sequence[BagFile]) -> None:
        """What the bags say of themselves, and what was chosen."""
        patches: dict[str, str] = {}
        for f in files:
            patches |= {**told_by_name(f.folder), **f.meaning}
        unit = next((f.unit for f in files if f.unit), None)
        self.out.meanings = {n: m for n, m in (("patches", patches), (COORDS, {"unit": unit} if unit else {})) if m}
        folders = sorted({f.folder for f in files})
        where = ", ".join(map(self._name, folders[:SHOWN])) + (
            f", ... ({len(folders)} folders)" if len(folders) > SHOWN else ""
        )
        known = ", ".join(f"{k} {v}" for k, v in sorted(patches.items())) or "nothing told of encoder and patches"
        self.out.notes.append(f"bags: {len(files)} in {where}; {known}")
        for name in sorted({f.member for f in files if f.chosen and f.member}):
            count = sum(f.chosen and f.member == name for f in files)
            self.out.notes.append(
                f"bags: '{name}' is read of {count} files, the only member with two axes (--member names another)"
            )

    def _bag(self, file: BagFile) -> Bag:
        name = self._name(file.path)
        text = f"{name}#{file.member}" if file.member else name
        features = Reference(text, file.path, file.member, regions=file.regions)
        coords = Reference(f"{self._name(file.coords)}#{COORDS}", file.coords, COORDS) if file.coords else None
        return Bag(file.path.stem, features, coords, file.shape[-2])

    def _name(self, path: Path) -> str:
        """A file or folder as seen from the one that was given."""
        base = self.path if path.is_relative_to(self.path) else self.coords
        inside = path.relative_to(base).as_posix() if base and path.is_relative_to(base) else "."
        return inside if inside != "." else self.path.name

    def _some(self, names: Sequence[str]) -> str:
        return f"{self.path}: {_few(names)}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _one_of(folders: Sequence[Path]) -> str:
    """What to do where bags that are not alike lie in several folders, or in one."""
    if len(folders) > 1:
        return f"give one of them, such as --features {typed(folders[0])}"
    apart = "keep bags that were made alike there, or put each kind into a folder of its own and give one as --features"
    return f"{apart}; if the folder's name says other than its files do, rename it"


def _set_of(path: Path) -> Path:
    """The folder that stands for a file's set of bags: CLAM's h5_files and pt_files are one."""
    return path.parent.parent if path.parent.name in CLAM else path.parent
