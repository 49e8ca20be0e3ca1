"""Bags of different lengths: rows without padding, and that no system computes on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import slides
import torch
from synthetic import small_options, without_dropout
from torch import nn

from models.contract import Encoded, Sample
from models.contract.bags import Bags, computes, counting_rows
from models.methods.slides._bag import filled
from models.methods.slides._fused import FusedMethod
from models.registry import families, get_method

SYSTEMS = families()["slides"]
LENGTHS = (300, 12, 3, 1)
MORE = 1.12
"""TransMIL repeats patches until they fill a square, and each bag has a class token."""


def rows(*lengths: int, width: int = 2) -> Bags:
    return Bags(torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(0)), lengths)


def test_rows_are_the_first_of_each_sample_and_what_stands_behind_is_not_read():
    x = torch.full((3, 4, 2), torch.nan)
    x[0], x[1, :2] = 1.0, 2.0
    x.requires_grad_()
    made = Bags.of_padded(x, (4, 2, 0))
    assert made.rows_PD.tolist() == [[1.0, 1.0]] * 4 + [[2.0, 2.0]] * 2
    made.rows_PD.sum().backward()
    assert x.grad.sum((1, 2)).tolist() == [8.0, 4.0, 0.0]
    assert [len(r) for r in made.each()] == [4, 2, 0]


def test_bags_filled_up_hold_zeros_behind_their_rows():
    made = rows(3, 0, 1)
    x, mask = made.padded(), made.mask()
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert torch.equal(x[mask], made.rows_PD)
    assert not x[~mask].any()
    nobody = rows(0, 0)
    assert nobody.padded().shape == (2, 1, 2)
    assert nobody.mask().tolist() == [[False], [False]]


def test_rows_of_bags_by_place_in_the_mean_and_joined():
    made = rows(3, 0, 1)
    a, _, c = made.each()
    torch.testing.assert_close(made.means(), torch.stack([a.mean(0), torch.zeros(2), c[0]]))
    at = made.at(torch.tensor([[2, 0], [0, 1], [0, 5]]))
    assert torch.equal(at[0], a[[2, 0]])
    assert torch.equal(at[2, 0], c[0])
    assert at.isfinite().all()
    both = made.and_then(rows(1, 2, 0))
    assert both.lengths == (4, 2, 1)
    assert torch.equal(both.rows_PD[:3], a)
    assert torch.equal(both.rows_PD[-1:], c)
    nobody = rows(0, 0).at(torch.zeros(2, 3, dtype=torch.int64))
    assert nobody.shape == (2, 3, 2)
    assert not nobody.any()


def test_tokens_are_filled_up_when_they_are_asked_for():
    made = rows(3, 1)
    kept = Encoded.of_bags(made, torch.zeros(2, 2))
    assert "tokens_BLD" not in kept.keys()  # noqa: SIM118  (what ZeRO-3 walks over)
    assert torch.equal(kept["tokens_BLD"], made.padded())
    padded = Encoded(kept["tokens_BLD"], kept["mask_BL"], kept["pooled_BD"])
    for encoded in (kept, padded):
        assert encoded.bags().lengths == (3, 1)
        assert torch.equal(encoded.bags().rows_PD, made.rows_PD)
    with pytest.raises(KeyError, match="maps"):
        kept["maps"]


def test_tokens_that_all_samples_have_stand_behind_those_of_bags():
    made, more = rows(3, 1), torch.full((2, 2, 2), 7.0)
    known = torch.tensor([[True, False], [True, True]])
    encoded = Encoded.of_bags(made, torch.zeros(2, 2), diagnostics={"gate": torch.ones(2)}, behind=(more, known))
    tokens, mask = encoded["tokens_BLD"], encoded["mask_BL"]
    assert mask.tolist() == [[True, True, True, True, False], [True, False, False, True, True]]
    assert torch.equal(tokens[:, 3:], more)
    assert encoded["diagnostics"]["gate"].tolist() == [1, 1]
    together = encoded.bags()
    assert together.lengths == (4, 3)
    assert torch.equal(together.rows_PD, tokens[mask])


def test_collated_bags_are_filled_up_in_every_field_and_know_their_length():
    made = [
        Sample({"patches": np.full((n, 2), n, np.float16), "masked": np.ones(n, bool)}, {"patches": True})
        for n in (3, 1)
    ]
    stacked = filled(made, ("patches", "masked")).stacked
    assert stacked["patches"][:, :, 0].tolist() == [[3, 3, 3], [1, 0, 0]]
    assert stacked["patches"].dtype == np.float16
    assert stacked["masked"].tolist() == [[True] * 3, [True, False, False]]
    assert [int(s.arrays["length"]) for s in made] == [3, 1]
    assert filled(made[:1], ("patches",)) == made[:1]
    assert filled(made[:1] * 2, ("patches",))[0] is made[0], "bags of one length stay as they are"


def test_rows_are_counted_within_alone():
    computes(5, 5)
    with counting_rows() as a:
        computes(4, 3)
        with counting_rows() as b:
            computes(2, 2)
        computes(4, 3)
    assert (a.computed, a.real, b.computed, b.real) == (8, 6, 2, 2)


# --------------------------------------------------------------------------------------------------------------- the systems


def tuned(name: str):
    options = {**small_options(name), **without_dropout(get_method(name))}
    return slides.tuned(slides.build(name, **options), slides.BINARY)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_rows_that_are_counted_are_those_that_layers_see(name):
    """Over a batch of very different bags: no linear layer and no convolution gets a row of padding."""
    model, seen = tuned(name), {}

    def note(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        per_row = given[0].shape[1] if isinstance(module, nn.Conv2d) else given[0].shape[-1]
        seen[module] = seen.get(module, 0) + given[0].numel() // per_row

    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(note)
    batch = slides.batch_of(slides.bags(LENGTHS), float("nan"), [0, 1, 0, 1])
    with counting_rows() as counted:
        model(batch)
    assert counted.real == sum(LENGTHS)
    assert counted.computed == sum(LENGTHS)
    assert counted.computed <= max(seen.values()) <= MORE * counted.computed


@pytest.mark.parametrize("name", [n for n in SYSTEMS if issubclass(get_method(n), FusedMethod)])
def test_nothing_is_computed_of_a_slide_whose_answer_lacks_its_genes(name):
    method = tuned(name).encoder
    batch = slides.batch_of(slides.bags(LENGTHS), float("nan"))
    whole = method.encode(batch)["pooled_BD"]
    batch.present["rna"][0] = False
    with counting_rows() as counted:
        encoded = method.encode(batch)
    assert (counted.computed, counted.real) == (sum(LENGTHS[1:]), sum(LENGTHS[1:]))
    assert not encoded["mask_BL"][0].any()
    torch.testing.assert_close(encoded["pooled_BD"], torch.cat([torch.zeros_like(whole[:1]), whole[1:]]))


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_without_any_patch_has_gradients_for_all_parameters(name):
    model = tuned(name)
    batch = slides.batch_of(slides.bags((2, 1)), target=[0, 1])
    batch.present["patches"][:] = False
    model(batch).total.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, g in grads.items() if g is None or not g.isfinite().all()] == []


def test_the_benchmarks_lengths_are_those_of_real_slides_and_cost_no_padding():
    path = Path(__file__).parents[1] / "benchmarks" / "bags.py"
    spec = importlib.util.spec_from_file_location("bags_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    lengths = bench.lengths({**bench.DEFAULTS, "slides": 1000})
    assert lengths.min() == 485
    assert 100_000 < lengths.max() <= 148_569
    assert abs(np.log(lengths).mean() - np.log(8489)) < 0.01
    found = bench.measured(
        "attention_baseline", {**bench.DEFAULTS, "slides": 8, "batch": 4, "width": 4, "embed": 4, "longest": 1000}
    )
    assert found["padding"][0] == 0
    assert found["padding"][1] > 0.1
