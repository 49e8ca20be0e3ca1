"""Real runs of the demo cohort by the command line: precisions, and ZeRO stages over the ranks that there are cards for."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.gpu.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.cuda.is_available()
CARDS = torch.cuda.device_count() if CUDA else 0
STEPS = 8
LONGEST = 150  # seconds of a run
APART = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.05}
"""How far losses may be from those of one float32 run under ZeRO 0, in parts."""


def run(out: Path, *words: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of `launch/pretrain.py`, on all cards (a CPU: one rank).

    Raises:
        RuntimeError: it ended otherwise than with 0.
    """
    command = [sys.executable, "launch/pretrain.py"]
    if CARDS > 1:
        command = [str(Path(sys.executable).parent / "deepspeed"), f"--num_gpus={CARDS}", "launch/pretrain.py"]
    done = subprocess.run(
        [*command, *words, f"out={out}"], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def small(out: Path, *words: str) -> list[dict[str, Any]]:
    return run(out, "--method", "gimp", f"steps={STEPS}", "stages.gene.steps=2", "method.dropout=0.0", *words)


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [r["loss"] for r in rows if r["stage"] == "pretrain"]


def apart(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def judged(name: str, rows: list[dict[str, Any]], whole: list[float], bound: float) -> Outcome:
    """Losses near those of the float32 run; under fp16 steps may be left out while its scale finds its level, but not the last ones."""
    applied = [not r["skipped"] for r in rows if r["stage"] == "pretrain"]
    far = apart(losses(rows), whole) if all(applied) else apart(losses(rows)[:1], whole[:1])
    said = f"losses within {far:.1e} (at most {bound:g}), {sum(applied)} of {len(applied)} steps applied"
    return Outcome(name, "pass" if far <= bound and all(applied[-2:]) else "FAIL", said)


def precisions() -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        whole = losses(small(Path(folder) / "fp32", "precision=fp32", "zero.stage=0"))
        for precision in ("bf16", "fp16"):
            if precision == "fp16" and not CUDA:
                yield Outcome("fp16, loss scale", "not run", "CUDA only")
                continue
            rows = small(Path(folder) / precision, f"precision={precision}", "zero.stage=1")
            name = "fp16, loss scale" if precision == "fp16" else precision
            yield judged(name, rows, whole, APART[precision])


def zero() -> Iterator[Outcome]:
    ranks = f"{max(CARDS, 1)} rank{'s' * (CARDS > 1)}, {'NCCL' if CUDA else 'gloo'}"
    with tempfile.TemporaryDirectory() as folder:
        whole = losses(small(Path(folder) / "0", "zero.stage=0", "precision=fp32"))
        for stage in (1, 2, 3):
            rows = small(Path(folder) / str(stage), f"zero.stage={stage}", "precision=fp32")
            yield judged(f"ZeRO {stage}, {ranks}", rows, whole, APART["fp32"])


def memory() -> Iterator[Outcome]:
    """Bytes of weights, gradients and optimizer of one rank, counted, against what `--dry-run` prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-c",
            "import sys; from tests.trainer.memory_worker import main; main(sys.argv[1:])",
            folder,
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-400:])
        for case in json.loads((Path(folder) / "rank0.json").read_text()):
            counted, predicted = (sum(case[k].values()) for k in ("counted", "predicted"))
            said = f"{counted:,} bytes of state, --dry-run says {predicted:,}"
            name, near = f"ZeRO {case['stage']}, {case['precision']}", abs(counted - predicted) <= 0.02 * predicted
            yield Outcome(name, "pass" if near else "FAIL", said)


# --------------------------------------------------------------------------------------------------------------- recipes

METHODS = ("gimp", "mgi", "mrm_relation", "mrm_record")
WORDS = {
    "mrm_record": ["method.image.init=scratch"],
    "mrm_relation": ["method.image.init=scratch", "method.genetics=pgs,rna,snp"],
}
"""What a paper's recipe needs besides on the demo cohort: no file of weights, the fields that are there."""
SHORT = 12
LEAST = 0.5
"""The share of a bare loop's speed below which a recipe fails on a GPU. A tenth is lost to other work there at times, half is not; on a
CPU that others use as well, ratios of one short run say nothing, and are only reported."""


def recipes() -> Iterator[Outcome]:
    """Each paper's recipe (on a CPU: the demo recipe) against a bare loop over the same batches; its data are the demo cohort's."""
    for method in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            yield _measured(method, "paper" if CUDA else "demo", Path(folder))


def _measured(method: str, recipe: str, folder: Path) -> Outcome:
    words = ["--method", method, "--recipe", recipe, "global_batch=8", *(WORDS.get(method, []) if CUDA else [])]
    rows = run(folder / "run", *words, f"steps={SHORT}")[-SHORT // 2 :]
    bare = _bare(folder, words)
    ours, wait = (statistics.median(r[k] for r in rows) for k in ("samples_per_s", "data_wait"))
    said = f"{recipe} recipe, global batch 8: {ours:.1f} samples/s, {ours / bare['samples_per_s']:.2f} of a bare loop's"
    said += f" ({bare['samples_per_s']:.1f}), data wait {wait:.0%}, {_mfu(ours * bare['flops'], bare['precision'])}"
    said += f"peak {max(r['peak_memory'] for r in rows) / 1e9:.2f} GB"
    return Outcome(method, "pass" if sound(rows, ours / bare["samples_per_s"]) else "FAIL", said)


def sound(rows: list[dict[str, Any]], share: float, least: float = LEAST if CUDA else 0.0) -> bool:
    """Losses are numbers, the last steps were applied, and the speed is at least that share of a bare loop's."""
    return all(math.isfinite(r["loss"]) for r in rows) and not any(r["skipped"] for r in rows[-2:]) and share >= least


def _bare(folder: Path, words: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.bare", *words, f"out={folder / 'bare'}"], cwd=ROOT, capture_output=True, text=True,
        timeout=LONGEST, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"bare loop: {done.stderr[-400:]}")
    return json.loads(done.stdout.splitlines()[-1])


PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A40": 150e12, "L40S": 362e12, "4090": 165e12, "3090": 71e12}
"""Dense products in half precision with sums in float32, per second, from the vendor's data sheets."""


def peak_of(card: str) -> float | None:
    """None of a card that is not in `PEAKS`, such as an A4000, or the slower PCIe or NVL form of one that is."""
    slower = "(?! PCIe| NVL| Laptop| D)"
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b{slower}", card)), None)


def _mfu(flops_per_s: float, precision: str) -> str:
    peak = peak_of(torch.cuda.get_device_name(0)) if CUDA else None
    if peak is None:
        return f"{flops_per_s / 1e9:.1f} GFLOP/s (MFU: the peak of this device is not known), "
    beside = "" if precision != "fp32" else " of half precision's peak, in fp32"
    return f"MFU {flops_per_s / peak:.1%}{beside}, "
