"""How much of a cache is taken is kept, not counted anew for each shard; where the number is wrong, a look corrects it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.read.cache import Cache, Entry
from shards.read.dataset import Dataset
from tests.shards.builders import dataset


class Looking(Cache):
    """Which counts how often it looks through its folder."""

    looks = 0

    def entries(self) -> list[Entry]:
        self.looks += 1
        return super().entries()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("far") / "set"
    dataset(path, samples=24, per_shard=2).close()
    return path


@pytest.fixture
def small(folder: Path) -> Iterator[int]:
    """Bytes of five shards."""
    return 5 * max(p.stat().st_size for p in folder.glob("*.tar"))


def read(folder: Path, cache: Cache) -> None:
    with Dataset.open(folder, open_shards=1, cache=cache) as data:
        for i in range(len(data)):
            data.raw(i, ["image"])


def kept(cache: Cache) -> int:
    return int((cache.folder / ".lock").read_text())


def test_one_look_serves_all_shards_that_fit(folder: Path, tmp_path: Path) -> None:
    cache = Looking(tmp_path / "cache", 10**9)
    read(folder, cache)
    assert cache.looks == 1
    assert kept(cache) == cache.bytes == sum(p.stat().st_size for p in folder.glob("*.tar"))


def test_the_bound_holds_by_the_kept_number(folder: Path, tmp_path: Path, small: int) -> None:
    cache = Looking(tmp_path / "cache", small)
    read(folder, cache)
    assert cache.bytes <= small
    assert kept(cache) == cache.bytes


@pytest.mark.parametrize("text", ["", "many", "999999999999999"])
def test_a_wrong_number_is_corrected(folder: Path, tmp_path: Path, small: int, text: str) -> None:
    """Too large where shards were removed by hand."""
    cache = Looking(tmp_path / "cache", small)
    cache._looked = True
    (cache.folder / ".lock").write_text(text)
    read(folder, cache)
    assert 0 < cache.bytes <= small
    assert kept(cache) == cache.bytes


def test_what_came_by_other_ways_is_found_by_the_first_look(folder: Path, tmp_path: Path, small: int) -> None:
    cache = Looking(tmp_path / "cache", small)
    read(folder, cache)
    (cache.folder / ".lock").write_text("0")  # as a version left it that kept no number
    again = Looking(tmp_path / "cache", small)
    read(folder, again)
    assert again.bytes <= small
    assert kept(again) == again.bytes


def test_copies_that_are_checked_leave_nothing_behind(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 10**9)
    read(folder, cache)
    with Dataset.open(folder, cache=cache) as data:
        assert len(data.keys_of(np.arange(24))) == 24
        left = [p.name for p in data.path.iterdir() if p.name.startswith(".") and not p.name.endswith(".lock")]
    assert left == []


def test_a_shard_gets_its_name_while_nobody_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who counts would see it neither as a part nor as a shard, and the bound would be passed by it from then on."""
    cache, part = Cache(tmp_path, 1000), tmp_path / "set" / ".shard-0.tar.400.part"
    part.parent.mkdir()
    part.touch()
    rename = os.replace

    def watched(old: Path, new: Path) -> None:
        fd = os.open(tmp_path / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        rename(old, new)

    monkeypatch.setattr(os, "replace", watched)
    cache.publish(part, tmp_path / "set" / "shard-0.tar")
    assert [e.path.name for e in cache.entries()] == ["shard-0.tar"]
