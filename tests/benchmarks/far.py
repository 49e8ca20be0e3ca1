"""A set of 10,000 shards behind an HTTP server: time and requests to the first batch, and what a step fetches.

    python tests/benchmarks/far.py [--quick]

The server stands for an object store: byte ranges over HTTP on this machine, without latency; requests are counted, since each costs
10 to 100 ms at a real one. Samples are tiny, so that what is measured is the cost of a shard, not of its bytes. An epoch is read by
one loader of four threads into an empty cache; then the set is opened and read again from the cache. The last line is what a
fetch costs once thousands of shards lie in the cache, against the first ones.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.contract import Method, Sample
from shards.load.loader import Loader
from shards.order.mix import make_plan
from shards.read.cache import Cache
from shards.read.dataset import Dataset
from tests.benchmarks.loader import many_shards
from tests.shards.servers import http_server

BATCH, SAMPLES = 64, 10


def serve(folder: Path, line: Connection) -> None:
    """Serves until it is told to end; says what it has sent when asked."""
    with http_server(folder) as server:
        line.send(server.url)
        while line.recv() == "sent":
            with server.lock:
                line.send((sum(server.gets.values()), sum(server.sent.values()), Counter(server.gets)))


class Server:
    """In a process of its own, so that it does not share the reader's interpreter."""

    def __init__(self, folder: Path):
        self._line, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs), daemon=True)
        self._process.start()
        self.url = self._line.recv()

    def sent(self) -> tuple[int, int]:
        self._line.send("sent")
        requests, size, _ = self._line.recv()
        return requests, size

    def close(self) -> None:
        self._line.send("end")
        self._process.join()


def read(url: str, server: Server, folder: Path, steps: int | None) -> list[tuple[str, float, int, int]]:
    """(what, seconds, requests, bytes) of each part."""
    rows, (asked, size), start = [], server.sent(), time.perf_counter()

    def row(what: str) -> None:
        nonlocal asked, size, start
        now, (requests, sent) = time.perf_counter(), server.sent()
        rows.append((what, now - start, requests - asked, sent - size))
        (asked, size), start = (requests, sent), time.perf_counter()

    with Dataset.open(url, cache=Cache(folder, 10**10)) as data:
        row("open")
        plan = make_plan(data, None, "shuffle", 0, BATCH)
        collate = lambda s: Method.collate(None, s)  # type: ignore[arg-type]  # noqa: E731
        with Loader(data, plan, lambda r, g: Sample({"rna": r.read("rna")}), collate, workers=4) as loader:
            batches = loader.iterate()
            next(batches)
            row("first batch")
            total = min(plan.steps_per_epoch, steps or plan.steps_per_epoch) - 1
            parts = 4
            for part in range(parts):
                for _ in range(total // parts):
                    next(batches)
                row(f"{total // parts} steps, part {part + 1} of {parts}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="1,000 shards")
    shards = 1_000 if parser.parse_args().quick else 10_000
    with tempfile.TemporaryDirectory(prefix="medpair-far-") as tmp:
        made, cache = Path(tmp) / "set", Path(tmp) / "cache"
        made.mkdir()
        many_shards(made, shards, SAMPLES)
        with closing(Server(made.parent)) as server:
            for title in ("into an empty cache", "from the cache"):
                print(f"{shards:,} shards, {title}\n{'':<32}{'seconds':>9}{'requests':>10}{'MB':>8}")
                rows = read(f"{server.url}/set", server, cache, None)
                for what, seconds, requests, size in rows:
                    print(f"{what:<32}{seconds:>9.2f}{requests:>10,}{size / 1e6:>8.1f}", flush=True)
                if title.endswith("empty cache"):
                    first, last = rows[2][1], rows[-1][1]
    print(f"the last quarter of the shards against the first: {last / first:.2f} x the time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
