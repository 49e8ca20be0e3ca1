"""A table of text before its cells: lines with their numbers, the comments that lead them, the sign between cells."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shards.errors import bad
from shards.tables.instead import AGAIN, instead_of

SAMPLED_LINES = 50
UTF8 = "save it as UTF-8, such as by iconv -f cp1252 -t utf-8"
READABLE = "give a CSV or TSV in UTF-8 (gzip or not) or a Parquet file"
# What people give instead of a table, by its first bytes.
STRANGE = (
    (b"PK\x03\x04", "is a zip archive or an .xlsx workbook", "unpack it, or export its sheet as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook (.xls)", "export its sheet as CSV in UTF-8"),
    (b"BZh", "is packed by bzip2", "unpack it with bunzip2 (gzip can stay)"),
    (b"\xfd7zXZ", "is packed by xz", "unpack it with unxz (gzip can stay)"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd", "unpack it with unzstd (gzip can stay)"),
    (b"\x89HDF", "is an HDF5 file", READABLE),
    (b"\x93NUMPY", "is a NumPy array", READABLE),
    (b"ARROW1", "is an Arrow (Feather) file", "write it as Parquet"),
    (b"%PDF", "is a PDF", READABLE),
)


def numbered(path: Path, head: bytes) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file; what makes it unreadable is said by name."""
    try:
        with _opened(path, head) as f:
            yield from enumerate(f, 1)
    except UnicodeDecodeError as e:
        raise bad(f"line {_undecodable(path, head)} is not UTF-8 ({e.reason})", path, UTF8) from e
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise bad(f"is cut or damaged, as its packing says ({e})", path, AGAIN) from e
    except OSError as e:
        raise bad(f"cannot be read as a table ({e})", path, READABLE) from e


def _opened(path: Path, head: bytes) -> IO[str]:
    raw: io.BufferedReader | gzip.GzipFile = gzip.open(path) if head.startswith(b"\x1f\x8b") else open(path, "rb")  # noqa: SIM115 - closed by the wrapper
    try:
        first = raw.read(4096)
        raw.seek(0)
        if found := next((s for s in STRANGE if first.startswith(s[0])), None):
            raise bad(found[1], path, found[2])
        if first and (page := instead_of(first)):
            raise bad(page[0], path, page[1])
        marked = first.startswith((b"\xff\xfe", b"\xfe\xff"))
        if not marked and b"\0" in first:
            raise bad("is not text (it has bytes of zero)", path, READABLE)
    except BaseException:
        raw.close()
        raise
    return io.TextIOWrapper(raw, encoding="utf-16" if marked else "utf-8-sig", newline="")


def _undecodable(path: Path, head: bytes) -> int:
    """The first line that is not UTF-8."""
    raw: io.BufferedReader | gzip.GzipFile = gzip.open(path) if head.startswith(b"\x1f\x8b") else open(path, "rb")  # noqa: SIM115
    with raw:
        for line, data in enumerate(raw, 1):
            try:
                data.decode()
            except UnicodeDecodeError:
                return line
    return 0


def without_comments(lines: list[tuple[int, str]]) -> tuple[list[str], list[tuple[int, str]]]:
    """Leading lines that begin with `#`, and what follows from the first line with something in it."""
    comments: list[str] = []
    for i, (_, line) in enumerate(lines):
        if line.startswith("#"):
            comments.append(line)
        elif line.strip(" \t\r\n,;") and not re.fullmatch(r"sep=.\s*", line):  # a hint that Excel reads
            # A GCT file (Broad Institute) says its size between its version and its header.
            skip = 1 if comments and re.fullmatch(r"#1\.2\s*", comments[-1]) else 0
            return comments, lines[i + skip :]
    return comments, []


def delimiter_of(lines: list[str], path: Path) -> str:
    """The sign between cells: the one that cuts the header and all sampled lines into equally many cells."""
    cut = {d: sample_of(lines, d) for d in "\t;,"}
    best = max(_fit(records) for records in cut.values())
    fitting = [d for d, records in cut.items() if _fit(records) == best]
    if best and ("\t" in fitting or len(fitting) == 1):
        return fitting[0]
    if best:
        raise bad("can be read as separated by commas and by semicolons", path, "write it as TSV, or quote its cells")
    split = [d for d, records in cut.items() if len(records[0]) > 1]
    if split:  # some lines are uneven: they will be named
        return max(split, key=lambda d: (sum(len(r) == len(cut[d][0]) for r in cut[d]), len(cut[d][0])))
    return " " if _fit(sample_of(lines, " ")) else ","


def _fit(records: list[list[str]]) -> int:
    """3: header and lines are equally long; 2 and 1: every line has one cell more (R's row names; of a single column); 0: neither."""
    n, body = len(records[0]), records[1:]
    if n > 1 and all(len(r) == n for r in body):
        return 3
    return min(n, 2) if body and all(len(r) == n + 1 for r in body) else 0


def sample_of(lines: list[str], delimiter: str) -> list[list[str]]:
    """The first records; the last is left out of several, as it may go on."""
    blank = delimiter == " "
    given = [line.strip() if blank else line for line in lines]
    try:
        records = [
            r for r in csv.reader(given, delimiter=delimiter, skipinitialspace=blank) if any(c.strip() for c in r)
        ]
    except csv.Error:
        records = []
    return (records[:-1] if len(lines) >= SAMPLED_LINES and len(records) > 2 else records) or [[""]]
