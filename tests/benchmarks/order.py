"""What an order costs: time to the first batch, of a resume, a step and an epoch's turn, and memory, from 1e4 to 1e8 samples.

    python tests/benchmarks/order.py [--quick] [ORDER ...]

Every strategy, `patient_unique` also with patients whose samples lie apart, and a mix of three sets, over 1e2 to 1e5 shards of at least
ten samples, from the columns that an opened data set holds (keys and files aside: tests/benchmarks/scale.py opens real sets). Each
measurement is a process of its own. Seconds are of processor time (an order is made by one thread), the best of three; the first of these
also pays for memory that the process has not had before, which a virtual machine has to ask its host for. A step is the mean of 512;
memory is what the order adds at most to what its process holds. The last lines give the slopes: how cost grows with samples, 1 for
in proportion, 0 for not at all; the exit status is 1 if one is above its aim.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from shards.order.mix import MixPlan
from shards.order.plan import Plan
from shards.read.subset import Subset
from shards.resident import peak_resident

T = TypeVar("T")
BATCH, STEPS, TIMES = 256, 512, 3
APART, MIX = "patient_unique, apart", "mix of three"
KINDS = ("sequential", "shuffle", MIX, "class_balanced", "patient_unique", APART)
SHARDS, SAMPLES = (100, 10_000, 100_000), tuple(10**k for k in range(4, 9))
GROWS = {"first_s": "first batch", "resume_s": "resume", "cold_s": "first time"}
STEP_MS = 0.1
"""A step below this is nothing beside the reading of its samples: 0.4 microseconds a sample."""


def sizes(quick: bool) -> list[tuple[int, int]]:
    return [(n, s) for s in SHARDS for n in SAMPLES if s <= n // 10 and not (quick and n > 10**6)]


def subset_of(samples: int, shards: int, apart: bool = False) -> Subset:
    """Patients with one to five samples, or any number about three where they lie apart; four classes of 60, 30, 9 and 1 %."""
    rng = np.random.default_rng(0)
    if apart:
        patients = rng.integers(0, samples // 3, samples)
    else:
        counts = rng.integers(1, 6, samples // 2 + 10, np.int8)
        patients = np.repeat(np.arange(len(counts)), counts)[:samples].copy()
    codes = np.searchsorted([0.6, 0.9, 0.99], rng.random(samples)).astype(np.int64)
    starts = np.linspace(0, samples, shards + 1).astype(np.int64)
    return Subset(np.arange(samples), patients, {"kind": codes}, {"kind": ("a", "b", "c", "d")}, starts)


def maker(kind: str, samples: int, shards: int) -> Callable[[], Plan | MixPlan]:
    """What makes the plan; the columns are there."""
    if kind == MIX:
        parts = [subset_of(samples // 3, max(1, shards // 3)) for _ in range(3)]
        return lambda: MixPlan(parts, [k * (samples // 3) for k in range(3)], (3.0, 2.0, 1.0), 0, BATCH)
    subset = subset_of(samples, shards, apart=kind == APART)
    label = "kind" if kind == "class_balanced" else None
    return lambda: Plan(kind.split(",")[0], subset, 0, BATCH, label=label)


def timed(what: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    made = what()
    return time.process_time() - start, made


def begun(make: Callable[[], Plan | MixPlan], epoch: int, part: float) -> Plan | MixPlan:
    plan = make()
    plan.batch(epoch, int(part * plan.steps_per_epoch))
    return plan


def measured(kind: str, samples: int, shards: int) -> dict[str, float]:
    make = maker(kind, samples, shards)
    gc.collect()
    held, largest = restart_peak(), 0
    first, resume, turn = [], [], []
    for _ in range(TIMES):
        taken, plan = timed(lambda: begun(make, 0, 0))
        first.append(taken)
        largest = max(largest, peak_resident())
        turn.append(timed(partial(plan.batch, 1, 0))[0])
        del plan
        taken, plan = timed(lambda: begun(make, 1, 0.5))
        resume.append(taken)
        steps = [timed(partial(plan.batch, 0, s % plan.steps_per_epoch))[0] for s in range(STEPS)]
        del plan
    return {
        "first_s": min(first),
        "cold_s": first[0],
        "resume_s": min(resume),
        "turn_s": min(turn),
        "step_ms": 1000 * sum(steps[1:]) / (STEPS - 1),
        "worst_ms": 1000 * max(steps[1:]),
        "order_mb": (largest - held) / 2**20,
        "all_gb": largest / 2**30,
    }


def restart_peak() -> int:
    """Bytes that are resident now, from which the peak counts from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_resident()


def in_process(kind: str, samples: int, shards: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", kind, str(samples), str(shards)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}, {samples:,} samples: {done.stderr[-2000:] or 'killed'}")
    return json.loads(done.stdout)


def told(row: dict[str, float]) -> str:
    seconds = [f"{row[key]:.2g} s" for key in ("first_s", "cold_s", "resume_s")]
    steps = [f"{row['step_ms']:.3f} ms", f"{row['worst_ms']:.2g} ms", f"{row['turn_s']:.2g} s"]
    return " | ".join([*seconds, *steps, f"{row['order_mb']:.3g} MB", f"{row['all_gb']:.2g} GB"])


def slope(rows: dict[tuple[int, int], dict[str, float]], key: str, least: int, shards: int) -> float:
    """Of the logarithm of a cost against that of the samples, from `least` samples on, with that many shards; 0 for a cost of nothing."""
    points = [(n, row[key]) for (n, s), row in rows.items() if s == shards and n >= least and row[key] > 0]
    if len(points) < 2:
        return 0.0
    samples, cost = np.log(points).T
    return float(np.polyfit(samples, cost, 1)[0])


def slopes(kind: str, rows: dict[tuple[int, int], dict[str, float]]) -> tuple[str, bool]:
    """A line of slopes, the steepest over numbers of shards, and whether all of them keep to their aims."""
    said, ok = [], True
    for key, name in GROWS.items():
        found = [max(slope(rows, key, least, s) for s in SHARDS) for least in (10**4, 10**6)]
        ok &= max(found) <= 1 or key == "cold_s"
        said.append(f"{name} {found[0]:.2f} and {found[1]:.2f}")
    step = [max(slope(rows, "step_ms", least, s) for s in SHARDS) for least in (10**4, 10**6)]
    most = max(row["step_ms"] for row in rows.values())
    ok &= max(step) <= 0.1 or most <= STEP_MS
    return f"{kind}: {', '.join(said)}, step {step[0]:.2f} and {step[1]:.2f} ({most:.3f} ms at most)", ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("order", nargs="*", help=f"of {'; '.join(KINDS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="up to one million samples")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one[0], int(args.one[1]), int(args.one[2]))))
        return 0
    if unknown := [k for k in args.order if k not in KINDS]:
        parser.error(f"no order {', '.join(unknown)}: there are {'; '.join(KINDS)}")
    good, lines = True, []
    print(
        "| order | samples | shards | first batch | first time | resume | step | longest | epoch's turn | the order | all |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for kind in args.order or KINDS:
        rows = {}
        for samples, shards in sizes(args.quick):
            row = rows[samples, shards] = in_process(kind, samples, shards)
            print(f"| {kind} | {samples:,} | {shards:,} | {told(row)} |", flush=True)
        line, ok = slopes(kind, rows)
        lines.append(line if ok else f"{line}: ABOVE")
        good &= ok
    print("\n".join(["", "slopes with the samples (aims: 1, 1, 0), over all sizes and from one million on:", *lines]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
