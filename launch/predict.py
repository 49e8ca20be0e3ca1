"""A fine-tuned run on other data: `python launch/predict.py RUN data.path=NEW [--evaluate] [section.key=value ...]`.

Without --evaluate the data need no labels: a table with a line a case, masks as PNG, attention with output.attention=N.
With --evaluate, the metrics and intervals of the runner on another hospital's labelled set, and what was lost from the run's own test
cases; patients, images and bags that the run or its pre-training learned from are refused (docs/predict.md).
Under `deepspeed` it runs on several ranks, with the same numbers.
Exit status: 0 done, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    from launch.frame import on_ranks

    p = argparse.ArgumentParser(prog="predict.py", description="A fine-tuned run on cases that it has not seen.")
    p.add_argument("run", type=Path, help="the out=FOLDER of a finished fine-tune")
    p.add_argument("--evaluate", action="store_true", help="read the data set's labels, and measure as the runner does")
    p.add_argument("--name", help="what the data set is called in reports; its folder's name by default")
    p.add_argument("--out", type=Path, help="a new folder; RUN/external/NAME with --evaluate, else RUN/predicted/NAME")
    p.add_argument(
        "--impute", choices=("none", "mean"), default="none",
        help="features (genes, SNPs) that the encoder was trained on and the data set lacks: refused, or the training mean",
    )  # fmt: skip
    return on_ranks(
        p, metavar="key=value",
        help="data.path=FOLDER, data.split=NAME, and how its labels are read: label, classes, positive, event_value, ...",
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    from launch.frame import ended

    return ended(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
    from trainer.runtime import choose_accelerator, find_ranks, finish, start

    choose_accelerator()
    find_ranks()
    from trainer.downstream.external.look import look_once
    from trainer.downstream.external.opened import open_external
    from trainer.downstream.external.reading import name_of, words_of
    from trainer.downstream.external.tests import FOLDER
    from trainer.downstream.external.trained import open_trained

    trained, given = open_trained(args.run), words_of(args.overrides)
    name = name_of(args.name, given)
    out = args.out or args.run / (FOLDER if args.evaluate else "predicted") / name
    found = open_external(trained, given, out, args.evaluate, args.impute == "mean")
    try:
        look_once(found, name, start(args.local_rank))
    finally:
        found.close()
        finish()


if __name__ == "__main__":
    # The code and the recipes of the checkout that this file stands in, whatever else is installed.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from shards.terminal import leave

    leave(main)
