"""Weights that were moved are the same weights: their hash decides, not their path."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from models.methods.slides.gimp import GimpOptions
from trainer.config.schema import differences
from trainer.downstream.external.look import asked_of
from trainer.downstream.init import Init
from trainer.downstream.results import hash_of
from trainer.downstream.task.read import build_task


def from_file(path: Path, content: bytes) -> Init:
    path.write_bytes(content)
    options = {"image": {"init": "file", "init_file": str(path), "dim": 24}}
    schema: Any = SimpleNamespace()
    return Init("mgi", options, schema, None, False, path)


def test_a_file_of_weights_may_move(tmp_path: Path) -> None:
    here, there = from_file(tmp_path / "a.pt", b"weights"), from_file(tmp_path / "b.pt", b"weights")
    assert hash_of(here.hashed_options()) == hash_of(there.hashed_options())
    assert here.hashed_options()["image"]["dim"] == 24
    other = from_file(tmp_path / "c.pt", b"others")
    assert hash_of(other.hashed_options()) != hash_of(here.hashed_options())


def test_a_folder_knows_the_weights_it_started_from(tmp_path: Path) -> None:
    here, there = (from_file(tmp_path / n, b"weights").describe() for n in ("a.pt", "b.pt"))
    assert here != there, "where they lie is written down"
    assert differences({"init": here}, {"init": there}) == []
    other = from_file(tmp_path / "c.pt", b"others").describe()
    (line,) = differences({"init": here}, {"init": other})
    assert line.startswith("init.sha256: ")


def test_what_is_hashed_names_every_option() -> None:
    """So that a recipe which leaves one to its default and one that gives the same value are one configuration."""
    schema: Any = SimpleNamespace()
    given = Init("gimp", {"dim": 8}, schema, None, False, None).hashed_options()
    assert given == GimpOptions(dim=8).model_dump(mode="json")


def test_a_look_at_other_data_is_the_same_however_its_run_is_logged() -> None:
    """Keys of how a training is watched, logged and saved come and go; the look that stands stays."""
    plain, told, other = (
        asked_of(build_task("demo_subtype", words)[0])
        for words in ([], ["log.every=3", "health.notice=5", "checkpoint.every=7"], ["protocol.weight_decay=0.3"])
    )
    assert plain == told != other
    assert not {"health", "log", "site", "hold_out", "calibration"} & plain.keys()
