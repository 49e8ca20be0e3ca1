"""The NPY header, read without NumPy's reader: what an array member claims to be, before a byte of it is allocated.

Format: NEP 1 (magic, version, header length, a Python literal with `descr`, `fortran_order`, `shape`). The few forms that this literal
can have are matched here, after its length was checked: `ast.literal_eval` (and with it NumPy's own reader) counts the depth of
its recursion for all threads together in CPython 3.11 (seen with 3.11.7), so that of threads that read headers at the same time
one ends now and then with "SystemError: AST constructor recursion depth mismatch".
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np

MAGIC = b"\x93NUMPY"
# NumPy pads headers to a multiple of 64 bytes; 128 is what an array of plain numbers has, so one small read finds it whole.
USUAL_HEADER = 128
MAX_HEADER = 10_000
# Booleans, signed, unsigned, floating: no objects, no text, no records.
NUMERIC = "biuf"


# What the readers of .npz archives and their kin raise on bytes that are none: zipfile seeks and unpacks by numbers that it read.
UNREADABLE_NPZ = (
    OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
    zipfile.LargeZipFile,
)  # fmt: skip


class NpyError(ValueError):
    """What is wrong with an array member."""


@dataclass(frozen=True)
class NpyHeader:
    """`start` is where the data begin, `nbytes` how long they are, `row` the bytes of one row (axis 0)."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def header_length(head: bytes) -> int:
    """Bytes up to the data, from the first 12 bytes of a member."""
    if head[:6] != MAGIC:
        raise NpyError("not an NPY array (no magic number)")
    if len(head) < 12 or head[6] not in (1, 2, 3):
        raise NpyError("NPY header is cut short or of an unknown version")
    length = 10 + struct.unpack_from("<H", head, 8)[0] if head[6] == 1 else 12 + struct.unpack_from("<I", head, 8)[0]
    if length > MAX_HEADER:
        raise NpyError(f"NPY header of {length} bytes (at most {MAX_HEADER})")
    return length


# Blanks of ASCII alone: a flipped bit must not turn one into another that means the same.
BLANKS = " \t\r\n"
_B = r"[ \t\r\n]*"
_TEXT = r"""'[^'\\\\]*'|"[^"\\\\]*\""""
_ITEM = re.compile(rf"{_B}({_TEXT}){_B}:{_B}(?:({_TEXT})|(True|False)|\(([^()]*)\)|(\[.*\])){_B}(?:,|$)", re.DOTALL)
_COLUMNS = re.compile(rf"\[(?:{_B}\({_B}(?:{_TEXT}){_B},{_B}(?:{_TEXT}){_B}\){_B}(?:,|(?=\])))*{_B}\]")
_COLUMN = re.compile(rf"\({_B}({_TEXT}){_B},{_B}({_TEXT}){_B}\)")


def header_fields(head: bytes) -> dict[str, object]:
    """descr, fortran_order and shape of the header of exactly `header_length` bytes: text (or what stands in brackets, as pairs of
    name and type where it is that), True or False, and a tuple of integers.

    Raises:
        NpyError: another literal than that.
    """
    text = head[10 if head[6] == 1 else 12 :].decode("utf-8" if head[6] == 3 else "latin1", "replace").strip(BLANKS)
    if not (text.startswith("{") and text.endswith("}")):
        raise NpyError("NPY header cannot be read (no mapping in braces)")
    text, at, fields = text[1:-1].rstrip(BLANKS), 0, {}
    while at < len(text):
        if (item := _ITEM.match(text, at)) is None:
            raise NpyError(f"NPY header cannot be read (from {text[at : at + 40]!r})")
        name, at = item[1][1:-1], item.end()
        if name in fields:
            raise NpyError(f"NPY header cannot be read ({name!r} stands twice)")
        fields[name] = _value(item)
    if fields.keys() != {"descr", "fortran_order", "shape"}:
        raise NpyError(f"NPY header cannot be read (it has {', '.join(sorted(fields)) or 'nothing'})")
    return fields


def _value(item: re.Match[str]) -> object:
    _, text, flag, numbers, bracket = item.groups()
    if text is not None:
        return text[1:-1]
    if flag is not None:
        return flag == "True"
    if bracket is not None:
        pairs = [(a[1:-1], b[1:-1]) for a, b in _COLUMN.findall(bracket)]
        return pairs if _COLUMNS.fullmatch(bracket) else [bracket]
    parts = [n.strip(BLANKS) for n in numbers.split(",")]
    *parts, last = parts
    if not parts and last:  # brackets around one number are no tuple
        return last
    parts += [last] if last else []
    if not all(re.fullmatch(r"-?[0-9]{1,20}", n) for n in parts):
        raise NpyError(f"NPY header cannot be read (in the tuple {numbers[:40]!r})")
    return tuple(map(int, parts))


FORBIDDEN = "neither objects nor text nor records"


def not_plain(dtype: np.dtype | None) -> str | None:
    """Why numbers of a dtype cannot be taken; None where they can. Byte order does not matter: readers turn it."""
    if dtype is None or dtype.kind not in NUMERIC + "c":
        return FORBIDDEN
    if dtype.kind == "c":
        return "no complex ones: store what you need of them, such as their absolute value"
    return (
        "of at most 8 bytes: long doubles differ from machine to machine, store float64" if dtype.itemsize > 8 else None
    )


@lru_cache(maxsize=4096)
def parse_header(head: bytes) -> NpyHeader:
    """The header of exactly `header_length` bytes. Cached: members of a data set repeat a few headers.

    Raises:
        NpyError: not numbers (objects, text, records), or not a header.
    """
    fields = header_fields(head)
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    try:
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, TypeError) as e:
        raise NpyError(f"NPY header cannot be read ({type(e).__name__})") from e
    if dtype is None or not_plain(dtype):
        raise NpyError(f"array of {descr!r}: only numbers are allowed, {not_plain(dtype) or FORBIDDEN}")
    if (
        not isinstance(shape, tuple)
        or not all(type(n) is int and n >= 0 for n in shape)
        or not isinstance(fortran, bool)
    ):
        raise NpyError(f"NPY header with shape {shape!r}, fortran_order {fortran!r}")
    return NpyHeader(dtype, shape, fortran, len(head))


def check_size(header: NpyHeader, size: int) -> None:
    """The member must hold exactly what its header claims."""
    if header.start + header.nbytes != size:
        claim = f"{header.dtype} {list(header.shape)} needs {header.start + header.nbytes} bytes"
        raise NpyError(f"the header claims {claim}, the member has {size}")


def read_array(data: bytes | bytearray | memoryview) -> np.ndarray:
    """The array of a whole member; a view of `data` where that is writable and aligned, else a copy."""
    view = memoryview(data)
    header = parse_header(bytes(view[: header_length(bytes(view[:12]))]))
    check_size(header, len(view))
    flat = np.frombuffer(view, dtype=header.dtype, count=math.prod(header.shape), offset=header.start)
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return native(array)


def read_part(stream: IO[bytes], header: NpyHeader, rows: tuple[int, int] | None) -> np.ndarray:
    """An array, or rows start..stop of it (which must exist), from a stream that begins with its header.

    Raises:
        NpyError: the stream ends too early, or rows of an array in Fortran order, whose bytes lie apart.
    """
    if rows is not None and header.fortran and len(header.shape) > 1:
        raise NpyError("is in Fortran order, so no rows can be read alone: store np.ascontiguousarray of it")
    start, stop = rows or (0, header.shape[0] if header.shape else 1)
    shape = (stop - start, *header.shape[1:]) if header.shape else ()
    stream.seek(header.start + start * header.row)
    data = stream.read(math.prod(shape) * header.dtype.itemsize)
    if len(data) != math.prod(shape) * header.dtype.itemsize:
        raise NpyError("ends before its last row")
    return native(np.frombuffer(data, header.dtype).reshape(shape, order="F" if header.fortran else "C"))


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, writable and aligned (torch takes nothing else)."""
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.writeable and array.flags.aligned else array.copy()
