"""Attention times gradient: right where it can be said in closed form, tested by deletion beside the shares, written with its sign."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.contract import Encoded, TargetSpec
from models.finetuned import Downstream
from models.layers.attention import split_heads
from shards.read.dataset import Dataset
from tests.models import slides
from trainer.downstream.maps.deletion import DRAWS, deletions
from trainer.downstream.maps.gradients import Contributions, odds
from trainer.downstream.maps.weighed import NAME, weighed
from trainer.downstream.maps.write import SlideMaps, told_of, write_maps

N = 9


def abmil(asked: TargetSpec = slides.BINARY) -> Downstream:
    return slides.tuned(slides.build("abmil", embed=7, hidden=4), asked)


def bag(seed: int = 0) -> Any:
    return slides.batch_of(slides.bags((N,), seed=seed))


# --------------------------------------------------------------------------------------------------------------- what it is


@pytest.mark.parametrize("seed", range(4))
def test_of_one_branch_it_is_the_share_times_what_sets_the_patch_apart(seed: int) -> None:
    """a_i (w h_i - w z), towards the answer; removed alone, the patch costs that by 1 - a_i."""
    model, batch = abmil(), bag(seed)
    found = weighed(model, batch)
    assert found is not None
    with torch.no_grad():
        said = float(model.logits(batch)[0])
        a_N = model.attention_maps(batch)["attention"][0].double().numpy()
        alone = [float(model.logits(slides.batch_of([row[None]]))[0]) for row in batch["patches"][0]]
        without = [float(model.logits(slides.batch_of([np.delete(batch["patches"][0], i, 0)]))[0]) for i in range(N)]
    sign = 1 if said >= 0 else -1
    of_N = sign * a_N * (np.array(alone) - said)
    np.testing.assert_allclose(found.of_MN[0], of_N, atol=1e-6)
    np.testing.assert_allclose(found.of_MN[0] / (1 - a_N), sign * (said - np.array(without)), atol=1e-5)
    assert found.names == (("yes",) if sign > 0 else ("no",))
    assert found.answer_M == pytest.approx(sign * said)
    assert abs(found.of_MN.sum()) < 1e-6, "what one loses the others gain"


def test_branches_of_classes_are_summed() -> None:
    model: Any = slides.tuned(slides.build("clam", embed=7, hidden=4, branches="multi"), slides.kinds(3))
    batch = bag()
    found = weighed(model, batch)
    assert found is not None
    with torch.no_grad():
        whole_K = model.logits(batch)[0][0]
        c = int(whole_K.argmax())
        # One score of all branches down by a little: a hundredth of the patch is gone.
        step, moved = 1e-2, []
        for i in range(N):

            def down(layer: Any, given: Any, score: torch.Tensor, i: int = i) -> torch.Tensor:
                return score - step * (torch.arange(N) == i).float()[:, None]

            hook = model.head.attention.register_forward_hook(down)
            moved.append(float(odds(whole_K, c) - odds(model.logits(batch)[0][0], c)) / step)
            hook.remove()
    np.testing.assert_allclose(found.of_MN[0], moved, atol=5e-4, rtol=0.02)


def test_labels_have_a_map_each_and_numbers_the_side_they_lie_on() -> None:
    two = weighed(abmil(TargetSpec("multilabel", 2, ("edema", "mass"))), bag())
    assert two is not None
    assert two.maps(NAME) == ("attention x gradient of edema", "attention x gradient of mass")
    assert not np.allclose(two.of_MN[0], two.of_MN[1])
    number = weighed(abmil(TargetSpec("survival", 1, ())), bag())
    assert number is not None
    assert not number.of_classes
    assert number.signs.tolist() == [1.0 if number.answer_M[0] >= number.background_M[0] else -1.0]


CLASS_TOKEN = {"dim": 8, "heads": 2}


def test_of_a_class_token_it_is_the_row_of_each_head_times_its_slope() -> None:
    """One layer of exact attention: the row is all that the answer has of the patches."""
    options = {**CLASS_TOKEN, "depth": 1, "landmarks": 64, "genes": {"groups": 2}}
    model: Any = slides.tuned(slides.build("mgca_omic", **options), slides.BINARY)
    batch, network = bag(), model.encoder.slide
    found = weighed(model, batch)
    assert found is not None
    layer, seen = network.layers[0].attn, dict[str, torch.Tensor]()
    layer.register_forward_hook(lambda m, given, out: seen.update(x_1LC=given[0].detach()))
    with torch.no_grad():
        genes_1D = model.encoder.encode(batch)["pooled_BD"][:, 8:]
        row_HL = layer.first_row(seen["x_1LC"])[0]
        v_HLD = split_heads(layer.qkv(seen["x_1LC"]).chunk(3, -1)[2], 2)[0]
        beside_1C = layer.conv(layer.qkv(seen["x_1LC"]).chunk(3, -1)[2])[:, 0] + 0.0
    row_HL.requires_grad_()
    mixed_1C = torch.einsum("hl,hld->hd", row_HL, v_HLD).flatten()[None]
    token_1C = network.norm(network.class_token_C + layer.out(mixed_1C + beside_1C))
    said = model.head(Encoded(torch.zeros(1, 0, 8), torch.zeros(1, 0), torch.cat([token_1C, genes_1D], 1))).logits[0, 0]
    (slope_HL,) = torch.autograd.grad(said.abs(), row_HL)
    of_HL = row_HL * (slope_HL - (row_HL * slope_HL).sum(1, keepdim=True))
    np.testing.assert_allclose(found.of_MN[0], of_HL.sum(0)[1:].detach().numpy(), atol=1e-6)
    assert np.abs(found.of_MN).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("transmil", {"landmarks": 4, "conv_kernel": 5, "nystrom": "exact_short"}),
        ("transmil", {"landmarks": 4, "conv_kernel": 5, "nystrom": "library"}),
        ("transmil", {"landmarks": 64, "conv_kernel": 5, "nystrom": "library_009", "square": "fill"}),
        ("refers_omic", {"landmarks": 4, "conv_kernel": None, "genes": {"groups": 2}}),
        ("gimp", {"landmarks": 4, "ppeg": True, "genes": {"encoder": "none"}}),
    ],
)
def test_of_landmarks_it_is_what_a_little_less_of_a_patch_changes(name: str, options: dict[str, Any]) -> None:
    model: Any = slides.tuned(slides.build(name, **CLASS_TOKEN, **options), slides.BINARY).double()
    batch = bag()
    batch["patches"] = batch["patches"].double()
    found = weighed(model, batch)
    assert found is not None
    step, moved = 1e-5, []

    def answer() -> float:
        with torch.enable_grad():
            return float(model.logits(batch)[0].detach().abs())

    whole = answer()
    for i in range(N):

        def less(layer: Any, given: Any, score: torch.Tensor, i: int = i) -> torch.Tensor:
            return score - step * (torch.arange(N) == i).double()[:, None]

        hook = model.patch_scores()[0].register_forward_hook(less)
        moved.append(whole - answer())
        hook.remove()
    np.testing.assert_allclose(found.of_MN[0], np.array(moved) / step, rtol=1e-3, atol=1e-7)
    assert np.abs(found.of_MN).max() > 1e-5


def test_nothing_stays_behind_and_systems_without_scores_have_none() -> None:
    model: Any = abmil().train()
    weighed(model, bag())
    assert model.training
    assert not model.encoder.attention._forward_hooks
    no_softmax = slides.build("tangle", version="v2", hidden=8, activation="sigmoid")
    assert weighed(slides.tuned(no_softmax, slides.BINARY), bag()) is None


# ------------------------------------------------------------------------------------------------------ tested and written


def test_it_is_tested_beside_the_shares_on_the_same_random_patches(cohort: Path) -> None:
    data = Dataset.open(cohort)
    try:
        record = data[0]
        patches_NF = np.asarray(record.read("patches"), np.float32)
        model: Any = slides.tuned(slides.build("abmil", patches_NF.shape[1], embed=7, hidden=4), slides.BINARY)
        bags = []

        def sample(record: Any, rng: Any) -> torch.Tensor:
            bags.append(len(record.read("patches")))
            return torch.from_numpy(np.asarray(record.read("patches"), np.float32))

        model.eval_sample, model.collate = sample, lambda rows: slides.batch_of(rows)
        batch = slides.batch_of([torch.from_numpy(patches_NF)])
        share_N = model.attention_maps(batch)["attention"][0].numpy()
        maps = SlideMaps(
            record.key, record.patient, ("attention",), share_N[None], record.read("coords"), weighed(model, batch)
        )
        raw, signed = deletions(model, data, 0, maps, torch.device("cpu"))
    finally:
        data.close()
    assert (raw.map, signed.map) == ("attention", NAME)
    assert len(bags) == 1 + DRAWS + 2
    assert raw.random == pytest.approx(signed.random, abs=1e-6)
    assert signed.holds
    assert signed.top > raw.top


def test_the_table_has_its_sign_and_the_list_its_line(tmp_path: Path) -> None:
    signed = Contributions(("beta",), np.array([[-0.5, 0.2, 0.3]]), np.ones(1), np.zeros(1))
    xy_N2 = np.array([[0, 0], [1, 0], [2, 0]])
    slide = SlideMaps("a", "p", ("attention",), np.array([[0.5, 0.3, 0.2]]), xy_N2, signed)
    write_maps(tmp_path, [slide])
    with (tmp_path / "a.csv").open(newline="") as f:
        assert [float(row[NAME]) for row in csv.DictReader(f)] == [-0.5, 0.2, 0.3]
    with (tmp_path / "slides.csv").open(newline="") as f:
        first, second = csv.DictReader(f)
    assert (first["map"], first["effective_patches"]) == ("attention", "2.632")
    assert (second["map"], second["effective_patches"], second["largest"]) == (NAME, "", "0.3")
    assert (tmp_path / second["picture"]).stat().st_size > 1000
    with (tmp_path / "patches.csv").open(newline="") as f:
        listed = [(row["end"], row["patch"], row["value"]) for row in csv.DictReader(f) if row["map"] == NAME]
    assert listed == [("top", "2", "0.3"), ("top", "1", "0.2"), ("bottom", "0", "-0.5")]
    assert f"maps attention, {NAME}" in told_of([slide], tmp_path, 1, "test")
