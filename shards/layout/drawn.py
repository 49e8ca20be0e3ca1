"""Fields that a layout makes: masks from run lengths, boxes from rows, pictures in other containers as PNG. Written to a folder of work."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from shards.layout.schema import Boxes, Runs
from shards.tables.cells import number
from shards.tables.instead import LOOKED_AT, instead_of

STORED = (".png", ".jpg", ".jpeg")
MODES = ("1", "L", "P", "I;16", "RGB", "LA", "RGBA")


class Drawing(ValueError):
    """A cell or a file that cannot be drawn; the text says why, without its place."""


def mask_of_runs(cells: Sequence[str], runs: Runs) -> np.ndarray:
    """uint8 [H, W] of 0 and 1: the union of what the cells draw.

    Raises:
        Drawing: words that are no numbers, an odd number of them, runs outside of the picture.
    """
    flat_N = np.zeros(runs.height * runs.width, np.uint8)
    for cell in cells:
        if cell.strip() in runs.empty:
            continue
        numbers = [int(word) if word.isascii() and word.isdecimal() else -1 for word in cell.split()]
        if len(numbers) % 2 or not numbers or min(numbers) < 0:
            raise Drawing("run lengths are pairs of whole numbers")
        at = 0
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            at = at + start if runs.form == "relative" else start - 1
            if at < 0 or at + length > len(flat_N):
                raise Drawing(f"a run from {at} on of {length} pixels leaves the {runs.height} x {runs.width} pixels")
            flat_N[at : at + length] = 1
            at += length
    columns = runs.order == "columns"
    return flat_N.reshape(runs.width, runs.height).T if columns else flat_N.reshape(runs.height, runs.width)


def boxes_of(rows: Sequence[Sequence[str]], boxes: Boxes, unknown: Collection[str] = ("",)) -> np.ndarray | None:
    """int64 or float32 [boxes, 4], as published; None where there is none.

    Raises:
        Drawing: cells that are no numbers, boxes half blank, without area.
    """
    found = []
    for cells in rows:
        if all(c in unknown for c in cells):
            continue
        values = [number(c) for c in cells]
        if None in values:
            raise Drawing(f"a box of {', '.join(repr(c) for c in cells)} is not four numbers")
        a, b, c, d = (float(v) for v in values if v is not None)
        sides = (c, d) if boxes.form == "x y width height" else (c - a, d - b)
        if min(sides) <= 0:
            raise Drawing(f"a box of {a:g}, {b:g}, {c:g}, {d:g} ({boxes.form}) has no area")
        found.append((a, b, c, d))
    if not found:
        return None
    array = np.array(found)
    return array.astype(np.int64) if (array == np.round(array)).all() else array.astype(np.float32)


def save_mask(mask_HW: np.ndarray, path: Path) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.ascontiguousarray(mask_HW))
    picture.putpalette([0, 0, 0, 255, 220, 0])
    picture.save(path)
    return path


def save_array(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def _no_picture(file: Path, why: Exception) -> str:
    with open(file, "rb") as f:
        found = instead_of(f.read(LOOKED_AT))
    # Pillow names the file where it cannot tell its kind: films of one kind would be told one by one.
    said = "of no kind that Pillow knows" if "cannot identify" in str(why) else str(why)
    return f"no picture: it {found[0]}" if found else f"cannot be read as a picture ({said})"


def as_png(file: Path, path: Path) -> Path:
    """A lossless copy of a picture in another container (BMP, TIFF), without anything that stands beside its pixels.

    Raises:
        Drawing: cannot be read, several pictures, pixels that PNG does not hold.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if image.mode not in MODES or frames > 1:
                raise Drawing(f"mode {image.mode}, {frames} pictures: not one picture in grey (8 or 16 bits) or RGB")
            image.load()
            picture = image.copy()
    except Drawing:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise Drawing(_no_picture(file, e)) from e
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.info.clear()
    picture.save(path, "PNG")
    return path
