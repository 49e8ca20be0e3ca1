"""ABMIL against eq. 7 to 9 of Ilse et al. 2018, written out instance by instance, and against the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slides
import torch

from models.contract import MethodError, Schema
from models.methods.slides.abmil import ClampedHead
from models.registry import get_method

SMALL = {"embed": 7, "hidden": 4}


def literal(method, x):
    """z of one bag in double precision, sum by sum."""
    W = {n: p.detach().double() for n, p in method.named_parameters()}
    h = [(W["embed.0.weight"] @ v.double() + W["embed.0.bias"]).clamp_min(0) for v in x]
    score = []
    for v in h:
        a = (W["attention.tanh.weight"] @ v + W["attention.tanh.bias"]).tanh()
        if method.options.gated:
            a = a / (1 + (-(W["attention.gate.weight"] @ v + W["attention.gate.bias"])).exp())
        score.append(math.exp(float(W["attention.weigh.weight"][0] @ a)))
    return sum(s * v for s, v in zip(score, h, strict=True)) / sum(score)


@pytest.mark.parametrize("gated", [False, True])
def test_the_bag_is_the_weighted_mean_of_its_embedded_patches(gated):
    method = slides.build("abmil", gated=gated, **SMALL)
    made = slides.bags()
    pooled = method.encode(slides.batch_of(made))["pooled_BD"]
    for x, z in zip(made, pooled, strict=True):
        torch.testing.assert_close(z.double(), literal(method, x), rtol=1e-5, atol=1e-6)


def test_features_as_they_are_and_equal_shares():
    method = slides.build("abmil", embed=None, hidden=3)
    method.attention.weigh.weight.data.zero_()
    [x] = slides.bags((5,))
    torch.testing.assert_close(method.encode(slides.batch_of([x]))["pooled_BD"][0], x.mean(0))
    assert {n.split(".")[0] for n, _ in method.named_parameters()} == {"attention"}


@pytest.mark.parametrize("conventions", ["recommended", "published"])
@pytest.mark.parametrize("gated", [False, True])
def test_bags_of_any_length_stand_for_themselves(gated, conventions):
    model = slides.tuned(slides.build("abmil", gated=gated, conventions=conventions, **SMALL), slides.BINARY)
    slides.check_bags(model, lambda i: i % 2)
    slides.check_missing(model)


def test_repeated_patches_change_nothing():
    method, [x] = slides.build("abmil", **SMALL), slides.bags((4,))
    one, twice = (method.encode(slides.batch_of([b]))["pooled_BD"] for b in (x, torch.cat([x, x])))
    torch.testing.assert_close(one, twice)


def test_the_published_loss_has_no_gradient_beyond_its_clamp_and_the_recommended_one_has():
    """A bag that is wrong with certainty: logit 20 for the answer no."""
    for conventions, learns in (("published", False), ("recommended", True)):
        model = slides.tuned(slides.build("abmil", conventions=conventions, **SMALL), slides.BINARY)
        head = model.head.linear if isinstance(model.head, ClampedHead) else model.head
        head.out.weight.data.zero_()
        head.out.bias.data.fill_(20.0)
        terms, grads = slides.losses(model, slides.batch_of(slides.bags((3,)), target=[0.0]))
        torch.testing.assert_close(terms["total"], torch.tensor(20.0 if learns else -math.log(1e-5)), rtol=2e-3, atol=0)
        assert bool(next(g for n, g in grads.items() if n.endswith("out.bias")).any()) is learns


def test_an_unknown_answer_is_left_out_of_the_published_loss():
    model = slides.tuned(slides.build("abmil", conventions="published", **SMALL), slides.BINARY)
    made = slides.bags((4, 3))
    terms, grads = slides.losses(model, slides.batch_of(made, target=[1.0, math.nan]))
    alone, _ = slides.losses(model, slides.batch_of(made[:1], target=[1.0]))
    torch.testing.assert_close(terms["total"], alone["total"])
    assert all(g.isfinite().all() for g in grads.values())


def test_other_kinds_take_the_tasks_own_loss():
    model = slides.tuned(slides.build("abmil", conventions="published", **SMALL), slides.kinds(3))
    made = slides.bags((4, 3))
    terms, _ = slides.losses(model, slides.batch_of(made, target=[2, 0]))
    assert list(terms) == ["task", "total"]
    p = model.logits(slides.batch_of(made))[0].log_softmax(1)
    torch.testing.assert_close(terms["total"], -(p[0, 2] + p[1, 0]) / 2)


def test_patches_of_no_fixed_width_are_refused():
    cls = get_method("abmil")
    ragged = slides.schema().fields["patches"].__class__("patches", "array", "float16", (None, None))
    with pytest.raises(MethodError, match="no fixed width"):
        cls(cls.Options(), Schema({"patches": ragged}))


# ------------------------------------------------------------------------------------------------------ the published code

HERE_AND_THERE = {
    "attention": {"attention.tanh": "attention.0", "attention.weigh": "attention.2"},
    "gated": {"attention.tanh": "attention_V.0", "attention.gate": "attention_U.0", "attention.weigh": "attention_w"},
}


@pytest.mark.real
@pytest.mark.parametrize("N", [300, 7, 1])
@pytest.mark.parametrize("variant", ["attention", "gated"])
def test_published_code_on_the_same_weights(variant, N, real_data: Path):
    folder = real_data.parent / "parity" / "slides"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    gold = slides.Golden(folder, "abmil")
    options = {"conventions": "published", "embed": 500, "hidden": 128, "gated": variant == "gated"}
    model = slides.tuned(slides.build("abmil", 800, **options), slides.BINARY)
    parts = {
        "encoder.embed.0": "feature_extractor_part2.0",
        "head.linear.out": "classifier.0",
        **{f"encoder.{a}": b for a, b in HERE_AND_THERE[variant].items()},
    }
    names = {f"{a}.{w}": f"{b}.{w}" for a, b in parts.items() for w in ("weight", "bias")}
    slides.load(model, gold.weights(variant), names)
    x = gold.patches(N, 800)
    for y in (0, 1):
        key = f"{variant}/features/n{N}/y{y}"
        batch = slides.batch_of([x], target=[y])
        terms, grads = slides.losses(model, batch)
        gold.equal(model.scores(batch)[0], f"{key}/prob")
        gold.equal(terms["total"], f"{key}/loss")
        h_BNM = model.encoder.encode(batch)["tokens_BLD"]
        gold.equal(model.encoder.attention(h_BNM)[..., 0].softmax(1), f"{key}/attention")
        for ours, theirs in names.items():
            gold.equal(grads[ours].norm(), f"{key}/grad/{theirs}", 1e-4)
