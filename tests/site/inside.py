"""A command of the docs in a folder, for processes that are forked (tests/trainer/forking.py): `FOLDER COMMAND ARGS...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """The command's exit status."""
    from launch.medpair import main

    folder, *command = words
    os.chdir(folder)
    print("$ medpair", *command, flush=True)
    status = main(command)
    sys.stdout.flush()
    return status
