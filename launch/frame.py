"""What the commands that run on ranks have in common: their last flags, what their exit status is, and how they are started.

A script that is started by its path finds this module, and all others, in the checkout that it stands in: it says so to Python before
it imports anything (`if __name__ == "__main__"`), so this is imported inside functions alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence


def on_ranks(p: argparse.ArgumentParser, help: str, metavar: str = "section.key=value") -> argparse.ArgumentParser:
    """Adds what every command of ranks has: the launcher's own flag, `key=value` words, `--all`.

    Args:
        help: of the words.
    """
    from shards.errors import add_all

    p.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    p.add_argument("overrides", nargs="*", metavar=metavar, help=help)
    add_all(p)
    return p


def ended(
    p: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], argv: Sequence[str] | None = None
) -> int:
    """Runs the command; its exit status: 0 done, 75 stopped and resumable, 2 something to change in the input, 1 anything else."""
    args = p.parse_intermixed_args(argv)
    from trainer.errors import exit_status

    return exit_status(lambda: run(args))
