"""Orders of large sets: as random as swaps are, with all that a small set's order promises; older runs keep the order that they have."""

from __future__ import annotations

import hashlib
from collections import Counter
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from shards.errors import DataError
from shards.load.position import place_of, state_of, version_of
from shards.order import large, patient_unique, plan
from shards.order.large import ORDER_VERSION, WHOLE, shuffled, whole_of
from shards.order.plan import Plan
from shards.read.subset import Subset
from tests.shards.test_order_stays import subset
from trainer.run.restore import progress_of


def philox(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def of(patients) -> Subset:
    n = len(patients)
    return Subset(np.arange(n), np.asarray(patients), {}, {}, np.array([0, n]))


def in_groups(plan: Plan) -> Plan:
    """As if the set were large: nothing but single numbers is left to swaps."""
    plan.order._whole = 1  # type: ignore[attr-defined]
    return plan


def test_every_order_of_a_shuffle_in_groups_is_as_likely() -> None:
    rng, values = philox(0), np.arange(4)
    found = Counter(tuple(shuffled(rng, values, whole=1).tolist()) for _ in range(4800))
    assert len(found) == 24
    assert chisquare([*found.values()]).pvalue > 1e-3


def test_a_shuffle_in_groups_mixes_over_all_groups_and_keeps_every_number() -> None:
    n = 300_000
    values = np.arange(n, dtype=np.int32)
    mixed = shuffled(philox(1), values, whole=1000)
    assert np.array_equal(np.sort(mixed), values)
    # Which tenth a number came from says nothing of the tenth that it goes to.
    table = np.histogram2d(np.arange(n), mixed, bins=10)[0]
    assert chi2_contingency(table).pvalue > 1e-3


def test_up_to_its_most_a_shuffle_is_numpys() -> None:
    values = np.arange(500, dtype=np.int32)
    assert np.array_equal(shuffled(philox(2), values), philox(2).permutation(values))


def test_patients_are_dealt_in_groups_as_likely_as_by_one_sort() -> None:
    """Two patients of three and two samples and one of one; batches of two leave one sample out."""
    samples = of([0, 0, 1, 1, 1, 2])

    def outcomes(change) -> Counter:
        plans = (change(Plan("patient_unique", samples, seed, 2)) for seed in range(1500))
        return Counter(tuple(plan.batch(0, 1).index.tolist()) for plan in plans)

    one, other = outcomes(lambda p: p), outcomes(in_groups)
    keys = sorted(one.keys() | other.keys())
    assert chi2_contingency([[c[k] for k in keys] for c in (one, other)]).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(40))
def test_batches_in_groups_are_of_different_patients_and_lose_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, rng.integers(5, 40))
    counts[rng.integers(len(counts))] = 60 if seed % 3 == 0 else 4  # more than the epoch has batches
    patients = rng.permutation(np.repeat(np.arange(len(counts)) * 3, counts))
    batch = int(rng.integers(1, (counts > 0).sum() + 1))
    plan = in_groups(Plan("patient_unique", of(patients), seed, batch))
    for epoch in (0, 1):
        rows = np.array([plan.batch(epoch, s).index for s in range(plan.steps_per_epoch)])
        assert all(len(set(patients[row])) == batch for row in rows)
        assert len(set(rows.ravel().tolist())) == rows.size == len(patients) - plan.dropped


GOLDEN = {
    "patient_unique": {1: "f8f664de38bd", 2: "3b349b704fc0"},
    "class_balanced": {1: "129b769290be", 2: "0c370058dd30"},
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("strategy", GOLDEN)
def test_orders_of_large_sets_stay_under_either_version(strategy: str, version: int) -> None:
    label = "kind" if strategy == "class_balanced" else None
    plan = Plan(strategy, subset(600_000, 400_000), 5, 64, label=label, order_version=version)
    assert plan.versioned
    digest = hashlib.sha256()
    for epoch, step in ((1, 0), (1, plan.steps_per_epoch - 1), (0, 7)):
        digest.update(plan.batch(epoch, step).index.astype("<i8").tobytes())
    assert digest.hexdigest()[:12] == GOLDEN[strategy][version]


@pytest.mark.parametrize("strategy", GOLDEN)
def test_small_sets_have_one_order_under_both_versions(strategy: str) -> None:
    label = "kind" if strategy == "class_balanced" else None
    one, two = (Plan(strategy, subset(1000, 300), 5, 16, label=label, order_version=v) for v in (1, 2))
    assert not two.versioned
    assert np.array_equal(one.batch(1, 3).index, two.batch(1, 3).index)


@pytest.mark.parametrize(
    ("starts", "windows", "are_large"),
    [((0, 50, 300_050, 300_100), (1, 2), [True, True]), ((0, 100_000, 200_000, 300_000), (1, 2, 3), [False, False, True])],
)  # fmt: skip
def test_the_largest_window_that_there_may_be_decides_whether_a_shuffle_has_versions(
    starts: tuple[int, ...], windows: tuple[int, ...], are_large: list[bool]
) -> None:
    at = np.arange(starts[-1])
    samples = Subset(at, at, {}, {}, np.array(starts))
    assert [Plan("shuffle", samples, 0, 64, window=w).versioned for w in windows] == are_large


@pytest.mark.parametrize("strategy", ["patient_unique", "shuffle"])
def test_a_version_that_is_not_known_is_refused(strategy: str) -> None:
    assert whole_of(2) == WHOLE
    with pytest.raises(DataError, match="an order of version 4, there are 1 to 3"):
        Plan(strategy, of(range(9)), 0, 3, order_version=4)


DATA = SimpleNamespace(fingerprint="f")


@pytest.mark.parametrize(("strategy", "module"), [("patient_unique", patient_unique), ("shuffle", plan)])
def test_a_stream_goes_on_in_the_order_that_it_began_with(
    strategy: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE", 8)
    monkeypatch.setattr(large, "WHOLE", 8)
    first, second, third = (Plan(strategy, of(range(9)), 0, 3, order_version=v) for v in (1, 2, ORDER_VERSION))
    state = state_of(DATA, third, 3)
    assert (version_of(state), place_of(DATA, third, state, False, "")) == (3, (0, 1))
    state = state_of(DATA, second, 3)
    assert (version_of(state), place_of(DATA, second, state, False, "")) == (2, (0, 1))
    with pytest.raises(DataError, match=r"follows version 2 .* give order_version=2"):
        place_of(DATA, third, state, True, "")
    del state["order_version"]  # as it was stored before there were versions
    assert place_of(DATA, first, state, False, "") == (0, 1)
    with pytest.raises(DataError, match=r"follows version 1 .* give order_version=1"):
        place_of(DATA, second, state, True, "")


def test_a_state_of_a_small_set_of_before_is_taken_as_it_is() -> None:
    plan = Plan("patient_unique", of(range(9)), 0, 3)
    assert place_of(DATA, plan, {"seed": 0, "consumed": 6, "fingerprint": "f"}, False, "") == (0, 2)


@pytest.mark.parametrize(("stored", "version"), [({}, 1), ({"order_version": 2}, 2), ({"order_version": 3}, 3)])
def test_a_run_goes_on_in_the_order_that_it_began_with(stored: dict, version: int) -> None:
    config = {"method_name": "gimp", "zero": {"stage": 0}, "precision": "fp32"}
    data = SimpleNamespace(fingerprint="f", meanings={}, paths=["x"], order_version=ORDER_VERSION)
    run = SimpleNamespace(resolved=config, data=data, runtime=SimpleNamespace(say=lambda _: None))
    progress_of(run, "step-1", {"config": config, "loader": {"fingerprint": "f", **stored}, "progress": {}})
    assert data.order_version == version
