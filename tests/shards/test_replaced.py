"""A data set that is replaced while it is being read: never mixed with the one that was opened."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from loading import loader_of, take
from manifests import Sources, sources
from test_seals import as_before

from models.contract import Sample
from shards.errors import BrokenSeal, DataError
from shards.pack.options import PackOptions
from shards.pack.split import resplit
from shards.read.cache import Cache
from shards.read.dataset import Dataset

OPTIONS = PackOptions(shard_samples=4)


def other(folder: Path) -> Sources:
    """The same keys, patients, splits and sizes as `sources`; other numbers in bags and genes."""
    made = sources(folder)
    with np.load(folder / "bags.npz") as bags:
        np.savez_compressed(folder / "bags.npz", features=-bags["features"])
    made.expression = {k: [f"{-float(v):.4f}" for v in row] for k, row in made.expression.items()}
    return made


def bag(data: Dataset, i: int) -> np.ndarray:
    return data[i].rows("patches", 0, 2)


@pytest.fixture(params=["sealed", "as before"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    made = sources(tmp_path / "in").pack(tmp_path / "set", OPTIONS)
    if request.param == "as before":
        as_before(made)
    return made


def overwrite(folder: Path, as_it_was: bool = False) -> None:
    other(folder.parent / "in2").pack(folder, PackOptions(shard_samples=4, overwrite=True, name="set"))
    if as_it_was:
        as_before(folder)


def test_overwritten_between_two_shards(folder: Path) -> None:
    with Dataset.open(folder) as data:
        want = bag(data, 0)
        overwrite(folder)
        np.testing.assert_array_equal(bag(data, 0), want)  # an open shard is that of the old set, to the end
        with pytest.raises(BrokenSeal, match=r"replaced while it was being read \(fingerprint \w+ .*\w+ now\). Fix: "):
            bag(data, 5)
        with pytest.raises(BrokenSeal, match="replaced"):
            bag(data, 5)  # and not there the second time either
    with Dataset.open(folder) as data:
        np.testing.assert_array_equal(bag(data, 0), -want)


def test_overwritten_before_the_first_look(folder: Path) -> None:
    with Dataset.open(folder) as data:
        overwrite(folder)
        with pytest.raises(BrokenSeal, match="replaced"):
            bag(data, 0)
        with pytest.raises(DataError, match="hash mismatch"):
            data.stats()


def test_shards_that_were_let_go_of_are_compared_again(folder: Path) -> None:
    with Dataset.open(folder, open_shards=1) as data:
        want = bag(data, 0)
        bag(data, 5)
        np.testing.assert_array_equal(bag(data, 0), want)
        overwrite(folder)
        with pytest.raises(BrokenSeal, match="replaced"):
            bag(data, 5)


@pytest.mark.parametrize("opened_before", [True, False])
def test_one_shard_put_in_anothers_place(folder: Path, opened_before: bool) -> None:
    """Copied over it, its index too, and nothing else changed: what `rsync` is at half way."""
    foreign = other(folder.parent / "in2").pack(folder.parent / "set2", OPTIONS)
    with Dataset.open(folder, open_shards=1) as data:
        if opened_before:
            bag(data, 5)
        bag(data, 0)
        for name in ("shard-000001.tar", "shard-000001.idx.npy"):
            shutil.copyfile(foreign / name, folder / name)
        with pytest.raises(
            BrokenSeal, match=r"shard-000001.*(the shard was replaced .*\(sha256\)|not the one .*\(hash)"
        ):
            bag(data, 5)


def test_the_same_bytes_put_back_are_no_replacement(folder: Path) -> None:
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    with Dataset.open(folder, open_shards=1) as data:
        want = [bag(data, i) for i in (5, 0)]
        for path in sorted(copy.iterdir()):
            if path.is_file():
                os.replace(path, folder / path.name)
        for i, rows in zip((5, 0), want, strict=True):
            np.testing.assert_array_equal(bag(data, i), rows)


def test_new_splits_are_another_data_set(folder: Path) -> None:
    with Dataset.open(folder) as data:
        bag(data, 0)
        resplit(folder, {"train": 0.5, "test": 0.5}, seed=3)
        with pytest.raises(BrokenSeal, match="replaced"):
            bag(data, 5)


def test_removed_while_it_is_read(folder: Path) -> None:
    with Dataset.open(folder) as data:
        bag(data, 0)
        shutil.rmtree(folder)
        with pytest.raises(BrokenSeal, match=r"replaced while it was being read \(no dataset.json\)"):
            bag(data, 5)


def test_no_sample_stands_in_for_those_of_a_replaced_set(folder: Path) -> None:
    with Dataset.open(folder) as data:
        bag(data, 0)
        overwrite(folder)
        with (
            loader_of(data, "sequential", 4, _bags, max_bad_samples=100, workers=0) as loader,
            pytest.raises(BrokenSeal, match="replaced"),
        ):
            take(loader, 3)


def _bags(record, rng: np.random.Generator) -> Sample:
    return Sample({"bag": record.rows("patches", 0, 1)}, {})


def test_far_data_that_change_while_they_are_read(folder: Path) -> None:
    """Shards that the cache has stay those of the old set; what it has not is refused by hash."""
    cache = Cache(folder.parent / "cache", 10**9)
    with Dataset.open(folder, cache=cache) as data:
        want = bag(data, 0)
        overwrite(folder)
        np.testing.assert_array_equal(bag(data, 0), want)
        with pytest.raises(Exception, match=r"came twice with another hash"):
            bag(data, 5)
    with Dataset.open(folder, cache=cache) as data:  # another seal is another folder of the cache
        np.testing.assert_array_equal(bag(data, 0), -want)


def test_indexes_alone_are_those_of_the_set_that_was_opened(folder: Path) -> None:
    with Dataset.open(folder) as data:
        assert len(list(data.indexes())) == 3
        overwrite(folder)
        with pytest.raises(BrokenSeal, match=r"replaced|not the one"):
            list(data.indexes())
