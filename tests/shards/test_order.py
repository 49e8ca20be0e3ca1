"""Orders: pure functions that lose nothing they do not say, for any world size, and refuse what cannot be dealt."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import DataError
from shards.order.mix import MixPlan, diffuse
from shards.order.patient_unique import _sorted_by, most_batches, sizes_of_patients
from shards.order.plan import Plan
from shards.order.ranks import eval_plan, micro_slices, rank_slice
from shards.order.stand_in import stand_ins
from shards.order.streams import Purpose, Streams, sample_rng
from shards.read.subset import Subset


def subset(n: int, patients=None, kinds=None, per_shard: int = 7, every: int = 1, classes=("a", "b", "c")) -> Subset:
    """Every `every`-th sample of shards of `per_shard`."""
    indices = np.arange(0, n * every, every)
    starts = np.append(np.arange(0, n * every, per_shard), n * every)
    return Subset(
        indices=indices,
        patients=np.arange(n) if patients is None else np.asarray(patients),
        labels={"kind": np.zeros(n, np.int64) if kinds is None else np.asarray(kinds)},
        classes={"kind": tuple(classes)},
        starts=starts,
    )


def epoch_of(plan, epoch: int) -> np.ndarray:
    return np.concatenate([plan.batch(epoch, s).index for s in range(plan.steps_per_epoch)])


sizes = st.integers(1, 120)
seeds = st.integers(0, 2**63 - 1)


@given(
    n=sizes,
    batch=st.integers(1, 20),
    seed=seeds,
    per_shard=st.integers(1, 30),
    window=st.integers(1, 5),
    every=st.integers(1, 3),
)
@settings(deadline=None)
def test_shuffle_is_a_permutation_less_what_it_says_is_dropped(n, batch, seed, per_shard, window, every):
    s = subset(n, per_shard=per_shard, every=every)
    if batch > n:
        with pytest.raises(DataError, match=f"set global_batch to at most {n}"):
            Plan("shuffle", s, seed, batch)
        return
    plan = Plan("shuffle", s, seed, batch, window=window)
    order = epoch_of(plan, 3)
    assert len(set(order)) == len(order) == n - plan.dropped
    assert set(order) <= set(s.indices)
    assert plan.dropped == n % batch
    assert (plan.dropped == 0) == ("left out" not in plan.describe())


def test_each_sample_is_dropped_at_times_only():
    plan = Plan("shuffle", subset(50), 0, 8)
    assert len({int(i) for e in range(12) for i in epoch_of(plan, e)}) == 50


@given(seed=seeds, order=st.permutations(range(12)))
@settings(deadline=None, max_examples=30)
def test_an_order_is_a_pure_function_of_its_coordinates(seed, order):
    kinds = [0] * 20 + [1] * 20 + [2] * 8
    s = subset(48, patients=np.arange(48) // 2, kinds=kinds)
    for strategy, options in STRATEGIES:
        walked = Plan(strategy, s, seed, 12, **options)
        want = {(e, b): walked.batch(e, b) for e in range(3) for b in range(4)}
        asked = Plan(strategy, s, seed, 12, **options)
        for place in order:
            e, b = place % 3, place // 3
            np.testing.assert_array_equal(asked.batch(e, b).index, want[e, b].index)
            np.testing.assert_array_equal(asked.batch(e, b).repeat, want[e, b].repeat)


STRATEGIES = [
    ("shuffle", {"window": 2}),
    ("patient_unique", {}),
    ("class_balanced", {"label": "kind"}),
    ("sequential", {}),
]


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES[:3])
def test_epochs_and_seeds_differ(strategy, options):
    s = subset(48, patients=np.arange(48) // 2, kinds=[0] * 20 + [1] * 20 + [2] * 8)
    orders = [epoch_of(Plan(strategy, s, seed, 12, **options), e).tolist() for seed in (0, 1) for e in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


def test_reads_stay_within_a_window_of_shards():
    plan = Plan("shuffle", subset(700, per_shard=7), 0, 1, window=5)
    order = epoch_of(plan, 0) // 7
    for first in range(0, 700, 35):
        assert len(set(order[first : first + 35])) == 5
    assert len(set(order[:7])) > 1
    within = epoch_of(plan, 0).reshape(-1, 35)  # windows of as many samples are not shuffled alike
    assert len({tuple(np.argsort(row)) for row in within}) == len(within)


def test_a_far_position_costs_no_more_than_the_first():
    samples = subset(1_200_000, per_shard=120)

    def cost(epoch: int, step: int) -> float:
        plan = Plan("shuffle", samples, 0, 64)
        start = time.process_time()
        plan.batch(epoch, step)
        return time.process_time() - start

    assert min(cost(5, 1_000_000 // 64) for _ in range(5)) < 20 * min(cost(0, 0) for _ in range(5))


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=25), batch=st.integers(1, 12), seed=seeds)
@settings(deadline=None)
def test_patient_unique(counts, batch, seed):
    patients = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)) * 5, counts))
    s = subset(len(patients), patients=patients)
    if len(counts) < batch:
        with pytest.raises(DataError, match=r"patients|samples"):
            Plan("patient_unique", s, seed, batch)
        return
    plan = Plan("patient_unique", s, seed, batch)
    for epoch in (0, 1):
        order = epoch_of(plan, epoch).reshape(-1, batch)
        assert all(len(set(patients[row])) == batch for row in order)
        assert len(set(order.ravel())) == order.size == len(patients) - plan.dropped
    assert plan.steps_per_epoch == best_by_brute_force(counts, batch)


def best_by_brute_force(counts: list[int], batch: int) -> int:
    """Greedy, which is optimal: always take the patients with most samples left."""
    for steps in range(sum(counts) // batch, 0, -1):
        left = sorted((min(c, steps) for c in counts), reverse=True)
        for _ in range(steps):
            left = sorted((*(c - 1 for c in left[:batch]), *left[batch:]), reverse=True)
        if min(left) >= 0:
            return steps
    return 0


def test_a_patients_surplus_is_reported():
    plan = Plan("patient_unique", subset(30, patients=[0] * 20 + list(range(1, 11))), 0, 4)
    assert plan.steps_per_epoch == most_batches(*sizes_of_patients(np.array([20] + [1] * 10)), 4) == 3
    assert plan.dropped == 18
    assert "18 samples are left out" in plan.describe()
    assert "17 of them because 1 patients have more samples than the epoch has batches" in plan.describe()


@given(counts=st.lists(st.integers(1, 30), min_size=3, max_size=3), per_class=st.integers(1, 8), seed=seeds)
@settings(deadline=None)
def test_class_balanced(counts, per_class, seed):
    kinds = np.repeat([0, 1, 2, -1], [*counts, 4])
    s = subset(len(kinds), kinds=kinds)
    if 3 * per_class > len(kinds):
        return
    plan = Plan("class_balanced", s, seed, 3 * per_class, label="kind")
    drawn = []
    for step in range(plan.steps_per_epoch):
        draws = plan.batch(0, step)
        found = kinds[draws.index]
        assert Counter(found.tolist()) == {0: per_class, 1: per_class, 2: per_class}
        for c in range(3):
            mine = draws.index[found == c]
            assert len(set(mine)) == min(per_class, counts[c]), "twice in a batch although there are others"
        drawn += list(zip(draws.index, draws.repeat, strict=True))
    assert len(set(drawn)) == len(drawn), "two draws of a sample share their randomness"


def test_small_classes_come_round_reshuffled_and_all():
    s = subset(104, kinds=[0] * 100 + [1] * 4, classes=("a", "b"))
    plan = Plan("class_balanced", s, 0, 4, label="kind")
    small = [
        plan.batch(0, step).index[plan.batch(0, step).index >= 100].tolist() for step in range(plan.steps_per_epoch)
    ]
    passes = [tuple(small[i] + small[i + 1]) for i in range(0, len(small) - 1, 2)]
    assert all(sorted(p) == [100, 101, 102, 103] for p in passes)
    assert len(set(passes)) > 3


def test_some_classes_of_many_in_each_batch():
    kinds = np.arange(50) % 5
    plan = Plan("class_balanced", subset(50, kinds=kinds, classes="abcde"), 0, 6, label="kind", classes_per_batch=2)
    for step in range(0, plan.steps_per_epoch - 1, 2):
        first, second = (set(kinds[plan.batch(0, step + i).index]) for i in (0, 1))
        assert len(first) == len(second) == 2
        assert not first & second


@pytest.mark.parametrize(
    ("strategy", "options", "batch", "words"),
    [
        ("class_balanced", {"label": "kind"}, 10, "no multiple of 3 classes .* set global_batch to 9"),
        ("class_balanced", {"label": "stage"}, 9, r"no class label 'stage'.*\(there are: kind\)"),
        ("class_balanced", {}, 9, "needs a label"),
        ("class_balanced", {"label": "kind", "classes_per_batch": 4}, 9, "give 1 to 3"),
        ("patient_unique", {}, 30, "needs as many patients, there are 20.* at most 20"),
        ("shuffle", {"label": "kind"}, 9, "takes no label"),
        ("shuffle", {}, 0, "at least 1"),
        ("random", {}, 9, "use one of shuffle, patient_unique, class_balanced, sequential"),
    ],
)
def test_refusals_say_what_would_work(strategy, options, batch, words):
    s = subset(40, patients=np.arange(40) // 2, kinds=np.arange(40) % 3)
    with pytest.raises(DataError, match=words):
        Plan(strategy, s, 0, batch, **options)


def test_missing_classes_are_named_together():
    with pytest.raises(DataError, match=r"class 'b'(.|\n)*class 'c'"):
        Plan("class_balanced", subset(40), 0, 9, label="kind")
    with pytest.raises(DataError, match="seed -1"):
        Plan("shuffle", subset(40), -1, 9)


@given(world=st.sampled_from([1, 2, 3, 4, 6, 12]), micro=st.sampled_from([1, 2, 4]))
def test_ranks_and_micro_batches_tile_the_global_batch(world, micro):
    batch = np.arange(48)
    parts = []
    for rank in range(world):
        mine = batch[rank_slice(48, rank, world)]
        parts += [mine[cut] for cut in micro_slices(len(mine), micro)]
    assert np.concatenate(parts).tolist() == batch.tolist()


def test_ranks_that_do_not_divide_are_refused_with_a_number_that_works():
    with pytest.raises(DataError, match=r"3 ranks do not divide a global batch of 16.* set global_batch to 15"):
        rank_slice(16, 0, 3)
    with pytest.raises(DataError, match=r"micro batch of 5 does not divide .* 16 .* set micro_batch to 4"):
        micro_slices(16, 5)


@given(n=st.integers(1, 70), batch=st.integers(1, 9), world=st.integers(1, 5))
def test_an_evaluation_counts_every_sample_once(n, batch, world):
    plans = [eval_plan(n, batch, rank, world) for rank in range(world)]
    assert len({p.position.shape for p in plans}) == 1
    counted = np.concatenate([p.position[p.weight == 1] for p in plans])
    assert sorted(counted.tolist()) == list(range(n))
    assert plans[0].position.shape[0] == -(-n // (batch * world))


weights = st.lists(st.floats(0.001, 100), min_size=1, max_size=6)


@given(weights=weights, batch=st.integers(1, 64))
@settings(deadline=None)
def test_diffused_counts_follow_the_weights(weights, batch):
    share = np.array(weights) / sum(weights)
    counts = diffuse(share, batch, 40)
    assert (counts.sum(1) == batch).all()
    assert (counts >= 0).all()
    ahead = np.cumsum(counts, axis=0) - share * batch * np.arange(1, 41)[:, None]
    assert np.abs(ahead).max() <= len(weights)


def mixed(weights, seed=0, batch=8) -> MixPlan:
    return MixPlan([subset(30), subset(50, every=2), subset(7)], [0, 30, 130], weights, seed, batch)


def test_a_mix_runs_each_part_through_epochs_of_its_own():
    plan = mixed([1, 1, 2])
    draws = [plan.batch(e, s) for e in range(4) for s in range(plan.steps_per_epoch)]
    order = np.concatenate([d.index for d in draws])
    assert abs((order < 30).mean() - 0.25) < 0.01
    assert abs((order >= 130).mean() - 0.5) < 0.01
    for lo, hi, n in ((0, 30, 30), (30, 130, 50), (130, 137, 7)):
        mine = order[(order >= lo) & (order < hi)]
        for first in range(0, len(mine) - n, n):
            # Mixing within a batch may carry a sample over the seam of two passes.
            assert len(set(mine[first : first + n])) >= n - 8
        counts = Counter(mine.tolist()).values()
        assert max(counts) - min(counts) <= 1
        assert len(counts) == n
    for e in range(4):
        own = draws[e * plan.steps_per_epoch : (e + 1) * plan.steps_per_epoch]
        pairs = [p for d in own for p in zip(d.index.tolist(), d.repeat.tolist(), strict=True)]
        assert len(set(pairs)) == len(pairs)


def test_a_mix_is_pure_and_its_weights_checked():
    a, b = mixed(None), mixed(None)
    for e, s in [(3, 2), (0, 0), (1, 9), (3, 2)]:
        np.testing.assert_array_equal(a.batch(e, s).index, b.batch(e, s).index)
    np.testing.assert_allclose(a.weights, np.array([30, 50, 7]) / 87)
    for wrong in ([1, 2], [1, 0, 1], [1, float("nan"), 1]):
        with pytest.raises(DataError, match="weights"):
            mixed(wrong)


def candidates(plan, step: int) -> list[list[int]]:
    return [list(stand_ins(plan, 1, step, slot)) for slot in range(plan.global_batch)]


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES[:3])
def test_stand_ins_never_meet(strategy, options):
    patients, kinds = np.arange(60) // 2, np.array([0] * 30 + [1] * 20 + [2] * 10)
    plan = Plan(strategy, subset(60, patients=patients, kinds=kinds), 0, 12, **options)
    batch = plan.batch(1, 2).index
    found = candidates(plan, 2)
    every = [c for own in found for c in own]
    assert every
    assert len(set(every)) == len(every)
    assert not set(every) & set(batch.tolist())
    if strategy == "class_balanced":
        assert all(kinds[c] == kinds[batch[slot]] for slot, own in enumerate(found) for c in own)
    if strategy == "patient_unique":
        assert all(patients[own[0]] == patients[batch[slot]] for slot, own in enumerate(found))
        others = [patients[c] for own in found for c in own[1:]]
        assert len(set(others)) == len(others)
        assert not set(others) & set(patients[batch])


def test_stand_ins_of_a_mix_are_of_the_same_part():
    plan = mixed([1, 1, 1])
    batch = plan.batch(1, 2).index
    found = candidates(plan, 2)
    part = np.searchsorted([0, 30, 130], batch, "right")
    assert all(np.searchsorted([0, 30, 130], c, "right") == part[slot] for slot, own in enumerate(found) for c in own)
    every = [c for own in found for c in own]
    assert len(set(every)) == len(every)
    assert not set(every) & set(batch.tolist())


@given(seed=seeds, epoch=st.integers(0, 10**6), index=st.integers(0, 10**9), repeat=st.integers(0, 1000))
def test_sample_generators_are_their_coordinates(seed, epoch, index, repeat):
    moved = Streams(seed, Purpose.SAMPLE)
    moved.at(1, 2, 3).integers(7, dtype=np.uint32)  # leaves half a word behind
    want = sample_rng(seed, epoch, index, repeat).integers(2**32, size=8, dtype=np.uint32)
    np.testing.assert_array_equal(moved.at(epoch, index, repeat).integers(2**32, size=8, dtype=np.uint32), want)
    for other in ((epoch + 1, index, repeat), (epoch, index + 1, repeat), (epoch, index, repeat + 1)):
        assert (sample_rng(seed, *other).integers(2**32, size=8, dtype=np.uint32) != want).any()


@pytest.mark.parametrize("top", [40, 1 << 16, (1 << 16) + 1, 1 << 21, (1 << 24) + 1, 1 << 31])
def test_a_sort_by_parts_is_the_stable_sort(top):
    """Numbers of up to 16 bits, and with one, some and many values of the bits above."""
    rank = np.random.default_rng(0).integers(0, top, 5000, dtype=np.int32 if top < 1 << 31 else np.int64)
    rank[:2500] = rank[2500:]
    assert np.array_equal(_sorted_by(rank), np.argsort(rank, kind="stable"))
