"""Many films packed, linted, split and read for an epoch, with time and memory of each; then packed again, killed at random points.

    python tests/kills/films.py [--count 100000] [--kills 20] [--jobs 2] [--folder DIR]

Films are grey JPEGs of 512 x 512 pixels, no two alike (with --pictures by a comment alone), generated in a temporary folder and
removed. Every command is a process of its own; its processor time and the largest memory of one of its processes are those that the
system counts. For the kills the same films are packed anew in shards of an eighth of the size, and the whole group of processes is
killed (SIGKILL) when it has used a time of the processors that is drawn over what a whole packing took (the clock would tell of other
work); each next command goes on. At the end the data set must be, byte for byte, the one that a command made that nobody killed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import simplejpeg

from shards.format.info import sha256_of

SIDE, LAYERS, QUALITY = 512, 64, 90
SHARD, SMALL = "256M", "32M"
BATCH, WORKERS = 64, 2


@dataclass
class Cost:
    """Seconds of processor time of a command and its workers, seconds by the clock, and bytes of its largest process."""

    cpu_s: float
    wall_s: float
    peak: int

    def __str__(self) -> str:
        return f"{self.cpu_s:,.0f} | {self.wall_s:,.0f} | {self.peak / 2**20:,.0f}"


def layers(rng: np.random.Generator, grain: float) -> np.ndarray:
    """int16 [LAYERS, SIDE, SIDE]: smooth shapes and grain (its deviation in grey levels); a film is the sum of two, each moved."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(0, 4, (LAYERS, 3))]
    return np.array([50 + 40 * w + rng.normal(0, grain, (SIDE, SIDE)) for w in waves]).astype(np.int16)


def film(rng: np.random.Generator, parts_LHW: np.ndarray) -> bytes:
    a, b, down, right, turned = rng.integers(0, (LAYERS, LAYERS, SIDE, SIDE, 2))
    pixels_HW = parts_LHW[a] + np.roll(parts_LHW[b], (down, right), (0, 1))[:: 1 - 2 * turned]
    grey_HW1 = np.ascontiguousarray(pixels_HW.clip(0, 255).astype(np.uint8)[..., None])
    return simplejpeg.encode_jpeg(grey_HW1, quality=QUALITY, colorspace="GRAY", colorsubsampling="Gray")


def commented(data: bytes, text: str) -> bytes:
    """A JPEG with a comment (ITU-T T.81, B.2.4.5) before its other segments."""
    return data[:2] + b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text.encode() + data[2:]


def generate(folder: Path, count: int, grain: float, pictures: int) -> None:
    """`count` films and their manifest, three a patient; of only so many `pictures`, if any, told apart by a comment."""
    rng = np.random.default_rng(0)
    parts_LHW = layers(rng, grain)
    drawn = [film(rng, parts_LHW) for _ in range(pictures)]
    with open(folder / "manifest.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["sample", "patient", "field:image", "label:finding:class"])
        for i in range(count):
            data = commented(drawn[i % pictures], f"film {i}") if drawn else film(rng, parts_LHW)
            name = f"{i // 1000:04d}/f{i:07d}.jpg"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            table.writerow([f"f{i:07d}", f"p{i // 3:07d}", name, ("none", "opacity")[i % 5 == 0]])


def run(words: Sequence[str], killed_after: float | None = None) -> Cost | None:
    """Runs a command of this checkout in a group of its own; None where the group was killed after so many seconds of processor time.

    Raises:
        SystemExit: the command failed by itself.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        ended = threading.Event()
        killer = threading.Thread(target=kill_at, args=(child.pid, killed_after, ended))
        if killed_after is not None:
            killer.start()
        _, status, used = os.wait4(child.pid, 0)
        ended.set()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode == -signal.SIGKILL and killed_after is not None:
            return None
        if child.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(words)}: {errors.read().decode()[-2000:]}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss * 1024)


def kill_at(pid: int, cpu_s: float, ended: threading.Event) -> None:
    """Kills a group of processes when those of it that live have used so much."""
    ticks = os.sysconf("SC_CLK_TCK")
    while not ended.wait(0.05):
        used = 0
        with contextlib.suppress(OSError):  # a process that has ended by now
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for one in (str(pid), *children):
                of = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
                used += int(of[11]) + int(of[12])
        if used / ticks >= cpu_s:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            return


def epoch(folder: Path) -> None:
    """Reads and decodes every film once, in the order of training, and counts them."""
    from functools import partial

    from models.contract import Method, Sample
    from shards.load.loader import Loader
    from shards.order.mix import make_plan
    from shards.read.dataset import Dataset

    data = Dataset.open(folder)
    plan, seen = make_plan(data, None, "shuffle", 0, BATCH), np.zeros(len(data), np.int64)
    film = lambda r, g: Sample({"image": r.stored_image("image").pixels()})  # noqa: E731
    with Loader(data, plan, film, partial(Method.collate, None), workers=WORKERS) as loader:  # type: ignore[arg-type]
        for step in itertools.islice(loader.iterate(), plan.steps_per_epoch):
            seen[step.index] += 1
    assert seen.max() == 1, "no film twice"
    assert seen.sum() == plan.steps_per_epoch * BATCH, "whole batches of all films"


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a data set."""
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def pack(manifest: Path, out: Path, jobs: int, size: str) -> list[str]:
    words = ["-m", "shards", "pack", str(manifest), "--out", str(out), "--name", "films"]
    return [*words, "--jobs", str(jobs), "--shard-size", size]


def killed(folder: Path, jobs: int, kills: int, whole_cpu_s: float) -> Iterator[str]:
    """Packs in small shards, killed at random points; what each life left, and whether the end is the same."""
    manifest, out = folder / "in" / "manifest.csv", folder / "killed"
    draw, lives, done = random.Random(0), 0, None
    while done is None:
        after = draw.uniform(0, whole_cpu_s) if lives < kills else None
        done = run(pack(manifest, out, jobs, SMALL), after)
        if (
            done is not None and lives < kills
        ):  # came to its end before its time: what is left of the kills is for a new packing
            shutil.rmtree(out)
            done = None
        elif done is None:
            lives += 1
            if (out / "dataset.json").is_file():  # the command was at its end
                shutil.rmtree(out)
            begun = len(list((folder / ".killed.packing" / "begun").glob("shard-*.json")))
            yield f"{lives}. kill after {after:.1f} CPU s: {begun} shards are whole"
    run(pack(manifest, folder / "never", jobs, SMALL))
    same = digest(out) == digest(folder / "never")
    left = sorted(p.name for p in folder.iterdir() if p.name not in ("in", "set", "killed", "never"))
    assert same, "the data set differs from one that nobody killed"
    assert not left, f"{left} is left behind"
    yield f"after {kills} kills the data set is, byte for byte, that of a command that nobody killed; nothing is left beside it"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=100_000)
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--grain", type=float, default=4, help="of the films: 4 makes files of 72 kB, 1 of 27 kB, sooner")
    p.add_argument("--pictures", type=int, default=0, help="draw only so many, told apart by a comment (sooner)")
    p.add_argument("--folder", type=Path, help="where the temporary folder is made")
    p.add_argument("--epoch", type=Path, help=argparse.SUPPRESS)
    p.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.epoch:
        return epoch(args.epoch)
    if args.generate:
        return generate(args.generate, args.count, args.grain, args.pictures)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with tempfile.TemporaryDirectory(prefix="medpair-films-", dir=args.folder) as t:
        folder = Path(t)
        (folder / "in").mkdir()
        told = [w for n in ("count", "grain", "pictures") for w in (f"--{n}", str(getattr(args, n)))]
        run([__file__, "--generate", str(folder / "in"), *told])  # the system counts a parent's memory as its child's
        size = sum(p.stat().st_size for p in (folder / "in").glob("*/*.jpg"))
        print(f"{args.count:,} films of {size / args.count / 1e3:.0f} kB, {args.jobs} processes")
        print("| | CPU s | s | largest process, MiB |\n|---|---|---|---|", flush=True)
        out, jobs = str(folder / "set"), ["--jobs", str(args.jobs)]
        commands = {
            "pack": pack(folder / "in" / "manifest.csv", Path(out), args.jobs, SHARD),
            "lint": ["-m", "shards", "lint", out, *jobs],
            "split": ["-m", "shards", "split", out, "--stratify", "finding"],
            "an epoch, two threads": [__file__, "--epoch", out],
        }
        costs = {}
        for name, words in commands.items():
            costs[name] = run(words)
            print(f"| {name} | {costs[name]} |", flush=True)
        if args.kills:
            packed = costs["pack"]
            assert packed is not None
            for line in killed(folder, args.jobs, args.kills, packed.cpu_s):
                print(line, flush=True)


if __name__ == "__main__":
    main()
