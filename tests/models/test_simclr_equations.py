"""SimCLR against a few literal lines: the loss view by view, the head, which statistics are whose; and the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records, schema
from views_packs import Pack

from models.contract import Batch, MethodError
from models.heads.projection import ProjectionHead
from models.layers.batch_norm import counted
from models.losses.contrastive import chance, nt_xent, retrieval, view_pairs
from models.registry import get_method

CNN = {"kind": "resnet", "name": "resnet18", "image_size": 32}


def views(B: int = 5, C: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(B, C, generator=rng), torch.randn(B, C, generator=rng)


def literal(a, b, tau, real=None, patient=None, same="negative"):
    """Eq. 1, pair by pair: the mean over all views that count of -log(exp(s of its other view) / sum of exp(s of all candidates))."""
    B = len(a)
    real = [True] * B if real is None else real
    patient = list(range(B)) if patient is None else patient
    rows = [(i, v, (a, b)[v][i] / (a, b)[v][i].norm()) for v in (0, 1) for i in range(B) if real[i]]
    terms = []
    for i, v, z in rows:
        candidates = []
        for j, w, other in rows:
            relative = patient[j] == patient[i] and j != i
            if (j, w) == (i, v) or (relative and same == "ignore"):
                continue
            candidates.append((math.exp(float(z @ other) / tau), j == i or (relative and same == "positive")))
        whole = sum(e for e, _ in candidates)
        logs = [math.log(e / whole) for e, positive in candidates if positive]
        terms.append(-sum(logs) / len(logs))
    return sum(terms) / len(terms)


def ours(a, b, tau, real=None, patient=None, same="negative"):
    weight = torch.ones(len(a)) if real is None else torch.tensor(real).float()
    return view_pairs(a, b, 1 / tau, weight, torch.arange(len(a)) if patient is None else torch.tensor(patient), same)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_the_loss_is_eq_1_over_all_views(tau):
    a, b = views()
    assert nt_xent(ours(a, b, tau)).item() == pytest.approx(literal(a, b, tau), rel=1e-5)


@pytest.mark.parametrize("same", ["ignore", "positive", "negative"])
def test_images_of_one_patient_and_padding(same):
    a, b = views(6)
    real, patient = [True, True, False, True, True, True], [0, 1, 0, 0, 1, 2]
    found = ours(a, b, 0.2, real, patient, same)
    assert nt_xent(found).item() == pytest.approx(literal(a, b, 0.2, real, patient, same), rel=1e-5)
    kept = [0, 1, 3, 4, 5]
    alone = ours(a[kept], b[kept], 0.2, None, [patient[i] for i in kept], same)
    torch.testing.assert_close(nt_xent(found), nt_xent(alone))
    others = {literal(a, b, 0.2, real, patient, s) for s in ("ignore", "positive", "negative")}
    assert len(others) == 3, "the three must differ, or this test proves nothing"


def test_equal_vectors_are_at_chance_and_perfect_ones_find_each_other():
    a = torch.ones(7, 3)
    pairs = ours(a, a, 0.1)
    assert nt_xent(pairs).item() == pytest.approx(math.log(13), rel=1e-5)
    assert chance(pairs).item() == pytest.approx(math.log(13), rel=1e-5)
    assert build("simclr").chance(7) == {"contrastive": pytest.approx(math.log(13))}
    eye = torch.eye(7)
    perfect = ours(eye, eye, 0.05)
    assert nt_xent(perfect).item() == pytest.approx(math.log(1 + 12 * math.exp(-20)), abs=1e-6)
    assert retrieval(perfect)["top1_a_to_b"] == 1


def test_a_batch_of_one_image_has_a_finite_loss_and_gradient():
    a, b = (x.requires_grad_() for x in views(3))
    loss = nt_xent(ours(a, b, 0.1, [False, True, False]))
    loss.backward()
    assert loss.item() == 0
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert nt_xent(ours(a, b, 0.1, [False] * 3)).item() == 0


def test_the_head_is_linear_norm_relu_over_both_views():
    torch.manual_seed(0)
    head = ProjectionHead(5, 5, 3, std=0.01).train()
    x = torch.cat(views(6, 5))
    h = x
    for i in range(3):
        h = h @ head.layers[3 * i].weight.T
        h = (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()
        h = h.relu() if i < 2 else h
    torch.testing.assert_close(head(x), h, rtol=1e-3, atol=1e-5)
    names = {n for n, _ in head.named_parameters()}
    assert "layers.0.bias" not in names, "a norm follows"
    assert {"layers.7.weight"} == {n for n in names if n.startswith("layers.7")}, (
        "the last norm scales and does not shift"
    )
    assert 0.005 < head.layers[0].weight.std() < 0.02


@pytest.mark.parametrize(
    ("norm", "last", "biases", "norms"),
    [("batch", "scale", 0, 3), ("batch", "plain", 0, 3), ("batch", "none", 1, 2), ("none", "scale", 3, 0)],
)
def test_heads_of_other_systems(norm, last, biases, norms):
    head = ProjectionHead(4, 8, 2, 3, norm, last)
    linear = [m for m in head.layers if isinstance(m, torch.nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(8, 4), (8, 8), (2, 8)]
    assert sum(m.bias is not None for m in linear) == biases
    found = [m for m in head.layers if "BatchNorm" in type(m).__name__]
    assert len(found) == norms
    if norms == 3:
        assert found[-1].bias is None
        assert (found[-1].weight is None) == (last == "plain")
    assert head(torch.randn(6, 4)).shape == (6, 2)


def test_statistics_are_of_both_views_and_of_counted_images_alone():
    """What stands in the views of an absent image changes nothing; two passes, a view each, would be another system."""
    method, again = (build("simclr", image=CNN) for _ in range(2))
    for m in (method, again):
        m.enter("pretrain")
        m.train()
    data = batch(method, records(6, missing={2: ["image"]}))
    spoilt = Batch({k: v.clone() for k, v in data.items()}, data.present, data.weight_B)
    spoilt["views"][2] = 255
    a, b = method(data), again(spoilt)
    torch.testing.assert_close(a.total, b.total)
    for (n, x), (_, y) in zip(method.named_buffers(), again.named_buffers(), strict=True):
        torch.testing.assert_close(x, y, msg=n)
    x_NCHW, weight_B = method.stacked(data), method.weight(data)
    with counted(weight_B.repeat(2)):
        together = method.head(method.pooled(method.image.tokens(x_NCHW)))
    with counted(weight_B):
        apart = torch.cat([method.head(method.pooled(method.image.tokens(v))) for v in x_NCHW.chunk(2)])
    assert (together - apart).abs().max() > 0.1


def test_views_are_stacked_first_ones_first():
    method = build("simclr", normalise="unit")
    method.enter("pretrain")
    data = batch(method, records(3))
    x = method.stacked(data)
    torch.testing.assert_close(x[1], data["views"][1, 0].permute(2, 0, 1) / 255)
    torch.testing.assert_close(x[4], data["views"][1, 1].permute(2, 0, 1) / 255)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_pooled_is_the_class_token_or_the_mean_of_places(kind):
    small = {"cls_token": True, "dim": 16, "depth": 1, "heads": 2}
    method = build("simclr", image=CNN if kind == "resnet" else small).eval()
    data = batch(method, records(2, missing={1: ["image"]}))
    encoded = method.encode(data)
    tokens = encoded["tokens_BLD"][0]
    want = tokens[0] if kind == "vit" else tokens.mean(0)
    torch.testing.assert_close(encoded["pooled_BD"][0], want)
    assert not encoded["pooled_BD"][1].any()
    assert method.image_view().pool == ("token" if kind == "vit" else "avg")


def test_the_published_network_is_timms_resnet50():
    method = build(
        "simclr", image={"kind": "resnet", "name": "resnet50", "image_size": 64}, proj_dim=128, views="official"
    )
    method.enter("pretrain")
    assert method.head.layers[0].weight.shape == (2048, 2048)
    assert method.head.layers[6].weight.shape == (128, 2048)
    assert method.drawn.rules[0].blur == "window"
    out = method.train()(batch(method, records(4)))
    out.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_a_frozen_patch_embedding_stays_and_is_trained_when_deployed():
    method = build("simclr", freeze_patch=True)
    method.enter("pretrain")
    assert {n for n, p in method.named_parameters() if not p.requires_grad} == {
        "image.patch_embed.proj.weight",
        "image.patch_embed.proj.bias",
        "image.norm.bias",
    }
    method.enter("")
    assert all(p.requires_grad for n, p in method.named_parameters() if not n.startswith("head."))


def test_a_bias_that_the_batch_norm_takes_out_is_not_trained():
    """Its gradient would be rounding alone, which Adam makes steps of as long as any."""
    for norm, trained in (("batch", False), ("none", True)):
        method = build("simclr", head_norm=norm)
        method.enter("pretrain")
        method.train()
        method.image.norm.bias.requires_grad_(True)
        out = method(batch(method, records(6)))
        out.total.backward()
        share = method.image.norm.bias.grad.abs().max() / method.image.norm.weight.grad.abs().max()
        assert (share > 1e-3) == trained
        method.enter("pretrain")
        assert method.image.norm.bias.requires_grad == trained


def test_options_that_do_not_go_together_are_told_at_once():
    cls = get_method("simclr")
    with pytest.raises(MethodError) as raised:
        cls.Options.parse({"image": CNN, "freeze_patch": True, "crop_scale": [0.9, 0.2]})
    assert len(raised.value.problems) == 2
    assert "method.freeze_patch: method.image.kind=resnet has no patch embedding" in str(raised.value)
    assert "method.crop_scale" in str(raised.value)
    text = schema().fields["report"].__class__("image", "text")
    with pytest.raises(MethodError, match=r"field 'image'.*is text, not image"):
        cls(cls.Options(), schema().__class__({"image": text}))


def test_pictures_of_views():
    method = build("simclr")
    method.enter("pretrain")
    made = method.pictures(batch(method, records(3)))
    assert made["views"].shape == (96, 144, 3)
    assert made["similarity"].dtype == np.uint8


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path):
    pack = Pack(real_data, "simclr")
    a, b = (pack.image(f"input.view{v}", (6, 32)).requires_grad_() for v in (1, 2))
    # The published number adds the means of both kinds of view: twice ours.
    loss = 2 * nt_xent(ours(a, b, 0.1))
    loss.backward()
    pack.equal(loss, "loss_raw")
    pack.equal(torch.cat([a.grad, b.grad]), "grad_raw")

    head = ProjectionHead(32, 32, 16).train()
    place = {"dense": 0, "bn": 1}

    def here(name: str) -> str:
        _, layer, kind, leaf = name.split(".")
        return f"layers.{3 * int(layer) + place[kind]}.{leaf}"

    given = pack.weights()
    head.load_state_dict({**head.state_dict(), **{here(n): v for n, v in given.items()}})
    projected = head(torch.cat([a, b]).detach())
    pack.equal(projected, "projected")
    loss = 2 * nt_xent(ours(*projected.chunk(2), 0.1))
    pack.equal(loss, "loss_head")
    loss.backward()
    found = dict(head.named_parameters())
    checked = [n for n in given if f"grad:{n}" in pack.numbers]
    assert len(checked) >= 4
    for name in checked:
        pack.equal(found[here(name)].grad.norm(), f"grad:{name}")
    pack.equal(head.layers[1].running_mean, "after:head.0.bn.running_mean")
    # torch keeps the unbiased variance, TensorFlow the biased one: 12 values here.
    start = given["head.0.bn.running_var"]
    biased = (head.layers[1].running_var - 0.9 * start) * 11 / 12 + 0.9 * start
    pack.equal(biased, "after:head.0.bn.running_var")
