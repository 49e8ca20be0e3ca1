"""Commands that change a data set, killed before every single step: the old set or the new one is there, whole, and nothing else stays."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kills import run_until
from manifests import sources, tar_of
from test_seals import as_before

from shards.check.lint import lint
from shards.errors import DataError
from shards.format import staging
from shards.format.info import load_info, write_atomic
from shards.pack.adopt import adopt
from shards.pack.sealing import seal
from shards.pack.split import resplit
from shards.pack.survey import PackOptions
from shards.pack.tokenizer import add_tokenizer
from shards.read.dataset import Dataset

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


def another_tar(folder: Path) -> None:
    """What is in the folder is no longer what its dataset.json says: `index` is to take it over."""
    tar_of(folder / "x.tar", [("zz.report.txt", b"One more."), ("zz.meta.json", b'{"patient": "zz"}')])
    rows = (folder / "splits.csv").read_text()
    (folder / "splits.csv").write_text(rows + "zz,zz,train\n")


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


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return sources(tmp_path / "in", count=8).pack(tmp_path / "set", PackOptions(shard_samples=3))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Case], None]]:
    """Makes the file system one that cannot do what the case says."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def be(case: Case) -> None:
        if not case.exchange:
            monkeypatch.setattr(staging, "exchange", lambda a, b: False)
        if not case.links:
            monkeypatch.setattr(os, "link", refuse)

    return be


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


@pytest.mark.parametrize("name", ["split", "pack --overwrite without exchange"])
def test_some_steps(name: str, whole: Path, disk: Callable[[Case], None]) -> None:
    disk(CASES[name])
    assert sum(kill_at_every_step(CASES[name], whole, every=9).values()) >= 6


@pytest.mark.parametrize("command", [split, seal, tokens, adopt, overwrite])
def test_a_set_without_its_name_gets_it_back(command: Callable[[Path], object], whole: Path) -> None:
    """As on a file system that exchanges no names, after a kill between two renames."""
    os.rename(whole, staging.beside(whole, "old"))
    with pytest.raises(DataError, match=r"a command was killed while it replaced this data set, which is .*\.set\.old"):
        Dataset.open(whole)
    command(whole)
    fingerprint(whole)
    assert {p.name for p in whole.parent.iterdir()} == {"in", "set"}


@pytest.mark.parametrize("left", ["old", "packing"])
def test_what_a_kill_left_is_removed_by_a_command_that_finds_its_work_done(whole: Path, left: str) -> None:
    """As after a kill while the old set was removed, or before the new one was complete."""
    tokens(whole)
    known = fingerprint(whole)
    shutil.copytree(whole, staging.beside(whole, left))
    with pytest.raises(DataError, match="has a vocabulary"):
        add_tokenizer(whole, size=60)
    assert {p.name for p in whole.parent.iterdir()} == {"in", "set"}
    assert fingerprint(whole) == known


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_step(name: str, whole: Path, disk: Callable[[Case], None]) -> None:
    disk(CASES[name])
    outcomes = kill_at_every_step(CASES[name], whole, every=1)
    print(name, dict(outcomes))
    assert sum(outcomes.values()) > 30
    assert outcomes["old set at its place"] > 10
    assert outcomes["new set at its place"] > 3
    assert outcomes["old set beside it"] == (0 if CASES[name].exchange else 1)


@pytest.mark.slow
def test_index_killed_at_every_step_of_a_first_adoption(tmp_path: Path) -> None:
    """Until its last step there is no data set; after it there is one."""
    folder = tmp_path / "set"
    tars = sources(tmp_path / "in", count=6).pack(tmp_path / "from", PackOptions(shard_samples=3))
    step, killed = 0, True
    while killed:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for tar in tars.glob("*.tar"):
            shutil.copyfile(tar, folder / tar.name)
        killed = run_until(lambda: adopt(folder), step)
        if not (folder / "dataset.json").exists():
            with pytest.raises(DataError, match=r"no dataset.json"):
                load_info(folder)
        adopt(folder)
        fingerprint(folder)
        assert not [p.name for p in folder.iterdir() if p.name.startswith(".")], f"step {step}"
        step += 1
    assert step > 20


def test_index_takes_changed_tars_over_in_one_step(whole: Path) -> None:
    before = load_info(whole)
    another_tar(whole)
    killed = 0
    for step in range(0, 60, 6):
        killed += run_until(lambda: adopt(whole), step)
        if load_info(whole).fingerprint != before.fingerprint:
            break
        assert load_info(whole).fingerprint == before.fingerprint
    assert killed > 2
    assert adopt(whole).samples == before.samples + 1
    fingerprint(whole)


def test_a_failure_leaves_the_set_and_says_so(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, real = fingerprint(whole), os.replace

    def full(source: object, target: object) -> None:
        if str(target).endswith("stats.npz"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        DataError, match=r"set: cannot write: No space left.*Fix: free space.*the data set is as it was"
    ):
        split(whole)
    assert fingerprint(whole) == old
    assert {p.name for p in whole.parent.iterdir()} == {"in", "set"}


def test_damage_is_told_of_the_place_that_the_user_knows(whole: Path) -> None:
    index = whole / "shard-000001.idx.npy"
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match=r"set/shard-000001.idx.npy: the index is not the one") as caught:
        split(whole)
    assert ".packing" not in str(caught.value)
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def test_two_commands_on_one_set(whole: Path) -> None:
    with (
        staging.rewriting(whole),
        pytest.raises(DataError, match=r"another process is writing this data set. Fix: wait for it"),
    ):
        split(whole)
    split(whole)
    fingerprint(whole)


def test_a_link_to_a_set_stays_a_link(whole: Path) -> None:
    link = whole.parent / "link"
    link.symlink_to("set")
    split(link)
    assert link.is_symlink()
    fingerprint(link)


def test_what_an_earlier_version_left_is_removed(whole: Path) -> None:
    (whole / ".dataset.json.a1b2c3d4").write_bytes(b"half")
    (whole / ".notes").write_text("mine")
    split(whole)
    assert not list(whole.glob(".dataset*"))
    assert (whole / ".notes").read_text() == "mine"
    fingerprint(whole)


@pytest.mark.parametrize("step", range(1, 6))
def test_a_temporary_file_of_a_killed_writer_is_removed_by_the_next(tmp_path: Path, step: int) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    killed = run_until(lambda: write_atomic(target, b"new"), step)
    assert target.read_bytes() == (b"old" if killed else b"new")
    write_atomic(target, b"newer")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_bytes() == b"newer"


def test_seals_of_this_version_for_a_set_of_an_earlier_one(whole: Path) -> None:
    sealed = load_info(whole)
    as_before(whole)
    assert "python -m shards seal" in str(lint(whole))
    info, notes = seal(whole)
    assert (info, notes) == (sealed, [])
    index = whole / "shard-000001.idx.npy"
    right = index.read_bytes()
    index.write_bytes(right[:-1] + b"x")
    assert "python -m shards seal" in str(lint(whole))
    assert seal(whole)[1] == ["shard-000001.idx.npy was not the index of its tar: built anew"]
    assert index.read_bytes() == right
    rows = (whole / "splits.csv").read_text()
    (whole / "splits.csv").write_text(rows.replace("train", "val", 1))
    with pytest.raises(DataError, match=r"splits.csv: not the file that the data set was sealed with"):
        seal(whole)


def test_wrong_counts_of_an_earlier_version_are_found_and_mended(whole: Path) -> None:
    from shards.format.info import save_info

    info = as_before(whole)
    labels = {"age": info.labels["age"].model_copy(update={"missing": 3})}
    wrong = {"patients": 5, "labels": {**info.labels, **labels}, "leaking_splits": True}
    save_info(whole, info.model_copy(update=wrong))
    text = str(lint(whole))
    for words in ("says 5 patients, splits.csv has 8", "'age' is missing 3 times, labels.csv: 0", "leaking_splits"):
        assert words in text
    found, notes = seal(whole)
    assert len(notes) == 3
    assert not lint(whole).problems
    assert found.patients == 8
