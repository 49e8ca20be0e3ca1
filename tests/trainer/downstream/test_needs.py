"""A system that needs slide and genes together reads both, is measured on patients that have both, and cannot be asked for less."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.downstream.planted import planted
from trainer.data import schema_of
from trainer.downstream.init import find_source
from trainer.downstream.setting import Setting, open_task_data, prepare
from trainer.downstream.task.read import build_task
from trainer.errors import UserError

FUSED = ("porpoise", "pathomic_fusion", "mcat")
PATCHES, RNA = ("patches", "npy"), ("rna", "npy")


def lacking(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
    """Sample 1 has no slide, 2 no genes, 3 a slide of which no patch was kept."""
    if i in (1, 2):
        return {k: v for k, v in given.items() if k != (PATCHES if i == 1 else RNA)}
    if i == 3:
        empty = BytesIO()
        np.save(empty, np.load(BytesIO(given[PATCHES]))[:0])
        return {**given, PATCHES: empty.getvalue()}
    return given


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("lacking") / "set", members=lacking)


def setting(method: str, data: Path, out: Path, *words: str) -> Setting:
    task, _ = build_task("demo_subtype", [f"data.path={data}", *words])
    opened = open_task_data(task)
    return prepare(task, find_source(method, None, "demo", task, schema_of(opened), True), opened, out, 1)


@pytest.mark.parametrize(
    ("method", "words", "lost"),
    [*((m, w, 3) for m in FUSED for w in ((), ("inputs=multimodal",))), ("abmil", (), 2)],
)
def test_samples_without_what_is_needed_are_left_out(method, words, lost, data: Path, tmp_path: Path) -> None:
    found = setting(method, data, tmp_path / "run", *words)
    assert found.fields == (("patches", "rna") if method in FUSED else ("patches",))
    assert int((~found.targets.used_N).sum()) == lost
    assert found.targets.left_out == {"no patches": 2, **({"no rna": 1} if method in FUSED else {})}


@pytest.mark.parametrize("method", FUSED)
def test_less_is_refused_with_the_remedy(method: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs slide and genes together; set inputs=multimodal, or leave it out"):
        setting(method, data, tmp_path / "run", "inputs=image")
