"""One sample, read on demand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import DataError, bad
from shards.format import codecs, images, npy
from shards.format.info import KINDS
from shards.read.picture import StoredImage
from shards.read.store import FieldTable, Shard, crc32_ok
from shards.untyped import Decoded

if TYPE_CHECKING:
    from shards.read.canvas import Canvas
    from shards.read.dataset import Dataset


class ShardRecord:
    """One sample, read on demand (models' `Record`): every call reads only what it names.

    index: the number it was asked for by, in its data set or in a mix of several.
    own_index: its number in its own data set, whose patients and labels are looked up by it.
    """

    __slots__ = ("_data", "_row", "_shard", "canvas", "index", "own_index")

    def __init__(self, data: Dataset, own_index: int, shard: Shard, row: int, index: int | None = None):
        self._data = data
        self.own_index = own_index
        self.index = own_index if index is None else index
        self._shard = shard
        self._row = row
        self.canvas: Canvas | None = None

    @property
    def key(self) -> str:
        return self._shard.keys[self._row]

    @property
    def patient(self) -> str:
        return self._data.patients_of(np.array([self.own_index]))[0]

    @property
    def labels(self) -> Mapping[str, str | float | None]:
        """Class names or numbers; None where missing."""
        return {name: self._label(name) for name in self._data.info.labels}

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields this sample has."""
        return self._shard.fields_of(self._row)

    def has(self, name: str) -> bool:
        return self._shard.table(name).offset[self._row] >= 0

    def size(self, name: str) -> int:
        """Bytes of a field as stored."""
        return self._table(name).size[self._row]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array field from its header alone; of an image [H, W, C], as `read` gives it.

        Raises:
            DataError: the sample lacks the field, or it has no shape.
        """
        table = self._table(name)
        ext = table.ext_of(self._row)
        if ext == "npy":
            return self._header(table, name).shape
        if ext not in ("jpg", "jpeg", "png"):
            raise bad(f"a {ext} field has no shape", self.place(name), "read it instead")
        return images.form(ext, self._bytes(table, name), self._data.reading(name), _Place(self, name))

    def read(self, name: str) -> Decoded:
        """The decoded field: arrays as stored, images uint8 [H, W, 1 or 3], masks [H, W, 1], text str, JSON plain values.

        Raises:
            DataError: the sample lacks the field, its bytes do not match their checksum, or they cannot be decoded.
        """
        table = self._table(name)
        ext = table.ext_of(self._row)
        if ext == "npy":
            return codecs.decode(ext, self._buffer(table, name).data, _Place(self, name))
        data = self._bytes(table, name)
        if KINDS[ext] != "image":
            return codecs.decode(ext, data, _Place(self, name))
        canvas, reading = self.canvas, self._data.reading(name)
        if canvas is None or ext == "png" or not reading.plain:
            return images.read_image(ext, data, reading, _Place(self, name))
        expected = canvas.expected(name)
        image = None if expected is None else codecs.decode_jpeg_as(data, expected)
        if image is None:
            if expected is not None:
                canvas.erase(expected)
            image = codecs.decode_jpeg(data, _Place(self, name), partial(canvas.take, name))
        canvas.seen(name, image)
        return image

    def stored_image(self, name: str) -> StoredImage:
        """An image that is decoded when it is known how finely, and smaller where the data set may (`Dataset.exact_decode`).

        Raises:
            DataError: the sample lacks the field, or its bytes do not match their checksum or are no image.
        """
        table = self._table(name)
        ext, where, reading = table.ext_of(self._row), _Place(self, name), self._data.reading(name)
        if ext not in ("jpg", "jpeg") or not reading.plain:
            return StoredImage(None, lambda: self.read(name), exact=True)
        jpeg = codecs.Jpeg(self._bytes(table, name), where)
        if (canvas := self.canvas) is None:
            return StoredImage(jpeg, lambda: self.read(name), self._data.exact_decode)
        take, seen = partial(canvas.take, name), partial(canvas.seen, name)
        return StoredImage(jpeg, lambda: self.read(name), self._data.exact_decode, take, seen)

    def stored(self, name: str) -> tuple[str, bytes]:
        """(extension, bytes) of a whole field as it lies in its shard, not decoded.

        Raises:
            DataError: the sample lacks the field, or its bytes do not match their checksum.
        """
        table = self._table(name)
        ext = table.ext_of(self._row)
        return ext, self._buffer(table, name).tobytes() if ext == "npy" else self._bytes(table, name)

    @property
    def tar(self) -> Path:
        """The shard that holds the sample."""
        return self._data.path / self._shard.name

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start..stop of an array field; only its header and their bytes are read (so no checksum can be made).

        Raises:
            DataError: the sample lacks the field, it is no row-ordered array, or has no such rows.
        """
        table = self._table(name)
        header = self._header(table, name)
        if header.fortran or not header.shape:
            raise bad(
                f"an array {header.shape} in column order has no rows to cut",
                self.place(name),
                "store it in row order (C order)",
            )
        if not 0 <= start <= stop <= header.shape[0]:
            raise bad(f"rows {start}..{stop} of {header.shape[0]}", self.place(name), "ask for rows that exist")
        buffer = np.empty((stop - start) * header.row, np.uint8)
        self._shard.read_into(buffer, table.offset[self._row] + header.start + start * header.row)
        self._data._count(len(buffer))
        return npy.native(buffer.view(header.dtype).reshape(stop - start, *header.shape[1:]))

    def place(self, name: str) -> str:
        """Shard, sample and member, for messages."""
        return f"{self._shard.name}: sample '{self.key}', member {name}"

    def _label(self, name: str) -> str | float | None:
        value, info = self._data.label_values[name][self.own_index], self._data.info.labels[name]
        if info.kind == "class":
            return info.classes[value] if value >= 0 else None
        return None if np.isnan(value) else float(value)

    def _table(self, name: str) -> FieldTable:
        table = self._shard.table(name)
        if table.offset[self._row] < 0:
            raise absent(self, name)
        return table

    def _header(self, table: FieldTable, name: str) -> npy.NpyHeader:
        """The parsed header of an array field; reads no more than the header."""
        offset, size = table.offset[self._row], table.size[self._row]
        try:
            if table.ext_of(self._row) != "npy":
                raise npy.NpyError(f"a {table.ext_of(self._row)} member is no array")
            head = self._shard.pread(min(npy.USUAL_HEADER, size), offset)
            length = npy.header_length(head)
            if length > len(head):
                head = self._shard.pread(min(length, size), offset)
            self._data._count(len(head))
            header = npy.parse_header(head[:length])
            npy.check_size(header, size)
        except npy.NpyError as e:
            raise bad(str(e), self.place(name), "store the member again from its source and pack") from e
        return header

    def _bytes(self, table: FieldTable, name: str) -> bytes:
        """A whole member, checked."""
        data = self._shard.pread(table.size[self._row], table.offset[self._row])
        self._check(table, name, data)
        return data

    def _buffer(self, table: FieldTable, name: str) -> np.ndarray:
        """The same as uint8 [N], for arrays: it can be written to, so that decoding them copies nothing."""
        data = np.empty(table.size[self._row], np.uint8)
        self._shard.read_into(data, table.offset[self._row])
        self._check(table, name, data)
        return data

    def _check(self, table: FieldTable, name: str, data: bytes | np.ndarray) -> None:
        self._data._count(len(data))
        if not crc32_ok(data, table.crc32[self._row]):
            raise bad(
                "its bytes changed since packing (checksum mismatch)",
                self.place(name),
                "copy the shard again from its source",
            )


class _Place:
    """Says where, but only when an error asks."""

    __slots__ = ("_name", "_rec")

    def __init__(self, rec: ShardRecord, name: str):
        self._rec, self._name = rec, name

    def __str__(self) -> str:
        return self._rec.place(self._name)


def absent(rec: ShardRecord, name: str) -> DataError:
    return bad(
        f"the sample has no such field (it has {', '.join(rec.fields)})",
        rec.place(name),
        "ask `has` first, or leave such samples out",
    )
