"""A sweep of short fine-tunes whose points are forked from one process that has loaded everything, against a process a point.

    OMP_NUM_THREADS=1 python tests/benchmarks/sweep.py [--points 24] [--jobs 2]

Prints both times, their ratio, and whether all results are the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--points", type=int, default=24)
    p.add_argument("--jobs", type=int, default=2)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        words = [
            "--task",
            "demo_subtype",
            "--method",
            "abmil",
            "protocol.steps=20",
            "protocol.epochs=null",
            "bootstrap.draws=100",
        ]
        file.write_text(
            json.dumps({"command": "finetune", "words": words, "grid": {"seeds": [[i] for i in range(args.points)]}})
        )
        took, found = {}, {}
        for name, how in (("forked", []), ("a process a point", ["--no-preload"])):
            out = Path(folder) / name.replace(" ", "-")
            start = time.perf_counter()
            command = [sys.executable, "launch/sweep.py", str(file), "--out", str(out), "--jobs", str(args.jobs), *how]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            took[name] = time.perf_counter() - start
            found[name] = [json.loads(f.read_text())["metrics"] for f in sorted(out.glob("*/result.json"))]
            print(f"{name:>18}: {took[name]:7.1f} s for {len(found[name])} points, {args.jobs} at a time", flush=True)
    forked, alone = took.values()
    print(
        f"{alone / forked:.2f}x; results {'the same' if len(set(map(json.dumps, found.values()))) == 1 else 'DIFFER'}"
    )


if __name__ == "__main__":
    main()
