"""Slices of NIfTI volumes as images (extra `nifti`): `scan.nii.gz#axial[77]`, or all of a volume by the manifest's column `slices`.

A volume is turned to RAS+ by its affine (to the nearest axis, nothing is resampled), so slices count from the patient's left (sagittal),
back (coronal) or feet (axial). They are drawn as films are looked at: the patient's right is on the left of axial and coronal slices, the
front is above in axial ones and on the right in sagittal ones, the head is above in the others. Volumes of whole numbers from 0 to 255 in
8 bits are taken as they are. All others have no unit (MRI): of each volume its 0.5 to 99.5 percentile, over voxels that are not 0,
becomes 0 to 255. Masks keep their numbers, which are whole and from 0 to 255. CT has a unit, in which 0 is water: it is refused until a
window of it is stored in 8 bits.

Refused by name: several volumes in one file (4-D), voxels that are no plain numbers (colour, complex), no affine, two affines that turn
the volume differently, pixels that are not square, values that are not finite, a mask of another shape or place than its image, files
that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from shards.format.describe import Header, HeaderError
from shards.format.images import is_mask
from shards.pack.pictures import png_bytes
from shards.tables.instead import LOOKED_AT, instead_of

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from shards.pack.manifest import Entry
    from shards.pack.reference import Reference

T = TypeVar("T")


@dataclass(frozen=True)
class _Head:
    """A volume whose voxels are not read yet. turn: from its axes to RAS+ (nibabel's orientations); shape, sides and affine are in RAS+."""

    image: Nifti1Image
    turn: np.ndarray
    shape: tuple[int, ...]
    sides_mm: tuple[float, ...]
    affine: np.ndarray


ENDINGS = (".nii", ".nii.gz")
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis of RAS+ that slices are cut across."""
LOW, HIGH = 0.5, 99.5
SQUARE = 0.01
"""Sides of a pixel may differ by this share, affines by this many millimetres."""
AIR, SOME = (-1100, -900), 0.01
"""Hounsfield units of air, and the share of voxels in it by which a volume is known for a CT."""
ZEROS = "set these voxels to 0 (numpy.nan_to_num) and store the volume again"
WHOLE = "store the mask in 8 bits with a whole number for each structure"
INSTALL = "pip install 'medpair[nifti]'"


def is_volume(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


class Volumes:
    """Reads slices; the last volume is kept, as slices of one follow each other."""

    def __init__(self) -> None:
        self._heads: dict[Path, _Head] = {}
        self._last: tuple[Path, bool, np.ndarray] | None = None
        self._refused: dict[tuple[Path, bool], HeaderError] = {}

    def header(self, ref: Reference) -> Header:
        """The form of a slice, from the volume's header.

        Raises:
            HeaderError: what the module's head lists; a slice that is not there.
        """
        axis, at = _asked(ref)
        head = self._opened(ref.path)
        shape = [n for i, n in enumerate(head.shape) if i != axis]
        if at >= head.shape[axis]:
            raise HeaderError(f"has {head.shape[axis]} {ref.member} slices, none has the number {at}")
        sides = [z for i, z in enumerate(head.sides_mm) if i != axis]
        if min(sides) <= 0 or abs(sides[0] / sides[1] - 1) > SQUARE:
            what = f"{ref.member} pixels of {sides[0]:g} x {sides[1]:g} mm are not square"
            raise HeaderError(what, "cut slices across the axis of the thick ones, or resample the volume first")
        return Header("uint8", (shape[1], shape[0], 1))

    def png(self, name: str, ref: Reference) -> bytes:
        """A slice as a grey PNG of 8 bits."""
        axis, at = _asked(ref)
        values_XYZ = self._values(ref.path, is_mask(name))
        plane = values_XYZ.take(at, axis)
        # Across: right to left, or back to front; down: from the front or the head.
        drawn = plane[::-1, ::-1].T if axis != 0 else plane[:, ::-1].T
        return png_bytes(np.ascontiguousarray(drawn)[..., None])

    def told(self, name: str, ref: Reference) -> dict[str, str]:
        """What is said in dataset.json of a field of slices."""
        plain = _as_stored(self._opened(ref.path).image)
        window = "as stored" if plain else f"{LOW:g} to {HIGH:g} % of each volume"
        return {"slices": str(ref.member)} | ({} if is_mask(name) else {"window": window})

    def depth(self, path: Path, axis: str) -> int:
        """How many slices a volume has."""
        return int(self._opened(path).shape[AXES[axis]])

    def check_mask(self, image: Path, mask: Path) -> None:
        """Raises:
        HeaderError: the mask is of another shape than the image, or lies elsewhere.
        """
        a, b = self._opened(image), self._opened(mask)
        if a.shape != b.shape:
            raise HeaderError(
                f"a mask of {_text(b.shape)} voxels on an image of {_text(a.shape)}", "bring its own mask"
            )
        if not np.allclose(a.affine, b.affine, atol=SQUARE):
            raise HeaderError("the mask lies elsewhere than its image (another affine)", "bring its own mask")

    def _opened(self, path: Path) -> _Head:
        if path not in self._heads:
            if len(self._heads) > 64:
                self._heads.clear()
            self._heads[path] = _open(path)
        return self._heads[path]

    def _values(self, path: Path, mask: bool) -> np.ndarray:
        if self._last is None or self._last[:2] != (path, mask):
            if known := self._refused.get((path, mask)):  # not read again for each of its slices
                raise HeaderError(str(known), known.fix)
            try:
                values_XYZ = _guarded(lambda: _turned(self._opened(path)))
                self._last = path, mask, _labels(values_XYZ) if mask else _brightness(values_XYZ)
            except HeaderError as e:
                self._refused[path, mask] = e
                raise
        return self._last[2]


def _asked(ref: Reference) -> tuple[int, int]:
    assert ref.member is not None
    assert ref.rows is not None
    return AXES[ref.member], ref.rows[0]


def _open(path: Path) -> _Head:
    if not path.is_file():
        raise HeaderError("no such file", f"looked at {path}; paths are relative to the manifest")
    try:
        import nibabel
    except ImportError as e:
        raise HeaderError("is a NIfTI volume, and nibabel is not installed", INSTALL) from e
    with open(path, "rb") as f:
        if found := instead_of(f.read(LOOKED_AT)):
            raise HeaderError(*found)
    image = _guarded(lambda: nibabel.load(path))
    if not isinstance(image, nibabel.Nifti1Image):
        raise HeaderError(f"is no NIfTI file ({type(image).__name__})")
    shape = image.shape
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        raise HeaderError(f"holds {_text(shape)} values: one volume of three axes is needed", "take one volume of it")
    if image.get_data_dtype().kind not in "iuf":
        what = f"holds voxels of the form {image.get_data_dtype()}, no plain numbers"
        raise HeaderError(what, "store one number a voxel, such as one channel or the magnitude")
    _check_affines(image)
    turn = _guarded(lambda: nibabel.io_orientation(image.affine))
    if not np.isfinite(turn).all():
        raise HeaderError("has an affine that leaves an axis out", "convert it again from its DICOM files")
    back = np.argsort(turn[:, 0])  # which axis of the file each axis of RAS+ is
    affine = image.affine @ nibabel.orientations.inv_ornt_aff(turn, shape[:3])
    sides = nibabel.affines.voxel_sizes(affine)
    return _Head(image, turn, tuple(shape[i] for i in back), tuple(float(s) for s in sides), affine)


def _check_affines(image: Nifti1Image) -> None:
    """Raises:
    HeaderError: no affine, or two by which an axis of the file points elsewhere.
    """
    from nibabel import io_orientation

    codes = [int(image.header[c]) for c in ("sform_code", "qform_code")]
    if not any(codes):
        what = "has no affine (neither sform nor qform): which side is left cannot be told"
        raise HeaderError(what, "convert it again from its DICOM files")
    if all(codes):
        by_sform, by_qform = image.header.get_sform(), image.header.get_qform()
        if not _guarded(lambda: np.array_equal(io_orientation(by_sform), io_orientation(by_qform))):
            what = "has two affines (sform and qform) that turn it differently: which side is left cannot be told"
            raise HeaderError(what, "convert it again from its DICOM files, or set the code of the wrong one to 0")


def _turned(head: _Head) -> np.ndarray:
    """The voxels, [left to right, back to front, feet to head]."""
    from nibabel.orientations import apply_orientation

    stored = np.asanyarray(head.image.dataobj)
    return apply_orientation(stored.reshape(stored.shape[:3]), head.turn)


def _as_stored(image: Nifti1Image) -> bool:
    """Whether its voxels are numbers of 8 bits, which no slope of the header makes others of."""
    stored: Any = image.dataobj  # typed as no more than an array
    return bool(stored.dtype == np.uint8 and (stored.slope, stored.inter) == (1, 0))


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except HeaderError:
        raise
    except Exception as e:  # whatever a parser of damaged files stumbles over
        raise HeaderError(f"cannot be read as NIfTI ({type(e).__name__}: {e})") from e


def _brightness(values_XYZ: np.ndarray) -> np.ndarray:
    if values_XYZ.dtype == np.uint8:
        return values_XYZ
    known = values_XYZ[values_XYZ != 0]
    if not np.isfinite(known).all():
        raise HeaderError(f"{int((~np.isfinite(known)).sum())} voxels are NaN or infinite", ZEROS)
    if ((known >= AIR[0]) & (known <= AIR[1])).sum() > SOME * values_XYZ.size:
        what = f"is a CT by its values (from {known.min():g}, air near -1000), in whose unit 0 is water"
        raise HeaderError(
            what,
            "store the window that matters in 8 bits, such as -160 to 240 as 0 to 255: these are taken as they are",
        )
    low, high = np.percentile(known, (LOW, HIGH)) if known.size else (0.0, 1.0)
    share_XYZ = (values_XYZ.astype(np.float32) - low) / max(float(high - low), 1e-12)
    bright_XYZ = np.round(np.clip(share_XYZ, 0, 1) * 255).astype(np.uint8)
    # What is nothing stays black, wherever 0 lies among the values.
    return np.where(values_XYZ == 0, np.uint8(0), bright_XYZ)


def _labels(values_XYZ: np.ndarray) -> np.ndarray:
    if not ((values_XYZ >= 0) & (values_XYZ <= 255) & (values_XYZ == np.round(values_XYZ))).all():
        raise HeaderError("a mask whose values are not whole numbers from 0 to 255", WHOLE)
    return values_XYZ.astype(np.uint8)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def slices_of(entry: Entry, axis: str, volumes: Volumes) -> list[Entry]:
    """One entry a slice, `SAMPLE-z077`, with everything that the entry has; its volumes are those of one person in one place.

    Raises:
        HeaderError: no such axis, no volume, masks that do not fit, or what `Volumes.header` raises.
    """
    if axis not in AXES:
        raise HeaderError(f"slices '{axis}'", f"one of {', '.join(AXES)}, or an empty cell")
    found = {n: r for n, r in entry.fields.items() if is_volume(r.path) and r.member is None}
    if not found:
        raise HeaderError(
            "slices are asked of a line without a NIfTI volume", "name a file .nii or .nii.gz, or leave the cell empty"
        )
    first = found.get("image", next(iter(found.values())))
    for ref in found.values():
        volumes.check_mask(first.path, ref.path)
    mark = {"axial": "z", "coronal": "y", "sagittal": "x"}[axis]
    cut = []
    for at in range(volumes.depth(first.path, axis)):
        fields = {
            n: replace(r, text=f"{r.text}#{axis}[{at}]", member=axis, rows=(at, at + 1)) for n, r in found.items()
        }
        copy = replace(entry, sample=f"{entry.sample}-{mark}{at:03d}", labels={**entry.labels}, texts={**entry.texts})
        copy.fields = {**entry.fields, **fields}
        cut.append(copy)
    return cut
