"""Training on several data sets: a loss that asks for patients sees each part's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shards.format.indexes import open_index
from shards.format.info import load_info
from shards.format.seal import csv_bytes, read_table
from shards.pack.adopt import adopt
from tests.trainer.launching import launch, rows


def half(whole: Path, folder: Path, tars: list[Path]) -> Path:
    """A data set of some shards of another."""
    folder.mkdir()
    shutil.copytree(whole / "vocab", folder / "vocab")
    for tar in tars:
        shutil.copy(tar, folder)
    held = {k for tar in tars for k in _keys(tar)}
    table = [r for r in read_table(whole / "splits.csv") if r["sample"] in held]
    (folder / "splits.csv").write_bytes(csv_bytes(tuple(table[0]), (tuple(r.values()) for r in table)))
    adopt(folder)
    return folder


def _keys(tar: Path) -> set[str]:
    return {k.decode() for k in open_index(tar)["key"]}


@pytest.mark.ranks
@pytest.mark.slow
def test_shuffled_pre_training_on_two_data_sets(demo_cohort: Path, tmp_path: Path) -> None:
    """The second is smaller: its rows are no rows of the first, and numbers of the mix are no rows of it."""
    tars = sorted(demo_cohort.glob("*.tar"))
    parts = [half(demo_cohort, tmp_path / "a", tars[:-3]), half(demo_cohort, tmp_path / "b", tars[-3:])]
    words = [
        "--method", "mgi", "--recipe", "demo", "method.order=shuffle", "steps=4", "global_batch=8", "log.tensorboard=false",
        f"data.path=[{parts[0]},{parts[1]}]", f"out={tmp_path / 'run'}",
    ]  # fmt: skip
    ended = launch(1, words, demo_cohort)
    assert ended.codes == [0], ended.text
    assert len(rows(tmp_path / "run")) == 4
    trained = sum(load_info(part).splits["train"] for part in parts)
    assert f"{trained} training samples" in ended.text
