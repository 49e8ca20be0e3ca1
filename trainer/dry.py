"""`--print-config` and `--dry-run`: the whole plan, without a process group and without a step."""

from __future__ import annotations

from pathlib import Path

import yaml

from trainer.config import Config


def plan_elsewhere(config: Config, recipe: Path, world: int) -> str:
    """What `dry_run` prints, for ranks on other machines than this one.

    Raises:
        UserError, DataError, MethodError: what the run would refuse.
    """
    from trainer.run import prepare

    job = prepare(config, world, here=False)
    job.data.close()
    return f"# {recipe}\n{yaml.safe_dump(job.resolved, sort_keys=False)}\n{job.plan_text}\n"


def dry_run(config: Config, recipe: Path, plan: bool, world: int | None) -> None:
    """Prints the resolved configuration; with `plan` also stages, steps, parameters and memory of a rank."""
    from trainer.run import prepare, resolve
    from trainer.runtime import environment_rank, environment_world

    _, _, resolved = resolve(config)
    if environment_rank():
        return
    print(f"# {recipe}\n{yaml.safe_dump(resolved, sort_keys=False)}", flush=True)
    if plan:
        job = prepare(config, world or environment_world())
        job.data.close()
        print(job.plan_text)
