"""What tests of real ranks share: a tiny run, how a launch ended, its rows. The ranks are forked (forking.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Small enough that a start costs more than its training.
TINY = [
    "--method", "gimp", "method.dim=16", "method.heads=2", "method.window=24", "method.landmarks=8", "method.genes.groups=4",
    "method.dropout=0.0", "global_batch=8", "epochs=null", "stages.gene.epochs=0", "optim.lr=1e-3", "log.tensorboard=false",
    "data.val_split=''",
]  # fmt: skip


@dataclass
class Ended:
    """How a launch ended: exit status and output of every rank."""

    codes: list[int]
    outputs: list[str]

    @property
    def text(self) -> str:
        return "\n".join(
            f"--- rank {r}: exit {c}\n{o[-4000:]}"
            for r, (c, o) in enumerate(zip(self.codes, self.outputs, strict=True))
        )


def launch(
    world: int, words: list[str], cache: Path, faults: dict[str, Any] | None = None, limit: float = 240
) -> Ended:
    """Runs `pretrain.py WORDS` on `world` ranks, forked by forking.py, with faults planted by driver.py, and waits for all of them."""
    from tests.trainer.forking import Forks

    return Forks(cache).launch(world, words, faults, limit)


def small_cohort(folder: Path) -> Path:
    """The demo cohort of an eighth of its patients: 36 to learn from, 12 to choose on, 12 to test on."""
    from shards import demo

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PATIENTS", 60)
        return demo.generate(folder / "demo")


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def series(out: Path, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[n] for n in names) for row in rows(out)]
