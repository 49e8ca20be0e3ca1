"""Contributions of places: right where they are known, complete for real systems, tested by deletion, written beside a result."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from models.contract import Batch, TargetSpec
from shards.errors import DataError
from shards.read.dataset import Dataset
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.planted import other_scanner, planted
from tests.trainer.downstream.test_attention import lacking, rows, setting
from tests.trainer.forking import Forks
from trainer.downstream.maps.cases import case_maps, side_of_maps, without_cells
from trainer.downstream.maps.gradients import (
    Side,
    asked_of,
    background,
    by_place,
    contributions,
    corners,
    covered,
    edges,
    faded,
)
from trainer.downstream.measured import training_of
from trainer.downstream.task.read import build_task
from trainer.errors import UserError

CPU = torch.device("cpu")


def asking(kind: Any, classes: tuple[str, ...] = (), outputs: int = 1) -> TargetSpec:
    return TargetSpec(kind, outputs, classes)


class Weighs(nn.Module):
    """Answers with the square root of a weighted sum of what it reads, so that its slope is not the same everywhere."""

    def __init__(self, weight: Tensor, name: str):
        super().__init__()
        self.weight, self.field, self.question = weight, name, asking("binary", ("alpha", "beta"))

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        said_B1 = (100 + (batch[self.field].float() * self.weight).flatten(1).mean(1, keepdim=True)).sqrt()
        return said_B1, said_B1


# --------------------------------------------------------------------------------------------------------- known and complete


@pytest.mark.parametrize(("side", "shape"), [("patches", (1, 30, 5)), ("image", (1, 41, 28, 3))])
def test_of_a_known_answer_they_are_what_each_place_adds(side: Side, shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    x, weight = 60 * torch.rand(shape, generator=rng), torch.randn(shape[1:], generator=rng)
    method: Any = Weighs(weight, side)
    found = contributions(method, Batch({side: x}), side)
    assert found.names == ("beta",)
    # Of a function of one weighted sum a place's share is its share of the sum.
    of_N = by_place((weight * (x - background(x, side))[0]).double(), side)
    expected_N = of_N / of_N.sum() * (found.answer_M - found.background_M)
    np.testing.assert_allclose(found.of_MN[0], expected_N, rtol=1e-3, atol=1e-6)
    assert abs(found.missed[0]) < 1e-4


def test_cells_cover_an_image_once() -> None:
    assert edges(9).tolist() == list(range(10)), "no more cells than pixels"
    image = torch.arange(41 * 28 * 3, dtype=torch.float64).reshape(41, 28, 3)
    assert by_place(image, "image").sum() == image.sum()
    assert (np.sum([covered((41, 28, 3), np.array([n])) for n in range(196)], 0) == 1).all()
    xy = corners(41, 28)
    assert xy[15].tolist() == [2, 3], "the second cell of the second row"
    assert covered((41, 28), np.array([15]))[3, 2]
    soft = faded((140, 140), np.array([15]))
    assert soft[15, 15] > 0.9, "the cell's middle"
    assert 0 < soft[9, 15] < 1, "softly around it"
    assert soft[60, 60] < 1e-6


@pytest.mark.parametrize(
    ("method", "task", "words"),
    [
        ("abmil", "demo_subtype", []), ("mcat", "demo_survival", ["inputs=multimodal"]), ("gimp", "demo_grade", []),
        ("c2l", "demo_findings", []), ("mgi", "demo_site", []),
        ("unet", "demo_severity", []), ("mae", "demo_subtype", []),
    ],
)  # fmt: skip
def test_of_real_systems_they_sum_to_the_answer_less_the_backgrounds(
    method: str, task: str, words: list[str], cohort: Path, tmp_path: Path
) -> None:
    """Through every kind of encoder and question; random weights make an answer that is far from linear."""
    from trainer.data import schema_of
    from trainer.downstream.init import find_source
    from trainer.downstream.setting import open_task_data, prepare

    made, _ = build_task(task, [f"data.path={cohort}", "output.gradients=1", "protocol.seeds=[0]", *words])
    opened = open_task_data(made)
    source = find_source(method, "scratch", "demo", made, schema_of(opened), True)
    ready = prepare(made, source, opened, tmp_path / "run", 1)
    training, _ = training_of(ready, 0)
    whole = training.build()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    maps, tested = case_maps(whole, opened, int(ready.splits["test"][0]), CPU)
    size_M = np.abs(maps.found.of_MN).sum(1)
    assert (size_M > 1e-5).all()
    assert (np.abs(maps.found.missed) < 0.05 * size_M + 1e-5).all()
    assert [t.map for t in tested] == (
        ["gradients"] if len(size_M) == 1 else [f"gradients of {n}" for n in maps.found.names]
    )
    assert whole.training
    opened.close()


@pytest.mark.parametrize(
    ("question", "logits", "names", "values"),
    [
        (asking("binary", ("alpha", "beta")), [-2.0], ("alpha",), [2.0]),
        (asking("multiclass", ("a", "b", "c"), 3), [1.0, 3.0, 1.0], ("b",), [3 - np.log(2 * np.e)]),
        (asking("multilabel", ("a", "b"), 2), [1.0, -3.0], ("a", "b"), [1.0, 3.0]),
        (asking("multilabel", ("a",), 3), [1.0, 4.0, 9.0], ("a",), [3.0]),
        (asking("ordinal", ("0", "1", "2"), 2), [1.0, -4.0], ("grade",), [-3.0]),
        (asking("survival"), [0.7], ("risk",), [0.7]),
        (asking("regression", (), 2), [0.7, -1.0], ("output 1", "output 2"), [0.7, -1.0]),
    ],
)  # fmt: skip
def test_which_answer_is_explained(
    question: TargetSpec, logits: list[float], names: tuple[str, ...], values: list[float]
) -> None:
    method: Any = SimpleNamespace(question=question)
    x_K = torch.tensor(logits)
    asked = asked_of(method, x_K)
    assert asked.names == names
    assert asked.of(x_K[None])[0].tolist() == pytest.approx(values)


# ------------------------------------------------------------------------------------------------------------------- deletion


def test_cells_that_are_taken_out_become_the_background() -> None:
    image = torch.zeros(1, 56, 56, 1, dtype=torch.uint8)
    image[0, 20:24, 20:24] = 200
    batch, method = Batch({"image": image}), Weighs(torch.ones(56, 56, 1), "image")
    method_: Any = method
    logits = without_cells(method_, batch)
    whole, spot, elsewhere = (float(logits(np.array(out, int))) for out in ([], [5 * 14 + 5], [0]))
    assert whole == pytest.approx(float(method.logits(batch)[0]))
    assert whole - spot > 100 * abs(whole - elsewhere)


# -------------------------------------------------------------------------------------------------------------------- written


@pytest.mark.slow
def test_they_stand_beside_a_result_and_a_look(cohort: Path, finetune: Finetune, forks: Forks, tmp_path: Path) -> None:
    """From the command line: tables and pictures of cells, the result as it was; the same of new cases without labels."""
    words = ("--task", "demo_subtype", "--method", "simclr", "--init", "scratch", "--recipe", "demo")
    out = tmp_path / "run"
    ended = finetune(out, *words)
    assert ended.codes == [0], ended.text
    result = (out / "result.json").read_bytes()
    ended = finetune(out, *words, "output.gradients=2")
    assert ended.codes == [0], ended.text
    assert (
        f"gradients of 2 test cases, of the first seed: {out / 'gradients'}; contributions miss at most" in ended.text
    )
    assert (
        "deletion test, map gradients: the 10% of largest shares cost more than as many random cells in" in ended.text
    )
    assert (out / "result.json").read_bytes() == result
    lines = rows(out / "gradients" / "cases.csv")
    assert len(lines) == len(rows(out / "gradients" / "deletion.csv")) == 2
    for line in lines:
        cells = rows(out / "gradients" / line["table"])
        assert len(cells) == int(line["places"]) == 196
        total = sum(float(c[line["answer"]]) for c in cells)
        assert total == pytest.approx(
            float(line["value"]) - float(line["of_background"]) - float(line["missed"]), abs=1e-5
        )
        assert Image.open(out / "gradients" / line["picture"]).size[0] > 600
    hospital = planted(tmp_path / "b", members=other_scanner, rename=lambda name: f"elsewhere-{name}", patients=4)
    code, text = forks.command(
        "predict", [str(out), f"data.path={hospital}", "--out", str(tmp_path / "look"), "output.gradients=1"]
    )
    assert code == 0, text
    assert len(rows(tmp_path / "look" / "gradients" / "cases.csv")) == 1
    assert json.loads((tmp_path / "look" / "about.json").read_bytes())["n"]


# -------------------------------------------------------------------------------------------------------------------- refused


def test_slides_without_places_are_refused(tmp_path: Path) -> None:
    data = planted(tmp_path / "none", members=lacking(lambda c: None))
    with pytest.raises(
        DataError, match=r"output\.gradients: there is no field 'coords'.*or leave output\.gradients out"
    ):
        setting("abmil", data, tmp_path / "run", "output.gradients=2")


@pytest.mark.parametrize(
    ("task", "words"), [("demo_subtype", ["mode=linear"]), ("demo_subtype", ["mode=knn"]), ("demo_lesions", [])]
)
def test_what_has_no_trained_answer_of_a_case_is_refused(task: str, words: list[str]) -> None:
    with pytest.raises(UserError, match=r"output\.gradients: .* has no trained answer of a whole case; leave it out"):
        build_task(task, ["output.gradients=2", *words])


def test_weights_that_say_nothing_are_refused(cohort: Path) -> None:
    method: Any = Weighs(torch.full((96, 96, 3), np.nan), "image")
    method.encoder, method.inputs = SimpleNamespace(name="broken"), ("image",)
    method.eval_sample = lambda record, rng: record.read("image")
    method.collate = lambda samples: Batch({"image": torch.from_numpy(np.array(samples[0]))[None]})
    data = Dataset.open(cohort)
    try:
        with pytest.raises(UserError, match=r"the gradients are not finite.*leave output\.gradients out"):
            case_maps(method, data, 0, CPU)
    finally:
        data.close()


def test_patches_come_before_images() -> None:
    assert (side_of_maps(("patches", "rna")), side_of_maps(("image",))) == ("patches", "image")
