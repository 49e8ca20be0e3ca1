"""Measures our random views beside torchvision's v2 transforms with the same settings, in one run.

    python tests/benchmarks/views.py [--rounds 15]

SimCLR's two views of an image of 320 x 288 pixels at 224, on one thread; torchvision on Pillow pictures and on uint8 tensors. Rounds
alternate between the contenders and medians are printed, as other work on the machine slows all of them alike. Ratios count,
milliseconds do not.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from models.transforms.views import Views

SIZE, EACH = 224, 12


def photograph() -> np.ndarray:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8))
    x = np.asarray(small.resize((320, 288), Image.Resampling.BICUBIC), np.float32) + rng.normal(0, 8, (288, 320, 3))
    return np.clip(x, 0, 255).astype(np.uint8)


def torchvisions() -> Callable[[object], object]:
    """SimCLR's view as torchvision has it; its window is the odd number that ours is at this size."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, (0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], 0.5),
        ]
    )


def contenders() -> dict[str, Callable[[], object]]:
    image_HWC, rng, ours, theirs = photograph(), np.random.default_rng(0), Views("simclr", SIZE), torchvisions()
    picture, tensor = Image.fromarray(image_HWC), torch.from_numpy(image_HWC).permute(2, 0, 1).contiguous()
    return {
        "medpair": lambda: ours.draw(image_HWC, rng),
        "torchvision, Pillow": lambda: [np.asarray(theirs(picture)) for _ in range(2)],
        "torchvision, tensors": lambda: [theirs(tensor) for _ in range(2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    torch.set_num_threads(1)
    made = contenders()
    spent: dict[str, list[float]] = {n: [] for n in made}
    for _ in range(parser.parse_args().rounds):
        for name, draw in made.items():
            start = time.perf_counter()
            for _ in range(EACH):
                draw()
            spent[name].append((time.perf_counter() - start) / EACH)
    ours = statistics.median(spent["medpair"])
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"{name:22s} {1e3 * middle:6.1f} ms a pair of views, {middle / ours:.2f} of ours")


if __name__ == "__main__":
    main()
