"""The side files of a data set (splits.csv, labels.csv, vocab/, stats.npz) and the description that seals them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from shards.errors import Problem, bad
from shards.format.archive import no_twins
from shards.format.info import SPLITS, DatasetInfo, LabelInfo, sha256_of, write_atomic
from shards.format.sample_rows import SampleRow, SampleRows
from shards.tables.repeats import distinct

PART = 256
SEALED = ("splits.csv", "labels.csv", "stats.npz", "vocab/*.txt", "labels/*.csv")


def cell(value: str | float | None) -> str:
    """A label as text: whole numbers without a point, other numbers with all their digits."""
    if value is None or isinstance(value, str):
        return value or ""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    return b"".join(csv_parts(header, rows))


def csv_parts(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[bytes]:
    """The bytes of a table, some rows at a time."""
    left = chain([header], rows)
    while some := list(islice(left, PART)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        yield text.getvalue().encode()


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a small CSV of ours as dictionaries; raises as `table_rows`."""
    return list(table_rows(path))


def table_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV of ours as dictionaries, one after another.

    Raises:
        DataError: not UTF-8, or, once the rest has been read, a row with more or fewer cells than the header.
    """
    odd = 0
    try:
        with open(path, encoding="utf-8", newline="") as f:
            for line, row in enumerate(csv.DictReader(f), 2):
                if not odd and (None in row or None in row.values()):
                    odd = line
                if not odd:
                    yield row
    except (UnicodeDecodeError, csv.Error) as e:
        then = " and `python -m shards split`" * (path.name == "splits.csv")
        fix = f"save it in UTF-8, or remove it and run `python -m shards index`{then} on the folder"
        raise bad(f"is not a CSV in UTF-8 ({e})", path, fix) from e
    if odd:
        raise bad(f"line {odd} has another number of cells than the header", path, "mend the line")


def write_rows(folder: Path, rows: Sequence[SampleRow], labels: Mapping[str, LabelInfo]) -> None:
    """splits.csv and labels.csv, one row a sample in shard order."""
    splits = ((r.sample, r.patient, r.split) for r in rows)
    write_atomic(folder / "splits.csv", csv_parts(("sample", "patient", "split"), splits))
    values = ((r.sample, *(cell(r.labels.get(name)) for name in labels)) for r in rows)
    write_atomic(folder / "labels.csv", csv_parts(("sample", *labels), values))


def read_rows(folder: Path, labels: Mapping[str, LabelInfo]) -> SampleRows:
    """The inverse of `write_rows`."""
    kinds = {name: float if info.kind == "number" else str for name, info in labels.items()}
    rows, lines, same = SampleRows({n: kind is float for n, kind in kinds.items()}), 0, True
    wrong: Exception | None = None
    for s in table_rows(folder / "splits.csv"):
        rows.name(s.get("sample", ""), s.get("patient", ""), s.get("split", ""))
        if lacking := [n for n in ("sample", "patient", "split") if n not in s]:
            wrong = KeyError(lacking[0])
    for v in table_rows(folder / "labels.csv"):
        same &= lines < len(rows) and rows.samples[lines] == v.get("sample", "")
        lines += 1
        try:
            rows.label({n: to(v[n]) for n, to in kinds.items() if v[n]})
        except (ValueError, KeyError) as e:
            wrong = wrong or e
    if not same or lines != len(rows):
        raise bad(
            "splits.csv and labels.csv list different samples", folder, "run `python -m shards index` on the folder"
        )
    if wrong is not None:
        raise wrong
    rows.settle()
    return rows


def write_vocab(folder: Path, vocab: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """vocab/FIELD.txt for each field; returns the hashes by field."""
    if vocab:
        (folder / "vocab").mkdir(exist_ok=True)
    for name, words in vocab.items():
        write_atomic(folder / "vocab" / f"{name}.txt", "".join(f"{w}\n" for w in words).encode())
    return {name: sha256_of(folder / "vocab" / f"{name}.txt") for name in vocab}


def read_vocab(folder: Path) -> dict[str, list[str]]:
    """All vocabularies of a folder, by field."""
    return {p.stem: p.read_text(encoding="utf-8-sig").splitlines() for p in no_twins(folder.glob("vocab/*.txt"))}


def vocab_problems(name: str, words: Sequence[str]) -> list[Problem]:
    """Names that are empty or stand twice."""
    where, counts = f"vocabulary of '{name}'", Counter(words)
    twice = [w for w, n in counts.items() if n > 1]
    found = []
    if twice:
        found.append(
            Problem(
                f"{len(twice)} names stand twice: {', '.join(twice[:5])}", where, "every column needs a name of its own"
            )
        )
    if any(not w.strip() for w in words):
        found.append(Problem("a name is empty", where, "name every column"))
    return found


def label_infos(rows: Sequence[SampleRow], kinds: Mapping[str, str]) -> dict[str, LabelInfo]:
    """Label descriptions in order of their names (dataset.json keeps no other).

    Classes stand in alphabetical order, or by value where all are whole numbers.
    """
    infos = {}
    for name, kind in sorted(kinds.items()):
        values = {v for r in rows if isinstance(v := r.labels.get(name), str)}
        order = (
            sorted(values, key=int) if values and all(v.isascii() and v.isdecimal() for v in values) else sorted(values)
        )
        missing = sum(name not in r.labels for r in rows)
        infos[name] = LabelInfo(kind="class" if kind == "class" else "number", classes=tuple(order), missing=missing)
    return infos


def split_counts(rows: Iterable[SampleRow]) -> dict[str, int]:
    counts = Counter(r.split for r in rows)
    return {s: counts[s] for s in SPLITS if s in counts}


def is_torn(rows: Sequence[SampleRow]) -> bool:
    """Whether a patient stands in two splits."""
    return len({(r.patient, r.split) for r in rows}) > len({r.patient for r in rows})


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every side file that decides what a run reads, by relative name."""
    paths = no_twins(p for pattern in SEALED for p in folder.glob(pattern))
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in paths}


def describe(info: DatasetInfo, folder: Path, rows: Sequence[SampleRow]) -> DatasetInfo:
    """`info` with the counts of `rows` and the hashes of the side files as they are on disk now."""
    update = {
        "samples": len(rows),
        "patients": distinct(r.patient for r in rows),
        "splits": split_counts(rows),
        "files": hash_files(folder),
        "seal": 2,
        # What a new split mended is no longer accepted.
        "leaking_splits": info.leaking_splits and is_torn(rows),
    }
    return info.model_copy(update=update)
