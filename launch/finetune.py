"""Fine-tune, probe or train from scratch: `deepspeed launch/finetune.py --task TASK --method METHOD --init RUN [section.key=value ...]`.

The same splits, protocol and statistics for every method (docs/finetune.md). Without data.path it runs on the built-in demo cohort.
The same command goes on where it stopped; a result that is there already is shown.
Exit status: 0 done, 75 stopped and resumable, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.downstream.task.schema import Task


def parser() -> argparse.ArgumentParser:
    from launch.frame import on_ranks

    p = argparse.ArgumentParser(
        prog="finetune.py",
        description="Evaluate a pre-trained method on a task. Under `deepspeed` it runs on several ranks.",
        epilog="Keys: out, seeds, inputs, data.path, protocol.epochs | protocol.steps, protocol.lr, protocol.fraction | protocol.shots, "
        "protocol.batch, output.head, output.decoder, zero.stage, precision, leak.accept, method.OPTION and more (--print-config).",
    )
    p.add_argument("--task", required=True, help="a YAML file, or a name in configs/task, for example nsclc_subtype")
    p.add_argument("--method", required=True, help="a method of models/methods, for example gimp")
    p.add_argument(
        "--init",
        help="the folder of a finished pre-training run, a file of ImageNet or MAE weights, or `scratch`, which a method that learns "
        "from labels alone may leave out",
    )
    p.add_argument(
        "--mode",
        choices=("finetune", "scratch", "linear", "knn", "zeroshot"),
        help="scratch: fine-tune RUN's architecture from random weights; linear, knn: probes of the frozen encoder; zeroshot: prompts of "
        "a system whose images and texts lie in one space (docs/zeroshot.md)",
    )
    p.add_argument("--recipe", help="with --init scratch or FILE: the recipe that gives the method's options")
    p.add_argument("--random", action="store_true", help="take RUN's architecture with random weights, in any mode")
    p.add_argument(
        "--dry-run", action="store_true", help="check everything and print what would be done; train nothing"
    )
    p.add_argument("--print-config", action="store_true", help="print the resolved task as YAML")
    return on_ranks(p, help="task keys, e.g. protocol.fraction=0.1")


def main(argv: list[str] | None = None) -> int:
    from launch.frame import ended

    return ended(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    task, path = _task(args)
    if args.print_config:
        import yaml

        print(yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False), end="")
        return
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
    from pathlib import Path

    from trainer.data import schema_of
    from trainer.downstream.external.tests import check_tests
    from trainer.downstream.init import find_source
    from trainer.downstream.run import run_setting
    from trainer.downstream.setting import check_device, describe, open_task_data, prepare

    stop = StopFlag().install()
    if not args.dry_run:
        find_ranks()
    if environment_rank() == 0:
        print(f"task {path}", flush=True)
        if task.data.path is None:
            print("no data.path given: this runs on the built-in demo cohort", flush=True)
    data = open_task_data(task)
    source = find_source(
        args.method, args.init, args.recipe, task, schema_of(data), task.data.path is None, args.random
    )
    share = f"{task.protocol.shots}shot" if task.protocol.shots else f"{100 * task.protocol.fraction:g}"
    mode = f"{task.mode}-random" if args.random and task.mode != "scratch" else task.mode
    out = Path(task.out.format(task=task.name, method=args.method, mode=mode, fraction=share))
    setting = prepare(task, source, data, out, environment_world(), planned=args.dry_run)
    try:
        others = check_tests(setting)
        if args.dry_run:
            if environment_rank() == 0:
                print("\n  ".join([describe(setting), *others, *check_device(task, planned=True)]))
            return
        run_setting(setting, start(args.local_rank, task.health), stop)
    finally:
        setting.close()
        finish()


def resolved(args: argparse.Namespace, promised: Collection[str] = ()) -> list[object]:
    """The whole configuration of a command line, equal for equal runs.

    Args:
        promised: folders of runs that will be there by then.

    Raises:
        UserError, MethodError: what the command would refuse of it before it looks at any data.
    """
    from pathlib import Path

    from models.registry import get_method
    from trainer.downstream.init import options_by_recipe, stated
    from trainer.errors import UserError

    get_method(args.method)
    init = stated(args.method, args.init)
    if init != "scratch" and init not in promised and not Path(init).exists():
        raise UserError(f"--init {init}: not there; give a finished pre-training run, a file of weights, or `scratch`")
    task, _ = _task(args)
    made = task.model_dump(mode="json")
    # Which recipe it is without a name hangs on the data, which nobody has looked at yet.
    if init == "scratch" and args.recipe is not None:
        made["method"] = options_by_recipe(args.method, args.recipe, task)
    return [args.method, init, args.recipe, args.random, made]


def _task(args: argparse.Namespace) -> tuple[Task, Path]:
    """The task of a command line, and its file. `seeds` may be written without its section."""
    from trainer.downstream.task.read import build_task

    words = [f"protocol.{w}" if w.startswith("seeds=") else w for w in args.overrides]
    return build_task(args.task, words, args.mode)


if __name__ == "__main__":
    # The code and the recipes of the checkout that this file stands in, whatever else is installed.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from shards.terminal import leave

    leave(main)
