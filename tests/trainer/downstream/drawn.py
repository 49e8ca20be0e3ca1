"""Images with two structures drawn in them, packed in the forms that public sets have: a file a structure, or numbers in one mask."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from shards.pack.options import PackOptions
from shards.pack.pack import pack

SIDE, SAMPLES = 48, 20
SPLITS = ["train"] * 10 + ["val"] * 5 + ["test"] * 5


def masks(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc in every image, atrophy in two of three; bool [H, W] each, apart from each other."""
    rng = np.random.default_rng([number, 7])
    y, x = np.mgrid[:SIDE, :SIDE]
    cx, cy, r = rng.integers(10, 20), rng.integers(14, 34), rng.integers(5, 9)
    disc = (x - cx) ** 2 + (y - cy) ** 2 <= r**2
    atrophy = (abs(x - 38) <= rng.integers(3, 7)) & (abs(y - 24) <= rng.integers(3, 9))
    return disc, atrophy & (number % 3 > 0)


def folder_of_masks(out: Path, names: tuple[str, str] = ("mask_disc", "mask_atrophy")) -> Path:
    """A field a structure; the bitmaps are inverted (0 = structure), and who has no atrophy has no file of it."""
    rows = []
    for i in range(SAMPLES):
        cells = {}
        for name, drawn in zip(names, masks(i), strict=True):
            if drawn.any():
                cells[name] = _png(out.parent / "files" / f"{name}-{i}.png", np.where(drawn, 0, 255))
        rows.append(
            {"field:image": _image(out.parent / "files" / f"{i}.png", i), **{f"field:{n}": c for n, c in cells.items()}}
        )
    return _packed(out, rows)


def numbered_masks(out: Path) -> Path:
    """The same images, one mask with 1 for the disc and 2 for atrophy."""
    rows = []
    for i in range(SAMPLES):
        disc, atrophy = masks(i)
        mask = _png(out.parent / "files" / f"both-{i}.png", disc + 2 * atrophy)
        rows.append({"field:image": _image(out.parent / "files" / f"{i}.png", i), "field:mask": mask})
    return _packed(out, rows)


def _image(path: Path, number: int) -> str:
    disc, atrophy = masks(number)
    grey = np.random.default_rng(number).integers(60, 100, (SIDE, SIDE)) + 100 * disc - 50 * atrophy
    return _png(path, np.repeat(grey[..., None], 3, 2))


def _png(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(path)


def _packed(out: Path, rows: list[dict[str, str]]) -> Path:
    table = out.parent / f"{out.name}.csv"
    columns = list(dict.fromkeys(c for r in rows for c in r))
    with open(table, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["sample", "patient", "split", *columns])
        writer.writerows(
            [f"s{i:02d}", f"p{i:02d}", SPLITS[i], *(r.get(c, "") for c in columns)] for i, r in enumerate(rows)
        )
    pack(table, out, PackOptions())
    return out
