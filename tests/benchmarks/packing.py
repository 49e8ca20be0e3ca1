"""Measures `python -m shards pack` and `lint` beside `webdataset.ShardWriter` copying the same JPEGs, in one run.

    python tests/benchmarks/packing.py [--count 4000] [--side 704] [--jobs 1 2] [--rounds 3] [--against COMMIT] [--without lint floor]

Each contender is a process of its own, timed by the seconds of processor time of it and its workers and by the clock, starting included.
Rounds alternate between the contenders, after one that is not counted, and medians are printed, with how many times ShardWriter's
seconds they are, by processor time and by the clock. ShardWriter checks nothing: it reads files and writes tars, and flushes nothing to
disk; most of its time is the loading of torch, which `webdataset` imports (the row `loading webdataset`). `floor` is what the checks
themselves cost in one process, without reading, writing or any tally. `--against` packs by another commit of this repository, too. Data
are generated in a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import simplejpeg

from shards.format.codecs import check_jpeg
from shards.format.jpeg_codes import is_quick
from tests.benchmarks.loader import photo

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
RIVAL = "webdataset.ShardWriter"
KINDS_OF_PHOTO = 64
COPY = """
import sys, csv, webdataset
folder, out = sys.argv[1:]
with webdataset.ShardWriter(f"{out}/shard-%06d.tar", maxsize=256 << 20, verbose=0) as writer:
    for row in csv.DictReader(open(f"{folder}/manifest.csv")):
        with open(f"{folder}/{row['field:image']}", "rb") as f:
            writer.write({"__key__": row["sample"], "image.jpg": f.read()})
"""


def generate(folder: Path, count: int, side: int) -> int:
    """`count` JPEGs of which no two are equal, with a manifest; their bytes."""
    rng, total = np.random.default_rng(0), 0
    photos = [photo(rng, side) for _ in range(KINDS_OF_PHOTO)]
    with open(folder / "manifest.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["sample", "patient", "field:image"])
        for i in range(count):
            name = f"i{i:06d}"
            comment = b"\xff\xfe" + (2 + len(name)).to_bytes(2, "big") + name.encode()
            data = photos[i % KINDS_OF_PHOTO]
            (folder / f"{name}.jpg").write_bytes(data[:2] + comment + data[2:])
            total += len(data)
            table.writerow([name, f"p{i:06d}", f"{name}.jpg"])
    return total


def timed(words: list[str], tree: Path = ROOT) -> tuple[float, float]:
    """(processor seconds, seconds) of a command that must succeed, with the packages of a checkout."""
    os.sync()  # nothing of what was written before is left to flush
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # Bytecode of both contenders is kept, as it is for a user: compiling our sources took 0.3 s of each command.
    env = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(tree)}
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, cwd=tree)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def python(*words: str) -> list[str]:
    return [sys.executable, "-P", *words]


def contenders(
    folder: Path, jobs: list[int | None], against: Path | None
) -> dict[str, Callable[[], tuple[float, float]]]:
    """Name -> what measures it once. A lint looks at what the packing before it wrote; `against`: a checkout of another commit."""
    out = folder.parent / "out"

    def fresh(words: list[str], tree: Path = ROOT) -> tuple[float, float]:
        shutil.rmtree(out, ignore_errors=True)
        return timed(words, tree)

    def copied() -> tuple[float, float]:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return timed(python("-c", COPY, str(folder), str(out)))

    found: dict[str, Callable[[], tuple[float, float]]] = {RIVAL: copied}
    found["loading webdataset"] = lambda: timed(python("-c", "import webdataset"))
    pack = python("-m", "shards", "pack", str(folder / "manifest.csv"), "--out", str(out))
    if against is not None:
        found["pack of the other commit"] = lambda: fresh(pack, against)
        found["lint of the other commit"] = lambda: timed(python("-m", "shards", "lint", str(out)), against)
    for n in jobs:
        flag = [] if n is None else ["--jobs", str(n)]
        named = "" if n is None else f" --jobs {n}"
        found[f"pack{named}"] = partial(fresh, [*pack, *flag])
        found[f"lint{named}"] = partial(timed, python("-m", "shards", "lint", str(out), *flag))
    return found


@contextmanager
def checkout(commit: str, at: Path) -> Iterator[Path]:
    """A worktree of this repository's history, removed in the end."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "-q", "--detach", str(at), commit], check=True)
    try:
        yield at
    finally:
        subprocess.run([*git, "remove", "--force", str(at)], check=True)


def floor(folder: Path, decode: Callable[[bytes], object]) -> tuple[float, float]:
    """The checks alone: a whole decoding, a checksum and a hash of each file."""
    files = [p.read_bytes() for p in sorted(folder.glob("*.jpg"))[:500]]
    began, wall = time.process_time(), time.perf_counter()
    for data in files:
        decode(data)
        zlib.crc32(data)
        hashlib.sha256(data).digest()
    times = len(list(folder.glob("*.jpg"))) / len(files)
    return (time.process_time() - began) * times, (time.perf_counter() - wall) * times


def floors(folder: Path) -> dict[str, Callable[[], tuple[float, float]]]:
    """What the checks alone cost, by name."""
    found = {"floor: decoded to RGB": lambda: floor(folder, lambda d: simplejpeg.decode_jpeg(d, "RGB"))}
    small = {"min_height": 1, "min_width": 1}
    found["floor: decoded at 1/8"] = lambda: floor(folder, lambda d: simplejpeg.decode_jpeg(d, "GRAY", **small))
    if is_quick():
        found["floor: codes alone"] = lambda: floor(folder, check_jpeg)
    return found


def table(times: dict[str, list[tuple[float, float]]], count: int) -> Iterator[str]:
    """Medians, and how many times those of ShardWriter they are."""
    yield "| | CPU s | s | samples/s | x ShardWriter, CPU | x ShardWriter, clock |\n|---|--:|--:|--:|--:|--:|"
    medians = {n: [statistics.median(x) for x in zip(*all_, strict=True)] for n, all_ in times.items()}
    for name, (cpu, wall) in medians.items():
        by_cpu, by_clock = cpu / medians[RIVAL][0], wall / medians[RIVAL][1]
        yield f"| {name} | {cpu:.2f} | {wall:.2f} | {count / wall:,.0f} | {by_cpu:.2f} | {by_clock:.2f} |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=4000)
    p.add_argument("--side", type=int, default=704, help="704 pixels are JPEGs of 150 kB")
    p.add_argument("--jobs", type=int, nargs="*", default=[1, 2], help="none: without the option")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--against", metavar="COMMIT", help="pack by this commit, too, without options")
    p.add_argument(
        "--without", nargs="*", default=[], metavar="NAME", help="leave out what begins so, such as lint or floor"
    )
    args = p.parse_args()
    # Without this folder, where a file has the name of a package that numba imports where it is found; children have -P.
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != FOLDER]
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="medpair-packing-") as t:
        folder = Path(t) / "in"
        folder.mkdir()
        size = generate(folder, args.count, args.side)
        print(f"{args.count} JPEGs of {size / args.count / 1e3:.0f} kB, {len(os.sched_getaffinity(0))} cores")
        with checkout(args.against, Path(t) / "other") if args.against else nullcontext() as other:
            found = contenders(folder, args.jobs or [None], other) | floors(folder)
            found = {n: m for n, m in found.items() if n == RIVAL or not n.startswith(tuple(args.without))}
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
            for number in range(1 + args.rounds):
                for name, measure in found.items():
                    seconds = measure()
                    times[name] += [seconds] * bool(number)  # the first round leaves bytecode and machine code behind
        print(*table(times, args.count), sep="\n")


if __name__ == "__main__":
    main()
