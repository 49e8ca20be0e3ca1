"""What GLoRIA's comparison of words costs: time and memory of the loss alone, forward + backward, for batches of several sizes.

    OMP_NUM_THREADS=1 python tests/benchmarks/local_loss.py [--words 97] [--cells 196] [--width 768] [--batches 12,24,48] [--whole]

Texts of full length, the dearest case, on one rank in float32. Each batch is measured in a process of its own, so that its peak memory is
its own: the peak over what the process holds before the first call, inputs among it. With --whole the same is measured for all texts at
once, nothing made again in the backward pass, and the gradients of both are compared. Ends with status 1 where memory grows with the
square of the batch (slope above 1.5).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import torch

from models.losses.local_contrastive import _part, word_similarities

SLOPE = 1.5


def one(batch: int, words: int, cells: int, width: int, whole: bool) -> dict[str, float]:
    """Seconds of the processor, whatever else runs on it, MiB above what was held before, and the norm of both gradients."""
    word_similarities(torch.randn(1, cells, width), torch.randn(1, 2, width), torch.tensor([2]))  # libraries load
    g = torch.Generator().manual_seed(0)
    cells_BRC, words_BLC = ((0.1 * torch.randn(batch, n, width, generator=g)).requires_grad_() for n in (cells, words))
    count_B = torch.full((batch,), words)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    fit_GG = _at_once(cells_BRC, words_BLC) if whole else word_similarities(cells_BRC, words_BLC, count_B)
    torch.nn.functional.cross_entropy(10 * fit_GG, torch.arange(batch)).backward()
    seconds = time.process_time() - start
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    norm = sum(float(x.grad.double().square().sum()) for x in (cells_BRC, words_BLC) if x.grad is not None) ** 0.5
    return {"seconds": seconds, "mib": mib, "gradient": norm}


def _at_once(cells_BRC: torch.Tensor, words_BLC: torch.Tensor) -> torch.Tensor:
    """The same similarities in one part of all texts, whose tensors are kept for the backward pass."""
    real_BL = torch.ones(words_BLC.shape[:2], dtype=torch.bool)
    return _part(cells_BRC, words_BLC, real_BL, 4.0, 5.0, True, None) - math.log(words_BLC.shape[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("words", 97), ("cells", 196), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", default="12,24,48")
    parser.add_argument("--whole", action="store_true", help="measure all texts at once as well")
    parser.add_argument("--one", type=int)
    parser.add_argument("--at-once", action="store_true")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.words, args.cells, args.width, args.at_once)))
        return 0
    same = ["--words", str(args.words), "--cells", str(args.cells), "--width", str(args.width)]
    batches = [int(b) for b in args.batches.split(",")]
    found = {}
    for batch in batches:
        runs = [[], ["--at-once"]] if args.whole else [[]]
        parts, *whole = (_measured(batch, [*same, *more]) for more in runs)
        found[batch] = parts
        line = f"batch {batch}: {parts['seconds']:.1f} CPU s, {parts['mib']:.0f} MiB"
        for w in whole:
            differ = abs(w["gradient"] / parts["gradient"] - 1)
            line += f"; at once {w['seconds']:.1f} CPU s, {w['mib']:.0f} MiB, norm of gradients {differ:.0e} from it"
        print(line, flush=True)
    first, last = batches[0], batches[-1]
    slope = math.log(found[last]["mib"] / found[first]["mib"]) / math.log(last / first)
    print(f"memory grows with the batch to the power {slope:.2f}")
    return int(slope > SLOPE)


def _measured(batch: int, words: list[str]) -> dict[str, float]:
    run = [sys.executable, __file__, "--one", str(batch), *words]
    done: dict[str, float] = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    return done


if __name__ == "__main__":
    sys.exit(main())
