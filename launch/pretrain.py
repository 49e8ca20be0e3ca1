"""Pre-train a method: `deepspeed launch/pretrain.py --method gimp [section.key=value ...]`.

Without data.path it trains on the built-in demo cohort. The same command goes on where a run stopped.
Exit status: 0 done, 75 stopped and resumable, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any


def parser() -> argparse.ArgumentParser:
    from launch.frame import on_ranks

    p = argparse.ArgumentParser(
        prog="pretrain.py",
        description="Pre-train a method on a data set of shards. Under `deepspeed` it runs on several ranks.",
        epilog="Keys: out, seed, steps | epochs, global_batch, micro_batch, precision, zero.stage, optim.lr, data.path, "
        "data.workers, data.max_bad_samples, checkpoint.every, checkpoint.keep, health.max_bad_steps, method.OPTION "
        "and more: --print-config shows all with their values.",
    )
    p.add_argument("--method", required=True, help="a method of models/methods, for example gimp")
    p.add_argument("--recipe", help="a YAML file, or a name in configs/methods/METHOD: recommended, paper or demo")
    p.add_argument(
        "--dry-run", action="store_true", help="print configuration, parameters, steps and memory; train nothing"
    )
    p.add_argument("--print-config", action="store_true", help="print the resolved configuration as YAML")
    p.add_argument("--world", type=int, default=None, help="ranks to plan for in --dry-run")
    return on_ranks(p, help="configuration, for example optim.lr=3e-4")


def main(argv: list[str] | None = None) -> int:
    from launch.frame import ended

    return ended(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    from trainer.config.recipe import build_config

    config, recipe = build_config(args.method, args.recipe, args.overrides)
    from trainer.runtime import (
        StopFlag,
        choose_accelerator,
        environment_rank,
        environment_world,
        find_ranks,
        finish,
        start,
    )

    choose_accelerator()
    if args.print_config or args.dry_run:
        from trainer.pretrain import dry_run

        dry_run(config, recipe, plan=args.dry_run, world=args.world)
        return
    stop = StopFlag().install()
    find_ranks()
    from trainer.pretrain import prepare
    from trainer.run import train_job

    if environment_rank() == 0:
        print(f"recipe {recipe}", flush=True)
        if not config.data.sources:
            print("no data.path given: this trains on the built-in demo cohort", flush=True)
    job = prepare(config, environment_world())
    try:
        train_job(job, start(args.local_rank, config.health), stop)
    finally:
        finish()


def resolved(args: argparse.Namespace) -> dict[str, Any]:
    """The whole configuration of a command line, equal for equal runs.

    Raises:
        UserError, MethodError: what the command would refuse of it before it looks at any data.
    """
    from models.registry import get_method
    from trainer.config.recipe import build_config

    config, _ = build_config(args.method, args.recipe, args.overrides)
    options = get_method(config.method_name).Options.parse(config.method)
    return {**config.model_dump(mode="json"), "method": options.model_dump(mode="json")}


if __name__ == "__main__":
    # The code and the recipes of the checkout that this file stands in, whatever else is installed.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from shards.terminal import leave

    leave(main)
