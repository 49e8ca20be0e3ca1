"""One reader of tables: what is read by content, what is refused by name, and keys that stand on two lines."""

from __future__ import annotations

import gzip
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DataError
from shards.tables.cells import has_comma, number, text_of
from shards.tables.keyed import keyed, read_rows
from shards.tables.table_file import open_table, read_text

ROWS = [["case", "stage", "age"], ["a", "II", "61.5"], ["b", "I, early", "58"]]


def text(rows: list[list[str]], sign: str) -> str:
    return "".join(sign.join(f'"{c}"' if sign in c else c for c in row) + "\n" for row in rows)


def write(folder: Path, content: str | bytes, name: str = "table") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    table = open_table(path)
    rows = [[text_of(c) for c in cells] for _, cells in table]
    assert not table.problems
    return table.header, rows


@pytest.mark.parametrize("name", ["table", "t.txt", "t.csv", "t.tsv", "t.gz", "t.parquet", "HiSeqV2"])
@pytest.mark.parametrize("sign", [",", "\t", ";"])
@pytest.mark.parametrize(
    "stored",
    [
        str.encode,
        lambda t: gzip.compress(t.encode()),
        lambda t: t.replace("\n", "\r\n").encode("utf-8-sig"),
        lambda t: t.encode("utf-16"),
        lambda t: b"# a comment, with a comma\n\n" + t.encode(),
        lambda t: t.encode() + b"\n\n# the end\n",
    ],
    ids=["plain", "gzip", "mark-and-crlf", "utf-16", "comment", "comment-at-the-end"],
)
def test_the_same_table_whatever_its_name_and_form(tmp_path, name, sign, stored):
    header, rows = read(write(tmp_path, stored(text(ROWS, sign)), name))
    assert [header, *rows] == ROWS


@pytest.mark.parametrize("name", ["t", "t.csv", "t.parquet"])
def test_parquet_by_its_first_bytes(tmp_path, name):
    pq.write_table(pa.table({"case": ["a", "b"], "age": [61.5, None], "n": [1, 2]}), tmp_path / name)
    assert read(tmp_path / name) == (["case", "age", "n"], [["a", "61.5", "1"], ["b", "", "2"]])


@pytest.mark.parametrize("index", ["entrez", None])
def test_the_index_of_a_data_frame_comes_first(tmp_path, index):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"c0": [1.5, 2.5], "c1": [3.5, 4.5]}, index=pd.Index([7157, 672], name=index))
    frame.to_parquet(tmp_path / "t")
    assert read(tmp_path / "t") == ([index or "", "c0", "c1"], [["7157", "1.5", "3.5"], ["672", "2.5", "4.5"]])


def test_numbers_before_the_only_column_of_words(tmp_path):
    pq.write_table(pa.table({"g": [0.5], "h": [1.5], "case": ["a"]}), tmp_path / "one")
    assert read(tmp_path / "one") == (["case", "g", "h"], [["a", "0.5", "1.5"]])
    pq.write_table(pa.table({"g": [0.5], "case": ["a"], "stage": ["I"]}), tmp_path / "two")
    with pytest.raises(DataError, match=r"first column \('g'\) holds numbers, no names of rows"):
        open_table(tmp_path / "two").first_column()


def test_lists_in_parquet_are_no_cells(tmp_path):
    pq.write_table(pa.table({"case": ["a"], "many": [[1, 2]]}), tmp_path / "t")
    with pytest.raises(DataError, match="column 'many' holds lists"):
        open_table(tmp_path / "t")


@pytest.mark.parametrize(
    ("content", "header", "first"),
    [
        ("A\tB\nr1\t1\t2\nr2\t3\t4\n", ["", "A", "B"], ["r1", "1", "2"]),
        ('"A" "B"\n"r 1" 1 2\n', ["", "A", "B"], ["r 1", "1", "2"]),
        ('"A","B"\n"r1",1,2\n', ["", "A", "B"], ["r1", "1", "2"]),
        ("A,B\nr1,0.5,2\n", ["", "A", "B"], ["r1", "0.5", "2"]),
        ("#IID\tSCORE\n17\t0.5\n", ["IID", "SCORE"], ["17", "0.5"]),
        ("##v1\n#CHROM\tPOS\n1\t99\n", ["CHROM", "POS"], ["1", "99"]),
        ("#Patient\tAge\n#of\tat\n#STRING\tNUMBER\n#1\t1\nPATIENT_ID\tAGE\nP-1\t60\n", ["PATIENT_ID", "AGE"], ["P-1", "60"]),
        ("#1.2\n1\t1\nName\tDescription\ts1\nG\tx\t2\n", ["Name", "Description", "s1"], ["G", "x", "2"]),
        ("  FID   IID  SCORE\n   1     2    0.5  \n", ["FID", "IID", "SCORE"], ["1", "2", "0.5"]),
        ("a,b,,\n1,2,,\n", ["a", "b"], ["1", "2"]),
        ("sep=;\na;b\n1,5;2\n", ["a", "b"], ["1,5", "2"]),
        ("id\nx y\nz\n", ["id"], ["x y"]),
        ('a,b\n"two\nlines",2\n', ["a", "b"], ["two\nlines", "2"]),
    ],
)  # fmt: skip
def test_headers_as_programs_write_them(tmp_path, content, header, first):
    found, rows = read(write(tmp_path, content))
    assert (found, rows[0]) == (header, first)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04....", "zip archive or an .xlsx"),
        (b"BZh91AY", "bzip2"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"a,b\n1,\0\n", "bytes of zero"),
        (b"a,b\n1,2\n3,\xe9\n", "line 3 is not UTF-8"),
        (gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-20], "is cut or damaged, as its packing says"),
        (b"", "the table is empty"),
        (b"# nothing else\n", "the table is empty"),
        (b'a,b\n1,"x\n2,y\n3,"z\n', "line 2 cannot be cut into cells"),
        (b'a,b\n1,2\n3,"open\n', "line 3 cannot be cut into cells"),
        (b"#case\tstage\nx\tI\n", "either may be the header"),
        (b"case,age\nx,61,5\ny,60,5\n", "row names without a name, or decimal commas"),
        (b"a\tb\n1\t2\t\n3\t4\t\n", "a sign too many, or row names"),
        (b"a,b,,\n1,2,,\n1,2,,9\n", "line 3 has a value in a column without a name"),
        (b"case\tage\nx\t61.5\tII\ny\t58.5\tI\n", "which column lacks its name"),
        (b"TCGA-05-4000,A,40.5\nTCGA-05-4001,B,41.5\n", r"its first line holds values \(40.5\), no names of columns"),
        (b"a;b,c\n1;2,3\n", "separated by commas and by semicolons"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_clear_table_is_refused_by_name(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message):
        list(open_table(path))


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / "t.csv")


def test_uneven_lines_are_counted_with_their_numbers(tmp_path):
    path = write(tmp_path, "# one\na,b\n1,2\n" + "1,2,3\n" * 5 + "9\n")
    with pytest.raises(DataError) as e:
        read_rows(path)
    assert "6 lines have another number of cells than the header (2): line 4 has 3, line 5 has 3" in str(e.value)
    assert len(e.value.problems) == 1
    assert "comma-separated" in str(e.value)


def test_lines_are_those_of_an_editor(tmp_path):
    path = write(tmp_path, 'a,b\n"two\nlines",2\n\n3,4\n')
    assert [r.line for r in read_rows(path)] == [2, 5]
    assert [r.where for r in read_rows(path)] == ["table line 2", "table line 5"]


def test_columns_that_are_missing_or_stand_twice_come_together(tmp_path):
    path = write(tmp_path, "a;b;b\n1;2;3\n4;5\n")
    with pytest.raises(DataError) as e:
        read_rows(path, ("dicom_id",), "the split table")
    said = str(e.value)
    assert "no column dicom_id (it is semicolon-separated and has 'a', 'b', 'b')" in said
    assert "1 columns stand twice: 'b'" in said
    assert "line 3 has 2" in said


def test_a_file_without_a_header(tmp_path):
    path = write(tmp_path, "p10/a.jpg\np10/b.jpg\n")
    assert [r["path"] for r in read_rows(path, header=["path"])] == ["p10/a.jpg", "p10/b.jpg"]


def test_a_key_on_two_lines_is_refused_with_both(tmp_path):
    path = write(tmp_path, "eid,person\n 7 ,a\n8,b\n7,c\n8,b\n9,d\n")
    rows = read_rows(path)
    with pytest.raises(DataError) as e:
        keyed(rows, rows.first, "patient")
    assert (
        "2 x a patient on two lines: '7' on table line 2 and table line 4; '8' on table line 3 and table line 5"
        in str(e.value)
    )
    assert keyed(rows, lambda r: r["person"] if r["person"] in "ad" else None, "person")["d"]["eid"] == "9"


NO_NUMBERS = ["3_3", "1e5_0", "١٢", "٣", "0x10", "inf", "-Infinity", "nan", "1d5", "", "1 2", "1,5", "--1", "1e999"]


@pytest.mark.parametrize("cell", NO_NUMBERS)
def test_what_is_no_number(cell):
    assert number(cell) is None


@pytest.mark.parametrize(
    ("cell", "value"), [("61", 61), (" -1.5 ", -1.5), (".5", 0.5), ("3.", 3), ("+2e-3", 0.002), ("1E5", 1e5)]
)
def test_what_is_a_number(cell, value):
    assert number(cell) == value


def test_decimal_commas():
    assert all(has_comma(c) for c in ("61,5", "-0,25", "1,234", "1.234,5", "1,5e-3"))
    assert not any(has_comma(c) for c in ("61.5", "I, early", ",", "1,", "a,5"))


def test_typed_cells_as_text():
    cells = [None, float("nan"), 3.0, 0.1, 7, True, b"x", np.float64(2.0)]
    assert [text_of(c) for c in cells] == ["", "", "3", "0.1", "7", "True", "x", "2"]


def test_a_text_file_loses_its_byte_order_mark(tmp_path):
    assert read_text(write(tmp_path, "No nodule.".encode("utf-8-sig"))) == "No nodule."
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        read_text(write(tmp_path, b"\xe9"))


def test_a_sign_behind_every_line_header_included_is_no_column(tmp_path):
    """As in ChestX-ray14's Data_Entry table."""
    path = tmp_path / "t.csv"
    path.write_text("image,finding,\na.png,x|y,\nb.png,z,\n")
    rows = read_rows(path)
    assert rows.columns == ("image", "finding")
    assert [dict(r) for r in rows] == [{"image": "a.png", "finding": "x|y"}, {"image": "b.png", "finding": "z"}]
    path.write_text("image,finding,\na.png,x,\nb.png,z,3\n")
    with pytest.raises(DataError, match="line 3 has a value in a column without a name"):
        read_rows(path)


def test_the_remedy_for_another_encoding_keeps_the_marks_that_windows_writes(tmp_path):
    """German Excel writes quotation marks and dashes where Latin-1 has control characters, which its iconv lets pass."""
    text = "name;befund\na;„Größe“ – stabil\n"
    path, new = tmp_path / "a.csv", tmp_path / "new.csv"
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match="not UTF-8") as refused:
        read_rows(path)
    command = shlex.split(str(refused.value).partition("such as by ")[2])
    new.write_bytes(subprocess.run([*command, str(path)], check=True, capture_output=True).stdout)
    assert [dict(row) for row in read_rows(new)] == [{"name": "a", "befund": "„Größe“ – stabil"}]
