"""Remedies of every table that is read: encodings, headers, lines and forms, by the scores of `source fundus_genotypes`."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pyarrow.parquet as pq

from tests.remedies.files import Mend, replace, replaced
from tests.remedies.scenario import Command, Place, remedy
from tests.remedies.sources_people import source
from tests.shards.test_fundus_joins import PEOPLE

VALUES = [[p, f"{i}.5", f"{i * i % 7}.25"] for i, p in enumerate(PEOPLE)]
HEAD = "IID,S,T\n"
LINES = "".join(",".join(v) + "\n" for v in VALUES)


def scores(place: Place, content: str | bytes | None) -> Command:
    """With a table of scores that holds this; None: there is none."""
    path = place.folder / "pgs.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return source(place, "--pgs", path)


def written(content: str | bytes = HEAD + LINES) -> Mend:
    return lambda place: scores(place, content)


@remedy("give the path of a table (CSV", r"(give the path of a table)", mend=written())
def no_table(place: Place) -> Command:
    return scores(place, None)


@remedy("give a table with a header line", r"(give a table with a header line)", mend=written())
def an_empty_table(place: Place) -> Command:
    return scores(place, "")


@remedy(
    "save it as UTF-8, such as by iconv",
    r"(iconv -f cp1252 -t utf-8)",
    {"iconv -f cp1252 -t utf-8": "cd {folder} && iconv -f cp1252 -t utf-8 pgs.csv > new && mv new pgs.csv"},
)
def a_table_in_another_encoding(place: Place) -> Command:
    return scores(place, (HEAD.replace("S", "Größe – €") + LINES).encode("cp1252"))


@remedy(
    "give a CSV or TSV in UTF-8 (gzip or not)",
    r"UTF-8 \((gzip or not)\)",
    mend=written(gzip.compress((HEAD + LINES).encode())),
)
@remedy("give a CSV or TSV in UTF-8 (gzip or not)", r"(give a CSV or TSV in UTF-8)", mend=written())
def a_table_of_bytes(place: Place) -> Command:
    return scores(place, b"\0\1\2" * 20)


# ------------------------------------------------------------------------------------------------------ signs between cells


@remedy("mend the lines; quote cells that hold the sign", r"(mend the lines)", mend=replaced("pgs.csv", ",9\n", "\n"))
def a_line_of_another_length(place: Place) -> Command:
    return scores(place, HEAD + LINES.replace(".25\n", ".25,9\n", 1))


def as_tsv(place: Place) -> None:
    path = place.folder / "pgs.csv"
    replace(replace(path, ";", "\t"), ",", ".")


@remedy("write it as TSV, or quote its cells", r"(write it as TSV), or", mend=as_tsv)
def a_table_of_two_signs(place: Place) -> Command:
    lines = "".join(f"{p};{i},5;{i * i % 7}\n" for i, p in enumerate(PEOPLE))
    return scores(place, "IID;S,1;T\n" + lines)


@remedy("close every quotation mark", r"(close every quotation mark)", mend=replaced("pgs.csv", '"2.5', '"2.5"'))
def a_quotation_mark_that_stays_open(place: Place) -> Command:
    return scores(place, HEAD + LINES.replace("2.5", '"2.5', 1))


@remedy("remove the sign at the line ends, or", r"(remove the sign at the line ends)", mend=written())
def a_sign_too_many(place: Place) -> Command:
    return scores(place, HEAD + LINES.replace("\n", ",\n"))


# --------------------------------------------------------------------------------------------------------------- headers


@remedy("put a header line above it", r"(put a header line above it)", mend=written())
def a_table_without_a_header(place: Place) -> Command:
    return scores(place, LINES)


@remedy("name the column in the header", r"(name the column in the header)", mend=replaced("pgs.csv", "S,T,", "S,T,U"))
def a_column_without_a_name(place: Place) -> Command:
    return scores(place, "IID,S,T,\n" + LINES.replace("\n", ",1.5\n"))


@remedy(
    "name the first column if it holds row names",
    r"(name the first column)",
    mend=replaced("pgs.csv", "S,T", "IID,S,T"),
)
def row_names_without_a_name(place: Place) -> Command:
    return scores(place, "S,T\n" + "".join(f"{p},{i},{i * i % 7}\n" for i, p in enumerate(PEOPLE)))


@remedy("name every column", r"(name every column)", mend=replaced("pgs.csv", "IID,S", "IID,S,T"))
def a_header_that_is_one_short(place: Place) -> Command:
    return scores(place, "IID,S\n" + "".join(f"p{line}" for line in LINES.splitlines(keepends=True)))


@remedy(
    "remove the '#' from the header",
    r"(remove the '#' from the header)",
    mend=replaced("images.csv", "#image", "image"),
)
def a_header_that_may_be_a_comment(place: Place) -> Command:
    command = source(place, people=[f"q{p}" for p in PEOPLE])
    replace(place.folder / "images.csv", "image,", "#image,")
    return command


# --------------------------------------------------------------------------------------------------------------- Parquet


def parquet(place: Place, **columns: list[object]) -> Command:
    table = pa.table({"IID": PEOPLE, "S": [float(i) / 3 for i in range(len(PEOPLE))]} | columns)
    pq.write_table(table, place.folder / "pgs.csv")
    return source(place, "--pgs", place.folder / "pgs.csv")


@remedy("write one value a cell", r"(write one value a cell)", mend=parquet)
def lists_in_cells(place: Place) -> Command:
    return parquet(place, T=[[1.0, 2.0]] * len(PEOPLE))


@remedy("put the column of names first as text", r"(put the column of names first as text)", mend=parquet)
def numbers_in_front(place: Place) -> Command:
    return parquet(place, IID=[float(p) for p in PEOPLE])


@remedy("give a CSV or TSV in UTF-8 (gzip or not)", r"or (a Parquet file)", mend=parquet)
def a_parquet_file_that_was_cut(place: Place) -> Command:
    command = parquet(place)
    path = place.folder / "pgs.csv"
    path.write_bytes(path.read_bytes()[:200])
    return command
