"""Orders that runs rely on stay what they are, draw for draw, and a step's cost does not grow with the data set."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from shards.order import class_balanced
from shards.order.mix import MixPlan, diffuse
from shards.order.plan import Plan
from shards.order.streams import Purpose
from shards.read.subset import Subset


def subset(n: int, patients: int) -> Subset:
    rng = np.random.default_rng(n)
    codes = np.searchsorted([0.5, 0.9, 0.95], rng.random(n))
    codes[rng.random(n) < 0.05] = -1
    # Codes with gaps, as those of a split have.
    people, starts = rng.integers(0, patients, n) * 3 + 1, np.linspace(0, 2 * n, 11).astype(np.int64)
    return Subset(np.arange(n) * 2, people, {"kind": codes.astype(np.int64)}, {"kind": tuple("abcd")}, starts)


@pytest.mark.parametrize(
    ("strategy", "n", "patients", "batch", "first"),
    [
        ("patient_unique", 40, 15, 4, "c80b266664a0"),
        ("patient_unique", 1000, 300, 16, "2e12dc4b6f2b"),
        ("patient_unique", 150_000, 100_000, 64, "6bb94c6e5bc0"),  # more people than 16 bits number
        ("class_balanced", 1000, 300, 16, "89d0992bf55d"),
        ("shuffle", 1000, 300, 16, "af32ffbd0104"),
    ],
)
def test_orders_stay(strategy: str, n: int, patients: int, batch: int, first: str) -> None:
    plan = Plan(strategy, subset(n, patients), 5, batch, label="kind" if strategy == "class_balanced" else None)
    digest = hashlib.sha256()
    for epoch in (0, 1):
        for step in sorted({0, 1, plan.steps_per_epoch // 2, plan.steps_per_epoch - 1}):
            draws = plan.batch(epoch, step)
            digest.update(draws.index.astype("<i8").tobytes() + draws.repeat.astype("<i8").tobytes())
    assert digest.hexdigest()[:12] == first


def test_shares_of_a_mix_stay() -> None:
    counts = diffuse(np.array([0.55, 0.3, 0.1, 0.05]), 7, 1000)
    assert (counts.sum(1) == 7).all()
    assert hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest()[:12] == "7026a799f1a0"


def test_passes_of_a_mix_are_counted_from_the_first_of_each_epoch() -> None:
    plan = MixPlan([subset(40, 20), subset(40, 20)], [0, 1000], [3, 1], 5, 8)
    for epoch in (0, 1, 2):
        draws = [plan.batch(epoch, step) for step in range(plan.steps_per_epoch)]
        pairs = [pair for d in draws for pair in zip(d.index.tolist(), d.repeat.tolist(), strict=True)]
        assert {repeat for _, repeat in pairs} == {0, 1}
        assert len(set(pairs)) == len(pairs)


def test_a_class_is_put_in_order_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a step: of a large class that takes seconds."""
    made = []
    stream = class_balanced.stream

    def counted(seed, epoch, purpose, *place):
        made.append(place) if purpose == Purpose.WINDOW else None
        return stream(seed, epoch, purpose, *place)

    monkeypatch.setattr(class_balanced, "stream", counted)
    plan = Plan("class_balanced", subset(1000, 300), 0, 16, label="kind")
    for step in range(plan.steps_per_epoch):
        plan.batch(0, step)
    assert len(made) == len(set(made))
