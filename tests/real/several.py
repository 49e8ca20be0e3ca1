"""Several fine-tunes in one process: on small samples their start costs more than their training.

    python tests/real/several.py WORDS --then WORDS ...      words of launch/finetune.py; each with an out=FOLDER

A folder that holds a result is left alone. The first that does not end well is the end; its exit status is this one's.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.finetune import main as finetune
from trainer import runtime

THEN = "--then"


def main(words: list[str]) -> int:
    # DeepSpeed keeps the first process group for good: all runs share it, and the process's end is its end.
    runtime.finish = lambda: None
    for last, group in itertools.groupby(words, lambda w: w == THEN):
        argv = list(group)
        out = next((w.removeprefix("out=") for w in argv if w.startswith("out=")), "")
        if last or (out and (Path(out) / "result.json").is_file()):
            continue
        if (status := finetune(argv)) != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
