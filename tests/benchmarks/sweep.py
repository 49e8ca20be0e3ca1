"""A sweep of short fine-tunes whose points are forked from one process that has loaded everything, against a process a point.

    OMP_NUM_THREADS=1 python tests/benchmarks/sweep.py [--points 24] [--alone 24] [--launcher 24] [--jobs 2] [--memory 50]

Prints seconds by the clock and of the processors for all ways, their ratios, and whether all results are the same to the last bit
(result.json but for what it took, predictions, weights). With `--alone N` the first N points alone have a process each, whose time is
counted for all of them. `--launcher N`: also N points as commands of their own, `deepspeed --num_gpus 1 launch/finetune.py`, as many
at a time; that is what a sweep costs who types it. With `--memory N` a forked sweep of N points more: what the forking process
holds, and the largest memory of a point, along the way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["--task", "demo_subtype", "--method", "abmil", "protocol.epochs=null", "bootstrap.draws=100"]
STEPS = 20
ALONE, LAUNCHER = "a process a point", "by the launcher"
TOOK = ("wall_s", "seconds", "started", "ended")


def swept(folder: Path, name: str, points: int, steps: int) -> Path:
    """The file of a sweep of so many points."""
    content = {
        "command": "finetune",
        "words": [*WORDS, f"protocol.steps={steps}"],
        "grid": {"seeds": [[i] for i in range(points)]},
        "baselines": False,
    }
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(content))
    return file


def started(file: Path, out: Path, jobs: int, *how: str) -> subprocess.Popen[bytes]:
    # As a user has it: compiled modules are kept, or each process of the old way would compile this project anew.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "launch/sweep.py", str(file), "--out", str(out), "--jobs", str(jobs), *how]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=env)


def spent() -> float:
    """Processor seconds of all that this process started and has waited for, and of what those did."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Typed:
    """Points as commands of DeepSpeed's launcher, so many at a time."""

    def __init__(self, out: Path, points: int, jobs: int):
        self.out, self.points, self.jobs = out, points, jobs

    def wait(self) -> int:
        with ThreadPoolExecutor(self.jobs) as pool:
            return max(pool.map(self._one, range(self.points)))

    def _one(self, i: int) -> int:
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        launcher = ["deepspeed", "--num_gpus", "1", "--master_port", str(port)]
        words = [*WORDS, f"protocol.steps={STEPS}", f"seeds=[{i}]", f"out={self.out / f'seeds-{i}'}"]
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        command = [*launcher, "launch/finetune.py", *words]
        return subprocess.run(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
        ).returncode


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_time(v) for k, v in value.items() if k not in TOOK}
    return [without_time(v) for v in value] if isinstance(value, list) else value


def made(out: Path) -> dict[str, str]:
    """{file: its hash} of results, predictions and weights."""
    found = {}
    for file in sorted(out.glob("*/**/*")):
        name = str(file.relative_to(out))
        if file.name == "result.json":
            found[name] = json.dumps(without_time(json.loads(file.read_text())), sort_keys=True)
        elif file.suffix in (".npz", ".safetensors"):
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def compared(folder: Path, points: int, counts: dict[str, int], jobs: int) -> None:
    """counts: {way of old: its points}, whose time is counted for all of them."""
    ways = {"forked": points, **counts}
    took: dict[str, tuple[float, float]] = {}
    results = {}
    for name, count in ways.items():
        out = folder / name.replace(" ", "-")
        clock, processor = time.perf_counter(), spent()
        if name == LAUNCHER:
            status = Typed(out, count, jobs).wait()
        else:
            how = [] if name == "forked" else ["--no-preload"]
            status = started(swept(folder, f"sweep-{count}", count, STEPS), out, jobs, *how).wait()
        assert status == 0, name
        took[name] = time.perf_counter() - clock, spent() - processor
        results[name] = made(out)
        a, b = took[name]
        print(f"{name:>18}: {a:7.1f} s by the clock, {b:7.1f} s of processors, {count} points", flush=True)
    forked, (a, b) = results["forked"], took["forked"]
    for name, count in counts.items():
        c, d = (v * points / count for v in took[name])
        same = "the same" if results[name].items() <= forked.items() else "NOT THE SAME"
        print(
            f"{name:>18}: {c / a:.2f}x by the clock, {d / b:.2f}x of processors; {len(results[name])} files {same}",
            flush=True,
        )


def remembered(folder: Path, points: int, jobs: int) -> None:
    """Resident memory along a forked sweep, in MiB, what is shared among it."""
    out = folder / "memory"
    process = started(swept(folder, "memory", points, 4), out, jobs)
    held: dict[int, float] = {}
    while process.poll() is None:
        done = len(list(out.glob("*/result.json")))
        try:
            forking = psutil.Process(process.pid).children()
            if forking and done:
                held[done] = forking[0].memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    assert process.returncode == 0
    peaks = [_peak(out / f"seeds-{i}") for i in range(points)]
    shown = sorted(held)[:: max(1, len(held) // 6)]
    print("the forking process, MiB after so many points:", {n: round(held[n], 1) for n in shown})
    print("largest memory of points, MiB, by tens:", [round(max(peaks[i : i + 10])) for i in range(0, points, 10)])


def _peak(run: Path) -> float:
    """With what is shared: the largest of all its steps."""
    rows = [json.loads(line) for file in run.glob("*/*/metrics.jsonl") for line in file.read_text().splitlines()]
    return max(r["peak_memory"] for r in rows) / 2**20


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--points", type=int, default=24)
    p.add_argument("--alone", type=int, default=0, metavar="POINTS")
    p.add_argument("--launcher", type=int, default=0, metavar="POINTS")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--memory", type=int, default=0, metavar="POINTS")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.points:
            counts = {ALONE: args.alone or args.points, LAUNCHER: args.launcher}
            compared(Path(folder), args.points, {k: n for k, n in counts.items() if n}, args.jobs)
        if args.memory:
            remembered(Path(folder), args.memory, args.jobs)


if __name__ == "__main__":
    main()
