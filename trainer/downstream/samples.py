"""A task's samples in the shape the training loop knows: labelled training samples, validation and test samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from models.contract import Batch, Method, MethodError, Sample, Stage
from models.finetuned import Downstream
from shards.errors import DataError, Problem
from shards.load.loader import Loader
from shards.order.plan import Once, Plan
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from shards.read.subset import Subset
from trainer.config.schema import Config
from trainer.data import Data
from trainer.engine.engine import split_batch
from trainer.errors import UserError
from trainer.runtime import Runtime

LABEL = "answer"


@dataclass
class TaskSamples(Data):
    """Like the data of pre-training, with the order made over the labelled training samples alone."""

    train: Subset | None = None
    val_subset: Subset | None = None
    balance: bool = False
    look_batch: int = 16

    @property
    def dataset(self) -> Dataset:
        return self.datasets[0]

    @property
    def samples(self) -> int:
        assert self.train is not None
        return len(self.train)

    def close(self) -> None:
        """The data set is shared by the trainings of a setting and closed by who opened it."""

    def plan(self, config: Config, stage: Stage) -> Plan:
        assert self.train is not None
        strategy = "class_balanced" if self.balance else "shuffle"
        return Plan(
            strategy, self.train, config.seed, config.global_batch, label=LABEL if self.balance else None,
            order_version=self.order_version,
        )  # fmt: skip

    def check(self, config: Config, stage: Stage, world: int) -> None:
        check_batch(config, NORMS if stage.compares else None, world)

    def validation(self, config: Config, stage: Stage, method: Method, runtime: Runtime) -> SplitLoader:
        assert self.val_subset is not None
        assert isinstance(method, Downstream)
        return SplitLoader(self.dataset, self.val_subset, method, runtime, self.look_batch, config.data.workers)


COX = "Cox's likelihood ranks the samples of a batch"
NORMS = "samples of a batch are compared with each other (by batch norms of the network, or by Cox's likelihood)"


def check_batch(config: Config, compares: str | None, world: int) -> None:
    """Refuses a batch that the ranks cannot share, parts of one whose samples are compared, or one sample, which has no other.

    Args:
        compares: why its samples are compared; None: they are not.

    Raises:
        UserError: with the sizes that would do.
    """
    micro, accumulation = split_batch(config, world)
    if compares and accumulation > 1:
        raise UserError(
            f"protocol.micro_batch={micro}: {compares}, so {accumulation} parts would be "
            f"another loss than one batch of {config.global_batch}: use protocol.micro_batch={config.global_batch // world}"
        )
    if compares and config.global_batch < 2:
        instead = ", or output.survival=intervals" if compares == COX else ""
        raise UserError(
            f"protocol.batch={config.global_batch}: {compares}, and one has no other: use protocol.batch=2 or more{instead}"
        )


class SplitLoader:
    """Evaluation batches of some samples: once each, as they are, over all ranks.

    Args:
        genes: index of a sample -> index of the one whose genes it gets, or None for none; not given: its own.
        view: how records are read, where features stand in another order than the method's.
    """

    def __init__(
        self,
        data: Dataset,
        subset: Subset,
        method: Downstream,
        runtime: Runtime,
        batch: int,
        workers: int,
        genes: Callable[[int], int | None] | None = None,
        view: Callable[[ShardRecord], Realigned] | None = None,
    ):
        def sample(record: ShardRecord, rng: np.random.Generator) -> Sample:
            try:
                if genes is None:
                    return method.eval_sample(record if view is None else view(record), rng)
                other = genes(record.index)
                return method.eval_sample(record, rng, genes=Nothing() if other is None else data[other])
            except MethodError as e:
                raise DataError(
                    Problem(p, f"sample '{record.key}'", "mend or leave out the sample") for p in e.problems
                ) from e

        self.loader = Loader(
            data,
            Once(subset, batch * runtime.world),
            sample,
            method.collate,
            rank=runtime.rank,
            world=runtime.world,
            micro_batch=batch,
            workers=workers,
        )

    def evaluate(self) -> Iterator[Batch]:
        return self.loader.evaluate()

    def close(self) -> None:
        self.loader.close()


class Behind:
    """A record that is another one but for what its kinds change of the fields."""

    __slots__ = ("_record",)

    def __init__(self, record: ShardRecord):
        self._record = record

    @property
    def key(self) -> str:
        return self._record.key

    @property
    def patient(self) -> str:
        return self._record.patient

    @property
    def index(self) -> int:
        return self._record.index

    @property
    def labels(self) -> Mapping[str, str | float | None]:
        return self._record.labels

    def has(self, name: str) -> bool:
        return self._record.has(name)


class Realigned(Behind):
    """A record whose last axis of some fields has other features, or these in another order.

    Args:
        columns: field -> for each feature wanted its place in the stored ones, -1 where there is none.
        fill: field -> a value for each feature wanted, taken where there is none.
    """

    __slots__ = ("_columns", "_fill")

    def __init__(self, record: ShardRecord, columns: Mapping[str, np.ndarray], fill: Mapping[str, np.ndarray]):
        super().__init__(record)
        self._columns, self._fill = columns, fill

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._record.shape(name)
        return (*shape[:-1], len(self._columns[name])) if name in self._columns else shape

    def read(self, name: str) -> object:
        return self._chosen(name, self._record.read(name))

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return np.asarray(self._chosen(name, self._record.rows(name, start, stop)))

    def _chosen(self, name: str, value: object) -> object:
        if name not in self._columns:
            return value
        at_F = self._columns[name]
        chosen = np.ascontiguousarray(np.asarray(value)[..., at_F])
        if (at_F < 0).any():
            chosen[..., at_F < 0] = self._fill[name][at_F < 0].astype(chosen.dtype)
        return chosen


class Nothing:
    """A record without any field: whose genes are missing."""

    key = patient = ""
    labels: Mapping[str, str | float | None] = MappingProxyType({})

    @staticmethod
    def has(name: str) -> bool:
        return False

    def shape(self, name: str) -> tuple[int, ...]:
        raise KeyError(name)

    def read(self, name: str) -> np.ndarray:
        raise KeyError(name)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        raise KeyError(name)


def part(data: Dataset, indices: np.ndarray, source: str) -> Subset:
    """The subset of exactly these samples."""
    return data.subset(None).keep(indices, source)


def with_answers(subset: Subset, codes: np.ndarray, classes: tuple[str, ...]) -> Subset:
    """The same samples with the task's classes as a label, for balanced batches."""
    return replace(
        subset, labels={**subset.labels, LABEL: codes.astype(np.int64)}, classes={**subset.classes, LABEL: classes}
    )
