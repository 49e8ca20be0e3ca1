"""Every method that is pre-trained and killed: a kill changes nothing. What else is asked of each: test_registry.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainer.forking import Forks
from tests.trainer.launching import rows
from tests.trainer.registry import asked_of, words_of

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@asked_of("kill")
def test_a_kill_changes_nothing(name: str, demo_cohort: Path, cohort: Path, forks: Forks, tmp_path: Path) -> None:
    """SIGKILL between two checkpoints: the same command gives losses, gradients, keys and weights bit for bit.

    Of an eighth of the patients, so that the last stage crosses an epoch. What is equal to rounding alone is asked on all of them:
    so few bring single losses to the border of what rounding may do.
    """
    words = [
        *words_of(name, demo_cohort),
        "--recipe",
        "demo",
        f"data.path={cohort}",
        "steps=5",
        "checkpoint.every=3",
        "data.workers=2",
    ]
    whole = forks.launch(2, [*words, f"out={tmp_path / 'whole'}"])
    assert whole.codes == [0, 0], whole.text
    total = rows(tmp_path / "whole")[-1]["step"]
    died = forks.launch(2, [*words, f"out={tmp_path / 'cut'}"], {"die": {"step": total - 1}})
    assert died.codes == [-9, -9], died.text
    again = forks.launch(2, [*words, f"out={tmp_path / 'cut'}"])
    assert again.codes == [0, 0], again.text
    assert f"step-{total - 2:08d}" in again.outputs[0], "it goes on from the checkpoint before the kill"
    timed = ("samples_per_s", "data_wait", "peak_memory")
    assert _without(timed, rows(tmp_path / "cut")) == _without(timed, rows(tmp_path / "whole"))
    names = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.safetensors"))
    assert Path("weights.safetensors") in names
    for file in names:
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def _without(names: tuple[str, ...], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in names} for row in made]
