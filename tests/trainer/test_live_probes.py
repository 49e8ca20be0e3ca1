"""Live probes: right by hand, the same training with and without them, within their share of the time, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.launching import TINY, launch, rows
from trainer.build import build_method
from trainer.config.recipe import build_config
from trainer.data import open_data
from trainer.errors import UserError
from trainer.pretrain import prepare
from trainer.probe.live import LiveProbes, other_peoples_votes, rank_me
from trainer.runtime import Runtime

TIMED = ("samples_per_s", "data_wait", "peak_memory")
LOOKS = ["monitor.probe.every=2", "monitor.probe.label=subtype", "monitor.probe.samples=24", "monitor.probe.share=1"]


def test_rank_me_by_hand() -> None:
    """One direction, equally many equal ones, and shares of 3 to 1; not centred, so that a common offset is a direction."""
    assert rank_me(torch.outer(torch.arange(1.0, 9.0), torch.ones(4))) == pytest.approx(1, abs=1e-4)
    assert rank_me(torch.eye(6)) == pytest.approx(6, abs=1e-4)
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert rank_me(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected, abs=1e-4)
    assert rank_me(torch.ones(50, 8)) == pytest.approx(1, abs=1e-4)


def test_a_patients_own_samples_do_not_vote() -> None:
    """Pairs of equal samples of one patient, where every other patient is of the other class."""
    x_ND = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    people_N, class_N = np.array(["a", "a", "b", "b"]), np.array([0, 0, 1, 1])
    assert other_peoples_votes(x_ND, people_N, class_N) == (0.0, 0.5)
    assert other_peoples_votes(x_ND, np.array(list("abcd")), class_N)[0] == 1.0


def test_a_class_of_one_patient_is_not_asked_for(looking: Any) -> None:
    """Nobody else votes for it: two classes that are told apart without fault stay so beside it, and alone there is no number."""
    probes, _ = looking
    x_ND = torch.eye(3)[[0, 0, 1, 1, 2, 2, 2]]
    people_N, class_N = np.array(["a", "b", "c", "d", "e", "e", "f"]), np.array([0, 0, 1, 1, 2, 2, -1])
    found = probes._readings(x_ND, people_N, class_N)
    assert (found["probe/knn"], found["probe/knn_chance"]) == (1.0, 0.5)
    assert found["probe/samples"] == 7
    assert "probe/knn" not in probes._readings(x_ND, people_N, np.array([0, 0, -1, -1, 2, 2, -1]))


# ----------------------------------------------------------------------------------------------------- what it does to a run


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("world", "stage"), [(1, 1), (2, 3)])
def test_a_training_is_the_same_to_the_last_bit(world: int, stage: int, tmp_path: Path, demo_cohort: Path) -> None:
    words = [*TINY, "data.val_split=val", "steps=6", "method.dropout=0.1", f"zero.stage={stage}"]
    told: list[list[dict[str, Any]]] = []
    for name, more in (("without", []), ("with", LOOKS)):
        ended = launch(world, [*words, *more, f"out={tmp_path / name}"], demo_cohort)
        assert ended.codes == [0] * world, ended.text
        told.append(rows(tmp_path / name))
        assert ("live probes: 3 evaluations," in ended.text) == (name == "with")
    without, looked = told
    assert [r["step"] for r in looked if "probe/rank_me" in r] == [2, 4, 6]
    assert all(1 < r["probe/rank_me"] <= 24 and r["probe/samples"] == 24 for r in looked if "probe/rank_me" in r)
    assert all(r["probe/knn_chance"] == 0.5 and 0 <= r["probe/knn"] <= 1 for r in looked if "probe/knn" in r)

    def kept(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k not in TIMED and not k.startswith("probe/")} for r in lines]

    assert kept(looked) == kept(without)
    weights = [(tmp_path / n / "weights.safetensors").read_bytes() for n in ("without", "with")]
    assert weights[0] == weights[1]


# --------------------------------------------------------------------------------------------------------------------- by itself


class Still:
    """An engine whose weights are those of a method, as they stand."""

    def __init__(self, method: Any):
        self.method = method

    def weights(self) -> dict[str, torch.Tensor]:
        return {n: v.clone() for n, v in self.method.state_dict().items()}


@pytest.fixture
def looking(cohort: Path) -> Any:
    config, _ = build_config("mae", "demo", [f"data.path={cohort}", *LOOKS])
    data = open_data(config)
    probes = LiveProbes(config, data, Runtime(0, 1, 0, torch.device("cpu")), lambda: build_method(config, data))
    yield probes, Still(build_method(config, data, 7))
    data.close()


def test_it_reads_the_weights_of_the_moment_and_draws_no_random_number(looking: Any) -> None:
    probes, engine = looking
    before = torch.get_rng_state(), repr(np.random.get_state())
    first = probes.evaluate(engine)
    with torch.no_grad():
        for p in engine.method.parameters():
            p.mul_(1.5)
    second = probes.evaluate(engine)
    assert first["probe/rank_me"] != second["probe/rank_me"]
    assert first["probe/samples"] == len(probes.parts[0].data.subset("val")), (
        "all that are held back, which are fewer than 24"
    )
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())
    assert engine.method.training, "the method that trains stays as it was"


@pytest.mark.parametrize(("cost", "looks"), [(0.5, range(90, 101)), (10.0, range(4, 7))])
def test_it_stays_within_its_share(looking: Any, monkeypatch: pytest.MonkeyPatch, cost: float, looks: range) -> None:
    """On a clock that each step moves by a second, at 5 %: looks as cheap as is thought at first, and ones ten times as dear."""
    probes, engine = looking
    now, shares = [0.0], list[float]()
    monkeypatch.setattr("trainer.probe.live.time.perf_counter", lambda: now[0])
    probes.asked = probes.asked.model_copy(update={"every": 1, "share": 0.05})
    probes._began = 0.0

    def readings(*given: Any) -> dict[str, float]:
        now[0] += cost
        return {}

    monkeypatch.setattr(probes, "_readings", readings)
    while now[0] < 1000:
        now[0] += 1.0
        if probes.wants(10, 1.0):
            shares.append(probes.evaluate(engine)["probe/share_of_time"])
    assert len(shares) in looks
    assert max(shares[1:] if cost > 1 else shares) <= 0.05 + 1e-9, "what the first took beyond its share is made up for"
    assert probes.put_off > 800
    assert "were put off, since all may take 5.00%" in probes.text()


# -------------------------------------------------------------------------------------------------------------------- refused


def test_what_cannot_be_looked_at_is_refused_at_once(cohort: Path) -> None:
    words = [f"data.path={cohort}", "monitor.probe.every=5", "monitor.probe.label=severity", "data.val_split="]
    config, _ = build_config("mae", "demo", words)
    with pytest.raises(UserError) as refused:
        prepare(config, 1)
    said = str(refused.value)
    assert "no sample is held back" in said
    assert "monitor.probe.label=severity: no label of classes" in said
    assert "it has subtype, site" in said or "it has site, subtype" in said
