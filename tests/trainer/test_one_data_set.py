"""All ranks of a run read one data set, also when it is replaced while they start."""

from __future__ import annotations

import pytest

from trainer import runtime
from trainer.errors import UserError


def test_ranks_that_opened_different_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = "a" * 64, "b" * 64
    monkeypatch.setattr(runtime, "gather_objects", lambda own: [old, old, own, old])
    runtime.agree_on_data(old)
    with pytest.raises(
        UserError, match=r"fingerprint aaaaaaaaaaaa on rank 0, 1, 3; bbbbbbbbbbbb on rank 2\)"
    ) as caught:
        runtime.agree_on_data(new)
    assert getattr(caught.value, "everywhere", False), "every rank raises it, rank 0 says it"
