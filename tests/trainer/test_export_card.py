"""Numbers of a model card."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trainer.export import card


def test_chance_is_that_of_the_batches_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the last lines of a run: reports of equal words leave fewer to choose among than a batch has."""
    row = {"step": 3, "stage": "pretrain", "val/loss/report": 1.0, "val/report_chance": 1.25, "chance/report": 2.0}
    monkeypatch.setattr(card, "validation_row", lambda opened: row)
    opened = SimpleNamespace(run=SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(val_split="val"))))
    assert "| loss/report | 1.0000 | 1.2500 |" in card._measured(opened)  # type: ignore[arg-type]
