"""Commands that change a data set, killed before every single step: the old set or the new one is there, whole, and nothing else stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import CASES, fingerprint, overwrite, small_set, split, tokens
from kills import run_until
from manifests import tar_of
from test_seals import as_before

from shards.check.lint import lint
from shards.errors import DataError
from shards.format import staging
from shards.format.info import load_info, write_atomic
from shards.pack.adopt import adopt
from shards.pack.sealing import seal
from shards.pack.tokenizer import add_tokenizer
from shards.read.dataset import Dataset

HERE = Path(__file__).parent


def another_tar(folder: Path) -> None:
    """What is in the folder is no longer what its dataset.json says: `index` is to take it over."""
    tar_of(folder / "x.tar", [("zz.report.txt", b"One more."), ("zz.meta.json", b'{"patient": "zz"}')])
    rows = (folder / "splits.csv").read_text()
    (folder / "splits.csv").write_text(rows + "zz,zz,train\n")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return small_set(tmp_path)


def killed(name: str, folder: Path, every: int = 1) -> Counter[str]:
    """How often which set was found, after a kill before each `every`-th step."""
    command = [sys.executable, "-W", "ignore", str(HERE / "killing.py"), name, str(folder), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    print(name, done.stdout)
    return Counter(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["split", "pack --overwrite without exchange"])
def test_some_steps(name: str, tmp_path: Path) -> None:
    assert sum(killed(name, tmp_path, every=9).values()) >= 6


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
def test_every_step(name: str, tmp_path: Path) -> None:
    outcomes = killed(name, tmp_path)
    assert sum(outcomes.values()) > 30
    assert outcomes["old set at its place"] > 10
    assert outcomes["new set at its place"] > 3
    assert outcomes["old set beside it"] == (0 if CASES[name].exchange else 1)


@pytest.mark.slow
def test_index_killed_at_every_step_of_a_first_adoption(tmp_path: Path) -> None:
    assert sum(killed("first adoption", tmp_path).values()) > 19


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
