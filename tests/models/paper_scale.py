"""One optimisation step of each stage of a method at the paper's sizes; prints what it cost as JSON.

python tests/models/paper_scale.py gimp|mgi BATCH [checkpointing] [genes=N] [method.OPTION=VALUE ...]

gimp: 6,000 x 1024 patches and 60,480 genes (its recipe `paper`). mgi: a slice of 256 pixels and 60,484 genes; its `paper` has a token a
gene, mgi (`recipe=recommended`) one for 64 genes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from synthetic import MemoryRecord, nested

from models.contract import Field, Label, Schema
from models.layers.checkpointing import set_activation_checkpointing
from models.layers.scan import numba_loads
from models.registry import get_method
from shards.resident import peak_resident

RECIPES = Path(__file__).parents[2] / "configs" / "methods"
WIDTH, PATCHES, SIDE = 1024, (9_000, 2_500), 256
GENES = {"gimp": 60_480, "mgi": 60_484}


def sample(name: str, i: int) -> MemoryRecord:
    """gimp: a slide longer than the window or a shorter one, in turn. mgi: a slice of one channel."""
    rng = np.random.default_rng(i)
    fields = {"rna": rng.standard_normal(GENES[name], dtype=np.float32).astype(np.float16)}
    if name == "gimp":
        fields["patches"] = rng.standard_normal((PATCHES[i % 2], WIDTH), dtype=np.float32).astype(np.float16)
    else:
        fields["image"] = rng.integers(0, 255, (SIDE, SIDE, 1), dtype=np.uint8)
    return MemoryRecord(f"s{i}", f"p{i}", {"subtype": "AB"[i // 2 % 2]}, fields)


def schema(name: str) -> Schema:
    G = GENES[name]
    fields = {
        "rna": Field("rna", "array", "float16", (G,), None, np.zeros(G), np.ones(G)),
        "patches": Field("patches", "array", "float16", (None, WIDTH)),
        "image": Field("image", "image", "uint8", (SIDE, SIDE, 1)),
    }
    return Schema(fields, {"subtype": Label("subtype", "class", ("A", "B"))})


def peak_gb() -> float:
    return peak_resident() / 1e9


def main(name: str, batch_size: int, checkpointing: bool, recipe: str, changes: dict[str, Any]) -> dict[str, float]:
    set_activation_checkpointing(checkpointing)
    torch.manual_seed(0)
    cls = get_method(name)
    given = yaml.safe_load((RECIPES / name / f"{recipe}.yaml").read_text()).get("method") or {}
    method = cls(cls.Options.parse(cls.Options.over(given, nested(changes))), schema(name))
    made: dict[str, float] = {"parameters": sum(p.numel() for p in method.parameters())}
    records = [sample(name, i) for i in range(batch_size)]
    # numba's compiler takes up to 0.2 GB, the first time that it is asked on a machine.
    numba_loads()
    before = peak_gb()
    for stage in [s.name for s in method.stages()]:
        method.enter(stage)
        method.train()
        optimizer = torch.optim.AdamW([{"params": g.params} for g in method.param_groups()], 1e-4)
        start = time.perf_counter()
        batch = method.collate([method.sample(r, np.random.default_rng(i)) for i, r in enumerate(records)])
        loss = method(batch).total
        loss.backward()
        made[f"{stage}_lacking"] = sum(p.grad is None for g in method.param_groups() for p in g.params)
        optimizer.step()
        made[f"{stage}_s"], made[f"{stage}_loss"] = time.perf_counter() - start, loss.item()
    made["peak_gb"] = peak_gb()
    made["grown_gb"] = made["peak_gb"] - before
    return made


if __name__ == "__main__":
    name, size, *words = sys.argv[1:]
    pairs = dict(w.split("=", 1) for w in words if "=" in w)
    recipe = pairs.pop("recipe", "paper")
    GENES[name] = int(pairs.pop("genes", GENES[name]))
    options = {k.removeprefix("method."): yaml.safe_load(v) for k, v in pairs.items()}
    print(json.dumps(main(name, int(size), "checkpointing" in words, recipe, options)))
