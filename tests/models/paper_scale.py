"""One optimisation step of each stage of gimp-paper at the paper's sizes; prints what it cost as JSON.

python tests/models/paper_scale.py [BATCH] [checkpointing]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from synthetic import MemoryRecord

from models.contract import Field, Label, Schema
from models.layers.checkpointing import set_activation_checkpointing
from models.methods.gimp import Gimp, GimpOptions

RECIPE = Path(__file__).parents[2] / "configs" / "pretrain" / "gimp-paper.yaml"
GENES, WIDTH, PATCHES = 60_480, 1024, (9_000, 2_500)


def sample(i: int) -> MemoryRecord:
    """A slide longer than the window or a shorter one, in turn."""
    rng = np.random.default_rng(i)
    patches = rng.standard_normal((PATCHES[i % 2], WIDTH), dtype=np.float32).astype(np.float16)
    rna = rng.standard_normal(GENES, dtype=np.float32).astype(np.float16)
    return MemoryRecord(f"s{i}", f"p{i}", {"subtype": "AB"[i // 2 % 2]}, {"patches": patches, "rna": rna})


def main(batch_size: int, checkpointing: bool) -> dict[str, float]:
    set_activation_checkpointing(checkpointing)
    fields = {
        "patches": Field("patches", "array", "float16", (None, WIDTH)),
        "rna": Field("rna", "array", "float16", (GENES,), None, np.zeros(GENES), np.ones(GENES)),
    }
    torch.manual_seed(0)
    options = GimpOptions.parse(yaml.safe_load(RECIPE.read_text())["method"])
    method = Gimp(options, Schema(fields, {"subtype": Label("subtype", "class", ("A", "B"))}))
    made: dict[str, float] = {"parameters": sum(p.numel() for p in method.parameters())}
    records = [sample(i) for i in range(batch_size)]
    for stage in ("gene", "pretrain"):
        method.enter(stage)
        method.train()
        optimizer = torch.optim.AdamW([{"params": g.params} for g in method.param_groups()], 1e-4)
        start = time.perf_counter()
        batch = method.collate([method.sample(r, np.random.default_rng(i)) for i, r in enumerate(records)])
        loss = method(batch).total
        loss.backward()
        optimizer.step()
        made[f"{stage}_s"], made[f"{stage}_loss"] = time.perf_counter() - start, loss.item()
    # ru_maxrss is in kilobytes on Linux.
    made["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return made


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2, "checkpointing" in sys.argv)))
