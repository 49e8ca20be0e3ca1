"""Where the time of one masked-record step goes, at the paper's shapes: ViT-B/16, 75 % masked, 448-pixel targets, reports of 100.

    python tests/benchmarks/record.py [--batch 4] [--steps 3] [--device cpu]

Prints the share of forward + backward by kind of operation (PyTorch's profiler, time spent in the operation itself). Wanted: at
least 80 % in matrix products and convolutions; copies are listed by themselves. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from models.contract import Batch, Field, Method, Schema
from models.methods.masked.mrm_record.method import MrmRecord, MrmRecordOptions
from models.transforms.text import CLS, PAD, SPECIALS

WANTED = 0.80
VOCABULARY = 30_000
KINDS = {
    "matrix products, convolutions": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "convolution",
        "conv2d",
        "scaled_dot_product",
        "flash_attention",
        "efficient_attention",
        "mkldnn_linear",
    ),
    "GELU, layer norm, softmax, loss": ("gelu", "layer_norm", "softmax", "nll_loss", "erf"),
    "dropout": ("bernoulli", "dropout"),
    "copies": ("copy_", "clone", "contiguous", "cat", "index", "gather", "scatter", "embedding", "fill_", "zero_"),
    "resizing the target": ("upsample",),
}


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), "everything else")


def paper_batch(size: int, device: torch.device) -> tuple[Method, Batch]:
    words = (*SPECIALS, *(f"w{i}" for i in range(VOCABULARY - len(SPECIALS))))
    fields = {"image": Field("image", "image", "uint8"), "report": Field("report", "text", vocabulary=words)}
    torch.manual_seed(0)
    method = MrmRecord(MrmRecordOptions.parse({}), Schema(fields, {}, "random numbers")).to(device)
    method.enter("pretrain")
    rng = np.random.default_rng(0)
    ids = rng.integers(len(SPECIALS), VOCABULARY, (size, 100)).astype(np.int32)
    ids[:, 0], ids[:, 90:] = CLS, PAD
    tensors = {
        "image": torch.from_numpy(rng.integers(0, 256, (size, 448, 448, 1), dtype=np.uint8)),
        "noise": torch.from_numpy(rng.random((size, 196), np.float32)),
        "report": torch.from_numpy(ids),
        "hidden": torch.from_numpy((rng.random((size, 100)) < 0.5) & (ids >= len(SPECIALS))),
        "words": torch.full((size,), 89),
    }
    present = {n: torch.ones(size, dtype=torch.bool) for n in ("image", "report")}
    return method, Batch(tensors, present).to(device)


def step(method: Method, batch: Batch) -> None:
    method.zero_grad(set_to_none=True)
    method(batch).total.backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    method, batch = paper_batch(args.batch, device)
    step(method, batch)
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        for _ in range(args.steps):
            step(method, batch)
    report(found, args.steps, cuda)


def report(found: profile, steps: int, cuda: bool) -> None:
    times: dict[str, float] = defaultdict(float)
    rows = []
    for event in found.key_averages():
        own = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000 / steps
        times[kind_of(event.key)] += own
        rows.append((own, event.key, event.count // steps))
    total = sum(times.values())
    for kind, own in sorted(times.items(), key=lambda item: -item[1]):
        print(f"{kind:34} {own:9.1f} ms  {own / total:6.1%}")
    print(f"{'one step':34} {total:9.1f} ms")
    print("\nthe longest operations outside the products")
    rest = [r for r in sorted(rows, reverse=True) if kind_of(r[1]) != "matrix products, convolutions"]
    for own, name, count in rest[:12]:
        print(f"  {name[:44]:44} {own:8.1f} ms  {count:5} calls")
    share = times["matrix products, convolutions"] / total
    print(
        f"\nmatrix products and convolutions: {share:.1%} (wanted {WANTED:.0%}): {'yes' if share >= WANTED else 'NO'}"
    )


if __name__ == "__main__":
    main()
