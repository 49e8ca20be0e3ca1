"""`shards.stream`: samples as the first stage of a `webdataset` pipeline, in our order and with our resume state.

    source = shards.stream("data/nsclc", global_batch=512, batch_size=64)
    pipeline = webdataset.DataPipeline(source, webdataset.decode("rgb8"), webdataset.to_tuple("image.jpg", "report.txt"))
    loader = torch.utils.data.DataLoader(pipeline, batch_size=64, num_workers=4)

Letters: G samples in a global batch, W ranks, G / W a rank's share of it, B what a DataLoader puts together (`batch_size`). A rank's
shares, step after step, are its sequence. It is cut into pieces of B, and worker k of w takes pieces k, k + w, ...: a DataLoader asks
its workers in turn, so that it returns the sequence as if it had none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from shards.errors import BrokenSeal, DataError, Problem, bad
from shards.load.position import place_of, state_of, step_at
from shards.order.large import ORDER_VERSION
from shards.order.mix import Mix, make_plan, open_data
from shards.order.ranks import micro_slices, rank_slice
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord

SERIAL, EPOCH, STEP, READ = range(4)
"""Of the place: its number (a new one whenever it is set), where it is, and the number of the last one read to its end."""


class Stream(IterableDataset[dict[str, Any]]):
    """Samples `{"__key__": ..., "__url__": tar, "image.jpg": bytes, "meta.json": bytes, ...}` of one rank, as stored.

    An iteration begins at the place that was last set (`set_epoch`, `resume`) and goes through `epochs` epochs; it moves nothing,
    since worker processes read ahead and only the consumer knows what it has used. Every byte is checked against its CRC-32.

    Args:
        path: a data set (folder or address), or several that are mixed.
        global_batch: G, samples of a step over all ranks. A run keeps it when its ranks or workers change; a last step that is not
            whole is left out of an epoch.
        split: whose samples; None for all.
        order: shuffle, patient_unique, class_balanced or sequential.
        seed: of the order.
        fields: what to read; everything when None. A field that a sample lacks is not in its dictionary.
        rank, world: of this process; asked of torch.distributed, else of RANK and WORLD_SIZE, when None.
        batch_size: B, samples that the DataLoader (or `webdataset.batched`) puts together; 1 when it hands them on one by one. Several
            workers must know it. It divides G / W.
        epochs: that one iteration goes through, the first from the place on; None for ever.
        order_version: of the order of large sets; 1 or 2 goes on with the state of a run that began under it.
        options: of the order: label, classes_per_batch, window; weights of a mix.

    Raises:
        DataError: no such data set, split, order or field; a world or a batch that does not divide G; a rank outside the world.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        global_batch: int,
        split: str | None = "train",
        order: str = "shuffle",
        seed: int = 0,
        fields: Sequence[str] | None = None,
        rank: int | None = None,
        world: int | None = None,
        batch_size: int | None = None,
        epochs: int | None = 1,
        order_version: int = ORDER_VERSION,
        **options: Any,
    ):
        self.path, self.batch_size, self.epochs = path, batch_size, epochs
        self.fields = None if fields is None else tuple(fields)
        self.rank, self.world = _ranks(rank, world)
        self._settings = {"split": split, "order": order, "global_batch": global_batch, **options}
        self._data: Dataset | Mix | None = None
        self._process, self.fingerprint = -1, ""
        data = self._opened()
        self.fingerprint = data.fingerprint
        self.plan = make_plan(data, split, order, seed, global_batch, order_version=order_version, **options)
        self._share = rank_slice(global_batch, self.rank, self.world)
        self._cuts = micro_slices(global_batch // self.world, 1 if batch_size is None else batch_size, "batch_size")
        _check(data, self.fields, epochs)
        # Shared, so that workers that live on from epoch to epoch see what the consumer sets.
        self._place = torch.tensor([1, 0, 0, 0]).share_memory_()

    # ----------------------------------------------------------------------------------------------------------- place

    def set_epoch(self, epoch: int) -> None:
        """The next iteration begins with this epoch's first sample."""
        assert epoch >= 0, "an epoch is 0 or more"
        self._set(epoch, 0)

    def state(self, consumed: int) -> dict[str, Any]:
        """What a checkpoint stores once the run has used `consumed` samples, all ranks together: steps times G. Plain data.

        Raises:
            DataError: that is no whole number of global batches.
        """
        if consumed < 0:
            raise bad(f"{consumed} samples consumed", "consumed", "give the steps done so far times global_batch")
        step_at(self.plan, consumed)
        return {**state_of(self._opened(), self.plan, consumed), "settings": dict(self._settings)}

    def resume(self, state: Mapping[str, Any], accept_data: bool = False) -> tuple[int, int]:
        """Goes on after a stored state, under any number of ranks and workers: the next iteration begins at the (epoch, step) given back.

        Raises:
            DataError: other data (unless `accept_data`), or another seed, split, order or global batch.
        """
        if "settings" not in state:
            raise bad("no state of a stream", "the state", "give what `state(consumed)` of the run's stream returned")
        problems, place = _differences(state["settings"], self._settings), (0, 0)
        try:
            place = place_of(self._opened(), self.plan, state, accept_data, "`resume(state, accept_data=True)`")
        except DataError as e:
            problems += e.problems
        if problems:
            raise DataError(problems)
        self._set(*place)
        return place

    def _set(self, epoch: int, step: int) -> None:
        self._place[EPOCH], self._place[STEP] = epoch, step
        self._place[SERIAL] += 1

    # --------------------------------------------------------------------------------------------------------- samples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The samples of this rank, or of this worker process of it.

        Raises:
            DataError: a sample or shard that cannot be read; an order read to its end twice; workers that do not know `batch_size`.
        """
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        serial, epoch, step, read = self._place.tolist()
        if workers > 1 and self.batch_size is None:
            raise bad(
                f"{workers} workers, and no batch_size", "batch_size", "give that of the DataLoader, or 1 without"
            )
        if worker == 0 and read == serial and self._settings["order"] != "sequential":
            fix = f"call `set_epoch({epoch + (self.epochs or 1)})` for what follows, or `set_epoch({epoch})` to begin it again"
            raise bad(f"epoch {epoch} was read to its end already", "the order", fix)
        data = self._opened()
        for i in self._indices(epoch, step, worker, workers):
            yield self._sample(data[i])
        if worker == 0:
            self._place[READ] = serial

    def _indices(self, epoch: int, step: int, worker: int, workers: int) -> Iterator[int]:
        """Sample numbers that fall to a worker; only the steps that it takes part in are planned."""
        last, piece = None if self.epochs is None else epoch + self.epochs, 0
        while epoch != last:
            for at in range(step, self.plan.steps_per_epoch):
                mine = [c for j, c in enumerate(self._cuts, piece) if j % workers == worker]
                share = self.plan.batch(epoch, at).index[self._share] if mine else np.empty(0, np.int64)
                for cut in mine:
                    yield from share[cut].tolist()
                piece += len(self._cuts)
            epoch, step = epoch + 1, 0

    def _sample(self, record: ShardRecord) -> dict[str, Any]:
        sample: dict[str, Any] = {"__key__": record.key, "__url__": str(record.tar)}
        for name in record.fields:
            if self.fields is None or name in self.fields:
                ext, data = record.stored(name)
                sample[f"{name}.{ext}"] = data
        return sample

    # --------------------------------------------------------------------------------------------------------- opening

    def _opened(self) -> Dataset | Mix:
        """The data, opened anew in a worker process: a forked one may not share what its parent holds in a cache.

        Raises:
            DataError: it cannot be opened.
            BrokenSeal: other data have taken the place of those that the stream was made for.
        """
        if self._data is None or self._process != os.getpid():
            data, before = open_data(self.path), self.fingerprint
            if before not in ("", data.fingerprint):
                what = f"the data were replaced: fingerprint {before[:12]} when the stream was made, {data.fingerprint[:12]} now"
                raise BrokenSeal(Problem(what, str(self.path), "make a new stream"))
            self._data, self._process = data, os.getpid()
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are spawned: they open the data themselves."""
        return {**self.__dict__, "_data": None}


def _ranks(rank: int | None, world: int | None) -> tuple[int, int]:
    """(rank, world) as given, or as the process group or the launcher say."""
    if (rank is None) != (world is None):
        raise bad(f"rank {rank} of world {world}", "rank, world", "give both, or neither to have them asked for")
    if rank is None or world is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world < 1 or not 0 <= rank < world:
        raise bad(
            f"rank {rank} of a world of {world}", "rank, world", "a world has at least 1 rank, the first is rank 0"
        )
    return rank, world


def _differences(stored: Mapping[str, Any], own: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(f"the run has {n}={stored.get(n)!r}, this stream {n}={own.get(n)!r}", n, f"give {n} of the run")
        for n in sorted({*stored, *own})
        if stored.get(n) != own.get(n)
    ]


def _check(data: Dataset | Mix, fields: Sequence[str] | None, epochs: int | None) -> None:
    parts = data.parts if isinstance(data, Mix) else (data,)
    known = sorted({f for part in parts for f in part.info.fields})
    problems = [
        Problem(f"no field '{f}'", ", ".join(str(p.path) for p in parts), f"use some of {', '.join(known)}")
        for f in fields or ()
        if f not in known
    ]
    if epochs is not None and epochs < 1:
        problems.append(Problem(f"{epochs} epochs", "epochs", "give at least 1, or None for an iteration without end"))
    if problems:
        raise DataError(problems)
