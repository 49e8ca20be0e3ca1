"""P classes x K samples in every global batch (G = P K); small classes come round again, reshuffled.

A class of n_c samples is walked in passes. With n_c >= K a pass serves floor(n_c / K) batches, so that no batch meets the
seam of two passes and with it a sample twice; the n_c mod K samples left over differ from pass to pass. With n_c < K
samples must repeat within a batch, and every batch begins a pass, so that it has all of them. `repeat` is the number of
the pass: it tells the draws of a sample apart, which is all that fresh randomness needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.order.groups import PART, Groups
from shards.order.large import ORDER_VERSION, WHOLE, by_places, numbers_to, shuffled, whole_of
from shards.order.places import Walk
from shards.order.streams import Purpose, Streams, stream
from shards.read.subset import Subset


class ClassBalanced:
    """An epoch makes as many draws as there are samples with a class: large classes are seen in part, small ones repeatedly."""

    def __init__(
        self,
        subset: Subset,
        seed: int,
        global_batch: int,
        label: str | None,
        classes_per_batch: int | None = None,
        order_version: int = ORDER_VERSION,
    ):
        names = _class_names(subset, label)
        codes = subset.labels[str(label)]
        self.group = codes
        self._members = _by_class(codes, names, str(label), subset.source)
        self._sizes: list[int] = self._members.count.tolist()
        self._whole, self._version = whole_of(order_version), order_version
        self.large = max(self._sizes) > WHOLE
        self.P = classes_per_batch or len(names)
        self.seed, self.global_batch = seed, global_batch
        self.K = _per_class(self.P, len(names), global_batch, str(label))
        labelled = sum(self._sizes)
        self.steps = max(labelled // global_batch, 1)
        self._mixes, self._rounds = Streams(seed, Purpose.MIX), Streams(seed, Purpose.ORDER)
        self._walked: dict[int, tuple[tuple[int, int], np.ndarray | Walk]] = {}
        self.notes = []
        if labelled < len(codes):
            self.notes.append(f"{len(codes) - labelled} samples have no label '{label}' and are never drawn")
        small = [names[c] for c, n in enumerate(self._sizes) if n < self.K]
        if small:
            self.notes.append(f"fewer than {self.K} samples in class {', '.join(small)}: they repeat within a batch")

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        chosen, turn = self._classes(epoch, step)
        drawn = [self._draw(epoch, int(c), turn) for c in chosen]
        at = np.concatenate([d[0] for d in drawn])
        repeat = np.concatenate([d[1] for d in drawn])
        # Ranks take contiguous slices: unless mixed, a rank would see few classes.
        mixed = self._mixes.at(epoch, step).permutation(len(at))
        return at[mixed], repeat[mixed]

    def _classes(self, epoch: int, step: int) -> tuple[np.ndarray, int]:
        """The P classes of a batch, and how often the round of all classes was begun before it."""
        C = len(self._sizes)
        turn, place = divmod(step, C // self.P)
        order = self._rounds.at(epoch, turn).permutation(C)
        return order[place * self.P : (place + 1) * self.P], turn

    def _draw(self, epoch: int, c: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """K samples of class c on its turn-th call, and the pass each belongs to."""
        n, K = self._sizes[c], self.K
        if n >= K:
            number, place = divmod(turn, n // K)
            return self._pass(epoch, c, number)[place * K : (place + 1) * K], np.full(K, number)
        first = turn * -(-K // n)
        walk = np.concatenate([self._pass(epoch, c, number)[:] for number in range(first, first + -(-K // n))])
        return walk[:K], first + np.arange(K) // n

    def _pass(self, epoch: int, c: int, number: int) -> np.ndarray | Walk:
        """A class in the order of a pass; kept until the next one begins, as putting a class in order costs more than a step."""
        known = self._walked.get(c)
        if known is None or known[0] != (epoch, number):
            self._walked.pop(c, None)  # two passes would be in memory at once
            order = self._in_order(stream(self.seed, epoch, Purpose.WINDOW, c, number), c)
            known = self._walked[c] = ((epoch, number), order)
        return known[1]

    def _in_order(self, rng: np.random.Generator, c: int) -> np.ndarray | Walk:
        n = self._sizes[c]
        if by_places(self._version, n):
            return Walk(rng, n, partial(self._members.at, c))  # no cycle: memory goes with the plan
        members = self._members.at(c, numbers_to(n))
        return shuffled(rng, members.astype(np.int32) if len(self.group) < 2**31 else members, self._whole)


def _by_class(codes: np.ndarray, names: tuple[str, ...], label: str, source: str) -> Groups:
    """Samples by class.

    Raises:
        DataError: a class without samples.
    """
    members = Groups(_parts(codes), len(codes))
    present = set(members.number.tolist())
    missing = [name for c, name in enumerate(names) if c not in present]
    if missing:
        fix = "split again, stratified by the label, or pack without the class"
        raise DataError(Problem(f"no sample of class '{name}' of label '{label}'", source, fix) for name in missing)
    return members


def _parts(codes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Samples with a label, as `Groups` takes them."""
    every = np.arange(PART)
    for start in range(0, len(codes), PART):
        part = codes[start : start + PART]
        at = every[: len(part)]
        if part.min() < 0:
            at = np.flatnonzero(part >= 0)
            part = part[at]
        yield start, at, part


def _class_names(subset: Subset, label: str | None) -> tuple[str, ...]:
    if label is None or label not in subset.classes:
        known = ", ".join(sorted(subset.classes)) or "none"
        what = "order class_balanced needs a label" if label is None else f"no class label '{label}'"
        raise bad(what, subset.source, f"name a label with classes (there are: {known})")
    return subset.classes[label]


def _per_class(P: int, classes: int, global_batch: int, label: str) -> int:
    """K = G / P."""
    if not 1 <= P <= classes:
        raise bad(f"{P} classes in a batch, label '{label}' has {classes}", "order", f"give 1 to {classes}")
    if global_batch % P:
        near = max(round(global_batch / P), 1) * P
        raise bad(
            f"order class_balanced: a global batch of {global_batch} is no multiple of {P} classes ('{label}')",
            "global_batch",
            f"set global_batch to {near}",
        )
    return global_batch // P
