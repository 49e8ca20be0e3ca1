"""A part of the campaign of kills (tests/kills/campaign.py), in a process of its own: it forks what it has loaded."""

from __future__ import annotations

import pytest

from tests.trainer.forking import Forks


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_commands_come_to_the_same_end(forks: Forks) -> None:
    code, said = forks.command("tests.kills.campaign", ["--kills", "20", "--seed", "1"], limit=880)
    print(said)
    assert code == 0, said
    assert said.count("| `") >= 12, "every command had its turn"
