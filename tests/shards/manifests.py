"""A small folder of sources with its manifest, which tests pack after breaking what they are about."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from shards.pack.options import PackOptions
from shards.pack.pack import pack

GENES = 20
WIDTH = 8


@dataclass
class Sources:
    """Files under `folder` and the manifest's rows; `write` stores the manifest."""

    folder: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    genes: list[str] = field(default_factory=lambda: [f"GENE{i}" for i in range(GENES)])
    expression: dict[str, list] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    def write(self) -> Path:
        with gzip.open(self.folder / "rna.csv.gz", "wt", newline="") as f:
            csv.writer(f).writerows([["case", *self.genes], *([k, *v] for k, v in self.expression.items())])
        columns = list(dict.fromkeys(c for r in self.rows for c in r))
        with open(self.manifest, "w", newline="") as f:
            csv.writer(f).writerows([columns, *([r.get(c, "") for c in columns] for r in self.rows)])
        return self.manifest

    def pack(self, out: Path, options: PackOptions | None = None) -> Path:
        pack(self.write(), out, options or PackOptions())
        return out


def png(seed: int, size: int = 16) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sources(folder: Path, count: int = 12, seed: int = 0) -> Sources:
    """`count` patients, one sample each: a packed bag, genes from a table, an image, an inline report; two classes and a number."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, made = np.random.default_rng(seed), Sources(folder)
    sizes = rng.integers(3, 9, count)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    np.savez_compressed(folder / "bags.npz", features=rng.normal(size=(offsets[-1], WIDTH)).astype(np.float32))
    for i in range(count):
        (folder / f"p{i}.png").write_bytes(png(i))
        made.expression[f"case{i}"] = [f"{v:.4f}" for v in rng.normal(size=GENES)]
        made.rows.append(
            {
                "sample": f"s{i:02d}",
                "patient": f"p{i:02d}",
                "label:subtype": "LUAD" if i % 2 else "LUSC",
                "label:age": str(50 + i),
                "field:patches": f"bags.npz#features[{offsets[i]}:{offsets[i + 1]}]",
                "field:rna": f"rna.csv.gz#case{i}",
                "field:image": f"p{i}.png",
                "text:report": f"Finding number {i}, nodule of {i} mm.",
            }
        )
    return made


def tar_of(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """A tar with these members, as anybody might have made it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(data), 1_700_000_000, "somebody"
            tar.addfile(member, io.BytesIO(data))
    return path


def rewrite_tar(path: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> None:
    """Passes every member through `change`, which returns what stands in its place."""
    with tarfile.open(path) as tar:
        old = [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]
    tar_of(path, [new for name, data in old for new in change(name, data)])


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
