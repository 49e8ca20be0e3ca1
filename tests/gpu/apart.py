"""Cases in processes of their own: `python -m tests.gpu.apart CHECK CASE ...` prints a line of JSON a case.

An error of a kernel leaves a process of which nothing on the card works any more, and some end it. What is left then runs in another.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from tests.gpu import copies, kernels
from tests.gpu.outcome import Check, Outcome, tried
from tests.gpu.process import ended, over

CHECKS: dict[str, Check] = {"attention": kernels.attention, "scan": kernels.scans, "copies": copies.copies}
BEGINS = "outcome "


def apart(check: str, names: list[str]) -> Iterator[Outcome]:
    """Of these cases of a check; one whose process ended without a word has failed. Fewer where time is over."""
    waiting = list(names)
    while waiting and not over():
        said, why = ended([sys.executable, "-m", "tests.gpu.apart", check, *waiting])
        found = [
            Outcome(**json.loads(line.removeprefix(BEGINS))) for line in said.splitlines() if line.startswith(BEGINS)
        ]
        yield from found
        waiting = waiting[len(found) :]
        if waiting and (why or not found):
            yield Outcome(waiting.pop(0), "FAIL", f"its process {why or 'said nothing'}")


def main(words: list[str]) -> None:
    cases = CHECKS[words[0]]()
    for name in words[1:]:
        found, sound = tried(name, cases[name])
        print(f"{BEGINS}{json.dumps(asdict(found))}", flush=True)
        if not sound:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
