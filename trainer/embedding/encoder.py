"""A trained encoder as something to call: images or bags in, one vector each out.

Shape letters: N samples, D width of the pooled vector.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from models.contract import Batch, Method, MethodError, Sample
from models.contract.method import IMAGE_SIDE
from models.finetuned import image_side
from shards.errors import DataError, Problem, bad
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from trainer.data import check_images, schema_of
from trainer.downstream.init import Init, check_fields
from trainer.downstream.probes.features import encoded, finite
from trainer.embedding.bags import Bag, rows_of
from trainer.embedding.pictures import Picture, pixels_of, reading_for
from trainer.embedding.progress import ticking
from trainer.embedding.record import GivenRecord
from trainer.errors import UserError
from trainer.export.opened import FORMAT, load_exported, open_finished
from trainer.runtime import alone


class Encoder:
    """The encoder of a finished run, in its deployed form, in eval mode.

    method  the method itself, for whoever wants tokens or maps
    reads   "images", "bags", or "data sets" alone where it needs genes with every slide
    fields  the fields of a data set that it reads
    """

    def __init__(self, method: Method, bits: int | None = None, opacity: str | None = None, device: str | None = None):
        self._runtime = alone(device)
        self.method = method.to(self._runtime.device)
        pictured = image_side(method)
        needs_more = bool(set(method.needs) - set(IMAGE_SIDE))
        self.fields: tuple[str, ...] = method.inputs if needs_more or not pictured else pictured
        method.inputs = self.fields
        self.reads: Literal["images", "bags", "data sets"] = (
            "data sets" if needs_more or not pictured else "bags" if "patches" in pictured else "images"
        )
        self._readings = {
            n: reading_for(n, method.schema.need(n).meaning, bits, opacity)
            for n in (self.fields if self.reads == "images" else ())
            if n in method.schema.fields
        }

    def encode(
        self,
        given: Dataset | Iterable[Picture] | Iterable[Bag] | Iterable[Mapping[str, Picture | Bag]],
        *,
        split: str | None = None,
        batch: int = 32,
        progress: bool = True,
    ) -> np.ndarray:
        """One vector a sample, in the order given: float32 [N, D], what a probe is fitted to.

        Args:
            given: images (paths of JPEG or PNG, Pillow images, arrays uint8 [H, W], [H, W, 1, 3 or 4] or uint16 [H, W]); or bags (arrays
                [patches, features], or files .npy, .pt, .h5, .npz of one, "FILE.h5#NAME" for an array of several); or mappings by field
                where a method reads several (`{"image": ..., "image_2": ...}`); or a data set of `medpair.open`.
            split: of a data set, which samples; None for all.
            batch: samples at a time.
            progress: a bar on the error output, where that is a terminal or a notebook.

        Raises:
            DataError: everything that cannot be read, each with its place; nothing is returned then.
            UserError: a data set that the encoder was not built for; vectors that are not finite.
        """
        if batch < 1:
            raise UserError(f"batch={batch}: at least 1")
        if isinstance(given, Dataset):
            return self._of_data(given, split, batch, progress)
        if split is not None:
            raise UserError(f"split={split!r} is for a data set of medpair.open; leave it out here")
        items = self._several(given)
        total = len(items) if isinstance(items, Sequence | np.ndarray) else None
        rows: list[torch.Tensor] = []
        problems: list[Problem] = []
        with ticking(total, progress) as tick:
            for made in self._read(items, batch):
                problems += [p for one in made if isinstance(one, list) for p in one]
                if not problems:
                    rows.append(self._pooled(self._stacked([s for s in made if isinstance(s, Sample)])))
                tick(len(made))
        if problems:
            raise DataError(problems)
        if not rows:
            raise UserError(f"no {self.reads} were given")
        x_ND = torch.cat(rows).numpy()
        finite(x_ND, np.array([self._place(i) for i in range(len(x_ND))]), "float32")
        return x_ND

    # ----------------------------------------------------------------------------------------------------------- data sets

    def _of_data(self, data: Dataset, split: str | None, batch: int, progress: bool) -> np.ndarray:
        check_images([data], self.fields)
        known = Init(self.method.name, {}, self.method.schema, None, True, None)
        check_fields(known, self.fields, schema_of(data))
        subset = data.subset(split)
        with ticking(len(subset), progress) as tick:

            def pooled(b: Batch) -> torch.Tensor:
                tick(int((b.weight_B > 0).sum()))
                return self._pooled(b)

            x_ND = encoded(self.method, data, subset, self._runtime, batch, _workers(), pooled)
        return finite(x_ND, np.array(data.keys_of(subset.indices)), "float32")

    # ------------------------------------------------------------------------------------------------------ images and bags

    def _several(self, given: object) -> Iterable[object]:
        """What was given, as several things to encode.

        Raises:
            UserError: one thing, a folder, or what this encoder does not read.
        """
        if self.reads == "data sets":
            more = ", ".join(self.fields)
            raise UserError(f"{self.method.name} reads {more} together: pack them and give encode(medpair.open(DIR))")
        if isinstance(given, str | Path) and Path(given).is_dir():
            raise UserError(
                f"{given} is a folder: give encode(medpair.open(DIR)) where it is a packed data set, else a list of its files"
            )
        several = 4 if self.reads == "images" else 3
        if isinstance(given, np.ndarray) and given.ndim == several:
            return given
        if isinstance(given, str | Path | Image.Image | np.ndarray | Mapping) or not isinstance(given, Iterable):
            raise UserError(f"encode takes several {self.reads}: give a list, encode([...]), also of a single one")
        return given

    def _read(self, items: Iterable[object], batch: int) -> Iterator[list[Sample | list[Problem]]]:
        """Samples of a batch at a time, or what is wrong with them; the next batch is read while one is encoded."""
        numbered = iter(enumerate(items))
        with ThreadPoolExecutor(_workers()) as pool:

            def ahead() -> list[Future[Sample | list[Problem]]]:
                return [pool.submit(self._sample, i, item) for i, item in islice(numbered, batch)]

            waiting = ahead()
            while waiting:
                following = ahead()
                yield [f.result() for f in waiting]
                waiting = following

    def _sample(self, i: int, item: object) -> Sample | list[Problem]:
        place = self._place(i)
        where = str(item) if isinstance(item, str | Path) else place
        try:
            record = GivenRecord(place, self._arrays(item, where))
            # The generator that the same sample would have in a data set: bags longer than a method reads are sampled alike.
            return self.method.sample(record, sample_rng(0, 0, i))
        except DataError as e:
            return e.problems
        except MethodError as e:
            return [Problem(p, where, "leave it out") for p in e.problems]

    def _arrays(self, item: object, where: str) -> dict[str, np.ndarray]:
        parts = item if isinstance(item, Mapping) else {self.fields[0]: item}
        if strange := sorted(str(n) for n in parts if n not in self.method.schema.fields or n not in self.fields):
            raise bad(f"{', '.join(strange)}: not read by this encoder", where, f"give {', '.join(self.fields)}")
        if not parts:  # a method encodes a sample without its field as it does in training: black, or nothing
            raise bad("a mapping without any field", where, f"give {', '.join(self.fields)}, or leave it out")
        if self.reads == "bags":
            return {n: rows_of(v, self.method.schema.need(n), where) for n, v in parts.items()}
        return {n: pixels_of(v, self._readings[n], where) for n, v in parts.items()}

    def _stacked(self, samples: list[Sample]) -> Batch:
        return self.method.collate(samples).to(self._runtime.device)

    @torch.no_grad()
    def _pooled(self, batch: Batch) -> torch.Tensor:
        return self.method.encode(batch)["pooled_BD"].float().cpu()

    def _place(self, i: int) -> str:
        return f"{self.reads}[{i}]"


def _workers() -> int:
    return min(4, len(os.sched_getaffinity(0)))


def open_method(run: Path) -> Method:
    """The method of a finished run, of what a fine-tune made of one, or of an export `--to safetensors`, in its deployed form.

    Raises:
        UserError: none of these.
        MethodError: weights that cannot be read or are of another method.
    """
    if (run / "dataset.json").is_file():
        raise UserError(f"{run} is a data set, and no run: give it to medpair.open, and a run to medpair.encoder")
    if (run / "method.json").is_file() and _format(run / "method.json") == FORMAT:
        return load_exported(run)
    if _for_timm(run):
        raise UserError(
            f"{run} is an export for timm: load it there (its README.md says how), or give the run, or an export --to safetensors"
        )
    return open_finished(run).method


def _for_timm(run: Path) -> bool:
    path = run / "config.json"
    return path.is_file() and b'"pretrained_cfg"' in path.read_bytes()


def _format(path: Path) -> object:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None  # told by whoever opens it
    return content.get("format") if isinstance(content, dict) else None
