"""Orders of large sets that are computed place by place: what they are one by one is what they are as a whole, from any step on."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from shards.order import class_balanced, dealt, large
from shards.order.dealt import Deal, Patients, own_order
from shards.order.groups import PART, Groups
from shards.order.mix import MixPlan
from shards.order.places import BLOCK, ROUNDS, Permutations, Walk
from shards.order.plan import Plan
from shards.read.subset import Subset
from tests.shards.test_large_order import of, philox
from tests.shards.test_order_stays import subset

STRATEGIES = ("shuffle", "patient_unique", "class_balanced")


def plan_of(strategy: str, samples: Subset, batch: int, **more) -> Plan:
    return Plan(strategy, samples, 5, batch, label="kind" if strategy == "class_balanced" else None, **more)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above 8 numbers is put in order by places, patients and classes are read in parts of 32."""
    monkeypatch.setattr(large, "WHOLE", 8)
    monkeypatch.setattr(dealt, "PART", 32)
    monkeypatch.setattr(class_balanced, "PART", 32)


def rolled(rng: np.random.Generator, n: int) -> list[int]:
    """The whole order at once, by turning a table: each column up, then each row left, last round first; then what is no place is left out.

    A place that is taken out of the table hands its number on, as the walk back into the table does.
    """
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    turns = [(rng.integers(0, columns, rows), rng.integers(0, rows, columns)) for _ in range(ROUNDS)]
    table = np.arange(rows * columns).reshape(rows, columns)
    for by_row, by_column in reversed(turns):
        table = np.stack([np.roll(table[:, c], -by_column[c]) for c in range(columns)], axis=1)
        table = np.stack([np.roll(table[r], -by_row[r]) for r in range(rows)])
    flat = table.ravel().tolist()
    for i in range(n):
        while flat[i] >= n:
            flat[i] = flat[flat[i]]
    return flat[:n]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12, 16, 17, 100, 997])
def test_an_order_by_places_is_that_of_a_table_whose_rows_and_columns_are_turned(n: int) -> None:
    whole = rolled(philox(n), n)
    assert sorted(whole) == list(range(n))
    order = Permutations(philox(n), [n])
    assert order.at(np.arange(n)).tolist() == whole
    assert [int(order.at(np.array([i]))[0]) for i in range(min(n, 20))] == whole[:20]


def test_orders_of_several_sizes_do_not_meet() -> None:
    sizes = [1, 5, 300, 2]
    orders, which = Permutations(philox(3), sizes), np.repeat(np.arange(4), sizes)
    found = orders.at(np.concatenate([np.arange(n) for n in sizes]), which)
    assert all(sorted(found[which == k].tolist()) == list(range(n)) for k, n in enumerate(sizes))


@pytest.mark.parametrize("n", [4, 5])
def test_every_order_of_few_numbers_is_as_likely(n: int) -> None:
    found = Counter(tuple(Permutations(philox(seed), [n]).at(np.arange(n)).tolist()) for seed in range(3000))
    assert len(found) == {4: 24, 5: 120}[n]
    assert chisquare([*found.values()]).pvalue > 1e-3


def test_where_a_number_comes_from_says_nothing_of_where_it_goes_nor_of_the_next_one() -> None:
    n = 300_000
    order = Permutations(philox(1), [n]).at(np.arange(n))
    assert np.array_equal(np.sort(order), np.arange(n))
    assert chi2_contingency(np.histogram2d(np.arange(n), order, bins=10)[0]).pvalue > 1e-3
    for apart in (1, int(np.ceil(np.sqrt(n)))):  # beside each other, and below each other in the table
        steps = np.bincount((order[apart:] - order[:-apart]) % n * 64 // n, minlength=64)
        assert chisquare(steps).pvalue > 1e-3


def test_a_walk_gives_any_slice_of_its_order() -> None:
    n = 2 * BLOCK + 77
    whole = Permutations(philox(2), [n]).at(np.arange(n)) * 3
    walk = Walk(philox(2), n, lambda at: at * 3)
    ends = [0, 5, BLOCK - 1, BLOCK, BLOCK + 1, n - 1, n]
    assert all(np.array_equal(walk[a:b], whole[a:b]) for a, b in [*pairwise(ends), (3, n + 9), (0, n), (7, 7)])


@pytest.mark.parametrize("most", [3, 300, 200_000])
def test_groups_list_what_is_in_each(most: int) -> None:
    rng = np.random.default_rng(most)
    of_each = rng.integers(0, most, 3000)
    parts = [(start, np.arange(100), of_each[start : start + 100]) for start in range(0, 3000, 100)]
    groups = Groups(parts, 3000)
    assert groups.number.tolist() == np.unique(of_each).tolist()
    for k, (number, count) in enumerate(zip(groups.number, groups.count, strict=True)):
        assert groups.at(k, np.arange(count)).tolist() == np.flatnonzero(of_each == number).tolist()


def test_groups_find_places_far_from_their_hints() -> None:
    """A group that fills half of the parts and has one place in each of the others: sixteen of these lie between two hints."""
    of_each = np.zeros((200, 100), np.int64)
    of_each[:100], of_each[100:, 7] = 1, 1
    groups = Groups(((k * 100, np.arange(100), part) for k, part in enumerate(of_each)), of_each.size)
    assert groups.count.tolist() == [9_900, 10_100]
    for k in (0, 1):
        found = groups.at(k, np.arange(groups.count[k]))
        assert np.array_equal(found, np.flatnonzero(of_each.ravel() == k))


@pytest.mark.parametrize("scale", [1, 10_007])
def test_samples_of_patients_are_found_wherever_they_lie(scale: int) -> None:
    """One patient has more samples than a part may have places; codes have gaps."""
    rng = np.random.default_rng(scale)
    codes = rng.permutation(np.concatenate([np.full(70_000, 777), rng.integers(0, 50_000, 100_000)])) * scale
    counts = np.unique(codes, return_counts=True)[1]
    for patients in (codes, np.sort(codes)):
        known, seen = Patients(patients), []
        assert np.array_equal((known.size, known.alike), np.unique(counts, return_counts=True))
        for k, (size, alike) in enumerate(zip(known.size.tolist(), known.alike.tolist(), strict=True)):
            who, nth = np.repeat(np.arange(alike), size), np.tile(np.arange(size), alike)
            at = known.sample(np.full(len(who), k), who, nth, np.uint64(1))
            of_each = patients[at].reshape(alike, size)
            assert (of_each == of_each[:, :1]).all()
            seen.append(at)
        assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(len(codes)))


def test_a_patient_who_comes_again_in_another_part_is_seen() -> None:
    known = Patients(np.repeat([1, 0, 1], PART))
    assert (known.size.tolist(), known.alike.tolist()) == ([PART, 2 * PART], [1, 1])


def test_a_patients_samples_come_once_each_from_any_of_them_on() -> None:
    for size in (1, 2, 6, 7, 30):
        owners = np.repeat(np.arange(2000), size)
        order = own_order(np.tile(np.arange(size), 2000), np.full(len(owners), size), owners, np.uint64(9))
        assert (np.sort(order.reshape(-1, size)) == np.arange(size)).all()
        assert chisquare(np.bincount(order.reshape(-1, size)[:, 0])).pvalue > 1e-3 or size == 1


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("seed", range(40))
def test_batches_are_of_different_patients_and_lose_nothing_wherever_samples_lie(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, rng.integers(5, 40))
    counts[rng.integers(len(counts))] = 60 if seed % 3 == 0 else 12  # more than the epoch has batches
    patients = np.repeat(np.arange(len(counts)) * 3, counts)
    patients = rng.permutation(patients) if seed % 2 else patients
    batch = int(rng.integers(1, (counts > 0).sum() + 1))
    plan = Plan("patient_unique", of(patients), seed, batch)
    for epoch in (0, 1):
        rows = np.array([plan.batch(epoch, s).index for s in range(plan.steps_per_epoch)])
        assert all(len(set(patients[row])) == batch for row in rows)
        assert len(set(rows.ravel().tolist())) == rows.size == len(patients) - plan.dropped


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("seed", range(10))
def test_a_deal_by_places_is_the_deal_laid_out(seed: int) -> None:
    """Every position listed, what is left out taken away, the rest dealt round: as `patient_unique.py` says it."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, 50)
    patients, B, G = np.repeat(np.arange(50), counts), 7, 11
    known, begin = Patients(patients), np.cumsum(counts) - counts
    total = int(np.minimum(counts, B).sum())
    deal = Deal(philox(seed), known, B, G, total - B * G)
    laid = []
    for k, size in enumerate(known.size):
        those = np.flatnonzero(counts == size)
        for who in deal._among.at(np.arange(len(those)), np.full(len(those), k)):
            nth = np.arange(min(size, B))
            at = np.full(len(nth), begin[those[who]])
            laid += (at + own_order(nth, np.full(len(nth), size), at, deal._key)).tolist()
    gone = deal._gone + np.arange(len(deal._gone))
    kept = np.delete(laid, gone)
    rows = deal._rows.at(np.arange(B))
    assert [deal.batch(s).tolist() for s in range(B)] == [kept[row::B].tolist() for row in rows]


@pytest.mark.usefixtures("small_is_large")
def test_samples_and_pairs_of_patients_meet_as_often_as_any_other() -> None:
    patients = np.array([0, 0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7])
    first = [Plan("patient_unique", of(patients), seed, 4).batch(0, 1).index for seed in range(1500)]
    assert chisquare(np.bincount(np.concatenate(first))).pvalue > 1e-3
    pairs = Counter(tuple(sorted(p)) for row in first for p in [patients[row][[0, 1]]] if set(p) <= {2, 3, 5, 6, 7})
    assert chisquare([*pairs.values()]).pvalue > 1e-3
    assert len(pairs) == 10


def test_an_epoch_from_any_step_on_is_what_it_is_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "WHOLE", 8)
    samples = subset(30_000, 9000)
    plans = [lambda s=s: plan_of(s, samples, 64) for s in STRATEGIES]
    plans.append(lambda: MixPlan([samples, samples.keep(np.arange(9000))], [0, 60_000], None, 5, 64))
    for made in plans:
        plan = made()
        steps = plan.steps_per_epoch
        straight = [plan.batch(1, s) for s in range(steps)]
        for step in (steps - 1, steps // 2, 1):
            later = made()
            for s in (step, step // 3):  # on from there, and back
                assert np.array_equal(later.batch(1, s).index, straight[s].index)
                assert np.array_equal(later.batch(1, s).repeat, straight[s].repeat)


GOLDEN = {
    "shuffle": "8dc7acfb4f93",
    "patient_unique": "8b4b31f6d87b",
    "class_balanced": "5dff54d4e6a9",
    "mix": "e3d7bea3e6f2",
}


@pytest.mark.parametrize("strategy", GOLDEN)
def test_orders_of_large_sets_stay(strategy: str) -> None:
    samples = subset(600_000, 400_000)
    plan = (
        MixPlan([samples, samples], [0, 10**7], [2, 1], 5, 64) if strategy == "mix" else plan_of(strategy, samples, 64)
    )
    assert plan.versioned
    digest = hashlib.sha256()
    for epoch, step in ((1, 0), (1, plan.steps_per_epoch - 1), (0, 7)):
        digest.update(plan.batch(epoch, step).index.astype("<i8").tobytes())
    assert digest.hexdigest()[:12] == GOLDEN[strategy]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shuffles_of_large_windows_have_one_order_before_version_3(strategy: str) -> None:
    one, two, three = (plan_of(strategy, subset(300_000, 200_000), 64, order_version=v) for v in (1, 2, 3))
    same = np.array_equal(one.batch(0, 1).index, two.batch(0, 1).index)
    assert same == (strategy != "patient_unique")  # no class is above the limit here
    if strategy != "class_balanced":
        assert not np.array_equal(two.batch(0, 1).index, three.batch(0, 1).index)


@pytest.mark.parametrize(("strategy", "most"), [("shuffle", 0.5), ("class_balanced", 5), ("patient_unique", 4)])
def test_an_order_holds_few_bytes_a_sample_and_an_epochs_turn_next_to_none(strategy: str, most: float) -> None:
    n = 2_000_000
    samples = subset(n, 1)
    patients = np.arange(n) // 3
    samples = Subset(
        samples.indices, patients, samples.labels, samples.classes, np.linspace(0, 2 * n, 11).astype(np.int64)
    )
    tracemalloc.start()
    try:
        plan = plan_of(strategy, samples, 256)
        plan.batch(0, 0)
        assert tracemalloc.get_traced_memory()[1] / n < most
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        plan.batch(1, plan.steps_per_epoch // 2)
        assert tracemalloc.get_traced_memory()[1] - held < 2 * n
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_goes_with_the_plan(strategy: str) -> None:
    plan = plan_of(strategy, subset(600_000, 400_000), 64)
    plan.batch(0, 0)
    gone = weakref.ref(plan.order)
    gc.disable()  # which would find a cycle, later
    try:
        del plan
        assert gone() is None
    finally:
        gc.enable()


class Interrupted:
    """Whenever a block is kept, another thread asks for its own before this one reads it."""

    other: Callable[[], object] | None = None
    kept: object = None

    @property
    def _block(self) -> object:
        return self.kept

    @_block.setter
    def _block(self, block: object) -> None:
        self.kept, ask, self.other = block, self.other, None
        if block is not None and ask is not None:
            ask()


class InterruptedWalk(Interrupted, Walk): ...


class InterruptedDeal(Interrupted, Deal): ...


def test_threads_that_ask_for_other_steps_get_their_own() -> None:
    """A sample that cannot be read asks for its batch again, from a thread of the loader (`stand_in.py`)."""
    walk, same = InterruptedWalk(philox(1), 3 * BLOCK, np.negative), Walk(philox(1), 3 * BLOCK, np.negative)
    walk.other = lambda: walk[2 * BLOCK : 2 * BLOCK + 9]
    assert np.array_equal(walk[:9], same[:9])
    known = Patients(np.arange(9000) // 3)
    one, other = (made(philox(1), known, 90, 100, 0) for made in (InterruptedDeal, Deal))
    one.other = lambda: one.batch(80)
    assert np.array_equal(one.batch(0), other.batch(0))
