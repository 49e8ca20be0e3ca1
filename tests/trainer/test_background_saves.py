"""A checkpoint that is written while training goes on is the one that training would have waited for, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.forking import Forks
from tests.trainer.saves_worker import CASES

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("world", [1, 2])
def test_what_changes_after_the_copy_does_not_reach_the_file(world: int, forks: Forks, tmp_path: Path) -> None:
    ended = forks.launch(world, [str(tmp_path)], program="tests.trainer.saves_worker")
    assert ended.codes == [0] * world, ended.text
    for rank in range(world):
        found: dict[str, dict[str, Any]] = json.loads((tmp_path / f"rank-{rank}.json").read_bytes())
        assert len(found) == len(CASES)
        for case, told in found.items():
            assert told["differs"] == [], case
            assert told["second differs"] == [], case
            assert not told["begun"], case
            assert told["reused"], "the second save copies into the memory of the first"
            assert {"state.json", "best.safetensors", f"rank-{rank:05d}.pt"} <= set(told["changed"]), (case, told)
            assert any(k.startswith("engine/") for k in told["changed"]), "a step changes what is saved"
