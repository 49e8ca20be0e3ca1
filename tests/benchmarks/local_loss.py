"""What GLoRIA's comparison of words costs: time and memory of the loss alone, forward + backward, for batches of several sizes.

    OMP_NUM_THREADS=1 python tests/benchmarks/local_loss.py [--words 97] [--cells 196] [--width 768] [--batches 12,24,48]

Texts of full length, the dearest case, on one rank in float32. Each batch is measured in a process of its own, so that its peak memory is
its own: the peak over what the process holds before the first call, inputs among it. Printed are also the sizes that the tensors between
would have if they were made for all texts at once. Ends with status 1 where memory grows with the square of the batch (slope above 1.5).
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

from models.losses.local_contrastive import word_similarities

SLOPE = 1.5


def one(batch: int, words: int, cells: int, width: int) -> dict[str, float]:
    """Seconds of the processor, whatever else runs on it, and MiB above what was held before."""
    word_similarities(torch.randn(1, cells, width), torch.randn(1, 2, width), torch.tensor([2]))  # libraries load
    g = torch.Generator().manual_seed(0)
    cells_BRC, words_BLC = ((0.1 * torch.randn(batch, n, width, generator=g)).requires_grad_() for n in (cells, words))
    count_B = torch.full((batch,), words)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    fit_GG = word_similarities(cells_BRC, words_BLC, count_B)
    torch.nn.functional.cross_entropy(10 * fit_GG, torch.arange(batch)).backward()
    seconds = time.process_time() - start
    return {"seconds": seconds, "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("words", 97), ("cells", 196), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batches", default="12,24,48")
    parser.add_argument("--one", type=int)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.words, args.cells, args.width)))
        return 0
    same = ["--words", str(args.words), "--cells", str(args.cells), "--width", str(args.width)]
    batches = [int(b) for b in args.batches.split(",")]
    found = {}
    for batch in batches:
        run = [sys.executable, __file__, "--one", str(batch), *same]
        found[batch] = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        whole = batch**2 * args.words * max(args.cells, args.width) * 4 / 2**20
        print(
            f"batch {batch}: {found[batch]['seconds']:.1f} CPU s, {found[batch]['mib']:.0f} MiB (at once: {whole:.0f} a tensor)"
        )
    first, last = batches[0], batches[-1]
    slope = math.log(found[last]["mib"] / found[first]["mib"]) / math.log(last / first)
    print(f"memory grows with the batch to the power {slope:.2f}")
    return int(slope > SLOPE)


if __name__ == "__main__":
    sys.exit(main())
