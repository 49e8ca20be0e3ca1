"""Measures the corruptions of images beside the decoding of the same image, in CPU milliseconds a sample.

    python tests/benchmarks/corrupt.py [--rounds 15]

A film-like image of 1024 x 1024 pixels with one channel, as PNG and as JPEG; what is corrupted is 224 pixels a side. Rounds alternate
between the contenders and medians are printed, as other work on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from models.transforms.corrupt import Corruption
from models.transforms.crops import centre_view
from models.transforms.views import Views

SIZE, EACH = 224, 8


def film() -> np.ndarray:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8))
    x = np.asarray(small.resize((1024, 1024), Image.Resampling.BICUBIC), np.float32) + rng.normal(0, 3, (1024, 1024))
    return np.clip(x, 0, 255).astype(np.uint8)


def encoded(image_HW: np.ndarray, form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image_HW).save(out, form)
    return out.getvalue()


def contenders() -> dict[str, Callable[[], object]]:
    image_HW, rng = film(), np.random.default_rng(0)
    view_HWC, views = centre_view(image_HW[..., None], SIZE), Views("crop", SIZE, channels=1, count=1)
    files = {form: encoded(image_HW, form) for form in ("PNG", "JPEG")}
    made = {
        "all as recommended": Corruption(shuffle_p=0.5, curve_p=0.9, paint_p=0.9),
        "all with 10,000 windows": Corruption(shuffle_p=0.5, curve_p=0.9, paint_p=0.9, windows=10_000),
        "shuffle of 1,000 windows": Corruption(shuffle_p=1.0),
        "shuffle of 10,000 windows": Corruption(shuffle_p=1.0, windows=10_000),
        "curve": Corruption(curve_p=1.0),
        "painting": Corruption(paint_p=1.0),
        "ten exchanges of patches": Corruption(swaps=10),
    }
    decoded = {f"decoding of {n}": lambda b=b: np.asarray(Image.open(io.BytesIO(b))) for n, b in files.items()}
    cut = {"crop and resize": lambda: views.draw(image_HW[..., None], rng)}
    return {**decoded, **cut, **{n: lambda c=c: c(view_HWC, rng) for n, c in made.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    made = contenders()
    spent: dict[str, list[float]] = {n: [] for n in made}
    for _ in range(parser.parse_args().rounds):
        for name, run in made.items():
            start = time.process_time()
            for _ in range(EACH):
                run()
            spent[name].append((time.process_time() - start) / EACH)
    for name, seconds in spent.items():
        print(f"{name:28s} {1e3 * statistics.median(seconds):6.2f} ms a sample")


if __name__ == "__main__":
    main()
