"""Images and masks as people have them, packed: what the tests of pictures are made of."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from shards.format.info import load_info, save_info
from shards.pack.options import PackOptions
from shards.pack.pack import pack
from shards.read.dataset import Dataset

RNG = np.random.default_rng(7)
H, W = 24, 32
SQUARE = np.zeros((H, W), np.uint8)
SQUARE[4:10, 6:16] = 255


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def exif(number: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = number
    return found


def noise(seed: int = 0, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (H, W, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


class Folder:
    """Files and a manifest of `image` and, if any, `mask`."""

    def __init__(self, path: Path):
        self.path, self.rows = path, [("sample", "patient", "split", "field:image", "field:mask")]
        path.mkdir(parents=True, exist_ok=True)

    def add(self, image: bytes, mask: bytes | None = None, ext: str = "png", mask_ext: str = "png") -> Folder:
        n = len(self.rows) - 1
        (self.path / f"i{n}.{ext}").write_bytes(image)
        if mask is not None:
            (self.path / f"m{n}.{mask_ext}").write_bytes(mask)
        split = ("train", "train", "val", "test")[n % 4]
        self.rows.append((f"s{n}", f"p{n}", split, f"i{n}.{ext}", "" if mask is None else f"m{n}.{mask_ext}"))
        return self

    def pack(self, name: str = "out", **options: object) -> tuple[Dataset, str]:
        (self.path / "m.csv").write_text("".join(",".join(r) + "\n" for r in self.rows))
        _, notes = pack(self.path / "m.csv", self.path / name, PackOptions(**options))  # type: ignore[arg-type]
        return Dataset.open(self.path / name), "\n".join(notes)


def masks(folder: Folder, *made: bytes, ext: str = "png") -> Folder:
    for i, mask in enumerate(made):
        folder.add(encoded(noise(i)), mask, mask_ext=ext)
    return folder


def without(data: Dataset, *keys: str) -> Path:
    """The data set as a version wrote it that did not know these words of its fields' meanings."""
    info = load_info(data.path)
    fields = {
        n: f.model_copy(update={"meaning": {k: v for k, v in f.meaning.items() if k not in keys}})
        for n, f in info.fields.items()
    }
    save_info(data.path, info.model_copy(update={"fields": fields}))
    return data.path


def film(top: int, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, top + 1, (H, W))
    pixels[0, 0], pixels[0, 1] = 0, top
    return pixels.astype(np.uint16)


def see_through(seed: int = 0) -> Image.Image:
    picture = Image.fromarray(noise(seed)).convert("RGBA")
    picture.putalpha(Image.fromarray(np.where(SQUARE > 0, 102, 255).astype(np.uint8)))
    return picture


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
