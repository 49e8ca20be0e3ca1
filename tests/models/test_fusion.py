"""The product fusion of PORPOISE, MCAT and Pathomic Fusion, number by number."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from models.layers.fusion import JoinFusion, KroneckerFusion, Side, normal_by_fan_in


def linear(W, name, v):
    return W[f"{name}.weight"] @ v + W[f"{name}.bias"]


def literal_gate(W, name, pair, bilinear):
    if not bilinear:
        return linear(W, f"{name}.gate", torch.cat(pair))
    K, b = W[f"{name}.gate.weight"], W[f"{name}.gate.bias"]
    return torch.stack([pair[0] @ K[k] @ pair[1] + b[k] for k in range(len(b))])


def literal_side(W, name, own, pair, side, bilinear, embedded):
    h = linear(W, f"{name}.embed.0", own).clamp_min(0) if side.gated or embedded else own
    if side.gated:
        h = literal_gate(W, name, pair, bilinear).sigmoid() * h
    return [*linear(W, f"{name}.out.0", h).clamp_min(0).tolist(), 1.0]


@pytest.mark.parametrize("skip", ["none", "inputs", "outputs"])
@pytest.mark.parametrize(("bilinear", "embedded"), [(False, True), (True, False)])
@pytest.mark.parametrize("gates", list(itertools.product([True, False], repeat=2)))
def test_the_product_of_both_sides_with_their_ones(gates, bilinear, embedded, skip):
    torch.manual_seed(0)
    first, second = (Side(w, w // 2 if g or embedded else w, g) for w, g in zip((6, 4), gates, strict=True))
    fusion = KroneckerFusion(first, second, 5, skip, bilinear, embedded, 0.0).double()
    W = {n: p.detach() for n, p in fusion.named_parameters()}
    v1, v2 = torch.randn(2, 6).double(), torch.randn(2, 4).double()
    for b, (found, opened) in enumerate(zip(*fusion(v1, v2), strict=True)):
        pair = v1[b], v2[b]
        o1 = literal_side(W, "first", v1[b], pair, first, bilinear, embedded)
        o2 = literal_side(W, "second", v2[b], pair, second, bilinear, embedded)
        x = linear(W, "encoder1.0", torch.tensor([a * c for a in o1 for c in o2]).double()).clamp_min(0)
        joined = {"none": [], "inputs": [*pair], "outputs": [torch.tensor(o1).double(), torch.tensor(o2).double()]}
        wanted = linear(W, "encoder2.0", torch.cat([x, *joined[skip]])).clamp_min(0)
        torch.testing.assert_close(found, wanted)
        for name, own, gated, got in zip(("first", "second"), pair, gates, opened.tolist(), strict=True):
            z = literal_gate(W, name, pair, bilinear) if gated else None
            assert got == pytest.approx(float(z.sigmoid().mean()) if z is not None else math.nan, nan_ok=True), own


def test_the_other_fusion_joins_and_maps_twice():
    torch.manual_seed(0)
    fusion, v1, v2 = JoinFusion((3, 2), 4), torch.randn(2, 3), torch.randn(2, 2)
    W = {n: p.detach() for n, p in fusion.named_parameters()}
    for b, found in enumerate(fusion(v1, v2)[0]):
        wanted = linear(W, "2", linear(W, "0", torch.cat([v1[b], v2[b]])).clamp_min(0)).clamp_min(0)
        torch.testing.assert_close(found, wanted)


def test_pathomic_fusion_starts_by_the_number_of_inputs():
    torch.manual_seed(0)
    fusion = KroneckerFusion(Side(64, 32, True), Side(64, 32, True), 64, "none", bilinear=True)
    before = fusion.first.gate.weight.clone()
    normal_by_fan_in(fusion)
    assert torch.equal(fusion.first.gate.weight, before)
    big = fusion.encoder1[0]
    assert abs(big.weight.std().item() * big.in_features**0.5 - 1) < 0.02
    assert not big.bias.any()
