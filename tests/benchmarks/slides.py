"""One fine-tune step of slide systems at the size of real slides: seconds, and the most memory held.

python tests/benchmarks/slides.py [NAME ...] [patches=15000,148569] [genes=60480] [width=1024] [threads=2] [device=cpu|cuda]

A system is built by its recipe `recommended`; one bag a step, forward, backward and AdamW, float32. Each case runs in a process of its own,
so that its peak is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from models.contract import Batch, Field, Label, Schema, TargetSpec  # noqa: E402
from models.finetuned import Downstream, FinetuneSettings, make_head  # noqa: E402
from models.registry import families, get_method  # noqa: E402
from shards.resident import peak_resident  # noqa: E402

DEFAULTS = {"patches": "15000", "genes": "60480", "width": "1024", "threads": "2", "device": "cpu"}


def step(name: str, N: int, genes: int, width: int, threads: int, device: str) -> dict[str, Any]:
    """One step in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rna = Field("rna", "array", "float32", (genes,), None, np.zeros(genes), np.ones(genes))
    fields = {"patches": Field("patches", "array", "float16", (None, width)), "rna": rna}
    schema = Schema(fields, {"subtype": Label("subtype", "class", ("a", "b"))})
    cls = get_method(name)
    given = yaml.safe_load((ROOT / "configs" / "methods" / name / "recommended.yaml").read_text()).get("method") or {}
    method = cls(cls.Options.parse(given), schema)
    few = batch(8, width, genes)
    with torch.no_grad():
        encoded = method.eval().encode(few)
    asked = TargetSpec("multiclass", 2, ("a", "b"))
    widths = encoded["pooled_BD"].shape[1], encoded["tokens_BLD"].shape[2]
    head = make_head(method, asked, *widths, head="auto", norm=False, hidden=128, dropout=0.0)
    fit = FinetuneSettings(method.inputs)
    model = Downstream(method, head, asked, fit, lambda r: np.zeros(1, np.float32)).to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
    data = batch(N, width, genes).to(device)
    begun = time.perf_counter()
    model(data).total.backward()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = peak_resident()
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "system": name,
        "patches": N,
        "parameters": parameters,
        "s": time.perf_counter() - begun,
        "peak_gb": peak / 1e9,
    }


def batch(N: int, width: int, genes: int) -> Batch:
    tensors = {"patches": torch.randn(1, N, width).half(), "rna": torch.randn(1, genes), "target": torch.ones(1, 1)}
    return Batch(tensors, {"patches": torch.ones(1, dtype=torch.bool), "rna": torch.ones(1, dtype=torch.bool)})


def main(words: list[str]) -> None:
    given = {**DEFAULTS, **dict(w.split("=", 1) for w in words if "=" in w)}
    if unknown := given.keys() - DEFAULTS.keys():
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(DEFAULTS)}")
    names = [w for w in words if "=" not in w] or families()["slides"]
    print(f"{'system':<20}{'patches':>10}{'parameters':>14}{'step':>10}{'peak':>10}")
    for name in names:
        for N in given["patches"].split(","):
            code = (
                f"import slides, json; print(json.dumps(slides.step({name!r}, {N}, {given['genes']}, {given['width']}, "
            )
            code += f"{given['threads']}, {given['device']!r})))"
            ran = subprocess.run(
                [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True
            )
            if ran.returncode:
                print(f"{name:<20}{int(N):>10,}   failed: {ran.stderr.strip().splitlines()[-1:] or ran.returncode}")
                continue
            r = json.loads(ran.stdout)
            print(f"{name:<20}{r['patches']:>10,}{r['parameters']:>14,}{r['s']:>8.1f} s{r['peak_gb']:>7.1f} GB")


if __name__ == "__main__":
    main(sys.argv[1:])
