"""Small data sets for the tests of the reading side, written with the standard library's tarfile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from shards.format import index as indexing
from shards.format.info import DatasetInfo, FieldInfo, LabelInfo, ShardInfo, save_info, sha256_of
from shards.read.dataset import Dataset

KINDS = ("alpha", "beta", "gamma")


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def jpeg(seed: int, side: int = 24) -> bytes:
    return simplejpeg.encode_jpeg(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8), quality=90)


def film(height: int, width: int, channels: int = 1, seed: int = 0) -> bytes:
    """A smooth picture with some grain, as JPEG."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    x = np.clip(np.asarray(coarse, np.float32) + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)
    if channels == 3:
        return simplejpeg.encode_jpeg(x, quality=95)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(x[..., :1]), 95, "GRAY", "Gray")


def png(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", **options)  # type: ignore[arg-type]
    return out.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def members_of(i: int) -> dict[str, bytes]:
    """Fields of sample i; every fifth has no genes."""
    rng = np.random.default_rng(i)
    fields = {
        "image.jpg": jpeg(i),
        "patches.npy": npy(rng.normal(size=(5 + i % 4, 8)).astype(np.float16)),
        "report.txt": f"Befund {i}: unauffällig.".encode(),
        "meta.json": json.dumps({"patient": f"p{i}"}).encode(),
    }
    return fields | ({} if i % 5 == 4 else {"rna.npy": npy(rng.normal(size=12).astype(np.float32))})


def dataset(
    folder: Path,
    samples: int = 40,
    per_shard: int = 7,
    patients: int | None = None,
    splits: Mapping[str, float] | None = None,
    prefix: str = "s",
) -> Dataset:
    """Samples in shards of `per_shard`; sample i is of patient i % patients; splits follow patients."""
    folder.mkdir(parents=True, exist_ok=True)
    patients = patients or samples
    keys = [f"{prefix}{i:04d}" for i in range(samples)]
    shards = []
    for s, first in enumerate(range(0, samples, per_shard)):
        rows = range(first, min(first + per_shard, samples))
        members = [(f"{keys[i]}.{name}", data) for i in rows for name, data in members_of(i).items()]
        path = write_tar(folder / f"shard-{s:06d}.tar", members)
        indexing.save(path, indexing.build(path))
        shards.append(ShardInfo(name=path.name, samples=len(rows), bytes=path.stat().st_size, sha256=sha256_of(path)))
    edges = np.cumsum(list((splits or {"train": 1.0}).values())) * patients
    names = list(splits or {"train": 1.0})
    split_of = [names[int(np.searchsorted(edges, i % patients, "right"))] for i in range(samples)]
    lines = [f"{k},p{i % patients},{split_of[i]}" for i, k in enumerate(keys)]
    (folder / "splits.csv").write_text("\n".join(["sample,patient,split", *lines]) + "\n")
    labels = [f"{k},{KINDS[_kind(i)]},{'' if i % 6 == 5 else i / 10}" for i, k in enumerate(keys)]
    (folder / "labels.csv").write_text("\n".join(["sample,kind,grade", *labels]) + "\n")
    (folder / "vocab").mkdir(exist_ok=True)
    (folder / "vocab" / "rna.txt").write_text("".join(f"G{j}\n" for j in range(12)))
    np.savez(folder / "stats.npz", **{"rna.mean": np.zeros(12, np.float32), "rna.std": np.ones(12, np.float32)})
    reseal(folder, shards, samples, patients)
    return Dataset.open(folder)


def reseal(folder: Path, shards: list[ShardInfo], samples: int, patients: int) -> None:
    """dataset.json over what lies in the folder."""
    sha = sha256_of(folder / "vocab" / "rna.txt")
    fields = {
        "image": FieldInfo(ext="jpg", count=samples),
        "patches": FieldInfo(ext="npy", dtype="float16", shape=(None, 8), count=samples),
        "rna": FieldInfo(
            ext="npy", dtype="float32", shape=(12,), vocab="vocab/rna.txt", vocab_sha256=sha, count=samples
        ),
        "report": FieldInfo(ext="txt", count=samples),
        "meta": FieldInfo(ext="json", count=samples),
    }
    labels = {"kind": LabelInfo(kind="class", classes=KINDS), "grade": LabelInfo(kind="number")}
    files = {name: sha256_of(folder / name) for name in ("splits.csv", "labels.csv", "stats.npz")}
    info = DatasetInfo(
        name="test", fields=fields, labels=labels, samples=samples, patients=patients, shards=tuple(shards), files=files
    )
    save_info(folder, info)


def _kind(i: int) -> int:
    """Three classes in the proportions 6 : 3 : 1."""
    return 0 if i % 10 < 6 else 1 if i % 10 < 9 else 2
