"""All that only a GPU can show, in one command: `python -m tests.gpu [--out gpu-check.md] [--only NAME ...] [--seconds 450]`.

Without a GPU it checks what a CPU can, says of the rest why not, and says that none of it is of a GPU. Exit status 1 when something failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.gpu import apart, process, runs
from tests.gpu.outcome import Check, Outcome, lacking, outcomes, report

OWN: dict[str, Check] = {
    "precision": runs.precisions,
    "zero": runs.zero,
    "memory": runs.memory,
    "recipe": runs.recipes,
}
"""Whose cases are runs of the command line, each a process anyway."""
CHECKS = apart.CHECKS | OWN


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="tests.gpu", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("gpu-check.md"))
    p.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    p.add_argument("--seconds", type=float, default=450.0, help="after which no further case begins")
    args = p.parse_args(argv)
    began, found = time.perf_counter(), list[Outcome]()
    process.until(args.seconds)
    left = lambda: args.seconds - (time.perf_counter() - began)  # noqa: E731
    for o in outcomes({n: CHECKS[n] for n in args.only}, left, apart.apart, OWN):
        print(f"{o.state:>8}  {o.check}: {o.said} ({o.seconds:.1f} s)", flush=True)
        found.append(o)
        args.out.write_text(report(found, time.perf_counter() - began))  # of all so far: whoever ends this has it
    print(f"{lacking()} {args.out}".strip())
    return int(any(o.state == "FAIL" for o in found))


if __name__ == "__main__":
    sys.exit(main())
