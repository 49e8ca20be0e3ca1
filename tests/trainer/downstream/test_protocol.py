"""The protocol: whose labels are used, what is frozen, how fast it learns, what is fitted on training data alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from models.finetuned import layer_scales
from models.registry import get_method
from shards.read.dataset import Dataset
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.launching import rows
from trainer.config import yaml_text
from trainer.config.recipe import find_recipe
from trainer.config.schema import Optim
from trainer.data import schema_of
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import Targets, fitted, read_targets
from trainer.downstream.task.read import parse_task
from trainer.downstream.task.schema import Task
from trainer.engine.schedule import learning_rate
from trainer.errors import UserError

Pretrained = Callable[[str], Path]
FRACTIONS = (0.01, 0.1, 0.25, 0.5, 1.0)


def task_of(**content: Any) -> Task:
    return parse_task({"name": "t", **content})


SUBTYPE = {"kind": "binary", "label": "subtype", "positive": "beta"}


@pytest.fixture(scope="module")
def data(demo_cohort: Path) -> Dataset:
    return Dataset.open(demo_cohort)


@pytest.fixture(scope="module")
def train(data: Dataset) -> np.ndarray:
    return data.subset("train").indices


def chosen(
    data: Dataset, train: np.ndarray, seed: int = 0, content: dict[str, Any] = SUBTYPE, **protocol: Any
) -> set[int]:
    task = task_of(**content, protocol=protocol)
    return set(labelled(task, data, read_targets(task, data, ("image",)), train, seed).tolist())


# ------------------------------------------------------------------------------------------------------------ whose labels


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), content=st.sampled_from([
    SUBTYPE, {"kind": "multiclass", "label": "site"}, {"kind": "ordinal", "label": "grade", "grades": 4},
    {"kind": "regression", "label": "severity"}, {"kind": "survival", "time": "months", "event": "event"},
    {"kind": "multilabel", "label": ["subtype", "event"], "positive": {"subtype": "beta"}}, {"kind": "segmentation"},
]))  # fmt: skip
def test_smaller_shares_lie_within_larger_ones(
    data: Dataset, train: np.ndarray, seed: int, content: dict[str, Any]
) -> None:
    """1 % within 10 % within 100 %, whatever the draw; whole patients; no class is lost."""
    parts = [chosen(data, train, seed, content, fraction=f, draw="seed") for f in FRACTIONS]
    for small, large in pairwise(parts):
        assert small < large
    assert parts[-1] == set(train.tolist())
    patients = np.array(data.patients_of(train))
    for f, part in zip(FRACTIONS, parts, strict=True):
        inside = np.isin(train, list(part))
        assert not set(patients[inside]) & set(patients[~inside]), "all samples of a patient, or none"
        strata = 8 if content.get("label") == "site" else 4
        assert len(set(patients[inside])) == pytest.approx(f * len(set(patients)), abs=strata)
    if content["kind"] in ("binary", "multiclass", "ordinal"):
        values_N = read_targets(task_of(**content), data, ("image",)).value_NT[:, 0]
        assert set(values_N[list(parts[0])]) == set(values_N[train])


def test_another_draw_is_another_choice_and_seeds_share_one_unless_told(data: Dataset, train: np.ndarray) -> None:
    tenth = {"fraction": 0.1}
    assert chosen(data, train, 0, **tenth) == chosen(data, train, 1, **tenth)
    assert chosen(data, train, 0, **tenth) != chosen(data, train, 0, **tenth, draw=1)
    drawn = {s: frozenset(chosen(data, train, s, **tenth, draw="seed")) for s in range(4)}
    assert len(set(drawn.values())) == 4
    assert drawn[0] == chosen(data, train, 0, **tenth), "draw 0 is that of seed 0"


@pytest.mark.parametrize("shots", [1, 5, 10, 25])
@pytest.mark.parametrize("draw", [0, 1, "seed"])
def test_so_many_patients_of_each_class(shots: int, draw: int | str, data: Dataset, train: np.ndarray) -> None:
    part = np.array(sorted(chosen(data, train, 3, shots=shots, draw=draw)))
    codes_N = data.label_values["subtype"]
    for code in (0, 1):
        assert len(set(data.patients_of(part[codes_N[part] == code]))) == shots
    more = chosen(data, train, 3, shots=shots + 3, draw=draw)
    assert set(part.tolist()) < more, "few shots lie within more"


def test_too_many_shots_are_refused_by_class(data: Dataset, train: np.ndarray) -> None:
    with pytest.raises(UserError) as e:
        chosen(data, train, content={"kind": "multiclass", "label": "site"}, shots=200)
    assert any(
        re.match(r"class 'site7' has \d+ training patients, protocol.shots asks for 200", p) for p in e.value.problems
    )


# -------------------------------------------------------------------------------------------------- fitted on training only


def targets_of(data: Dataset, value_NT: np.ndarray, impute: str) -> tuple[Task, Targets]:
    task = task_of(kind="regression", label=["severity", "months"], impute=impute)
    found = read_targets(task, data, ("image",))
    return task, Targets(found.question, value_NT, found.used_N, {})


@pytest.mark.parametrize("impute", ["none", "mean", "median"])
def test_standardising_and_imputing_learn_from_training_alone(impute: str, data: Dataset, train: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    value_NT = rng.gamma(2, 3, (len(data), 2))
    value_NT[rng.random(value_NT.shape) < 0.2] = np.nan
    other = np.setdiff1d(np.arange(len(data)), train)
    moved_NT = value_NT.copy()
    moved_NT[other] = 1e6
    task, targets = targets_of(data, value_NT, impute)
    made = fitted(task, targets, train)
    known = [c[~np.isnan(c)] for c in value_NT[train].T]
    assert made.question.mean_K == pytest.approx([c.mean() for c in known])
    assert made.question.std_K == pytest.approx([c.std() for c in known])
    again = fitted(task, targets_of(data, moved_NT, impute)[1], train)
    assert again.question == made.question, "what the other splits hold changes nothing"
    np.testing.assert_array_equal(again.value_NT[train], made.value_NT[train])
    np.testing.assert_array_equal(made.value_NT[other], value_NT[other], "an unknown test target is not made up")
    fill = {"none": [np.nan, np.nan], "mean": [c.mean() for c in known], "median": [np.median(c) for c in known]}[
        impute
    ]
    for k in (0, 1):
        gone = train[np.isnan(value_NT[train, k])]
        np.testing.assert_allclose(made.value_NT[gone, k], fill[k])
    assert np.isnan(value_NT[train]).any(), "the given targets are left as they were"


# ------------------------------------------------------------------------------------------------------------ learning rates


@pytest.mark.parametrize("method", ["mgi", "mrm_relation", "mrm_record"])
def test_rates_fall_layer_by_layer(method: str, data: Dataset) -> None:
    """Head 1; last norm decay; block i of L (counted from 0) decay^(L - i); patches, tokens and positions decay^(L + 1)."""
    cls, depth = get_method(method), 2
    options = yaml_text.read(find_recipe(method, "demo", True))["method"]
    encoder = cls(cls.Options.parse(cls.Options.over(options, {"image": {"depth": depth}})), schema_of(data))
    scale = layer_scales(encoder, 0.75)
    seen: dict[str, float] = {}
    image: Any = encoder.image_encoder()
    inside = next(n for n, m in encoder.named_modules() if m is image)
    for name, _ in image.named_parameters():
        part = name.split(".")
        expected = {"blocks": lambda p=part: depth - int(p[1]), "norm": lambda: 1}.get(part[0], lambda: depth + 1)()
        assert scale(f"{inside}.{name}") == pytest.approx(0.75**expected), name
        seen[name] = expected
    assert set(seen.values()) == {1, 2, 3}
    assert layer_scales(encoder, 1.0)("anything") == 1.0


def test_warm_up_then_cosine() -> None:
    optim = Optim(lr=2.0, warmup=0.2, schedule="cosine")
    rates = [learning_rate(optim, step, 50) for step in range(50)]
    assert rates[:10] == pytest.approx([2.0 * (i + 1) / 10 for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[30] == pytest.approx(1.0, abs=0.1)
    assert rates[-1] < 0.02


# ------------------------------------------------------------------------------------------------------------- real trainings


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestTrained:
    """With the real engine."""

    def weights(self, out: Path) -> dict[str, Any]:
        (path,) = out.rglob("finetune.safetensors")
        return load_file(path)

    def ran(self, finetune: Finetune, out: Path, *words: str) -> dict[str, Any]:
        ended = finetune(out, *words)
        assert ended.codes == [0], ended.text
        return self.weights(out)

    @pytest.mark.parametrize("freeze", ["none", "encoder", "genes"])
    def test_what_is_frozen_does_not_move(
        self, freeze: str, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
    ) -> None:
        run = pretrained("mgi")
        words = [
            "--task",
            "demo_lesions",
            "--method",
            "mgi",
            "--init",
            str(run),
            "inputs=multimodal",
            "output.decoder=two_way",
        ]
        before = load_file(run / "weights.safetensors")
        after = self.ran(finetune, tmp_path / "run", *words, "output.width=16", f"protocol.freeze={freeze}")
        moved = {n for n, w in before.items() if not w.equal(after[f"encoder.{n}"])}
        genes = {n for n in before if n.startswith("genes.")}
        assert {"none": moved & genes and moved - genes, "genes": moved and not moved & genes, "encoder": not moved}[
            freeze
        ]
        head = [n for n in after if n.startswith("head.")]
        assert len(head) > 10
        if freeze == "encoder":
            assert rows(next((tmp_path / "run").rglob("lr-0.001")))[0]["grad_norm"] > 0

    @pytest.mark.parametrize(
        "more",
        [["protocol.shots=1", "protocol.draw=seed"], ["protocol.balance=true", "protocol.batch=8"]],
        ids=["shots", "balance"],
    )
    def test_few_patients_and_balanced_batches(
        self, more: list[str], pretrained: Pretrained, finetune: Finetune, tmp_path: Path
    ) -> None:
        import json

        words = [
            "--task",
            "demo_subtype",
            "--method",
            "mrm_record",
            "--init",
            str(pretrained("mrm_record")),
            "seeds=[0, 1]",
        ]
        ended = finetune(tmp_path / "run", *words, *more)
        assert ended.codes == [0], ended.text
        found = json.loads((tmp_path / "run" / "result.json").read_bytes())
        keys = {s: rows(tmp_path / "run" / f"seed-{s}" / "lr-0.001")[0]["keys"] for s in (0, 1)}
        assert keys[0] != keys[1]
        if "protocol.shots=1" in more:
            assert (found["shots"], found["fraction"], found["draw"]) == (1, None, "seed")
            assert 2 <= found["n"]["train"] <= 4
        else:
            assert (found["shots"], found["fraction"]) == (None, 1.0)

    def test_the_grid_is_chosen_on_validation_and_the_best_look_is_kept(
        self, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
    ) -> None:
        """A rate of nearly zero, one that learns, one that is too high: each seed takes its best; losers keep their numbers only."""
        import json

        words = [
            "--task",
            "demo_severity",
            "--method",
            "mrm_record",
            "--init",
            str(pretrained("mrm_record")),
            "seeds=[0, 1]",
        ]
        more = ["protocol.lr=[1e-7, 3e-3, 1.0]", "protocol.steps=6", "protocol.evaluations=3", "protocol.batch=12"]
        ended = finetune(tmp_path / "run", *words, *more, "protocol.warmup=0.5")
        assert ended.codes == [0], ended.text
        found = json.loads((tmp_path / "run" / "result.json").read_bytes())
        primary = found["primary"]
        assert not found["metrics"][primary]["higher_is_better"]
        for c in found["chosen"]:
            values = {g["lr"]: g["val"] for g in c["grid"]}
            assert list(values) == [1e-7, 3e-3, 1.0]
            assert c["lr"] == min(values, key=values.__getitem__)
            assert c["val"] == min(values.values())
            for lr, value in values.items():
                looks = rows(tmp_path / "run" / f"seed-{c['seed']}" / f"lr-{lr:g}")
                assert len(looks) == 6
                assert [r["step"] for r in looks if f"val/{primary}" in r] == [2, 4, 6]
                assert value == min(r[f"val/{primary}"] for r in looks if f"val/{primary}" in r)
                assert [r["lr"] for r in looks[:3]] == pytest.approx([lr / 3, 2 * lr / 3, lr])
                assert looks[-1]["lr"] < looks[3]["lr"] <= lr
                kept = tmp_path / "run" / f"seed-{c['seed']}" / f"lr-{lr:g}" / "stages" / "finetune.safetensors"
                assert kept.exists() == (lr == c["lr"])
        spread = np.std(found["metrics"][primary]["per_seed"], ddof=1)
        assert found["metrics"][primary]["spread"] == pytest.approx(spread)
        assert not list((tmp_path / "run").rglob("checkpoints"))
