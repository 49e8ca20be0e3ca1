"""A run whose attention is exact up to a stated number of tokens: stopped by SIGTERM it goes on under that number alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.forking import Forks
from tests.trainer.launching import TINY, series

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(300)]
# Windows of 24 patches and a class token: all of them exact; landmarks are 8.
RUN = [*TINY, "steps=4", "checkpoint.every=100"]
AUTO = ["method.attention=auto", "method.exact_tokens=25"]


def test_it_goes_on_under_the_same_number_and_no_other(forks: Forks, tmp_path: Path) -> None:
    out = f"out={tmp_path / 'cut'}"
    whole = forks.launch(1, [*RUN, *AUTO, f"out={tmp_path / 'whole'}"])
    assert whole.codes == [0], whole.text
    stopped = forks.launch(1, [*RUN, *AUTO, out], {"signal": {"step": 2, "name": "SIGTERM"}})
    assert stopped.codes == [75], stopped.text
    for other in ([AUTO[0], "method.exact_tokens=24"], []):
        refused = forks.launch(1, [*RUN, *other, out])
        assert refused.codes == [2], refused.text
        assert "exact_tokens: 25 -> " in refused.text
    done = forks.launch(1, [*RUN, *AUTO, out])
    assert done.codes == [0], done.text
    assert series(tmp_path / "cut", "step", "loss", "keys") == series(tmp_path / "whole", "step", "loss", "keys")
    # The number is not idle: without it these windows are approximated.
    nystrom = forks.launch(1, [*RUN, f"out={tmp_path / 'nystrom'}"])
    assert nystrom.codes == [0], nystrom.text
    assert series(tmp_path / "nystrom", "loss") != series(tmp_path / "whole", "loss")
