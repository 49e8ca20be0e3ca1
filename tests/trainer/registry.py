"""What tests/trainer/test_registry.py and test_registry_kills.py share: which questions each system is asked, and its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.registry import pretrained_names
from tests.diagonal import cells
from tests.models.steady import steady_words

BEFORE, STEPS = 3, 4  # of each stage before the last, and of the last
ASKED = list(cells(["kill", "zero-3", "bf16", "one rank"], pretrained_names()))


def asked_of(question: str) -> pytest.MarkDecorator:
    """Parametrises the module's fixture `name`: with each system, marked as its cell is."""
    params = [pytest.param(p.values[0], marks=p.marks, id=p.values[0]) for p in ASKED if p.values[1] == question]
    return pytest.mark.parametrize("name", params, indirect=True, scope="module")


def words_of(name: str, demo_cohort: Path) -> list[str]:
    """The command line of all runs of a method; few steps of every stage that it has, validation and pictures included."""
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data

    config, _ = build_config(name, "demo", [f"data.path={demo_cohort}"])
    data = open_data(config)
    earlier = [f"stages.{s.name}.steps={BEFORE}" for s in build_method(config, data).stages()[:-1]]
    data.close()
    first = ["--method", name, f"steps={STEPS}", "global_batch=8", "optim.lr=1e-3", "checkpoint.every=100"]
    return [*first, *earlier, *steady_words(name)]
