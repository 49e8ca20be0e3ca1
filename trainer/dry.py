"""`--print-config` and `--dry-run`: the whole plan, without a process group and without a step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trainer.config.schema import Config

if TYPE_CHECKING:
    from trainer.run import Job


def plan_elsewhere(config: Config, recipe: Path, world: int) -> str:
    """What `dry_run` prints, for ranks on other machines than this one.

    Raises:
        UserError, DataError, MethodError: what the run would refuse.
    """
    from trainer.run import prepare

    job = prepare(config, world, here=False)
    job.data.close()
    return f"# {recipe}\n{_shown(as_planned(job))}\n{job.plan_text}\n"


def as_planned(job: Job) -> dict[str, Any]:
    """The configuration with one length a stage: `steps` or `epochs` take the place of what the recipe gives the last stage."""
    config, resolved = job.config, job.resolved
    if not job.plans or not (config.steps or config.epochs):
        return resolved
    last, stages = job.plans[-1].stage.name, resolved["stages"]
    if last in stages:
        stages = {**stages, last: {**stages[last], "epochs": None, "steps": None}}
    return {**resolved, "stages": stages}


def _shown(resolved: dict[str, Any]) -> str:
    return yaml.safe_dump(resolved, sort_keys=False)


def dry_run(config: Config, recipe: Path, plan: bool, world: int | None) -> None:
    """Prints the resolved configuration; with `plan` also stages, steps, parameters and memory of a rank."""
    from trainer.run import prepare, resolve
    from trainer.runtime import environment_rank, environment_world

    _, _, resolved = resolve(config)
    if environment_rank():
        return
    if plan:
        job = prepare(config, world or environment_world())
        job.data.close()
        print(f"# {recipe}\n{_shown(as_planned(job))}\n{job.plan_text}")
        return
    print(f"# {recipe}\n{_shown(resolved)}", end="")
    if (config.steps or config.epochs) and any(s.steps or s.epochs for s in config.stages.values()):
        given = f"steps: {config.steps}" if config.steps else f"epochs: {config.epochs}"
        print(f"# {given} is the length of the last stage, whatever its own section says; --dry-run tells all lengths")
