"""One command for all: `medpair COMMAND ARGS...`, with the commands below.

Each is the script of the same name in launch/ (`shards`, `models`: `python -m shards`, `python -m models`), with its arguments and
exit status, in this process alone.
Several ranks: `deepspeed --module launch.pretrain ARGS...`, or in a checkout `deepspeed launch/pretrain.py ARGS...`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "pretrain": "pre-train a method",
    "finetune": "fine-tune or probe a pre-trained method on a task",
    "predict": "a fine-tuned run on new cases, or on another hospital's",
    "compare": "results side by side: tables, tests, plots",
    "export": "weights for others, with a model card",
    "gwas": "genome-wide association of a run's embeddings",
    "runs": "runs in a folder: list, the best, what two differ in",
    "sweep": "many runs of one command",
    "slurm": "the same as Slurm jobs",
    "learn": "every method against its random start on the demo cohort",
    "tokenizer": "a code book of a data set's images",
    "words": "visual words of a data set's images",
    "doctor": "what is installed and which kernels will run",
    "shards": "pack, check, split and show data sets",
    "models": "list and describe the methods",
}
EXIT_USER = 2


def usage() -> str:
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return "usage: medpair COMMAND ARGS...\n\n" + "\n".join(lines) + "\n\nmedpair COMMAND --help says more."


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else EXIT_USER
    try:
        importlib.import_module("medpair")
    except ImportError as e:  # an installation that is not whole
        print(f"error: {e}", file=sys.stderr)
        return EXIT_USER
    name, *rest = words
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        print(
            f"error: medpair {name}: no such command{f'; did you mean {near[0]!r}?' if near else ''}", file=sys.stderr
        )
        print(usage(), file=sys.stderr)
        return EXIT_USER
    status = importlib.import_module(f"{name}.__main__" if name in ("shards", "models") else f"launch.{name}").main(
        rest
    )
    return int(status or 0)


def run() -> None:
    """The console command."""
    from shards.terminal import leave

    leave(main)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    run()
