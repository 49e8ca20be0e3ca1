"""A whole step of `mrm_record` through the engine, update included: fp32, fp32 with matmul=auto, and bf16 with ZeRO 1.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.precision [--rounds 4] [--losses]

The paper's shapes (`tests/benchmarks/record.py`), batch 4, random weights. Ways alternate round by round in one process; seconds are
processor time, so that other work on the machine does not count. `--losses` instead trains the demo recipe for 200 steps with each of
them, and in fp32 with another seed: the losses have to lie nearer to those of fp32 than another seed's do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
WAYS = {
    "fp32": ["precision=fp32", "zero.stage=0"],
    "fp32, matmul=auto": ["precision=fp32", "zero.stage=0", "matmul=auto"],
    "bf16": ["precision=bf16", "zero.stage=1"],
}
PARTS = ("forward", "backward", "update")


def steps(rounds: int) -> None:
    from tests.benchmarks.record import paper_batch
    from trainer.config.recipe import build_config
    from trainer.engine import matmul
    from trainer.engine.engine import Engine
    from trainer.runtime import start

    runtime = start()
    engines, times = {}, {name: [] for name in WAYS}  # type: ignore[var-annotated]
    for name, words in WAYS.items():
        # The first two differ by a switch of the process alone, and share their weights.
        config, _ = build_config("mrm_record", None, ["global_batch=4", *words])
        if config.matmul == "auto":
            engines[name] = engines["fp32"]
            continue
        method, batch = paper_batch(4, runtime.device)
        engines[name] = Engine(method, config, "pretrain", runtime)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {engines['fp32'].parameters:,} parameters")
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            matmul.choose("auto" if "auto" in name else "torch", runtime.device)
            engine.accumulate(True)
            at = [time.process_time()]
            total = engine.forward(batch).total
            at.append(time.process_time())
            engine.backward(total)
            at.append(time.process_time())
            engine.update(1e-5)
            at.append(time.process_time())
            if turn:
                times[name].append([b - a for a, b in itertools.pairwise(at)])
    print(f"{'':20}" + "".join(f"{p:>10}" for p in (*PARTS, "step")) + "   of fp32's speed, median of rounds")
    whole = {name: [sum(one) for one in found] for name, found in times.items()}
    for name, found in times.items():
        cells = [statistics.median(part) for part in zip(*found, strict=True)]
        ratio = statistics.median(a / b for a, b in zip(whole["fp32"], whole[name], strict=True))
        print(
            f"{name:20}" + "".join(f"{c:9.2f}s" for c in (*cells, statistics.median(whole[name]))) + f"   {ratio:.2f}"
        )


def losses() -> int:
    """Ends with status 1 where a way is further from fp32 than another seed."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in {**WAYS, "fp32, another seed": [*WAYS["fp32"], "seed=1"]}.items():
            out = Path(folder) / name.replace(" ", "-").replace(",", "").replace("=", "-")
            given = ["--method", "mrm_record", "--recipe", "demo", "steps=200", f"out={out}", "log.every=200"]
            subprocess.run([sys.executable, "launch/pretrain.py", *given, *words], cwd=ROOT, check=True)
            rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            found[name] = [row["loss"] for row in rows if "loss" in row]
    apart = {
        name: statistics.fmean(abs(a - b) for a, b in zip(found["fp32"], found[name], strict=True)) for name in found
    }
    for name, curve in found.items():
        print(
            f"{name:20} {len(curve)} steps, last 50: {statistics.fmean(curve[-50:]):.4f}, from fp32 on average {apart[name]:.4f}"
        )
    return int(max(apart["fp32, matmul=auto"], apart["bf16"]) > apart["fp32, another seed"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--losses", action="store_true")
    args = parser.parse_args()
    if args.losses:
        return losses()
    steps(args.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
