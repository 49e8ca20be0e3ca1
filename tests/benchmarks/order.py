"""What an order costs: time to the first batch, of a step and of an epoch's turn, and memory, from 1e4 to 1e8 samples.

    python tests/benchmarks/order.py [--quick]

Every strategy and a mix of three sets, over 1e2 to 1e5 shards, from the columns that an opened data set holds (keys and files aside:
tests/benchmarks/scale.py opens real sets). Each measurement is a process of its own, so that its peak of memory is its own. Seconds are
of processor time (an order is made by one thread). The last lines give the slopes: how cost grows with samples, 1 for in proportion, 0 for
not at all.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from shards.order.mix import MixPlan
from shards.order.plan import Plan
from shards.read.subset import Subset
from shards.resident import peak_resident

BATCH, CLASSES, STEPS = 256, 4, 200
KINDS = ("shuffle", "patient_unique", "class_balanced", "mix of three")
QUICK = [(10_000, 100), (1_000_000, 100), (1_000_000, 10_000)]
ALL = [*QUICK, (10_000_000, 10_000), (100_000_000, 10_000), (100_000_000, 100_000)]


def subset_of(samples: int, shards: int) -> Subset:
    """Patients with several samples, four classes of 60, 30, 9 and 1 %."""
    rng = np.random.default_rng(0)
    patients = np.arange(samples) // 3
    if samples < 10**7:
        patients = np.repeat(patients, rng.integers(1, 6, samples))[:samples]
    codes = np.searchsorted([0.6, 0.9, 0.99], rng.random(samples)).astype(np.int64)
    starts = np.linspace(0, samples, shards + 1).astype(np.int64)
    return Subset(np.arange(samples), patients, {"kind": codes}, {"kind": ("a", "b", "c", "d")}, starts)


def plan_of(kind: str, samples: int, shards: int) -> tuple[Plan | MixPlan, float]:
    """The plan, and the seconds that it took to make."""
    if kind == "mix of three":
        parts = [subset_of(samples // 3, max(1, shards // 3)) for _ in range(3)]
        start = time.process_time()
        offsets = [k * (samples // 3) for k in range(3)]
        return MixPlan(parts, offsets, (3.0, 2.0, 1.0), 0, BATCH), time.process_time() - start
    subset = subset_of(samples, shards)
    start = time.process_time()
    label = "kind" if kind == "class_balanced" else None
    return Plan(kind, subset, 0, BATCH, label=label), time.process_time() - start


def megabytes() -> float:
    return peak_resident() / 2**20


def measured(kind: str, samples: int, shards: int) -> dict[str, float]:
    columns = _peak_of_columns(samples)
    plan, made = plan_of(kind, samples, shards)
    start = time.process_time()
    plan.batch(0, 0)
    first = made + time.process_time() - start
    taken = []
    for step in range(1, min(STEPS, plan.steps_per_epoch)):
        start = time.process_time()
        plan.batch(0, step)
        taken.append(time.process_time() - start)
    start = time.process_time()
    plan.batch(1, 0)
    turn = time.process_time() - start
    return {
        "first_s": first,
        "step_ms": 1000 * statistics.median(taken),
        "worst_ms": 1000 * max(taken),
        "turn_s": turn,
        "bytes": 2**20 * (megabytes() - columns) / samples,
    }


def _peak_of_columns(samples: int) -> float:
    """Megabytes of the process with what the data set holds anyway: an order's own memory comes on top."""
    return megabytes() + samples * 8 * 3 / 2**20


def in_process(kind: str, samples: int, shards: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", kind, str(samples), str(shards)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}, {samples:,} samples: {done.stderr[-2000:] or 'killed'}")
    return json.loads(done.stdout)


def slope(rows: dict[tuple[int, int], dict[str, float]], key: str, least: float) -> float:
    """Of the logarithm of a cost against that of the samples, from one million on; what is below `least` counts as that."""
    points = [(math.log(n), math.log(max(row[key], least))) for (n, _), row in rows.items() if n >= 10**6]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="up to one million samples")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one[0], int(args.one[1]), int(args.one[2]))))
        return 0
    ok, slopes = True, []
    print(
        f"{'order':<16}{'samples':>13}{'shards':>9}{'first batch':>13}{'step':>11}{'worst':>11}{'epoch turn':>12}{'B/sample':>10}"
    )
    for kind in KINDS:
        rows = {}
        for samples, shards in QUICK if args.quick else ALL:
            row = rows[samples, shards] = in_process(kind, samples, shards)
            print(
                f"{kind:<16}{samples:>13,}{shards:>9,}{row['first_s']:>11.3f} s{row['step_ms']:>8.3f} ms{row['worst_ms']:>8.1f} ms"
                f"{row['turn_s']:>10.3f} s{row['bytes']:>10.0f}",
                flush=True,
            )
        if not args.quick:
            start, step = slope(rows, "first_s", 0.01), slope(rows, "step_ms", 0.05)
            ok &= start <= 1.1 and step <= 0.1
            slopes.append(f"{kind}: first batch {start:.2f} (at most 1), step {step:.2f} (0)")
    print("\n".join(["", "slopes with the samples, from 1e6 to 1e8:" if slopes else "", *slopes]))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
