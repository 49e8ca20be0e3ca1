"""A run and what it will do: values that its stages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.contract import Method
from trainer.config.schema import Config
from trainer.data import Data
from trainer.engine.engine import Engine
from trainer.engine.evaluation import evaluate
from trainer.engine.feed import EvalLoader
from trainer.health.watchdog import Watchdog
from trainer.loop import Progress
from trainer.plan import StagePlan
from trainer.runtime import Runtime, StopFlag
from trainer.state.checkpoint import Checkpoints
from trainer.state.run_folder import RunFolder, versions
from trainer.tracking.tracker import Tracker


@dataclass
class Run:
    """Everything that lives as long as the run."""

    config: Config
    resolved: dict[str, Any]
    out: Path
    runtime: Runtime
    data: Data
    plans: list[StagePlan]
    checkpoints: Checkpoints
    progress: Progress
    stop: StopFlag
    job: Job
    folder: RunFolder
    watchdog: Watchdog

    def about(self) -> dict[str, Any]:
        """What a checkpoint holds of the run besides its progress."""
        return {
            "world": self.runtime.world,
            "config": self.resolved,
            "versions": versions(),
            "meanings": self.data.meanings,
        }

    def record(self) -> None:
        self.folder.record(self.resolved, versions())


@dataclass
class Job:
    """What a run will do, checked before any process group or training exists."""

    config: Config
    resolved: dict[str, Any]
    data: Data
    plans: list[StagePlan]
    plan_text: str
    build: Callable[[int], Method]
    """The method with its initial weights for the stage of this number: a function of the seed alone, equal on every rank."""
    finish: Callable[[Run, Tracker, int], None]
    """Writes the run's product; on rank 0."""
    evaluate: Callable[[Engine, EvalLoader, Runtime], dict[str, float]] = evaluate
    """Named values on the held-back split; on all ranks."""
    closing: Callable[[Run], str | None] = lambda run: None
    """What to say at the end."""
