"""Grey films to random crops: this loader before and after, pure decoding, and the loaders that a user would name beside it.

    python tests/benchmarks/films.py [--quick]

Films of 3,056 x 2,544 and of 512 x 512 pixels (JPEG, one channel, quality 95), generated in a temporary folder and removed. Every
contender reads the same JPEGs, draws crops of 0.2 to 1.0 of the area, scales them to 448 x 448 and mirrors every second one, with two
workers (threads or processes, as its documentation has it), and hands batches of 16 on. Each measurement is a process of its own;
rounds alternate, ratios are within a round, medians over rounds. Seconds of processor time are those of all threads and processes:
where other work shares the machine, they count. A contender that is not installed is left out, which is said:

    pip install webdataset mosaicml-streaming spdl nvidia-dali-cuda120

(SPDL needs FFmpeg's shared libraries, libavutil.so and its like.)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import simplejpeg
import torch
from PIL import Image

from models.contract import Method, Sample
from models.transforms.crops import colours, draw_box, eight_bit, picture_of, random_view
from shards.format import index as indexing
from shards.format.info import FieldInfo, ShardInfo, sha256_of
from shards.format.jpeg_own import WORTH
from shards.load.loader import Loader
from shards.order.mix import make_plan
from shards.read.dataset import Dataset
from tests.benchmarks.loader import seal, write_tar

WORKERS, BATCH, VIEW, SCALE, FLIP = 2, 16, 448, (0.2, 1.0), 0.5
FULL, SMALL = (3056, 2544), (512, 512)
Batches = Iterator[Any]


# ------------------------------------------------------------------------------------------------------------- the data


def film(rng: np.random.Generator, height: int, width: int) -> bytes:
    """A grey JPEG of about 1.9 bits a pixel, as chest films at quality 95 have: smooth shapes, structure and grain."""

    def layer(rows: int, columns: int, draw: Callable[..., np.ndarray]) -> np.ndarray:
        coarse = Image.fromarray(draw(size=(rows, columns)).astype(np.float32))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))

    pixels = layer(12, 10, partial(rng.uniform, 40, 200)) + layer(height // 16, width // 16, partial(rng.normal, 0, 6))
    pixels = pixels + layer(height // 2, width // 2, partial(rng.normal, 0, 4)) + rng.normal(0, 1.5, (height, width))
    grey = np.ascontiguousarray(np.clip(pixels, 0, 255).astype(np.uint8)[..., None])
    return simplejpeg.encode_jpeg(grey, quality=95, colorspace="GRAY", colorsubsampling="Gray")


def film_set(folder: Path, size: tuple[int, int], films: int, shards: int = 2) -> None:
    rng, infos, keys = np.random.default_rng(0), [], []
    folder.mkdir()
    for s in range(shards):
        path = folder / f"shard-{s:06d}.tar"
        content = [(f"s{s:03d}x{i:05d}", {"image.jpg": film(rng, *size)}) for i in range(films // shards)]
        write_tar(path, content)
        indexing.save(path, indexing.build(path))
        infos.append(ShardInfo(name=path.name, samples=len(content), bytes=path.stat().st_size, sha256=sha256_of(path)))
        keys += [key for key, _ in content]
    seal(folder, infos, keys, {"image": FieldInfo(ext="jpg", count=len(keys))})


def members(folder: Path) -> list[bytes]:
    with Dataset.open(folder) as data:
        return [data.raw(i, ("image",))[0] for i in range(len(data))]


# ------------------------------------------------------------------------------------------------------- ours, and decoding


def before(record: Any, rng: np.random.Generator) -> np.ndarray:
    """What a film went through before it was decoded as what it is: RGB, luma, all pixels."""
    image_HWC = colours(eight_bit(record.read("image")), grayscale=True)
    return random_view(image_HWC, VIEW, SCALE, FLIP, rng)


def after(record: Any, rng: np.random.Generator) -> np.ndarray:
    return random_view(picture_of(record, "image", grayscale=True), VIEW, SCALE, FLIP, rng)


def decoded(record: Any, rng: np.random.Generator) -> np.ndarray:
    return record.stored_image("image").pixels()


def ours(folder: Path, view: Callable[..., np.ndarray] = after, exact: bool = False) -> Batches:
    data = Dataset.open(folder)
    data.exact_decode = exact
    plan = make_plan(data, None, "shuffle", 0, BATCH)
    collate = partial(Method.collate, None)
    with Loader(data, plan, lambda r, g: Sample({"image": view(r, g)}), collate, workers=WORKERS) as loader:  # type: ignore[arg-type]
        for step in loader.iterate():
            yield step.micro[0]["image"]


def ceiling(folder: Path, one: Callable[[bytes, np.random.Generator], object]) -> Batches:
    """Threads that do nothing but decode what lies in memory, a batch at a time each."""
    films, made, room = members(folder), threading.Semaphore(0), threading.Semaphore(2 * WORKERS)

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        while True:
            room.acquire()
            for i in rng.integers(len(films), size=BATCH):
                one(films[i], rng)
            made.release()

    for t in range(WORKERS):
        threading.Thread(target=work, args=(t,), daemon=True).start()
    while True:
        made.acquire()
        room.release()
        yield np.empty(BATCH)


def decode_all(data: bytes, rng: np.random.Generator) -> object:
    return simplejpeg.decode_jpeg(data, "GRAY")


def decode_own(data: bytes, rng: np.random.Generator) -> object:
    from shards.format.jpeg_grey import decode

    found = decode(data, 1)
    assert found is not None
    return found


def decode_needed(data: bytes, rng: np.random.Generator) -> object:
    """As small as a drawn crop allows."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    left, top, right, bottom = draw_box(height, width, SCALE, rng)
    shrink = min(bottom - top, right - left) / VIEW
    d = next((d for d in (8, 4, 2) if d <= shrink), 1)
    return simplejpeg.decode_jpeg(data, "GRAY", min_height=-(-height // d), min_width=-(-width // d), min_factor=d)


def decode_least(data: bytes, rng: np.random.Generator) -> object:
    """One pixel of every block: hardly more than reading the codes of a JPEG, which nothing but another file saves."""
    return simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_factor=8)


# ------------------------------------------------------------------------------------------------------------- the rivals


def _augment(pil: bool) -> Any:
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(VIEW, SCALE, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(FLIP), *([v2.PILToTensor()] if pil else [])])


def _torchvision_sample(data: bytes, augment: Any) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    return augment(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.GRAY))


def _pillow_sample(data: bytes, augment: Any) -> torch.Tensor:
    import io

    return augment(Image.open(io.BytesIO(data)).convert("L"))


def _from_member(sample: dict[str, bytes], one: Callable[..., torch.Tensor], augment: Any) -> torch.Tensor:
    return one(sample["image.jpg"], augment)


def webdataset(folder: Path, pil: bool = False) -> Batches:
    import webdataset as wds

    urls = [str(p) for p in sorted(folder.glob("*.tar"))]
    one = partial(_from_member, one=_pillow_sample if pil else _torchvision_sample, augment=_augment(pil))
    # Drawn with replacement: a batch at the end of an epoch would be a smaller one.
    pipeline = wds.WebDataset(urls, resampled=True, shardshuffle=False).shuffle(50, seed=0).map(one)
    pipeline = pipeline.batched(BATCH, collation_fn=torch.stack, partial=False)
    yield from wds.WebLoader(pipeline, batch_size=None, num_workers=WORKERS)


def streaming(folder: Path) -> Batches:
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    local = folder / "mds"
    if not local.exists():
        with MDSWriter(out=str(local), columns={"image": "bytes"}) as out:
            for data in members(folder):
                out.write({"image": data})

    class Films(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: int) -> torch.Tensor:
            return _torchvision_sample(super().__getitem__(at)["image"], augment)

    augment = _augment(pil=False)
    films = Films(local=str(local), shuffle=True, batch_size=BATCH)
    loader = DataLoader(films, batch_size=BATCH, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    while True:
        yield from loader


def spdl(folder: Path) -> Batches:
    """Threads that decode, crop and scale in one call of FFmpeg."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    films, rng = members(folder), np.random.default_rng(0)
    sizes = {i: simplejpeg.decode_jpeg_header(data)[:2] for i, data in enumerate(films)}

    def source() -> Iterator[tuple[bytes, str]]:
        while True:
            for i in rng.permutation(len(films)).tolist():
                left, top, right, bottom = draw_box(*sizes[i], SCALE, rng)
                flip = ",hflip" if rng.random() < FLIP else ""
                cut = f"crop={right - left}:{bottom - top}:{left}:{top}"
                yield films[i], f"{cut},scale={VIEW}:{VIEW}:flags=bicubic{flip},format=pix_fmts=gray"

    def one(asked: tuple[bytes, str]) -> Any:
        return spdl.io.decode_packets(spdl.io.demux_image(asked[0]), filter_desc=asked[1])

    def stacked(frames: list[Any]) -> Any:
        return spdl.io.to_numpy(spdl.io.convert_frames(frames))

    one(next(source()))  # its pipeline would go on for ever where FFmpeg's libraries are missing
    builder = PipelineBuilder().add_source(source()).pipe(one, concurrency=WORKERS).aggregate(BATCH)
    pipeline = builder.pipe(stacked).add_sink(2).build(num_threads=WORKERS)
    with pipeline.auto_stop():
        yield from pipeline


def dali(folder: Path) -> Batches:
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=WORKERS, device_id=None, seed=0)  # type: ignore[misc]
    def films() -> Any:
        paths = [str(p) for p in sorted(folder.glob("*.tar"))]
        data = fn.readers.webdataset(paths=paths, ext=["image.jpg"], random_shuffle=True, initial_fill=50)
        area = {"random_area": SCALE, "random_aspect_ratio": (3 / 4, 4 / 3)}
        part = fn.decoders.image_random_crop(data, device="cpu", output_type=types.GRAY, **area)
        view = fn.resize(part, size=(VIEW, VIEW), interp_type=types.INTERP_CUBIC, antialias=True)
        return fn.flip(view, horizontal=fn.random.coin_flip(probability=FLIP))

    pipeline = films()
    pipeline.build()
    while True:
        yield pipeline.run()


CONTENDERS: dict[str, tuple[str, Callable[[Path], Batches]]] = {
    "ours": ("", ours),
    "ours, exact": ("", partial(ours, exact=True)),
    "ours, before": ("", partial(ours, view=before, exact=True)),
    "ours, no crop": ("", partial(ours, view=decoded, exact=True)),
    "floor: codes alone": ("", partial(ceiling, one=decode_least)),
    "floor: needed": ("", partial(ceiling, one=decode_needed)),
    "ceiling: decode": ("", partial(ceiling, one=decode_all)),
    "ceiling: own decoder": ("numba", partial(ceiling, one=decode_own)),
    "webdataset + Pillow": ("webdataset", partial(webdataset, pil=True)),
    "webdataset + torchvision": ("webdataset", webdataset),
    "streaming": ("streaming", streaming),
    "SPDL": ("spdl", spdl),
    "DALI": ("nvidia.dali", dali),
}


# --------------------------------------------------------------------------------------------------------------- measuring


def measured(name: str, folder: Path, batches: int) -> dict[str, float]:
    """Samples a second, and processor milliseconds of a sample, after a warm-up; in this process and those that it starts."""
    import psutil

    torch.set_num_threads(1)
    stream = CONTENDERS[name][1](folder)
    for _ in range(warm_up(folder)):
        next(stream)
    process = psutil.Process()
    cpu, start = _cpu(process), time.perf_counter()
    for _ in range(batches):
        next(stream)
    wall, cpu = time.perf_counter() - start, _cpu(process) - cpu
    return {"rate": batches * BATCH / wall, "cpu_ms": 1000 * cpu / (batches * BATCH)}


def warm_up(folder: Path) -> int:
    """Batches that are more than any of them prepares ahead, and than our loader reads before its own decoder is loaded."""
    with Dataset.open(folder) as data:
        film = sum(shard.bytes for shard in data.info.shards) / len(data)
    return 8 + math.ceil(2 * WORTH / (BATCH * film))


def _cpu(process: Any) -> float:
    each = [process, *process.children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in each)


def in_process(name: str, folder: Path, batches: int) -> dict[str, float]:
    # -P: beside this file lies one with the name of a package that numba imports where it is found.
    command = [sys.executable, "-P", __file__, "--one", name, "--data", str(folder), "--batches", str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def installed(name: str) -> bool:
    package = CONTENDERS[name][0]
    try:
        return not package or importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def compare(folder: Path, names: list[str], rounds: int, batches: int) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {n: [] for n in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(in_process(name, folder, batches))
    print(f"{'':<26} {'samples/s':>10} {'CPU ms':>8}   ours is")
    for name, rows in found.items():
        rate, cpu = (statistics.median(r[k] for r in rows) for k in ("rate", "cpu_ms"))
        print(f"{name:<26} {rate:>10.1f} {cpu:>8.2f}   {shown(found, 'ours', name)}", flush=True)
    return found


def ratio(found: dict[str, list[dict[str, float]]], a: str, b: str) -> tuple[float, float]:
    """How many times as fast a is as b: by the clock, and by processor time."""
    pairs = list(zip(found[a], found[b], strict=True))
    return (
        statistics.median(x["rate"] / y["rate"] for x, y in pairs),
        statistics.median(y["cpu_ms"] / x["cpu_ms"] for x, y in pairs),
    )


def shown(found: dict[str, list[dict[str, float]]], a: str, b: str) -> str:
    wall, cpu = ratio(found, a, b)
    return f"{wall:.2f}x ({cpu:.2f}x by processor time)"


def pixel_change(folder: Path, draws: int = 4) -> str:
    """Differences of views in grey levels, decoded smaller against decoded whole."""
    differences = []
    with Dataset.open(folder) as data:
        for i in range(min(len(data), 16)):
            for draw in range(draws):
                pair = []
                for exact in (True, False):
                    data.exact_decode = exact
                    pair.append(after(data[i], np.random.default_rng((i, draw))).astype(np.int16))
                differences.append(np.abs(pair[0] - pair[1]).ravel())
    all_N = np.concatenate(differences)
    return f"mean {all_N.mean():.2f}, 99 of 100 within {np.percentile(all_N, 99):.0f}, none over {all_N.max()} of 255 levels"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer films, batches and rounds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.one, args.data, args.batches)), flush=True)
        os._exit(0)  # without waiting for what others have in work
    names = [n for n in CONTENDERS if installed(n)]
    if left := [n for n in CONTENDERS if n not in names]:
        print(f"not installed, left out: {', '.join(left)}")
    rounds, films = (1, 16) if args.quick else (3, 16)
    with tempfile.TemporaryDirectory(prefix="medpair-films-") as tmp:
        full, small = Path(tmp) / "full", Path(tmp) / "small"
        film_set(full, FULL, films)
        film_set(small, SMALL, 16 * films)
        print(
            f"{FULL[0]} x {FULL[1]} to {VIEW}, {WORKERS} workers, {rounds} rounds; change of pixels: {pixel_change(full)}"
        )
        compare(full, [n for n in names if n != "ours, no crop"], rounds, 4 if args.quick else 12)
        print(f"\n{SMALL[0]} x {SMALL[1]} to {VIEW}")
        found = compare(small, names, rounds, 30 if args.quick else 100)
        for decoder in ("ceiling: decode", "ceiling: own decoder"):
            if decoder in found:
                print(f"no crop against pure decoding ({decoder}): {shown(found, 'ours, no crop', decoder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
