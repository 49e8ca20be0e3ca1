"""From data sets on disk to what a method and the loop need. The one bridge between shards/ and models/."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.contract import Batch, Field, Label, Method, MethodError, Record, Sample, Schema, Stage
from shards.errors import DataError, Problem
from shards.format.images import bits_fix
from shards.format.meaning import meanings_of, merged, one_sided
from shards.load.loader import Loader
from shards.order.large import ORDER_VERSION
from shards.order.mix import Mix, MixPlan, make_plan
from shards.order.mix import open_data as open_parts
from shards.order.plan import WINDOW, Plan
from shards.order.streams import sample_rng
from shards.read.cache import Cache
from shards.read.dataset import Dataset
from shards.read.remote import is_url
from shards.tables.alleles import other_alleles
from shards.tables.identity import few
from trainer.config.schema import Config
from trainer.engine.engine import split_batch
from trainer.engine.feed import EvalLoader
from trainer.errors import UserError
from trainer.runtime import Runtime

PROBE = 8
LOOKED_AT = 64


@dataclass
class Data:
    """The training data of a run, opened."""

    parts: Dataset | Mix
    schema: Schema
    paths: list[str]
    weights: list[float] | None
    demo: bool
    split: str
    order_version: int = ORDER_VERSION
    """Of the orders of large sets: the one that the run began with, which a checkpoint names."""

    @property
    def fingerprint(self) -> str:
        return self.parts.fingerprint

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        return self.parts.parts if isinstance(self.parts, Mix) else (self.parts,)

    @property
    def samples(self) -> int:
        return sum(len(d.subset(self.split)) for d in self.datasets)

    def close(self) -> None:
        self.parts.close()

    def plan(self, config: Config, stage: Stage) -> Plan | MixPlan:
        """The order of a stage."""
        return make_plan(
            self.parts, self.split, stage.order, config.seed, config.global_batch,
            weights=self.weights, label=stage.order_label if stage.order == "class_balanced" else None,
            order_version=self.order_version,
        )  # fmt: skip

    @property
    def meanings(self) -> dict[str, dict[str, str]]:
        """What is known of the fields' numbers (`shards.format.meaning`)."""
        return merged([meanings_of(d.info) for d in self.datasets])

    def meaning_notes(self) -> list[str]:
        """What only some of the data sets say of their fields' numbers, so that nobody can compare it."""
        return one_sided([(d.path, meanings_of(d.info), d.info.fields) for d in self.datasets])

    def cache_notes(self, stages: Sequence[Stage]) -> list[str]:
        """Stages that read more shards at a time than the cache holds."""
        far = [d for d in self.datasets if d.cache is not None]
        sizes = sorted((s.bytes for d in far for s in d.info.shards), reverse=True)
        limit = min((d.cache.limit for d in far if d.cache is not None), default=0)
        notes = []
        for stage in stages:
            needed = sum(sizes[:WINDOW] if stage.order == "shuffle" else sizes)
            if needed > limit:
                notes.append(
                    f"stage {stage.name} reads {needed / 1e9:.3g} GB of shards in no order and data.cache_gb is {limit / 1e9:.3g}: "
                    f"shards will be fetched again and again; raise it to {needed / 1e9:.3g} or more"
                )
        return notes

    def check(self, config: Config, stage: Stage, world: int) -> None:
        """Refuses a stage that cannot be trained as configured.

        Raises:
            UserError: a loss that compares samples would change under accumulation; too small a validation split.
            DataError: images whose pixels nothing says how to read; an optional field that is of another kind.
        """
        check_optional(self.datasets, stage, config.method_name)
        check_images(self.datasets, stage.reads)
        micro, accumulation = split_batch(config, world)
        if stage.compares and accumulation > 1:
            raise UserError(
                f"micro_batch={micro}: stage {stage.name} of {config.method_name} compares the samples of a batch with each "
                f"other, so {accumulation} accumulated parts would be another loss than one batch of {config.global_batch}. "
                f"Use micro_batch={config.global_batch // world} (with activation_checkpointing=true if memory is short), "
                "more ranks, or a smaller global_batch"
            )
        for part in self._validation_parts(config):
            samples = len(part.subset(config.data.val_split))
            if samples < world:
                raise UserError(
                    f"data.val_split={config.data.val_split}: {samples} samples for {world} ranks; "
                    "enlarge it (python -m shards split), or data.val_split= for none"
                )

    def check_made_of(self, method: Method) -> None:
        """Refuses files of the method that were made of samples that are held back, which would be learned from by them, or of others.

        Raises:
            UserError: which they are.
        """
        for option, keys in method.made_of().items():
            made_of, where = {*keys}, ", ".join(self.paths)
            split_of = {
                k: split
                for d in self.datasets
                for split, samples in d.info.splits.items()
                if samples
                for k in made_of.intersection(d.keys_of(d.subset(split).indices))
            }
            if held_back := [f"{k} in {s}" for k, s in split_of.items() if s != self.split]:
                raise UserError(
                    f"method.{option}: {len(held_back)} of the {len(made_of)} samples that it was made of are held back in {where} "
                    f"({few(sorted(held_back))}), which is a leak; make it anew of today's training samples"
                )
            if not split_of:
                raise UserError(
                    f"method.{option}: none of the {len(made_of)} samples that it was made of is in {where}; make it of these"
                )

    def untold(self, method: Method, stage: Stage) -> list[str]:
        """Notes on training samples that hold the stage's fields and tell it nothing; `LOOKED_AT` of each data set are looked at.

        Sets that are far away are not: their samples lie in as many shards.

        Raises:
            UserError: there is nothing to learn from in any of them.
        """
        near = [d for d in self.datasets if d.cache is None]
        records = [r for d in near for r in _spread(d, self.split) if all(r.has(f) for f in stage.fields)]
        missing = Counter(filter(None, map(method.untold, records)))
        if not missing or not records:
            return []
        (what, _), lacking = missing.most_common(1)[0], missing.total()
        told = f"of {len(records)} training samples that were looked at have {what}"
        if lacking == len(records):
            raise UserError(f"stage {stage.name}: none {told}")
        return [f"stage {stage.name}: {len(records) - lacking} {told}"] if 2 * lacking > len(records) else []

    def _validation_parts(self, config: Config) -> list[Dataset]:
        split = config.data.val_split
        return [d for d in self.datasets if split and d.info.splits.get(split)]

    def loader(self, config: Config, stage: Stage, method: Method, runtime: Runtime) -> Loader[Sample, Batch]:
        """This rank's batches of a stage."""
        micro, _ = split_batch(config, runtime.world)
        return Loader(
            self.parts,
            self.plan(config, stage),
            sampler(method),
            method.collate,
            rank=runtime.rank,
            world=runtime.world,
            micro_batch=micro,
            workers=config.data.workers,
            prefetch=config.data.prefetch,
            max_bad_samples=config.data.max_bad_samples,
        )

    def keys(self, config: Config, stage: Stage, epoch: int, step: int) -> list[str]:
        """Sample keys of a planned global batch, in order."""
        return self.parts.keys_of(self.plan(config, stage).batch(epoch, step).index)

    def validation(self, config: Config, stage: Stage, method: Method, runtime: Runtime) -> EvalLoader | None:
        """The held-back split as padded evaluation batches; None without one."""
        parts = self._validation_parts(config)
        if not parts:
            return None
        split = config.data.val_split
        micro, _ = split_batch(config, runtime.world)
        loaders = []
        for part in parts:
            samples = len(part.subset(split))
            batch = min(micro, samples // runtime.world)
            loaders.append(
                Loader(
                    part,
                    make_plan(part, split, "sequential", config.seed, batch * runtime.world),
                    sampler(method),
                    method.collate,
                    rank=runtime.rank,
                    world=runtime.world,
                    micro_batch=batch,
                    workers=config.data.workers,
                    prefetch=config.data.prefetch,
                )
            )
        return Validation(loaders)

    def probe(self, config: Config, stage: Stage, method: Method) -> Batch:
        """The same few samples on every rank and at every start: the first that can be read of the stage's first batch."""
        draws = self.plan(config, stage).batch(0, 0)
        samples = []
        for index, repeat in zip(draws.index.tolist(), draws.repeat.tolist(), strict=True):
            try:
                samples.append(sampler(method)(self.parts[index], sample_rng(config.seed, 0, index, repeat)))
            except DataError:
                continue  # the loader will name it when it comes to it
            if len(samples) == min(PROBE, config.global_batch):
                return method.collate(samples)
        raise DataError(
            Problem(
                "hardly a sample of the first batch can be read",
                ", ".join(self.paths),
                "run `python -m shards lint` on it",
            )
        )


@dataclass
class Validation:
    """Evaluation batches of all parts, one after another."""

    loaders: list[Loader[Sample, Batch]]

    def evaluate(self) -> Iterator[Batch]:
        for loader in self.loaders:
            yield from loader.evaluate()

    def close(self) -> None:
        for loader in self.loaders:
            loader.close()


def _spread(data: Dataset, split: str) -> list[Record]:
    """Samples from all over a split."""
    indices = data.subset(split).indices
    at = np.unique(np.linspace(0, len(indices) - 1, min(LOOKED_AT, len(indices))).astype(int))
    return [data[int(i)] for i in indices[at]]


def sampler(method: Method) -> Callable[[Record, np.random.Generator], Sample]:
    """`method.sample`, with what it refuses counted as a bad sample and named."""

    def sample(record: Record, rng: np.random.Generator) -> Sample:
        try:
            return method.sample(record, rng)
        except MethodError as e:
            fix = "mend or leave out the sample"
            raise DataError(Problem(p, f"sample '{record.key}'", fix) for p in e.problems) from e

    return sample


def demo_folder() -> Path:
    """Where the built-in cohort is kept: MEDPAIR_CACHE, or the user's cache folder."""
    cache = os.environ.get("MEDPAIR_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "medpair")
    return Path(cache).expanduser() / "demo"


def shard_cache(paths: Sequence[str], folder: str | None, gb: float) -> Cache | None:
    """The cache that the data are read through: always for addresses, for folders where one is given."""
    return Cache.at(folder, gb) if folder or any(is_url(p) for p in paths) else None


def open_data(config: Config, here: bool = True) -> Data:
    """Opens `data.path` (or makes the demo cohort on first use) and describes it.

    `here`: data.cache is a folder of this machine; a plan for other machines must not want it.

    Raises:
        DataError: what is wrong with the data sets, all at once.
        UserError: data sets that cannot be trained on together.
    """
    sources = config.data.sources
    if sources:
        paths = [s.path for s in sources]
    else:
        from shards.demo import ensure

        paths = [str(ensure(demo_folder()))]
    cache = shard_cache(paths, config.data.cache if here else None, config.data.cache_gb)
    parts = open_parts(paths if len(paths) > 1 else paths[0], cache)
    several = isinstance(parts, Mix)
    each = parts.parts if isinstance(parts, Mix) else (parts,)
    for part in each:
        part.exact_decode = config.data.exact_decode
    if leaking := [str(d.path) for d in each if d.info.leaking_splits]:
        raise UserError(
            f"data.path={', '.join(leaking)}: patients stand in two splits (packed with --accept-leaking-lists, to compare fine-tunes "
            "with published ones): pre-train on a data set that is split by patient (python -m shards split)"
        )
    schema = merged_schema([schema_of(d) for d in each])
    weights = [s.weight for s in sources] if several else None
    return Data(parts, schema, paths, weights, not sources, config.data.split)


def check_optional(datasets: Sequence[Dataset], stage: Stage, method: str) -> None:
    """Refuses optional fields that are numbered on from a field of the stage (`image_2` from `image`), and are of another kind.

    Raises:
        DataError: every such field of every data set.
    """
    problems = []
    for data in datasets:
        known = data.info.fields
        for name in (n for n in stage.optional if n in known):
            first = name.rpartition("_")[0]
            if first in known and known[name].kind != known[first].kind:
                what = f"field '{name}' is {known[name].kind}, and '{first}' is {known[first].kind}: {method} reads both alike"
                problems.append(Problem(what, str(data.path), f"pack '{name}' as {known[first].kind}, or without it"))
    if problems:
        raise DataError(problems)


def check_images(datasets: Sequence[Dataset], fields: Iterable[str]) -> None:
    """Refuses images of 16 bits of which nothing says how many are used, before any of them is read.

    Raises:
        DataError: every such field of every data set.
    """
    problems = []
    for data in datasets:
        for name in [n for n in fields if n in data.info.fields]:
            reading = data.reading(name)
            if data.info.fields[name].dtype == "uint16" and reading.bits is None and not reading.mask:
                what = f"images '{name}' have 16 bits, and nothing says how many of them are used"
                problems.append(Problem(what, str(data.path), bits_fix(name)))
    if problems:
        raise DataError(problems)


def schema_of(data: Dataset) -> Schema:
    """What a data set offers, in the models' words."""
    stats = data.stats() if "stats.npz" in data.info.files else {}
    fields = {}
    for name, f in data.info.fields.items():
        fields[name] = Field(
            name=name,
            kind=f.kind,  # type: ignore[arg-type]
            dtype=f.dtype,
            shape=f.shape,
            vocabulary=data.vocabulary(name) if f.vocab else None,
            mean=stats.get(f"{name}.mean"),
            std=stats.get(f"{name}.std"),
            meaning=f.meaning,
        )
    labels = {name: Label(name, v.kind, v.classes) for name, v in data.info.labels.items()}
    return Schema(fields, labels, source=str(data.path))


def meanings_in(schema: Schema) -> dict[str, dict[str, str]]:
    """What is known of its fields' numbers, in the form that `shards.format.meaning` compares."""
    return {n: dict(f.meaning) for n, f in schema.fields.items() if f.meaning}


def merged_schema(schemas: Sequence[Schema]) -> Schema:
    """What all of several data sets offer; statistics are the first one's, a field's meaning is what any of them knows.

    Raises:
        UserError: a field of the same name with another shape or vocabulary, a label with other classes.
    """
    first, problems = schemas[0], []
    fields = {n: f for n, f in first.fields.items() if all(n in s.fields for s in schemas)}
    labels = {n: v for n, v in first.labels.items() if all(n in s.labels for s in schemas)}
    for other in schemas[1:]:
        for n, f in fields.items():
            g = other.fields[n]
            if (f.kind, f.shape, f.vocabulary) != (g.kind, g.shape, g.vocabulary):
                why = other_alleles(f.vocabulary, g.vocabulary) or "pack both with one vocabulary and width"
                problems.append(f"field '{n}' differs between {first.source} and {other.source}: {why}")
        for n, v in labels.items():
            if other.labels[n] != v:
                problems.append(
                    f"label '{n}' differs between {first.source} and {other.source}: give both the same classes"
                )
    if problems:
        raise UserError(problems)
    known = merged([meanings_in(s) for s in schemas])
    fields = {n: replace(f, meaning=known.get(n, {})) for n, f in fields.items()}
    return first if len(schemas) == 1 else Schema(fields, labels, source=", ".join(s.source for s in schemas))
