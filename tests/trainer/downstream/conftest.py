"""What the tests of the fine-tune runner share: a finished run of every method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.forking import Forks

Finetune = Callable[..., Any]


@pytest.fixture(scope="session")
def pretrained(cohort: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A finished run of a method by its name, one step of every stage at the sizes of its demo recipe, made when first asked for."""
    root = tmp_path_factory.mktemp("pretrained")

    def finished(method: str) -> Path:
        out = root / method
        if not out.exists():
            ended = forks.launch(1, pretraining(method, cohort, out))
            assert ended.codes == [0], ended.text
        return out

    return finished


def pretraining(method: str, data: Path, out: Path, *more: str) -> list[str]:
    """The command line of a run of one step of every stage."""
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data

    config, _ = build_config(method, "demo", [f"data.path={data}"])
    opened = open_data(config)
    earlier = [f"stages.{s.name}.steps=1" for s in build_method(config, opened).stages()[:-1]]
    opened.close()
    words = [
        "--method",
        method,
        "--recipe",
        "demo",
        f"data.path={data}",
        f"out={out}",
        "steps=1",
        "global_batch=4",
    ]
    return [*words, "log.tensorboard=false", "data.workers=1", "data.val_split=''", *earlier, *more]


@pytest.fixture(scope="session")
def finetune(cohort: Path, forks: Forks) -> Finetune:
    """finetune(out, *words, world=1, faults=None, more=()): ends as launching.Ended says."""

    def run(
        out: Path, *words: str, world: int = 1, faults: dict[str, Any] | None = None, more: tuple[list[str], ...] = ()
    ) -> Any:
        return forks.launch(world, tuning(cohort, out, *words), faults, program="finetune", more=list(more))

    return run


SHORT = (
    "protocol.steps=2", "protocol.batch=4", "protocol.lr=1e-3", "protocol.evaluations=1", "seeds=0", "data.workers=1",
    "bootstrap.draws=100",
)  # fmt: skip


def tuning(data: Path, out: Path, *words: str) -> list[str]:
    """A command line of launch/finetune.py: two steps, unless `words` say otherwise."""
    return [*SHORT, f"data.path={data}", f"out={out}", *words]
