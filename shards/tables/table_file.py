"""THE reader of tables, for manifests, labels, splits, clinical data, expression, scores and reports: by content, never by the file's name.

    table = open_table(path)          # header, form; nothing else is read yet
    for line, cells in table: ...     # cells are text (CSV and its kin) or values (Parquet: `cells.text_of` makes text of them)
    table.problems                    # after the loop: lines with another number of cells than the header, with their numbers

`keyed.read_rows` is the same for tables that fit in memory, as dictionaries; `numeric_table.Table` for tables of numbers.

Read are: text separated by tabs, commas, semicolons or blanks (UTF-8, with or without a byte-order mark, or UTF-16 with one; any
line ends; gzip by its magic bytes), and Parquet by its magic bytes. Lines that begin with `#` before the header are comments (GDC,
cBioPortal, featureCounts), unless the only such line is itself a header (PLINK 2's `#IID`). A header with one cell less than every line
is R's: its first column, row names, has no name. In Parquet the columns that pandas' metadata calls the index come first. Refused by
name: archives and workbooks, and headers that could mean two things.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import DataError, Problem, bad
from shards.tables.cells import number
from shards.tables.text_lines import READABLE, SAMPLED_LINES, delimiter_of, numbered, sample_of, without_comments
from shards.untyped import Json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SAMPLED_CHARACTERS = 1 << 22
NAMES = {"\t": "tab-separated", ",": "comma-separated", ";": "semicolon-separated", " ": "blank-separated"}
# How a column of names is called; a header that begins so and is one short lacks another name than R's of the row names.
NAMING = re.compile(
    r"(case|patient|sample|subject|person|people|gene|feature|image|slide|study|id|iid|eid|barcode)(_|s?\b)"
)


class TableFile:
    """An open table. `header`: column names, "" for R's or pandas' column of row names; iterate once for (line, cells).

    Lines are counted as an editor does, comments and header included; in Parquet as rows from 1. Blank lines are passed over.
    """

    def __init__(self, path: Path, header: list[str], rows: Iterator[tuple[int, list[Json]]], form: str):
        self.path, self.header, self.form = path, header, form
        self.text = form != "Parquet"
        self.notes: list[str] = []
        self.unsure_names: Problem | None = None
        """Why it cannot be said that the first column names the rows; `first_column` raises it."""
        self._rows, self._uneven = rows, list[tuple[int, int]]()

    def __iter__(self) -> Iterator[tuple[int, list[Json]]]:
        width = len(self.header)
        for line, cells in self._rows:
            if len(cells) == width:
                if _says(cells[0]) or any(map(_says, cells)):
                    yield line, cells
            elif any(c.strip() for c in cells) and not (len(cells) == 1 and cells[0].startswith("#")):
                self._uneven.append((line, len(cells)))

    def place(self, line: int) -> str:
        """Names a line, for messages."""
        return f"{self.path.name} {'line' if self.text else 'row'} {line}"

    def first_column(self) -> str:
        """The name of the first column, by whose cells rows are called.

        Raises:
            DataError: a Parquet file that does not say which column that is.
        """
        if self.unsure_names is not None:
            raise DataError(self.unsure_names)
        return self.header[0]

    @property
    def problems(self) -> list[Problem]:
        """What was wrong with lines so far."""
        if not self._uneven:
            return []
        shown = ", ".join(f"line {line} has {n}" for line, n in self._uneven[:3])
        more = ", ..." if len(self._uneven) > 3 else ""
        what = f"{len(self._uneven)} lines have another number of cells than the header ({len(self.header)}): {shown}{more}"
        fix = f"mend the lines; quote cells that hold the sign between cells (the table is {self.form})"
        return [Problem(what, str(self.path), fix)]


def open_table(path: Path, header: Iterable[str] | None = None) -> TableFile:
    """Opens a table.

    Args:
        header: column names of a file that has none (every line is then a row).

    Raises:
        DataError: no such file, empty, not a table, or one whose header is not clear. Iterating raises it for lines that cannot be read.
    """
    if not path.is_file():
        what = "is a folder, not a table" if path.is_dir() else "no such file"
        raise bad(what, path, "give the path of a table (CSV, TSV, gzip or not, or Parquet)")
    with open(path, "rb") as f:
        head = f.read(16)
    if head.startswith(b"PAR1"):
        return _parquet(path)
    return _text(path, head, None if header is None else list(header))


def read_text(path: Path) -> str:
    """A small text file in UTF-8, without its byte-order mark.

    Raises:
        DataError: unreadable or in another encoding.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise bad(
            f"cannot be read as UTF-8 ({e})", path, "save it as UTF-8, such as by iconv -f cp1252 -t utf-8"
        ) from e


def _says(cell: object) -> bool:
    return cell not in ("", None) and bool(str(cell).strip())


# ----------------------------------------------------------------------------------------------------------------- text


def _text(path: Path, head: bytes, given: list[str] | None) -> TableFile:
    lines = numbered(path, head)
    sampled, size = list[tuple[int, str]](), 0
    for line in lines:
        sampled.append(line)
        size += len(line[1])
        if len(sampled) >= SAMPLED_LINES + 20 or (size > SAMPLED_CHARACTERS and len(sampled) > 6):
            break
    comments, body = without_comments(sampled) if given is None else ([], sampled)
    if not body:
        raise bad("the table is empty", path, "give a table with a header line")
    delimiter = delimiter_of([t for _, t in body], path)
    rest = itertools.chain(body, lines)
    commented = _commented_header(comments, body, delimiter, path) if given is None else None
    records = _records(rest, delimiter, path)
    header = given or commented or [c.strip() for c in next(records)[1]]
    if given is None and commented is None:
        whole = header
        header, records = _trimmed(whole, records, path)
        # Lines that are longer than a header whose empty end was cut are as long as it was.
        header = _with_row_names(header, body, delimiter, path) if len(header) == len(whole) else header
        _refuse_numbers(header, path)
    form = NAMES[delimiter] + (", gzip" if head.startswith(b"\x1f\x8b") else "")
    return TableFile(path, header, records, form)


def _records(lines: Iterable[tuple[int, str]], delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, cells) of each record."""
    csv.field_size_limit(1 << 30)
    at, begun = 0, 0
    blank = delimiter == " "

    def texts() -> Iterator[str]:
        nonlocal at, begun
        for at, line in lines:
            begun = begun or at
            yield line.strip() if blank else line

    reader = csv.reader(texts(), delimiter=delimiter, skipinitialspace=blank, strict=True)
    while True:
        begun = 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            what = f"line {begun or at} cannot be cut into cells ({e})"
            raise bad(what, path, 'close every quotation mark; write one inside a quoted cell twice ("")') from e
        yield begun, cells


def _commented_header(comments: list[str], body: list[tuple[int, str]], delimiter: str, path: Path) -> list[str] | None:
    """The header where the only line with one `#` is as long as the first line below it (PLINK 2: #IID, #CHROM)."""
    single = [c for c in comments if not c.startswith("##")]
    if len(single) != 1 or single[0] != comments[-1] or not re.match(r"#[A-Za-z]", single[0]):
        return None
    names, first = (sample_of([t], delimiter)[0] for t in (single[0][1:], body[0][1]))
    if len(names) != len(first) or len(names) < 2:
        return None
    if not any(number(c) is not None for c in first):
        what = "its line with '#' has as many cells as the line below it: either may be the header"
        raise bad(what, path, "remove the '#' from the header, or the whole comment line")
    return [c.strip() for c in names]


def _trimmed(
    header: list[str], records: Iterator[tuple[int, list[str]]], path: Path
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Without the nameless empty columns that spreadsheets leave at the right."""
    width = len(header)
    while width > 1 and not header[width - 1]:
        width -= 1
    if width == len(header):
        return header, records
    full = len(header)

    def cut() -> Iterator[tuple[int, list[str]]]:
        for line, cells in records:
            if len(cells) == full and any(c.strip() for c in cells[width:]):
                raise bad(f"line {line} has a value in a column without a name", path, "name the column in the header")
            yield line, cells[:width] if len(cells) == full else cells

    return header[:width], cut()


def _with_row_names(header: list[str], body: list[tuple[int, str]], delimiter: str, path: Path) -> list[str]:
    """R writes no name above its row names: the header is then one cell short of every line."""
    records = sample_of([t for _, t in body], delimiter)[1:]
    if not records or not all(len(r) == len(header) + 1 for r in records):
        return header
    if not any(r[-1].strip() for r in records):
        what = "every line ends with an empty cell that the header lacks: a sign too many, or row names without a name"
        raise bad(what, path, "remove the sign at the line ends, or name the first column")
    quoted = body[0][1].startswith('"')
    pointed = any(re.fullmatch(r"[+-]?[0-9]+\.[0-9]+", c) for r in records for c in r)
    if delimiter == "," and not quoted and not pointed:
        what = f"every line has {len(header) + 1} cells, the header {len(header)}: row names without a name, or decimal commas"
        raise bad(what, path, "name the first column if it holds row names; write numbers with a point")
    if NAMING.match(header[0].lower()) and not all(r[0].strip().isdecimal() for r in records):
        what = f"every line has {len(header) + 1} cells, the header {len(header)}, from '{header[0]}' on: which column lacks its name?"
        raise bad(what, path, "name every column")
    return ["", *header]


def _refuse_numbers(header: list[str], path: Path) -> None:
    """A first line of measured values is no header; whole numbers may name columns (Entrez ids, participants)."""
    values = [c for c in header[1:] if number(c) is not None]
    measured = [c for c in values if not c.strip().isdecimal()]
    if measured and 2 * len(values) >= len(header) - 1:
        what = f"its first line holds values ({', '.join(measured[:3])}), no names of columns"
        raise bad(what, path, "put a header line above it")


# -------------------------------------------------------------------------------------------------------------- Parquet


def _parquet(path: Path) -> TableFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    except (pa.ArrowInvalid, OSError) as e:
        raise bad(f"cannot be read as Parquet ({e})", path, READABLE) from e
    if nested := [f.name for f in schema if pa.types.is_nested(f.type)]:
        raise bad(f"column '{nested[0]}' holds lists or structures, not single values", path, "write one value a cell")
    order = _index_first(schema)
    header = ["" if re.fullmatch(r"__index_level_\d+__", n) else n for n in (schema.names[i] for i in order)]
    table = TableFile(path, header, _parquet_rows(file, order, path), "Parquet")
    first = schema.field(order[0]).type if order else None
    if first is not None and (pa.types.is_floating(first) or pa.types.is_boolean(first)):
        table.unsure_names = Problem(
            f"the first column ('{header[0]}') holds numbers, no names of rows, and no index is marked",
            str(path),
            "put the column of names first as text or whole numbers, or write it as the data frame's index",
        )
    return table


def _index_first(schema: pa.Schema) -> list[int]:
    """Positions of the columns: those that pandas calls the index first, or the only column of words where numbers come first."""
    import pyarrow as pa

    names, n = list(schema.names), len(schema.names)
    stored = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    index = [names.index(c) for c in stored if isinstance(c, str) and c in names]
    if not index and n and pa.types.is_floating(schema.field(0).type):
        words = [i for i in range(n) if _is_words(schema.field(i).type)]
        index = words if len(words) == 1 else []
    return [*index, *(i for i in range(n) if i not in index)]


def _is_words(kind: pa.DataType) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)


def _parquet_rows(file: pq.ParquetFile, order: list[int], path: Path) -> Iterator[tuple[int, list[Json]]]:
    import pyarrow as pa

    line = 0
    try:
        for batch in file.iter_batches(batch_size=max(16, 100_000 // max(1, len(order)))):
            columns = [batch.column(i).to_pylist() for i in order]
            for cells in zip(*columns, strict=True):
                line += 1
                yield line, list(cells)
    except (pa.ArrowInvalid, OSError) as e:
        raise bad(f"cannot be read as Parquet ({e})", path, READABLE) from e
