"""Intervals and paired tests of a report over many results, against those of another commit: how fast, and whether they are the same.

    OMP_NUM_THREADS=1 python tests/benchmarks/compare.py [--against COMMIT] [--results 200] [--cases 400] [--rounds 2]

Generates fine-tune results as a runner writes them (five tasks of different kinds, forty settings of three seeds each, two cases a
patient, 37 metrics in all), then times what `compare` computes from their predictions: every metric of every result with its interval,
and all paired tests. Reading, tables and plots are timed apart. `--against` does the same with the code of a commit, in turn with this
one; processor seconds, so that a busy machine slows neither.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("binary", "multiclass", "multilabel", "ordinal", "survival")
DRAWS = 1000
WORKER = "--worker"
# In the place of this folder, whose trainer.py would hide the package; a worker stands in the tree that it measures.
sys.path[0] = str(Path.cwd() if WORKER in sys.argv else ROOT)


def generate(folder: Path, results: int, cases: int) -> None:
    """Every tenth setting from scratch; intervals are stated by few draws and replaced, so that generation is cheap."""
    from tests.trainer.reporting import runs

    runs.DRAWS = 100
    for i in range(results):
        kind, number = KINDS[i % len(KINDS)], i // len(KINDS)
        changes = (
            runs.SCRATCH
            if number % 10 == 0
            else {"init": {"kind": "file", "path": f"w{number}", "sha256": f"{number:064d}"}}
        )
        out = runs.write(
            folder / f"{kind}-{number}",
            kind,
            0.5 + 0.02 * number,
            cases=cases,
            method=f"system{number % 10}",
            **changes,
        )
        content = json.loads((out / "result.json").read_text())
        for m in content["metrics"].values():
            m |= {"draws": DRAWS, "interval": None, "interval_by": None}
        (out / "result.json").write_text(json.dumps(content))


def worker(folder: Path) -> dict[str, Any]:
    """Runs in the tree that it stands in: seconds by phase, and every number."""
    import scipy.optimize  # noqa: F401  that libraries load is no part of what is compared
    import scipy.sparse  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401

    import trainer.downstream.metrics.table  # noqa: F401
    from trainer.reporting import cases, over_tasks
    from trainer.reporting.groups import group
    from trainer.reporting.pairs import pairs
    from trainer.reporting.result import read_result

    took: dict[str, float] = {}

    def timed(name: str, start: float) -> float:
        now = time.process_time()
        took[name] = now - start
        return now

    now = time.process_time()
    found = [read_result(path) for path in sorted(folder.glob("*/result.json"))]
    now = timed("reading", now)
    results = [cases.recomputed(r) for r in found]
    now = timed("intervals", now)
    groups = group(results)
    tested = {g.name: pairs(g, DRAWS, 0) for g in groups}
    over_tasks.table(groups, DRAWS, 0, 0.01)
    timed("paired tests", now)
    numbers = {
        f"{r.folder.name}/{name}": [m.value, *m.per_seed, *(m.interval or ())]
        for r in results
        for name, m in r.content.metrics.items()
    }
    for name, found_pairs in tested.items():
        for t in found_pairs:
            key = f"{name}/{t.entry.first.folder.name}/{t.against}"  # labels are words, and may change
            numbers[key] = [t.difference, *t.interval, t.p, t.p_holm, t.false_claim]
    return {"took": took, "numbers": numbers}


def measured(tree: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "tests/benchmarks/compare.py"), WORKER, str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tree)}, cwd=tree, check=True, capture_output=True
    )
    return json.loads(done.stdout)


def differences(a: dict[str, list[float]], b: dict[str, list[float]]) -> tuple[int, float]:
    """How many numbers differ at all, and the largest difference, relative where the number is above 1."""
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())[:5]
    differ, most = 0, 0.0
    for key in a:
        for x, y in zip(a[key], b[key], strict=True):
            if x != y and not (math.isnan(x) and math.isnan(y)):
                differ, most = differ + 1, max(most, abs(x - y) / max(1.0, abs(x)))
    return differ, most


def checked_out(commit: str, into: Path) -> Path:
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(into)], input=packed, check=True)
    return into


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--against")
    p.add_argument("--results", type=int, default=200)
    p.add_argument("--cases", type=int, default=400)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument(WORKER, type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.worker:
        print(json.dumps(worker(args.worker)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "results"
        generate(folder, args.results, args.cases)
        trees = {"here": ROOT}
        if args.against:
            (Path(scratch) / "tree").mkdir()
            trees[args.against] = checked_out(args.against, Path(scratch) / "tree")
        rounds = [{name: measured(tree, folder) for name, tree in trees.items()} for _ in range(args.rounds)]
    report(rounds, args.against)


def report(rounds: list[dict[str, dict[str, Any]]], against: str | None) -> None:
    least = {
        name: {phase: min(r[name]["took"][phase] for r in rounds) for phase in rounds[0][name]["took"]}
        for name in rounds[0]
    }
    count = len(rounds[0]["here"]["numbers"])
    for phase in least["here"]:
        other = (
            f"{least[against][phase]:8.2f} s   {least[against][phase] / least['here'][phase]:6.1f}x" if against else ""
        )
        print(f"{phase:>14}  {least['here'][phase]:8.2f} s  {other}")
    if against:
        both = [sum(least[name][p] for p in ("intervals", "paired tests")) for name in ("here", against)]
        differ, most = differences(rounds[0]["here"]["numbers"], rounds[0][against]["numbers"])
        print(f"intervals and paired tests: {both[0]:.2f} s for {both[1]:.2f} s, {both[1] / both[0]:.1f}x")
        print(f"{count} rows of numbers: {differ} numbers differ at all, by {most:.1e} at most")


if __name__ == "__main__":
    main()
