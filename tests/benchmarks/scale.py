"""What 1 to 4,096 ranks on 1 to 512 nodes would open, read and keep, computed with the order and the shelf that a run uses.

    python tests/benchmarks/scale.py [--quick]

No cluster: of each plan the first, the middle and the last node are followed, all their ranks, step by step, through `Shuffle`,
`rank_slice` and `Shelf` (128 open shards). Samples are 150 kB in shards of 1,000; a rank has 16 of a global batch; eight ranks a node.
Then real sets of tiny samples are opened, to see what a rank's memory and start grow with. Columns:

    opens/rank 1st    shards that a rank opens for its first step: of each a tar and an index (two requests of a file system)
    opens/rank/step   the same in the steps after it, and hits: samples whose shard was open already
    index/needed      bytes of indexes read for each byte of samples, where samples are read by offset (a folder)
    fetched/needed    bytes that a node fetches for each byte that its ranks use, through a cache of whole shards (an address)
    turn              shards that a rank opens for the first step of the next epoch
    lost node         shards that a node must open anew for the next step, once a node has left and shares have grown
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from shards.order.plan import WINDOW, Shuffle
from shards.order.ranks import rank_slice
from shards.read.dataset import OPEN_SHARDS, Dataset
from shards.read.store import Shelf
from shards.read.subset import Subset

PER_SHARD, SAMPLE, INDEX_ROW, MEMBERS = 1000, 150_000, 90, 2
"""Samples of a shard; bytes of a sample, of a row of an index; members of a sample (a row each)."""
SHARE, RANKS_A_NODE, STEPS = 16, 8, 40
PLANS = [(1, 1), (8, 1), (64, 8), (512, 64), (1024, 128), (4096, 512)]
SIZES = (10**6, 10**7, 10**8, 10**9)


class All:
    """The numbers 0 to n - 1, which nobody need hold to know where a shard begins among them."""

    def __init__(self, n: int):
        self._n = n

    def __len__(self) -> int:
        return self._n

    def searchsorted(self, values: np.ndarray, *_: object, **__: object) -> np.ndarray:
        return np.minimum(values, self._n)


class Opened:
    used = True


class Counting(Shelf):
    """A shelf that opens nothing, and counts."""

    def __init__(self) -> None:
        super().__init__(OPEN_SHARDS)
        self.opens = 0
        self.looks = 0

    def ask(self, shard: int) -> None:
        self.looks += 1
        if self.find(shard) is None:
            self.opens += 1
            self.add(shard, Path(), None, [])  # type: ignore[arg-type]

    @staticmethod
    def _opened(*_: Any) -> Any:
        return Opened()


class Node:
    """Its ranks' shelves, and the shards that its cache has fetched."""

    def __init__(self, number: int, ranks: int):
        self.ranks = range(number * ranks, (number + 1) * ranks)
        self.shelves = [Counting() for _ in self.ranks]
        self.fetched: set[int] = set()
        self.used = 0

    def step(self, shard_of_G: np.ndarray, world: int) -> None:
        for shelf, rank in zip(self.shelves, self.ranks, strict=True):
            own = shard_of_G[rank_slice(len(shard_of_G), rank, world)].tolist()
            for shard in own:
                shelf.ask(shard)
            self.fetched.update(own)
            self.used += len(own)

    def opens(self) -> float:
        return statistics.mean(s.opens for s in self.shelves)

    def reset(self) -> None:
        for shelf in self.shelves:
            shelf.opens = shelf.looks = 0


def followed(ranks: int, nodes: int) -> list[Node]:
    return [Node(k, ranks // nodes) for k in sorted({0, nodes // 2, nodes - 1})]


def simulated(samples: int, ranks: int, nodes: int) -> dict[str, float]:
    starts = np.arange(0, samples + 1, PER_SHARD)
    subset = Subset(All(samples), np.empty(0), {}, {}, starts)  # type: ignore[arg-type]
    batch = SHARE * ranks
    order = Shuffle(subset, 0, batch)

    def shards(epoch: int, step: int) -> np.ndarray:
        return order.batch(epoch, step)[0] // PER_SHARD

    watched = followed(ranks, nodes)
    for node in watched:
        node.step(shards(0, 0), ranks)
    first = statistics.mean(n.opens() for n in watched)
    for node in watched:
        node.reset()
    steps = min(STEPS, order.steps - 1)
    for step in range(1, 1 + steps):
        G = shards(0, step)
        for node in watched:
            node.step(G, ranks)
    opens = statistics.mean(n.opens() for n in watched) / max(steps, 1)
    # A node's cache has fetched whole what any of its ranks used a part of.
    fetched = _fetched(order, ranks, nodes, samples)
    lost = _lost(order, watched[0], ranks, nodes, 1 + steps) if nodes > 1 and 2 + steps < order.steps else float("nan")
    for node in watched:
        node.reset()
        node.step(shards(1, 0), ranks)
    row = INDEX_ROW * MEMBERS * PER_SHARD
    return {
        "first": first,
        "opens": opens,
        "hits": 1 - opens / SHARE,
        "index": opens * row / (SHARE * SAMPLE),
        "fetched": fetched,
        "turn": statistics.mean(n.opens() for n in watched),
        "lost": lost,
        "shards": len(starts) - 1,
    }


def _fetched(order: Shuffle, ranks: int, nodes: int, samples: int) -> float:
    """Over one window of the order, or as many as a step spans: bytes fetched by a node for each byte that it uses."""
    span = max(1, -(-order.global_batch // (WINDOW * PER_SHARD))) * WINDOW * PER_SHARD
    steps = max(1, min(order.steps, min(span, samples) // order.global_batch))
    node = Node(0, ranks // nodes)
    if steps > 4000:  # few ranks: they use nearly all of a window, as a shorter look shows less well
        return 1.0 * min(span, samples) / (steps * order.global_batch)
    for step in range(steps):
        node.fetched.update((order.batch(0, step)[0][: SHARE * ranks // nodes] // PER_SHARD).tolist())
        node.used += SHARE * ranks // nodes
    return len(node.fetched) * PER_SHARD / node.used


def _lost(order: Shuffle, node: Node, ranks: int, nodes: int, step: int) -> float:
    """The same global batches over one node less (over half of them, where the rest does not divide a batch)."""
    left = ranks - ranks // nodes
    world = left if order.global_batch % left == 0 else ranks // 2
    if world < len(node.shelves):
        return float("nan")
    for shelf in node.shelves:
        shelf.opens = 0
    node.step(order.batch(0, step)[0] // PER_SHARD, world)
    return sum(s.opens for s in node.shelves)


# ------------------------------------------------------------------------------------------------------------- real sets


def real(folder: Path, samples: int) -> dict[str, float]:
    """Opens a set in a process of its own: seconds to the first batch, and megabytes."""
    command = [sys.executable, __file__, "--open", str(folder)]
    done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {**done, "samples": samples}


def opened(folder: Path) -> dict[str, float]:
    import psutil

    from shards.order.mix import make_plan

    process = psutil.Process()
    before, start = process.memory_info().rss, time.perf_counter()
    data = Dataset.open(folder)
    opened_s = time.perf_counter() - start
    plan = make_plan(data, "train", "shuffle", 0, 256)
    draws = plan.batch(0, 0)
    keys = data.keys_of(draws.index)
    planned_s = time.perf_counter() - start
    for i in draws.index.tolist():
        data[i].read("rna")
    assert len(keys) == 256
    first_s = time.perf_counter() - start
    return {
        "opened": opened_s,
        "planned": planned_s,
        "first": first_s,
        "mb": (process.memory_info().rss - before) / 2**20,
    }


def rows(quick: bool) -> Iterator[tuple[int, int, int]]:
    for samples in SIZES[:2] if quick else SIZES:
        for ranks, nodes in PLANS[:3] if quick else PLANS:
            if SHARE * ranks <= samples // 20:
                yield samples, ranks, nodes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer ranks and samples")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(opened(args.open)))
        return 0
    print(
        f"{'samples':>14}{'shards':>10}{'ranks':>7}{'nodes':>7}{'opens/rank 1st':>16}{'opens/rank/step':>17}{'hits':>7}"
        f"{'index/needed':>14}{'fetched/needed':>16}{'turn':>7}{'lost node':>11}"
    )
    for samples, ranks, nodes in rows(args.quick):
        r = simulated(samples, ranks, nodes)
        print(
            f"{samples:>14,}{r['shards']:>10,.0f}{ranks:>7,}{nodes:>7,}{r['first']:>16.1f}{r['opens']:>17.2f}{r['hits']:>7.0%}"
            f"{r['index']:>14.3f}{r['fetched']:>15.1f}x{r['turn']:>7.1f}{r['lost']:>11.0f}",
            flush=True,
        )
    print(
        f"\nreal sets, tiny samples in shards of 100\n{'samples':>14}{'open':>9}{'+ plan':>9}{'+ first batch':>15}{'memory':>11}"
    )
    from tests.benchmarks.loader import many_shards

    found = []
    with tempfile.TemporaryDirectory(prefix="medpair-scale-") as tmp:
        for samples in (10_000, 100_000) if args.quick else (10_000, 100_000, 1_000_000):
            folder = Path(tmp) / str(samples)
            folder.mkdir()
            many_shards(folder, samples // 100, 100)
            found.append(r := real(folder, samples))
            print(
                f"{samples:>14,}{r['opened']:>7.2f} s{r['planned']:>7.2f} s{r['first']:>13.2f} s{r['mb']:>8.0f} MB",
                flush=True,
            )
    a, b = found[-2:]
    print(
        f"a sample more: {(b['mb'] - a['mb']) * 2**20 / (b['samples'] - a['samples']):.0f} bytes of each rank, ", end=""
    )
    print(f"{1e6 * (b['planned'] - a['planned']) / (b['samples'] - a['samples']):.2f} us of its start")
    return 0


if __name__ == "__main__":
    sys.exit(main())
