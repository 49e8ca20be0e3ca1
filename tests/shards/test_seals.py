"""Seals: an index that was changed by a single bit is refused or does no harm, and lint and reader are of one mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from manifests import sources

from shards.check.lint import lint
from shards.errors import BrokenSeal, DataError
from shards.format import index as indexing
from shards.format.indexes import open_index
from shards.format.info import DatasetInfo, ShardInfo, index_path, load_info, save_info
from shards.pack.options import PackOptions
from shards.read.dataset import Dataset


def small(folder: Path, sealed: bool = True) -> Path:
    """Three samples in one shard, one of them without genes; `sealed`: as this version packs, or as an earlier one did."""
    made = sources(folder / "in", count=3)
    made.rows[1]["field:rna"] = ""
    for row in made.rows:
        row["split"] = "train"
        del row["text:report"]
    made.pack(folder / "set", PackOptions())
    if not sealed:
        as_before(folder / "set")
    return folder / "set"


def as_before(folder: Path) -> DatasetInfo:
    """dataset.json as an earlier version wrote it: indexes unsealed, counts outside of the fingerprint."""
    info = load_info(folder)
    shards = tuple(s.model_copy(update={"index_sha256": None}) for s in info.shards)
    return save_info(folder, info.model_copy(update={"shards": shards, "seal": 1}))


def content(folder: Path) -> dict[tuple[str, str], bytes]:
    """All that a training could read of a set: whole members by sample and field, and rows of bags."""
    found = {}
    with Dataset.open(folder) as data:
        for i, key in enumerate(data.keys):
            record = data[i]
            assert record.key == key
            for name in record.fields:
                value = record.read(name)
                found[key, name] = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
                if name == "patches":
                    found[key, "rows"] = record.rows(name, 1, 3).tobytes()
    return found


@dataclass
class Flips:
    """What came of flips of single bits of an index."""

    outcomes: Counter[str]
    wrong: list[str]


def flips(folder: Path, bits: np.ndarray) -> Flips:
    path = index_path(folder / "shard-000000.tar")
    whole, want = path.read_bytes(), content(folder)
    outcomes, wrong = Counter[str](), list[str]()
    for bit in bits.tolist():
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        try:
            read = "harmless" if content(folder) == want else "SILENT"
        except DataError as e:
            read = "refused"
            unnamed = [p for p in e.problems if not (p.where and p.fix)]
            wrong += [f"bit {bit}: {p}" for p in unnamed]
        report = lint(folder)
        outcomes[f"{read}, lint {'finds it' if report.problems else 'clean'}"] += 1
        if read == "SILENT" or (read == "refused") != bool(report.problems):
            wrong.append(f"bit {bit}: {read}, lint: {report}")
    path.write_bytes(whole)
    return Flips(outcomes, wrong)


def bits_of(folder: Path) -> int:
    return 8 * index_path(folder / "shard-000000.tar").stat().st_size


@pytest.mark.parametrize("sealed", [True, False])
def test_some_flipped_bits_of_an_index(tmp_path: Path, sealed: bool) -> None:
    folder = small(tmp_path, sealed)
    bits = np.random.default_rng(0).choice(bits_of(folder), 150, replace=False)
    found = flips(folder, bits)
    assert not found.wrong, found.wrong[:3]
    assert found.outcomes["refused, lint finds it"] == 150


@pytest.mark.slow
@pytest.mark.parametrize("each", ["byte", pytest.param("bit", marks=pytest.mark.grid)])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_flip_in_each_byte_of_an_index(tmp_path: Path, sealed: bool, each: str) -> None:
    """Always run: one bit of each byte, the next one from byte to byte."""
    folder = small(tmp_path, sealed)
    bytes_ = np.arange(bits_of(folder) // 8)
    bits = np.arange(bits_of(folder)) if each == "bit" else 8 * bytes_ + bytes_ % 8
    found = flips(folder, bits)
    print(dict(found.outcomes))
    assert not found.wrong, found.wrong[:3]
    # Without a hash a header's blanks may become others.
    assert found.outcomes["refused, lint finds it"] >= len(bits) - (0 if sealed else 20)


def rebuilt(folder: Path, change: Callable[[np.ndarray], np.ndarray | None], seal: bool) -> None:
    """Changes rows of an index; `seal`: as if it had been packed so."""
    tar = folder / "shard-000000.tar"
    index = open_index(tar).copy()
    made = change(index)
    index = index if made is None else made
    indexing.save(tar, index)
    info = load_info(folder)
    update = {"index_sha256": indexing.seal_of(index) if seal else None}
    shards: tuple[ShardInfo, ...] = (info.shards[0].model_copy(update=update), *info.shards[1:])
    save_info(folder, info.model_copy(update={"shards": shards}))


def another_key(index: np.ndarray) -> None:
    index["key"][1] = index["key"][-1]


def field_twice(index: np.ndarray) -> None:
    index["field"][1] = index["field"][2]


def exchanged(index: np.ndarray) -> None:
    """The bytes of two samples change places, all sums being right."""
    a, b = np.flatnonzero(index["field"] == b"image")[:2]
    for column in ("offset", "size", "crc32"):
        index[column][[a, b]] = index[column][[b, a]]


def one_member_less(index: np.ndarray) -> np.ndarray:
    return np.delete(index, 2)


def last_member_less(index: np.ndarray) -> np.ndarray:
    return index[:-1]


def another_field(index: np.ndarray) -> None:
    """The sample without genes gets some: its image's bytes."""
    index["field"][np.flatnonzero(index["key"] == b"s01")[0]] = b"rna"


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another_key, "gives a member of 's02' to sample 's00'"),
        (field_twice, "sample 's00' has field 'patches' twice"),
        (exchanged, "begins inside of the member before it"),
    ],
)
def test_rows_that_cannot_be_are_refused_when_the_shard_is_opened(
    tmp_path: Path, change: Callable[[np.ndarray], None], words: str, seal: bool
) -> None:
    folder = small(tmp_path)
    rebuilt(folder, change, seal)
    with pytest.raises(BrokenSeal, match=words), Dataset.open(folder) as data:
        data[0]
    assert words in str(lint(folder))


@pytest.mark.parametrize("change", [another_field, one_member_less, last_member_less])
def test_rows_that_the_tar_gainsays_are_refused_where_no_hash_seals_them(
    tmp_path: Path, change: Callable[[np.ndarray], None]
) -> None:
    folder = small(tmp_path)
    rebuilt(folder, change, seal=False)
    with pytest.raises(BrokenSeal, match=r"tar's header|is not in it") as caught, Dataset.open(folder) as data:
        data[0]
    assert "shard-000000.idx.npy" in str(caught.value)
    assert lint(folder).problems
