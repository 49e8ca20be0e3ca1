"""What an order costs: time to the first batch, of a resume, a step and an epoch's turn, and memory, from 1e4 to 1e8 samples.

    python tests/benchmarks/order.py [--quick] [ORDER ...]

Every strategy, `patient_unique` also with patients whose samples lie apart, and a mix of three sets, over 1e2 to 1e5 shards of at least
ten samples, from the columns that an opened data set holds (keys and files aside: tests/benchmarks/scale.py opens real sets). Each
measurement is a process of its own. Seconds are of processor time (an order is made by one thread), the best of three; the first of these
also pays for memory that the process has not had before, which a virtual machine has to ask its host for. A step is the mean of 512.
Up to 262,144 samples an order lies ready, above it is computed place by place; `by places` is a step of the same set where that is done
whatever its size, so that one way of working is compared over all sizes. Memory is what the order adds at most to what its process holds.

The last lines give the slopes: how cost grows with samples, 1 for in proportion, 0 for not at all. Memory alone, measured in the same
run, grows faster than that where it leaves the cache, so it is allowed for: a start may be as steep as writing one number a sample into
2,048 groups of new memory, and a step by places is told without the time that it takes to look up each sample of a batch in columns of
all samples, as many as the order has to look into. The exit status is 1 if a slope is above its aim.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from shards.order import large
from shards.order.mix import MixPlan
from shards.order.plan import Plan
from shards.read.subset import Subset
from shards.resident import peak_resident

T = TypeVar("T")
BATCH, STEPS, TIMES = 256, 512, 3
APART, MIX, MEMORY = "patient_unique, apart", "mix of three", "memory alone"
KINDS = ("sequential", "shuffle", MIX, "class_balanced", "patient_unique", APART)
LOOK_UPS = {"sequential": 0, "shuffle": 1, MIX: 1, "class_balanced": 2, "patient_unique": 2, APART: 3}
"""The subset's column, which a batch in sequence reads in one piece; members of groups; samples by patient where they lie apart."""
SHARDS, SAMPLES = (100, 10_000, 100_000), tuple(10**k for k in range(4, 9))
GROWS = {
    "first_s": "first batch",
    "resume_s": "resume",
    "cold_s": "first time",
    "step_ms": "step",
    "places_ms": "step by places",
    "left_ms": "less look-ups",
    "write_s": "memory written",
}
LEAST = (10**4, 10**6)
Rows = dict[tuple[int, int], dict[str, float]]
STEP_SLOPE = 0.1
"""What counts as 0, as single measurements vary by a quarter: half more for a hundred times the samples."""
GROUPS, CHUNK = 2048, 1 << 15


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
    first, resume, turn, steps, by_places = [], [], [], [], []
    for _ in range(TIMES):
        taken, plan = timed(lambda: begun(make, 0, 0))
        first.append(taken)
        largest = max(largest, peak_resident())
        turn.append(timed(partial(plan.batch, 1, 0))[0])
        del plan
        taken, plan = timed(lambda: begun(make, 1, 0.5))
        resume.append(taken)
        steps.append(steps_of(plan))
        del plan
        with small_is_large():
            by_places.append(steps_of(begun(make, 0, 0)))
    return {
        "first_s": min(first),
        "cold_s": first[0],
        "resume_s": min(resume),
        "turn_s": min(turn),
        "step_ms": 1000 * min(map(sum, steps)) / STEPS,
        "worst_ms": 1000 * max(steps[-1]),
        "places_ms": 1000 * min(map(sum, by_places)) / STEPS,
        "order_mb": (largest - held) / 2**20,
        "all_gb": largest / 2**30,
    }


def steps_of(plan: Plan | MixPlan) -> list[float]:
    """Processor time of `STEPS` steps after an epoch's first."""
    plan.batch(0, 0)
    return [timed(partial(plan.batch, 0, s % plan.steps_per_epoch))[0] for s in range(1, STEPS + 1)]


@contextmanager
def small_is_large() -> Iterator[None]:
    """Orders of more than a batch are computed place by place."""
    whole, large.WHOLE = large.WHOLE, BATCH
    try:
        yield
    finally:
        large.WHOLE = whole


def memory_alone(samples: int) -> dict[str, float]:
    """Seconds to write as many numbers into groups of a new column, as a start has to; ms to look up a batch among them."""
    rng = np.random.default_rng(0)
    groups = min(GROUPS, max(samples // CHUNK, 1))
    each = np.arange(CHUNK)
    places = np.sort(each % groups) * (samples // groups) + each // groups
    at = [rng.integers(0, samples, BATCH) for _ in range(4 * STEPS)]
    write, look_up = [], []
    for _ in range(TIMES):
        taken, column = timed(lambda: written(samples, places, CHUNK // groups))
        write.append(taken)
        look_up.append(timed(partial(looked_up, column, at))[0])
        del column
    return {"write_s": min(write), "look_up_ms": 1000 * min(look_up) / len(at)}


def looked_up(column: np.ndarray, at: list[np.ndarray]) -> None:
    for batch in at:
        column[batch]


def written(samples: int, places: np.ndarray, apart: int) -> np.ndarray:
    """int64 [samples], written at `places` and as far on as they are apart, again and again: a part that fits the cache at a time."""
    column = np.empty(samples, np.int64)
    for part in range(max(samples // CHUNK, 1)):
        column[(places + part * apart) % samples] = part
    return column


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
    steps = [f"{row[key]:.3f} ms" for key in ("step_ms", "places_ms", "worst_ms")] + [f"{row['turn_s']:.2g} s"]
    return " | ".join([*seconds, *steps, f"{row['order_mb']:.3g} MB", f"{row['all_gb']:.2g} GB"])


def slope(rows: Rows, key: str, least: int, shards: int) -> float:
    """Of the logarithm of a cost against that of the samples, from `least` samples on, with that many shards; 0 for a cost of nothing."""
    points = [(n, row[key]) for (n, s), row in rows.items() if s == shards and n >= least and row[key] > 0]
    if len(points) < 2:
        return 0.0
    samples, cost = np.log(points).T
    return float(np.polyfit(samples, cost, 1)[0])


def slopes(kind: str, rows: Rows) -> tuple[str, bool]:
    """A line of slopes over all sizes and from a million on, the steepest over numbers of shards, and whether all keep to their aims."""
    said, ok = [], True
    for key, name in GROWS.items():
        found = [[(slope(rows, key, least, s), aim(rows, key, least, s)) for s in SHARDS] for least in LEAST]
        ok &= all(is_ <= most for of_shards in found for is_, most in of_shards)
        said.append(f"{name} {max(found[0])[0]:.2f} and {max(found[1])[0]:.2f}")
    return f"{kind}: {', '.join(said)} ({max(row['step_ms'] for row in rows.values()):.3f} ms a step at most)", ok


def aim(rows: Rows, key: str, least: int, shards: int) -> float:
    """The most that a slope may be; infinite for what is told alone."""
    if key in ("first_s", "resume_s"):
        return max(slope(rows, "write_s", least, shards), 1)
    return STEP_SLOPE if key == "left_ms" else math.inf


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("order", nargs="*", help=f"of {'; '.join(KINDS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="up to one million samples")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, samples, shards = args.one[0], *map(int, args.one[1:])
        print(json.dumps(memory_alone(samples) if kind == MEMORY else measured(kind, samples, shards)))
        return 0
    if unknown := [k for k in args.order if k not in KINDS]:
        parser.error(f"no order {', '.join(unknown)}: there are {'; '.join(KINDS)}")
    alone = {(n, 0): in_process(MEMORY, n, 0) for n in sorted({n for n, _ in sizes(args.quick)})}
    good = True
    each = [f"{n:,}: {r['write_s']:.2g} s, {r['look_up_ms']:.4f} ms" for (n, _), r in alone.items()]
    lines = [f"{MEMORY}, written and a batch looked up: {', '.join(each)}"]
    print(
        "| order | samples | shards | first batch | first time | resume | step | by places | longest | epoch's turn | the order | all |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for kind in args.order or KINDS:
        rows = {}
        for samples, shards in sizes(args.quick):
            row = rows[samples, shards] = in_process(kind, samples, shards)
            row["write_s"] = alone[samples, 0]["write_s"]
            row["left_ms"] = row["places_ms"] - LOOK_UPS[kind] * alone[samples, 0]["look_up_ms"]
            print(f"| {kind} | {samples:,} | {shards:,} | {told(row)} |", flush=True)
        line, ok = slopes(kind, rows)
        lines.append(line if ok else f"{line}: ABOVE")
        good &= ok
    print("\n".join(["", "slopes with the samples, over all sizes and from one million on:", *lines]))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
