"""Kills a command before every n-th step that changes the disk, in a process of its own: `python killing.py CASE FOLDER EVERY`.

A fork costs what its parent holds: of a session that has loaded PyTorch and all tests a hundred times what it costs of this process.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytest
from kills import run_until
from manifests import sources
from test_seals import as_before

from shards.check.lint import lint
from shards.errors import DataError
from shards.format import staging
from shards.format.info import load_info
from shards.pack.adopt import adopt
from shards.pack.options import PackOptions
from shards.pack.sealing import seal
from shards.pack.split import resplit
from shards.pack.tokenizer import add_tokenizer
from shards.read.dataset import Dataset
from tests.disk import no_waiting

HALVES = {"train": 0.5, "val": 0.25, "test": 0.25}


@dataclass(frozen=True)
class Case:
    """A command, and the data set that it is given."""

    command: Callable[[Path], object]
    before: Callable[[Path], None] = lambda folder: None
    exchange: bool = True
    links: bool = True


def split(folder: Path) -> None:
    resplit(folder, HALVES, seed=5, stratify="subtype", label_fractions=[0.5])


def overwrite(folder: Path) -> None:
    sources(folder.parent / "in", count=9, seed=3).pack(folder, PackOptions(shard_samples=4, overwrite=True))


def tokens(folder: Path) -> None:
    add_tokenizer(folder, size=200, overwrite=True)


CASES = {
    "split": Case(split),
    "split without exchange": Case(split, exchange=False),
    "split without hard links": Case(split, links=False),
    "tokenizer": Case(tokens),
    "seal": Case(seal, as_before),
    "seal without exchange": Case(seal, as_before, exchange=False),
    "tokenizer without exchange": Case(tokens, exchange=False),
    "pack --overwrite": Case(overwrite),
    "pack --overwrite without exchange": Case(overwrite, exchange=False),
}


def fingerprint(folder: Path) -> str:
    """Of a data set that is whole: every hash, count and byte."""
    report = lint(folder)
    assert not report.problems, report
    with Dataset.open(folder) as data:
        for record in data:
            for name in record.fields:
                record.read(name)
        return data.fingerprint


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: a set of the bytes of one that was found whole is whole."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def small_set(folder: Path) -> Path:
    return sources(folder / "in", count=8).pack(folder / "set", PackOptions(shard_samples=3))


def be(case: Case) -> None:
    """Makes this process's file system one that cannot do what the case says."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not case.exchange:
        staging.exchange = lambda a, b: False
    if not case.links:
        os.link = refuse


def kill_at_every_step(case: Case, whole: Path, every: int) -> Counter[str]:
    outcomes = Counter[str]()
    case.before(whole)
    copy = whole.parent / "copy"
    shutil.copytree(whole, copy)
    old, around = content(whole), {"in", "set", "copy"}
    before = fingerprint(whole)
    case.command(whole)
    new, after = content(whole), sorted(p.relative_to(whole) for p in whole.rglob("*"))
    assert fingerprint(whole) != before
    step = 0
    while True:
        shutil.rmtree(whole)
        shutil.copytree(copy, whole)
        killed = run_until(lambda: case.command(whole), step)
        if not killed:
            break
        place, found = whole, "at its place"
        if not whole.exists():
            assert not case.exchange
            place, found = staging.beside(whole, "old"), "beside it"
            with pytest.raises(
                DataError, match=r"a command was killed while it replaced this data set, which is .*\.set\.old"
            ):
                Dataset.open(whole)
        now = content(place)
        assert now in (old, new), f"step {step}"
        outcomes[f"{'old' if now == old else 'new'} set {found}"] += 1
        case.command(whole)  # the same command again, whatever the other one left
        assert content(whole) == new, f"step {step}"
        assert {p.name for p in whole.parent.iterdir()} == around, f"step {step}"
        assert sorted(p.relative_to(whole) for p in whole.rglob("*")) == after, f"step {step}"
        step += every
    return outcomes


def kill_a_first_adoption(folder: Path) -> Counter[str]:
    """Until its last step there is no data set; after it there is one."""
    whole, outcomes = folder / "set", Counter[str]()
    tars = sources(folder / "in", count=6).pack(folder / "from", PackOptions(shard_samples=3))
    step, killed = 0, True
    while killed:
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        for tar in tars.glob("*.tar"):
            shutil.copyfile(tar, whole / tar.name)
        killed = run_until(lambda: adopt(whole), step)
        there = (whole / "dataset.json").exists()
        if not there:
            with pytest.raises(DataError, match=r"no dataset.json"):
                load_info(whole)
        outcomes["a set" if there else "no set"] += killed
        adopt(whole)
        fingerprint(whole)
        assert not [p.name for p in whole.iterdir() if p.name.startswith(".")], f"step {step}"
        step += 1
    return outcomes


def main(name: str, folder: Path, every: int) -> Counter[str]:
    no_waiting()
    if name == "first adoption":
        return kill_a_first_adoption(folder)
    be(CASES[name])
    return kill_at_every_step(CASES[name], small_set(folder), every)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
