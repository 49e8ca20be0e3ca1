"""DICOM films as PNG: what the standard says their pixels mean, and nothing else of their headers (extra `dicom`).

Of stored values become, in this order (DICOM PS3.3, C.11.1, C.11.2 and C.7.6.3): values by the modality's table or rescaling; then, where
every film of the set has one, those of its window or VOI table, spread over 8 bits (up to 8 stored) or 16; MONOCHROME1 turned over;
padding black. Without windows the values stay as they are, and how many of the stored bits are used is found over all films of the
set, as for any 16-bit grey (`shards.format.images`), never film by film; films that cannot fill these bits are refused, since they would
come out dark. `--window stored` spreads each film by the bits that its header says are stored.

Refused by name, each with its count: several frames, enhanced objects, colour, pixels that are not square, burned-in writing by the
header, values that need more bits than the header says, negative or broken values without a window, files that cannot be decoded.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.errors import Problem, bad
from shards.format.image_tally import DEPTHS
from shards.format.info import MAX_PIXELS
from shards.layout.drawn import Drawing
from shards.layout.film_values import HEADER, NONE, STORED, pixels_of
from shards.layout.film_window import range_of, windows
from shards.tables.columns import Texts
from shards.tables.identity import SHOWN, few
from shards.tables.instead import LOOKED_AT, instead_of

if TYPE_CHECKING:
    from pydicom import Dataset

SEEN = ("windowed", "plain", "several")
OTHERWISE = "spread each by the bits that it stores: --window stored; or, of one kind of detector, take values as they are: --window none"
SQUARE = 0.01
"""Sides of a pixel may differ by this share."""
PRIVATE = ("PN", "DA", "DT", "TM", "UI", "OB", "OW", "UN", "SQ")
"""Kinds of header fields that never become labels: names, dates, times, numbers of examinations, whatever is unknown."""
OF_PATIENTS = ("PatientSex", "PatientAge", "PatientPosition", "PatientOrientation")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--window",
        choices=(HEADER, STORED, NONE),
        default=HEADER,
        help="DICOM: the window or VOI table of each film (default), all that its stored bits can hold, or the values as they are",
    )
    parser.add_argument(
        "--burned-in", action="store_true", help="DICOM: take films whose header says that writing is burned in"
    )


@dataclass
class Some:
    """How many names there are, and the first of them."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def append(self, name: str) -> None:
        self.merge(Some(1, [name]))

    def merge(self, later: Some) -> None:
        self.count += later.count
        self.names += later.names[: SHOWN + 1 - len(self.names)]

    def __str__(self) -> str:
        return few(self.names)


@dataclass
class Films:
    """Develops the DICOM files of a set. `chosen`: keywords of header fields that become labels."""

    chosen: Mapping[str, str]
    args: argparse.Namespace
    said: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels of each film of this process, by its name; of all films together they are kept nowhere."""
    windowed: Some = field(default_factory=Some)
    plain: Some = field(default_factory=Some)
    several: Some = field(default_factory=Some)
    """Films that offer several windows, of which the first is taken."""
    later: Texts = field(default_factory=Texts)
    """Films that are turned over when the bits of all are known."""
    depths: dict[int, Some] = field(default_factory=dict)
    """Films over 8 bits that no window spreads, by the bits that the largest value that they could hold takes."""
    tops: dict[int, float] = field(default_factory=dict)
    """The largest value of each of these depths."""
    bits: int | None = None
    """Of films over 8 bits, those that are used; known when all are settled."""

    def develop(self, file: Path, png: Path, shown: str) -> None:
        """Writes a film as PNG.

        Raises:
            Drawing: it cannot be taken; the reason.
            DataError: pydicom is not installed; the layout chooses fields that no data set may hold.
        """
        _installed()
        if not self.said:
            _check_chosen(self.chosen)
        data = _read(file)
        try:
            _check(data, self.args.burned_in)
            pixels = pixels_of(data, self.args.window)
        except Drawing:
            raise
        except Exception as e:  # elements of a damaged header are looked at when they are asked for
            raise Drawing("a header with values that mean nothing") from e
        self.said[shown] = {n: str(data.get(k)) for k, n in self.chosen.items() if data.get(k) not in (None, "")}
        (self.windowed if pixels.windowed else self.plain).append(shown)
        if pixels.windowed and self.args.window == HEADER and windows(data) > 1:
            self.several.append(shown)
        if pixels.values_HW.dtype == np.uint16 and pixels.windowed:
            self.bits = 16
        if pixels.values_HW.dtype == np.uint16 and not (pixels.windowed and self.args.window == HEADER):
            self._count_depth(_depth(range_of(data)[1]), Some(1, [shown]), pixels.top)
        if pixels.inverse:
            self.later.append(str(png))
            if pixels.padding_HW is not None:
                np.save(padding_of(png), pixels.padding_HW)
        elif pixels.padding_HW is not None:
            pixels.values_HW[pixels.padding_HW] = 0
        _save(pixels.values_HW, png)

    def labels(self, shown: str) -> dict[str, str]:
        return self.said.get(shown, {})

    def merge(self, later: Films) -> None:
        """Takes in what another process developed, of films that come after these."""
        self.windowed.merge(later.windowed)
        self.plain.merge(later.plain)
        self.several.merge(later.several)
        self.later += later.later
        for depth, some in later.depths.items():
            self._count_depth(depth, some, later.tops[depth])
        self.bits = later.bits or self.bits

    def _count_depth(self, depth: int, some: Some, top: float) -> None:
        self.depths.setdefault(depth, Some()).merge(some)
        self.tops[depth] = max(self.tops.get(depth, 0), top)

    def dump(self, work: Path) -> dict[str, Any]:
        """What was seen, as JSON."""
        counts = {n: [(some := getattr(self, n)).count, some.names] for n in SEEN}
        later = [Path(p).relative_to(work).as_posix() for p in self.later]
        depths = [[depth, some.count, some.names, self.tops[depth]] for depth, some in self.depths.items()]
        return {**counts, "said": self.said, "bits": self.bits, "later": later, "depths": depths}

    def load(self, work: Path, dumped: dict[str, Any]) -> None:
        """Takes in what `dump` gave, of films that a command before this one developed."""
        for name in SEEN:
            getattr(self, name).merge(Some(*dumped[name]))
        for depth, count, names, top in dumped["depths"]:
            self._count_depth(depth, Some(count, names), top)
        for name in dumped["later"]:
            self.later.append(str(work / name))
        self.said |= dumped["said"]
        self.bits = dumped["bits"] or self.bits

    def settle(self, notes: list[str]) -> Iterator[Problem]:
        """Turns those over that waited for the bits of all; what is wrong with all of them together."""
        if self.windowed.count and self.plain.count:
            what = (
                f"{self.windowed.count} films have a window or VOI table ({self.windowed}), "
                f"{self.plain.count} have none ({self.plain})"
            )
            yield Problem(what, "DICOM", f"what is as bright in both cannot be told: {OTHERWISE}")
        if self.tops and self.args.window != STORED:
            self.bits = _depth(max(self.tops.values()))
        yield from self._depths_that_differ(notes)
        for png in self.later:
            _turn_over(Path(png), (1 << (self.bits or 8)) - 1)
        if films := self.windowed.count + self.plain.count:
            kept = ", ".join(self.chosen) or "none"
            by = "the window of each" if self.args.window == HEADER else "all that the stored bits of each can hold"
            how = f"by {by}" if self.windowed.count else "with their values as they are"
            notes.append(f"{films} DICOM films {how}; header fields kept: {kept}")
        if self.several.count:
            which = f"{self.several.count} films offer several windows or VOI tables, of which the first is taken"
            notes.append(f"{which} ({self.several})")

    def _depths_that_differ(self, notes: list[str]) -> Iterator[Problem]:
        """Films whose white would be a grey, since the set, or their header, says more bits than they use."""
        if self.args.window == STORED:
            notes += [
                f"WARNING: of {self.depths[depth].count} films of up to {depth} bits ({self.depths[depth]}) none uses more than "
                f"{_depth(top)} (up to {top:,.0f}): they come out dark; of one kind of detector, take values as they are: --window none"
                for depth, top in sorted(self.tops.items())
                if _depth(top) < depth
            ]
            return
        less = {depth: some for depth, some in sorted(self.depths.items()) if depth < (self.bits or 0)}
        if self.windowed.count or not less:
            return
        which = "; ".join(f"{some.count} of up to {depth} bits ({some})" for depth, some in less.items())
        what = (
            f"detectors of several depths: {which}, in a set that uses {self.bits}: as they are these come out too dark "
            "(MONOCHROME1: too bright)"
        )
        if self.args.window == NONE:
            notes.append(f"WARNING: {what}; spread each by the bits that it stores: --window stored")
        else:
            yield Problem(what, "DICOM", OTHERWISE)


def _depth(largest: float) -> int:
    """Of detectors: the fewest bits that hold a value."""
    return next((b for b in DEPTHS if largest < 1 << b), DEPTHS[-1])


def _installed() -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError as e:
        raise bad("films are DICOM files, and pydicom is not installed", "DICOM", "pip install 'medpair[dicom]'") from e
    except Exception as e:
        # GDCM's package looks for a module `dl` of older Pythons, and takes any folder of that name where modules are looked for.
        spec = importlib.util.find_spec("dl")
        taken = ", ".join(spec.submodule_search_locations or ()) if spec else ""
        fix = (
            f"GDCM takes the folder {taken} for a module: call the command in another folder than {Path(taken).parent}"
        )
        raise bad(
            f"films are DICOM files, and pydicom does not load ({type(e).__name__}: {e})", "DICOM",
            fix if taken else "pip install 'medpair[dicom]'",
        ) from e  # fmt: skip


def _check_chosen(chosen: Mapping[str, str]) -> None:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    for keyword in chosen:
        tag = tag_for_keyword(keyword)
        fix = "choose others, such as ViewPosition, Modality, PatientSex"
        if tag is None:
            raise bad(f"header field '{keyword}' is none of DICOM's", "header.labels", fix)
        of_person = keyword.startswith("Patient") and keyword not in OF_PATIENTS
        if dictionary_VR(tag) in PRIVATE or of_person:
            raise bad(f"header field '{keyword}' names a person, a date or an examination", "header.labels", fix)


def _read(file: Path) -> Dataset:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(file)
    except InvalidDicomError as e:
        raise Drawing(_no_film(file)) from e
    except Exception as e:  # whatever a parser of damaged files stumbles over
        raise Drawing("a damaged DICOM file") from e


def _no_film(file: Path) -> str:
    with open(file, "rb") as f:
        found = instead_of(f.read(LOOKED_AT))
    return f"no DICOM file: it {found[0]}" if found else "no DICOM file"


def _check(data: Dataset, burned_in: bool) -> None:
    """Refuses what is no single grey film with square pixels."""
    if "PixelData" not in data:
        raise Drawing("a DICOM file without pixels")
    frames = int(data.get("NumberOfFrames") or 1)
    if frames > 1:
        raise Drawing("several frames in one file (multi-frame)")
    if "SharedFunctionalGroupsSequence" in data or "PerFrameFunctionalGroupsSequence" in data:
        # Taken as it stands, its stored values would pass for what they mean: rescaling and window lie in the groups.
        raise Drawing("an enhanced object, which keeps rescaling and window by frame (functional groups)")
    if not (kind := str(data.get("PhotometricInterpretation") or "")):
        raise Drawing("a header that does not say what its pixels mean (PhotometricInterpretation)")
    if int(data.get("SamplesPerPixel", 1)) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise Drawing(f"a colour film ({kind})")
    if kind == "MONOCHROME2" and str(data.get("PresentationLUTShape", "")).upper() == "INVERSE":
        raise Drawing("brightness that the header tells in two ways (MONOCHROME2, but PresentationLUTShape INVERSE)")
    rows, columns = int(data.get("Rows", 0)), int(data.get("Columns", 0))
    if not 0 < rows * columns <= MAX_PIXELS:
        raise Drawing(f"a film of {rows} x {columns} pixels, none or over {MAX_PIXELS:,}")
    for name in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        sides = [float(v) for v in data.get(name) or ()]
        if len(sides) == 2 and (min(sides) <= 0 or abs(sides[0] / sides[1] - 1) > SQUARE):
            raise Drawing(f"pixels that are not square ({name})")
    if str(data.get("BurnedInAnnotation", "")).upper() == "YES" and not burned_in:
        raise Drawing("writing burned into the picture, as its header says (--burned-in takes such films)")


def _save(values_HW: np.ndarray, path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(values_HW)).save(path, "PNG")


def padding_of(png: Path) -> Path:
    """Where it is kept where a film is padded, until the film is turned over."""
    return png.with_suffix(".padding.npy")


def _turn_over(path: Path, top: int) -> None:
    """Dark becomes bright: of 8 bits by 255, of more by the bits that all films use."""
    from PIL import Image

    with Image.open(path) as image:
        values_HW = np.asarray(image)
    turned_HW = (255 if values_HW.dtype == np.uint8 else top) - values_HW
    if (padding := padding_of(path)).is_file():
        turned_HW[np.load(padding)] = 0
        padding.unlink()
    _save(turned_HW.astype(values_HW.dtype), path)
