"""Bags a second of fine-tune steps over slides of real lengths: without padding, and over batches filled up to their longest slide.

python tests/benchmarks/bags.py [NAME ...] [slides=24] [batch=8] [width=192] [embed=192] [genes=200] [seed=0] [threads=1]
    [shortest=485] [longest=148569]

Lengths are log-normal, three standard deviations to either side from the shortest to the longest. Both ways take the same batches with the
same weights in turn: collate, forward, backward, AdamW, in float32; systems that read genes get them. Filled up means that every place of
the stacked batch is taken for a patch, so that its layers do what a padded batch costs (masking itself, which a padded batch needs besides,
is not counted). Seconds are those of the processor, so that what else runs on the machine takes no part.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.contract import Batch, Field, Label, Sample, Schema, TargetSpec  # noqa: E402
from models.contract.bags import counting_rows  # noqa: E402
from models.finetuned import Downstream, FinetuneSettings, make_head  # noqa: E402
from models.registry import families, get_method  # noqa: E402

DEFAULTS = {
    "slides": 24, "batch": 8, "width": 192, "embed": 192, "genes": 200, "shortest": 485, "longest": 148_569, "seed": 0, "threads": 1,
}  # fmt: skip
NAMES = families()["slides"]
WIDTHS = ("embed", "dim")


def lengths(given: dict[str, int]) -> np.ndarray:
    """Patches of each slide, in the random order in which they come."""
    low, high = np.log(given["shortest"]), np.log(given["longest"])
    # Its quantiles, since a few draws may lie anywhere.
    shares = [(i + 0.5) / given["slides"] for i in range(given["slides"])]
    logs = [NormalDist((low + high) / 2, (high - low) / 6).inv_cdf(p) for p in shares]
    return np.random.default_rng(given["seed"]).permutation(np.exp(np.clip(logs, low, high)).round().astype(int))


def model(name: str, given: dict[str, int]) -> Downstream:
    """The system with its default options but for widths, and its own head for two classes."""
    torch.manual_seed(given["seed"])
    cls, G = get_method(name), given["genes"]
    options = {k: given["embed"] for k in WIDTHS if k in cls.Options.model_fields}
    rna = Field("rna", "array", "float32", (G,), None, np.zeros(G), np.ones(G))
    fields = {"patches": Field("patches", "array", "float16", (None, given["width"])), "rna": rna}
    method = cls(cls.Options.parse(options), Schema(fields, {"subtype": Label("subtype", "class", ("a", "b"))}))
    with torch.no_grad():
        encoded = method.eval().encode(method.collate(samples(np.array([8, 8]), given)))
    asked = TargetSpec("multiclass", 2, ("a", "b"))
    widths = encoded["pooled_BD"].shape[1], encoded["tokens_BLD"].shape[2]
    head = make_head(method, asked, *widths, head="auto", norm=False, hidden=128, dropout=0.0)
    return Downstream(method, head, asked, FinetuneSettings(method.inputs), lambda r: np.zeros(1, np.float32)).train()


def samples(some: np.ndarray, given: dict[str, int]) -> list[Sample]:
    rng = np.random.default_rng(given["seed"])
    rows = rng.standard_normal((int(some.max()), given["width"]), dtype=np.float32).astype(np.float16)
    rna = rng.standard_normal((len(some), given["genes"]), dtype=np.float32)
    target, present = np.ones(1, np.float32), {"patches": True, "rna": True}
    return [
        Sample({"patches": rows[:n], "rna": rna_G, "target": target}, present)
        for n, rna_G in zip(some, rna, strict=True)
    ]


def filled_up(batch: Batch) -> Batch:
    """Every place of the batch as a patch."""
    return Batch({k: v for k, v in batch.items() if k != "length"}, batch.present)


def measured(name: str, given: dict[str, int]) -> dict[str, Any]:
    """Seconds of all steps each way, and the share of rows that were padding."""
    fit, all_lengths = model(name, given), lengths(given)
    optimizer = torch.optim.AdamW([p for p in fit.parameters() if p.requires_grad], 1e-4)
    seconds, rows, real = [0.0, 0.0], [0, 0], 0
    for some in np.split(all_lengths, range(given["batch"], len(all_lengths), given["batch"])):
        made = samples(some, given)
        for way, change in enumerate((lambda b: b, filled_up)):
            begun = time.process_time()
            with counting_rows() as counted:
                loss = fit(change(fit.collate(made))).total
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds[way] += time.process_time() - begun
            rows[way] += counted.computed
        real += int(some.sum())
    return {"seconds": seconds, "padding": [1 - real / n for n in rows]}


def main(words: list[str]) -> None:
    given = {**DEFAULTS, **{k: int(v) for k, v in (w.split("=", 1) for w in words if "=" in w)}}
    if unknown := given.keys() - DEFAULTS.keys():
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(DEFAULTS)}")
    torch.set_num_threads(given["threads"])
    chosen = lengths(given)
    of = f"{chosen.min():,} to {chosen.max():,} patches, {chosen.mean():,.0f} in the mean"
    print(f"{len(chosen)} slides of {of}; batches of {given['batch']}")
    print(f"{'system':<20}{'without padding':>24}{'filled up':>24}{'ratio':>8}")
    for name in [w for w in words if "=" not in w] or NAMES:
        found = measured(name, given)
        cells = [
            f"{len(chosen) / s:.3f} bags/s, {p:.1%}" for s, p in zip(found["seconds"], found["padding"], strict=True)
        ]
        print(f"{name:<20}{cells[0]:>24}{cells[1]:>24}{found['seconds'][1] / found['seconds'][0]:>8.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
