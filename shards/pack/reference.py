"""References in a manifest: what stands in a field's cell, where its bytes are, and how they are read without running anything.

images/p1.png                    a file: jpg, jpeg, png, npy, txt
bag.pt                           a tensor saved by torch.save (loaded without running code)
bag.pt#features                  a tensor of a dictionary in such a file
slides.npz#features              a member of an .npz, or of an .h5
slides.npz#features[120:180]     some of its rows: bags packed one after the other
rna.csv.gz#TCGA-05-4396          a row of a table, found by the first column; the header names the features
rna.tsv.gz#column:TCGA-05-4396   a column of a table that has features as rows
scan.nii.gz#axial[77]            a slice of a NIfTI volume (`shards.pack.volumes`)

What is a feature of a table, and what stands beside them, is told by `shards.tables.features`.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from shards.format.bags import BAGS, attributes, bag_shape, is_bag, told_by, told_by_name, whole_slide
from shards.format.describe import HEADER_BYTES, Header, HeaderError, header_of
from shards.format.info import KINDS
from shards.format.jpeg import pixels_begin
from shards.format.npy import (
    UNREADABLE_NPZ,
    NpyError,
    NpyHeader,
    header_length,
    native,
    not_plain,
    parse_header,
    read_array,
    read_part,
)
from shards.pack.feature_tables import FeatureTables
from shards.pack.files import begins_as_film
from shards.pack.torch_file import tensor_array, tensor_header
from shards.pack.volumes import AXES, Volumes, is_volume
from shards.tables.features import FeatureRule
from shards.tables.unknown import Words

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")

JPEG_HEAD = 16 << 10
MAX_OPEN = 32  # a cohort with a file a slide would otherwise run out of descriptors
PLAIN = {f".{ext}" for ext in KINDS if ext != "json"}
WHOLE = PLAIN | {".pt"}
FILMS = (
    "describe them in a layout (docs/layouts.md, A layout of your own): python -m shards source ./LAYOUT.yaml --root DIR --out DIR; "
    "or save them as PNG"
)
# FILE#MEMBER of any other file is a row or a column of a table, whatever its name.
ARRAYS = (".npz", ".h5", ".hdf5", ".pt", ".npy")
ROWS = re.compile(r"(.*)\[(\d+):(\d+)\]")
SLICE = re.compile(r"([a-z]+)\[(\d{1,6})\]")
COLUMN = "column:"


@dataclass(frozen=True)
class Reference:
    """A parsed cell. `text` is what stood there (kept as provenance). `more`: bags whose rows follow those of this one.

    regions: [regions, patches, features] is read as the patches of all regions, [patches, features].
    """

    text: str
    path: Path
    member: str | None = None
    rows: tuple[int, int] | None = None
    more: tuple[Reference, ...] = ()
    regions: bool = False

    @property
    def parts(self) -> tuple[Reference, ...]:
        """Itself and what follows, each alone."""
        return (replace(self, more=()), *self.more) if self.more else (self,)

    # Asked several times of every sample.
    @cached_property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @cached_property
    def is_slice(self) -> bool:
        return is_volume(self.path)

    @property
    def is_table(self) -> bool:
        return self.member is not None and self.suffix not in ARRAYS and not self.is_slice

    @property
    def by_column(self) -> bool:
        """Of a table's reference: whether it names a column."""
        return (self.member or "").startswith(COLUMN)

    @cached_property
    def ext(self) -> str:
        """Extension of the member it becomes in a shard."""
        if self.is_slice:
            return "png"
        return "npy" if self.member is not None or self.suffix == ".pt" else self.suffix[1:].replace("jpeg", "jpg")


def parse(text: str, folder: Path) -> Reference:
    """Parses a cell; paths are relative to `folder`.

    Raises:
        HeaderError: no such form. Whether the file exists is not asked here.
    """
    name, mark, member = text.partition("#")
    path, lower = folder / name, name.lower()
    suffix = path.suffix.lower()
    if not mark and suffix in WHOLE:
        return Reference(text, path)
    if is_volume(path):
        return _slice(text, path, member, bool(mark))
    if mark and member and suffix not in ARRAYS:
        return Reference(text, path, member)
    if mark and lower.endswith((".npz", ".h5", ".hdf5", ".pt")) and member:
        sliced = ROWS.fullmatch(member)
        if not sliced:
            return Reference(text, path, member)
        start, stop = int(sliced[2]), int(sliced[3])
        if stop <= start:
            raise HeaderError(f"'{text}' names no rows")
        return Reference(text, path, sliced[1], (start, stop))
    if not mark and (suffix == ".dcm" or (path.is_file() and begins_as_film(path))):
        raise HeaderError(f"'{text}' is a DICOM film, which no manifest reads", FILMS)
    files = f"a file {' '.join(sorted(PLAIN))} .pt"
    forms = "FILE.npz#MEMBER, FILE.h5#DATASET, FILE.pt#NAME, TABLE#ROW or TABLE#column:NAME, FILE.nii.gz#axial[N]"
    raise HeaderError(f"'{text}' is not a reference: {files}, {forms}")


def _slice(text: str, path: Path, member: str, mark: bool) -> Reference:
    """A slice, or a whole volume, which the manifest's column `slices` cuts."""
    found = SLICE.fullmatch(member)
    if not mark:
        return Reference(text, path)
    if not found or found[1] not in AXES:
        raise HeaderError(f"'{text}' names no slice: FILE.nii.gz#axial[77], the axis one of {', '.join(AXES)}")
    return Reference(text, path, found[1], (int(found[2]), int(found[2]) + 1))


class Reader:
    """Reads references; keeps the files it has open. Use as a context manager."""

    def __init__(
        self,
        turned: Callable[[str], bool] = lambda name: True,
        features: FeatureRule | None = None,
        unknown: Words | None = None,
    ) -> None:
        self._turned = turned  # whether a field's photographs are turned by their EXIF orientation
        self.tables, self.volumes = FeatureTables(features, unknown), Volumes()
        self._zips: dict[Path, zipfile.ZipFile] = {}
        self._members: dict[tuple[Path, str], tuple[IO[bytes], NpyHeader]] = {}
        self._h5: dict[Path, h5py.File] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.tables.close()

    def let_go(self) -> None:
        """Closes the files that are read by their position, so that forked processes share none of them; they are opened again."""
        self._close()

    def _close(self) -> None:
        for opened in [*(m[0] for m in self._members.values()), *self._zips.values(), *self._h5.values()]:
            opened.close()
        for kept in (self._members, self._zips, self._h5):
            kept.clear()

    def _make_room(self) -> None:
        if len(self._zips) + len(self._h5) >= MAX_OPEN:
            self._close()

    def vocab(self, ref: Reference) -> list[str]:
        """Feature names of a table reference.

        Raises:
            DataError: unreadable, or it cannot be told what is a feature.
        """
        return self.tables.vocab(ref.path, ref.by_column)

    def vector(self, ref: Reference) -> np.ndarray:
        """The float32 vector of a table reference.

        Raises:
            HeaderError: the table has no such row or column.
            DataError: as `vocab` does, or for cells that are no numbers.
        """
        assert ref.member is not None
        return self.tables.vector(ref.path, ref.member.removeprefix(COLUMN), ref.by_column)

    def header(self, name: str, ref: Reference) -> Header:
        """Form of what the reference of field `name` names, from headers alone where the format has one.

        Raises:
            HeaderError: unreadable, unsafe, or rows that do not exist.
        """
        if ref.more:
            return _one_after_the_other(name, [self.header(name, part) for part in ref.parts])
        if ref.regions:
            whole = self.header(name, replace(ref, regions=False))
            M, P, D = whole.shape if whole.shape and len(whole.shape) == 3 else (1, *(whole.shape or (0, 0)))
            return Header(whole.dtype, (M * P, D))
        if ref.is_table:
            return Header("float32", self.vector(ref).shape)
        if ref.is_slice:
            _cut_by_slices(ref)
            return self.volumes.header(ref)
        suffix = ref.suffix
        if suffix == ".npz":
            head = self._npz(ref)[1]
            return _sliced(Header(head.dtype.name, head.shape), ref)
        if suffix in (".h5", ".hdf5"):
            data = self._h5_dataset(ref)
            return _sliced(Header(data.dtype.name, tuple(data.shape)), ref)
        if suffix == ".pt":
            return _sliced(tensor_header(ref.path, ref.member), ref)
        if suffix == ".npy":
            head = _guarded(lambda: _npy_header(_file_bytes(ref.path, HEADER_BYTES)))
            return Header(head.dtype.name, head.shape)
        limit = None if KINDS[ref.ext] == "image" else HEADER_BYTES
        data = _jpeg_head(ref.path) if ref.ext == "jpg" else _file_bytes(ref.path, limit)
        return header_of(name, ref.ext, data, self._turned(name))

    def array(self, ref: Reference) -> np.ndarray:
        """The array that the reference names, in this machine's byte order; only the rows asked for are read."""
        if ref.more:
            parts = [self.array(part) for part in ref.parts]
            return np.concatenate([a.reshape(bag_shape(BAGS[0], a.shape)) for a in parts])
        if ref.regions:
            x_MPD = self.array(replace(ref, regions=False))
            return x_MPD.reshape(-1, x_MPD.shape[-1])
        if ref.is_table:
            return self.vector(ref)
        suffix = ref.suffix
        if suffix == ".npz":
            stream, head = self._npz(ref)
            _sliced(Header(head.dtype.name, head.shape), ref)
            return _guarded(lambda: read_part(stream, head, ref.rows))
        if suffix in (".h5", ".hdf5"):
            data, (start, stop) = self._h5_dataset(ref), ref.rows or (0, None)
            return native(np.asarray(_guarded(lambda: data[start:stop] if data.shape else data[()])))
        if suffix == ".pt":
            whole = tensor_array(ref.path, ref.member)
            return whole[slice(*ref.rows)] if ref.rows else whole
        return native(_guarded(lambda: np.asarray(read_array(_file_bytes(ref.path, None)), order="C")))

    def told(self, name: str, ref: Reference) -> list[dict[str, str]]:
        """What a file of bags says of the numbers of field `name`, by the names of its folders and by its attributes."""
        if ref.more:
            return [said for part in ref.parts for said in self.told(name, part)]
        if ref.is_slice:
            return [self.volumes.told(name, ref)]
        suffix = ref.suffix
        if not is_bag(name) or suffix not in (".h5", ".hdf5", ".pt"):
            return []
        told: dict[str, Any] = {}
        if suffix != ".pt":
            data = self._h5_dataset(ref)
            told = _guarded(lambda: attributes(data.file, data, data.parent.get("coords")))
        if kind := whole_slide(told):
            raise HeaderError(
                f"holds features of a whole {kind}, not of patches",
                "name it by a field of your own, such as field:slide",
            )
        meaning, unit = told_by(told)
        if name.startswith("coords"):
            return [{"unit": unit} if unit else {}]
        return [told_by_name(ref.path.parent), meaning]

    def raw(self, name: str, ref: Reference) -> bytes:
        """The bytes of field `name` in a plain file, or of a slice as PNG."""
        return self.volumes.png(name, ref) if ref.is_slice else _file_bytes(ref.path, None)

    def _npz(self, ref: Reference) -> tuple[IO[bytes], NpyHeader]:
        key = ref.path, ref.member or ""
        if key not in self._members:
            if ref.path not in self._zips:
                self._make_room()
                self._zips[ref.path] = _guarded(lambda: zipfile.ZipFile(ref.path))
            names = self._zips[ref.path].namelist()
            if f"{ref.member}.npy" not in names:
                raise HeaderError(
                    f"has no member '{ref.member}'; it has {', '.join(n.removesuffix('.npy') for n in names[:8])}"
                )
            stream = _guarded(lambda: self._zips[ref.path].open(f"{ref.member}.npy"))
            self._members[key] = stream, _guarded(lambda: _npy_header(stream.read(HEADER_BYTES)))
        return self._members[key]

    def _h5_dataset(self, ref: Reference) -> h5py.Dataset:
        import h5py

        if ref.path not in self._h5:
            self._make_room()
            self._h5[ref.path] = _guarded(lambda: h5py.File(ref.path, "r"))
        data = _guarded(lambda: self._h5[ref.path].get(ref.member))
        if not isinstance(data, h5py.Dataset):
            names = _guarded(lambda: list(self._h5[ref.path])[:8])
            raise HeaderError(f"has no data set '{ref.member}'; it has {', '.join(names)}")
        if wrong := not_plain(_guarded(lambda: data.dtype)):
            raise HeaderError(f"'{ref.member}' has dtype {data.dtype}: only numbers are allowed, {wrong}")
        return data


def _one_after_the_other(name: str, heads: Sequence[Header]) -> Header:
    """The form of bags whose rows follow one another."""
    shapes = [bag_shape(name, h.shape or ()) for h in heads]
    if len({(h.dtype, s[1:]) for h, s in zip(heads, shapes, strict=True)}) > 1 or not all(shapes):
        told = ", ".join(f"{h.dtype} {s}" for h, s in zip(heads, shapes, strict=True))
        raise HeaderError(f"bags that are to be one differ in form: {told}")
    return Header(heads[0].dtype, (sum(s[0] for s in shapes), *shapes[0][1:]))


def _sliced(head: Header, ref: Reference) -> Header:
    if ref.rows is None:
        return head
    assert head.shape is not None
    if not head.shape or ref.rows[1] > head.shape[0]:
        raise HeaderError(f"'{ref.text}' goes past the end: '{ref.member}' has shape {head.shape}")
    return Header(head.dtype, (ref.rows[1] - ref.rows[0], *head.shape[1:]))


def _npy_header(data: bytes) -> NpyHeader:
    return parse_header(data[: header_length(data[:12])])


def _file_bytes(path: Path, limit: int | None) -> bytes:
    return _guarded(lambda: _read(path, limit))


def _read(path: Path, limit: int | None) -> bytes:
    """A file, or its first bytes. Files are many and small, so in as few calls as can be."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size if limit is None else limit
        data = os.read(fd, size + (limit is None))
    finally:
        os.close(fd)
    if limit is not None or len(data) == size:
        return data
    with open(path, "rb") as f:  # it grew or shrank, or is read in parts
        return f.read()


def _cut_by_slices(ref: Reference) -> None:
    if ref.member is None:
        fix = "add a column 'slices' with the word axial, coronal or sagittal, or name one slice: FILE.nii.gz#axial[77]"
        raise HeaderError("is a volume, and a sample takes a slice", fix)


def _jpeg_head(path: Path) -> bytes:
    """A JPEG up to its pixels where they begin early, or all of it."""
    data = _file_bytes(path, JPEG_HEAD)
    return data if len(data) < JPEG_HEAD or pixels_begin(data) else _file_bytes(path, None)


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except NpyError as e:
        raise HeaderError(str(e)) from e
    except HeaderError:
        raise
    except UNREADABLE_NPZ as e:
        raise HeaderError(f"cannot be read ({e})") from e
