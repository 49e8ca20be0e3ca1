"""Measures the loader beside the `webdataset` library and beside pure decoding, on the same shards, in one run.

    python tests/benchmarks/loader.py [--quick]

Undecoded reading, decoded 224 px JPEG end to end, resuming at sample 1,000,000 of 10,000 shards, memory over ten epochs. Rounds
alternate between the contenders and medians are printed, as other work on the machine slows all of them alike. Ratios count,
seconds do not. Data are generated in a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import simplejpeg
import torch
import webdataset
from PIL import Image

from models.contract import Method, Sample
from shards.format import index as indexing
from shards.format.info import DatasetInfo, FieldInfo, ShardInfo, save_info, sha256_of
from shards.load.loader import Loader
from shards.load.position import step_at
from shards.order.mix import MixPlan, make_plan
from shards.order.plan import Plan
from shards.read.dataset import Dataset

WORKERS, BATCH, SIDE = 2, 64, 224


# ------------------------------------------------------------------------------------------------------------- the data


def photo(rng: np.random.Generator, side: int = SIDE) -> bytes:
    """A JPEG of about 2.5 bits a pixel, as photographs and tiles have at quality 90: smooth shapes plus fine grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, np.float32) + rng.normal(0, 8, (side, side, 3))
    return simplejpeg.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), quality=90, colorsubsampling="420")


def write_tar(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for member, data in members.items():
                entry = tarfile.TarInfo(f"{key}.{member}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def seal(folder: Path, shards: list[ShardInfo], keys: list[str], fields: dict[str, FieldInfo]) -> Dataset:
    rows = "".join(f"{key},p{key},train\n" for key in keys)
    (folder / "splits.csv").write_text("sample,patient,split\n" + rows)
    files = {"splits.csv": sha256_of(folder / "splits.csv")}
    save_info(
        folder,
        DatasetInfo(
            name="bench", fields=fields, samples=len(keys), patients=len(keys), shards=tuple(shards), files=files
        ),
    )
    return Dataset.open(folder)


def image_set(folder: Path, shards: int, samples: int) -> Dataset:
    """Shards of 224 px JPEGs with 1,000 genes in float16."""
    rng, infos, keys = np.random.default_rng(0), [], []
    photos = [photo(rng) for _ in range(64)]
    genes = io.BytesIO()
    np.save(genes, rng.normal(size=1000).astype(np.float16))
    for s in range(shards):
        path = folder / f"shard-{s:06d}.tar"
        content = [
            (f"s{s:03d}x{i:05d}", {"image.jpg": photos[i % 64], "rna.npy": genes.getvalue()}) for i in range(samples)
        ]
        write_tar(path, content)
        indexing.save(path, indexing.build(path))
        infos.append(ShardInfo(name=path.name, samples=samples, bytes=path.stat().st_size, sha256=sha256_of(path)))
        keys += [key for key, _ in content]
    fields = {"image": FieldInfo(ext="jpg", count=len(keys)), "rna": FieldInfo(ext="npy", count=len(keys))}
    return seal(folder, infos, keys, fields)


def many_shards(folder: Path, shards: int, samples: int) -> Dataset:
    """Very many shards: indexes of their own, one tar under many names (readers go by offset, so names inside do not matter)."""
    genes = io.BytesIO()
    np.save(genes, np.zeros(16, np.float16))
    first = folder / "shard-000000.tar"
    write_tar(first, [(f"s{0:05d}x{i:04d}", {"rna.npy": genes.getvalue()}) for i in range(samples)])
    index, size, digest = indexing.build(first), first.stat().st_size, sha256_of(first)
    infos, keys = [], []
    for s in range(shards):
        path = folder / f"shard-{s:06d}.tar"
        if s:
            os.link(first, path)
        own = [f"s{s:05d}x{i:04d}" for i in range(samples)]
        index["key"] = [k.encode() for k in own]
        np.save(path.with_suffix(".idx.npy"), index)
        # Sealed, else the names in the tar's headers would be compared with it.
        sealed = sha256_of(path.with_suffix(".idx.npy"))
        infos.append(ShardInfo(name=path.name, samples=samples, bytes=size, sha256=digest, index_sha256=sealed))
        keys += own
    return seal(folder, infos, keys, {"rna": FieldInfo(ext="npy", count=len(keys))})


# --------------------------------------------------------------------------------------------------------- the contenders


def ours_undecoded(data: Dataset) -> int:
    raw, fields, total = data.raw, ("image", "rna"), 0
    for i in range(len(data)):
        image, genes = raw(i, fields)
        total += len(image) + len(genes)
    return len(data)


def webdataset_undecoded(data: Dataset) -> int:
    urls = [str(data.path / s.name) for s in data.info.shards]
    n = 0
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        assert sample["image.jpg"]
        n += 1
    return n


PASSES = 3  # over the samples in one measurement, so that starting and draining the pipelines weigh little


def image_loader(data: Dataset, plan: Plan | MixPlan) -> Loader:
    def transform(record, rng):  # type: ignore[no-untyped-def]
        return Sample({"image": record.read("image")})

    return Loader(data, plan, transform, lambda s: Method.collate(None, s), workers=WORKERS)  # type: ignore[arg-type]


def ours_decoded(data: Dataset) -> int:
    plan = make_plan(data, None, "shuffle", 0, BATCH)
    n = 0
    with image_loader(data, plan) as loader:
        for step in itertools.islice(loader.iterate(), PASSES * plan.steps_per_epoch):
            n += len(step.micro[0]["image"])
    return n


def _wds_sample(sample):  # type: ignore[no-untyped-def]
    return torch.from_numpy(simplejpeg.decode_jpeg(sample["image.jpg"]))


def webdataset_decoded(data: Dataset) -> int:
    """The library as its documentation advises: decoding with simplejpeg too, batching in the worker processes."""
    urls = [str(data.path / s.name) for s in data.info.shards]
    pipeline = (
        webdataset.WebDataset(urls, shardshuffle=False)
        .shuffle(100, seed=0)
        .map(_wds_sample)
        .batched(BATCH, collation_fn=torch.stack)
    )
    n = 0
    for batch in webdataset.WebLoader(pipeline.repeat(PASSES), batch_size=None, num_workers=WORKERS):
        n += len(batch)
    return n


def pure_decode(data: Dataset) -> int:
    """The ceiling: two threads that do nothing but decode the same images in a shuffled order, all held in memory.

    All of them, as the loader's images come from memory that no cache is warm for; a few decoded again and again are faster.
    """
    members = [data.raw(i, ("image",))[0] for i in range(len(data))]
    order = np.random.default_rng(0).permutation(len(members)).tolist()
    share = len(order) // WORKERS

    def work(first: int) -> None:
        for _ in range(PASSES):
            for i in order[first : first + share]:
                simplejpeg.decode_jpeg(members[i], "RGB")

    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(t * share,)) for t in range(WORKERS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    pure_decode.seconds = time.perf_counter() - start  # type: ignore[attr-defined]
    return PASSES * share * WORKERS


# --------------------------------------------------------------------------------------------------------------- measuring


def rates(contenders: dict[str, Callable[[Dataset], int]], data: Dataset, rounds: int) -> dict[str, list[float]]:
    """Samples a second, and a second of processor time, of each contender in each round; the first round warms up."""
    out: dict[str, list[float]] = {name: [] for pair in contenders for name in (pair, f"{pair}/cpu")}
    for r in range(rounds + 1):
        for name, run in contenders.items():
            start, cpu = time.perf_counter(), time.process_time()
            n = run(data)
            if r:
                # What a contender says of itself leaves out its preparations (reading all members into memory).
                out[name].append(n / getattr(run, "seconds", time.perf_counter() - start))
                out[f"{name}/cpu"].append(n / (time.process_time() - cpu))
    return out


def ratio(measured: dict[str, list[float]], a: str, b: str) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(x / y for x, y in zip(measured[a], measured[b], strict=True))


def resume_seconds(folder: Path, samples: int, at: int) -> float:
    """From opening the data set to the batch after sample `at`."""
    start = time.perf_counter()
    data = Dataset.open(folder)
    plan = make_plan(data, None, "shuffle", 0, BATCH)

    def transform(record, rng):  # type: ignore[no-untyped-def]
        return Sample({"rna": record.read("rna")})

    with Loader(data, plan, transform, lambda s: Method.collate(None, s), workers=WORKERS) as loader:  # type: ignore[arg-type]
        next(loader.iterate(*step_at(plan, at // BATCH * BATCH)))
    return time.perf_counter() - start


def resident_by_epoch(data: Dataset, epochs: int) -> list[float]:
    """Resident megabytes after each epoch of one loader."""
    plan = make_plan(data, None, "shuffle", 0, BATCH)
    out, process = [], psutil.Process()
    with image_loader(data, plan) as loader:
        steps = loader.iterate()
        for _ in range(epochs):
            for _ in range(plan.steps_per_epoch):
                next(steps)
            out.append(process.memory_info().rss / 2**20)
    return out


def line(what: str, figure: str, target: str, met: bool) -> None:
    print(f"{what:<62} {figure:>26}   {target:<12} {'met' if met else 'MISSED'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer samples, shards and rounds")
    quick = parser.parse_args().quick
    rounds, per_shard, shards = (3, 256, 4) if quick else (7, 1024, 4)
    torch.set_num_threads(1)
    ok = []
    with tempfile.TemporaryDirectory(prefix="medpair-bench-") as tmp:
        folder = Path(tmp) / "images"
        folder.mkdir()
        data = image_set(folder, shards, per_shard)
        size = statistics.mean(len(data.raw(i, ("image",))[0]) for i in range(64))
        print(f"{len(data)} samples in {shards} shards, {SIDE} px JPEG of {size / 1000:.1f} kB + 1,000 genes")
        print(f"{WORKERS} workers, {rounds} rounds\n")

        m = rates({"ours": ours_undecoded, "webdataset": webdataset_undecoded}, data, rounds)
        r = ratio(m, "ours", "webdataset")
        micro = 1e6 / statistics.median(m["ours"])
        ok.append(r >= 10)
        line("undecoded, one thread: times webdataset", f"{r:.1f}x ({micro:.1f} us a sample)", ">= 10x", ok[-1])

        m = rates({"ours": ours_decoded, "ceiling": pure_decode, "webdataset": webdataset_decoded}, data, rounds)
        speed = statistics.median(m["ours"])
        r = ratio(m, "ours", "webdataset")
        print("samples/s by round:", {k: [round(x) for x in v] for k, v in m.items() if "/" not in k})
        ok.append(r >= 1.3)
        line("decoded, end to end: times webdataset", f"{r:.2f}x ({speed:,.0f} samples/s)", ">= 1.3x", ok[-1])
        r = ratio(m, "ours", "ceiling")
        ok.append(r >= 0.85)
        busy = ratio(m, "ours/cpu", "ceiling/cpu")
        line("decoded, end to end: share of pure decoding", f"{r:.2f} (by CPU time {busy:.2f})", ">= 0.85", ok[-1])

        rss = resident_by_epoch(data, 10)
        growth = (rss[-1] - rss[2]) / rss[2]
        ok.append(growth < 0.02)
        line("resident memory, epoch 10 against epoch 3", f"{growth:+.1%} of {rss[2]:.0f} MB", "< +2 %", ok[-1])

        folder = Path(tmp) / "many"
        folder.mkdir()
        shards, samples, at = (1_000, 120, 100_000) if quick else (10_000, 120, 1_000_000)
        many_shards(folder, shards, samples)
        seconds = statistics.median(resume_seconds(folder, samples, at) for _ in range(3))
        ok.append(seconds < 2)
        line(f"open + first batch at sample {at:,} of {shards:,} shards", f"{seconds:.2f} s", "< 2 s", ok[-1])
    return 0 if all(ok) else 1


if __name__ == "__main__":
    sys.exit(main())
