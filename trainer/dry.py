"""`--print-config` and `--dry-run`: the whole plan, without a process group and without a step."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from trainer.config import Config


def dry_run(config: Config, recipe: Path, plan: bool, world: int | None) -> None:
    """Prints the resolved configuration; with `plan` also stages, steps, parameters and memory of a rank."""
    from trainer.run import build_method, make_plans, resolve

    _, _, resolved = resolve(config)
    if int(os.environ.get("RANK", "0")):
        return
    print(f"# {recipe}\n{yaml.safe_dump(resolved, sort_keys=False)}", flush=True)
    if not plan:
        return
    from trainer.data import open_data
    from trainer.plan import describe

    data = open_data(config)
    try:
        method = build_method(config, data)
        plans = make_plans(config, data, method)
        dropped = [data.plan(config, p.stage).dropped for p in plans]
        ranks = world or int(os.environ.get("WORLD_SIZE", "1"))
        print(describe(method, plans, config, ranks, data.samples, dropped))
    finally:
        data.close()
