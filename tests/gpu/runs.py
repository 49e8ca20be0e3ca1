"""Real runs of the demo cohort by the command line: precisions, and ZeRO stages over the ranks that there are cards for."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from tests.gpu.outcome import Case, Found, NotRun, device_name
from tests.gpu.process import ended

CUDA = torch.cuda.is_available()
CARDS = min(1 << (torch.cuda.device_count().bit_length() - 1), 8) if CUDA else 0
"""A power of two, which divides the batches of the recipes."""
STEPS = 8
APART = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.05}
"""How far losses may be from those of one float32 run under ZeRO 0, in parts."""


def run(out: Path, *words: str, cards: int = CARDS) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of `launch/pretrain.py` on so many cards (a CPU: one rank).

    Raises:
        RuntimeError: it ended otherwise than with 0.
    """
    command = [sys.executable, "launch/pretrain.py"]
    if cards > 1:
        command = [str(Path(sys.executable).parent / "deepspeed"), f"--num_gpus={cards}", "launch/pretrain.py"]
    _, why = ended([*command, *words, f"out={out}"])
    if why:
        raise RuntimeError(f"{' '.join(words)} {why}")
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def small(out: Path, *words: str) -> list[dict[str, Any]]:
    return run(out, "--method", "gimp", f"steps={STEPS}", "stages.gene.steps=2", "method.dropout=0.0", *words)


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [r["loss"] for r in rows if r["stage"] == "pretrain"]


def apart(found: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


@cache
def _reference() -> list[float] | str:
    """Losses in float32 under ZeRO 0, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return losses(small(Path(folder) / "run", "precision=fp32", "zero.stage=0"))
        except RuntimeError as e:
            return str(e)


def judged(rows: list[dict[str, Any]], whole: list[float], bound: float) -> Found:
    """Losses near those of the float32 run; under fp16 steps may be left out while its scale finds its level, but not the last ones."""
    applied = [not r["skipped"] for r in rows if r["stage"] == "pretrain"]
    far = apart(losses(rows), whole) if all(applied) else apart(losses(rows)[:1], whole[:1])
    said = f"losses within {far:.1e} (at most {bound:g}), {sum(applied)} of {len(applied)} steps applied"
    return Found("pass" if far <= bound and all(applied[-2:]) else "FAIL", said)


def _near_reference(precision: str, stage: int) -> Found:
    if precision == "fp16" and not CUDA:
        raise NotRun("CUDA only")
    with tempfile.TemporaryDirectory() as folder:
        rows = small(Path(folder) / "run", f"precision={precision}", f"zero.stage={stage}")
    if isinstance(whole := _reference(), str):
        return Found("FAIL", f"it runs, but not what its losses are compared with: {whole}")
    return judged(rows, whole, APART[precision])


def precisions() -> dict[str, Case]:
    return {"bf16": partial(_near_reference, "bf16", 1), "fp16, loss scale": partial(_near_reference, "fp16", 1)}


def zero() -> dict[str, Case]:
    ranks = f"{max(CARDS, 1)} rank{'s' * (CARDS > 1)}, {'NCCL' if CUDA else 'gloo'}"
    return {f"ZeRO {stage}, {ranks}": partial(_near_reference, "fp32", stage) for stage in (1, 2, 3)}


def memory() -> dict[str, Case]:
    """Bytes of weights, gradients and optimizer of one rank, counted, against what `--dry-run` prints."""
    return {f"ZeRO {stage}": partial(_counted, stage) for stage in (0, 1, 2, 3)}


def _counted(stage: int) -> Found:
    line = "import sys; from tests.trainer.memory_worker import main; main(sys.argv[1:])"
    with tempfile.TemporaryDirectory() as folder:
        _, why = ended([sys.executable, "-c", line, folder, str(stage)])
        if why:
            raise RuntimeError(why)
        cases = json.loads((Path(folder) / "rank0.json").read_text())
    said, near = [], True
    for case in cases:
        counted, predicted = (sum(case[k].values()) for k in ("counted", "predicted"))
        said.append(f"{case['precision']} {counted:,} bytes of state, --dry-run says {predicted:,}")
        near &= abs(counted - predicted) <= 0.02 * predicted
    return Found("pass" if cases and near else "FAIL", "; ".join(said))


# --------------------------------------------------------------------------------------------------------------- recipes

METHODS = ("gimp", "mgi", "mrm_relation", "mrm_record")
SHORTER = {"gimp": ["stages.gene.steps=2"]}
"""Stages before the one that is measured."""
PAPER = {
    "mrm_record": ["method.image.init=scratch"],
    "mrm_relation": ["method.image.init=scratch", "method.genetics=pgs,rna,snp"],
}
"""What a paper's recipe needs besides on the demo cohort: no file of weights, the fields that are there."""
SHORT = 12 if CUDA else 6
LEAST = 0.5
"""The share of a bare loop's speed below which a recipe fails on a GPU. A tenth is lost to other work there at times, half is not; on a
CPU that others use as well, ratios of one short run say nothing, and are only reported."""


def recipes() -> dict[str, Case]:
    """Each paper's recipe (on a CPU: the demo recipe) against a bare loop over the same batches; its data are the demo cohort's."""
    return {method: partial(_measured, method) for method in METHODS}


def words_of(method: str, recipe: str) -> list[str]:
    more = PAPER.get(method, []) if recipe == "paper" else []
    return ["--method", method, "--recipe", recipe, "global_batch=8", *SHORTER.get(method, []), *more]


def _measured(method: str) -> Found:
    """On one card, as the bare loop is."""
    recipe = "paper" if CUDA else "demo"
    words = words_of(method, recipe)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder) / "run", *words, f"steps={SHORT}", cards=1)[-SHORT // 2 :]
        out, why = ended([sys.executable, "-m", "tests.gpu.bare", *words, f"out={folder}/bare"])
    ours, wait = (statistics.median(r[k] for r in rows) for k in ("samples_per_s", "data_wait"))
    said = f"{recipe} recipe, global batch 8: {ours:.1f} samples/s, data wait {wait:.0%}, "
    said += f"peak {max(r['peak_memory'] for r in rows) / 1e9:.2f} GB"
    if why:
        return Found("FAIL", f"{said}; the bare loop beside it {why}")
    bare = json.loads(out.splitlines()[-1])
    share = ours / bare["samples_per_s"]
    said += (
        f", {_mfu(ours * bare['flops'], bare['precision'])}, {share:.2f} of a bare loop's {bare['samples_per_s']:.1f}"
    )
    return Found("pass" if sound(rows, share) else "FAIL", said)


def sound(rows: list[dict[str, Any]], share: float, least: float = LEAST if CUDA else 0.0) -> bool:
    """Losses are numbers, the last steps were applied, and the speed is at least that share of a bare loop's."""
    return all(math.isfinite(r["loss"]) for r in rows) and not any(r["skipped"] for r in rows[-2:]) and share >= least


PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A40": 150e12, "L40S": 362e12, "4090": 165e12, "3090": 71e12}
"""Dense products in half precision with sums in float32, per second, from the vendor's data sheets."""


def peak_of(card: str) -> float | None:
    """None of a card that is not in `PEAKS`, such as an A4000, or the slower PCIe or NVL form of one that is."""
    slower = "(?! PCIe| NVL| Laptop| D)"
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b{slower}", card)), None)


def _mfu(flops_per_s: float, precision: str) -> str:
    peak = peak_of(device_name()) if CUDA else None
    if peak is None:
        return f"{flops_per_s / 1e9:.1f} GFLOP/s (MFU: the peak of this device is not known)"
    beside = "" if precision != "fp32" else " of half precision's peak, in fp32"
    return f"MFU {flops_per_s / peak:.1%}{beside}"
