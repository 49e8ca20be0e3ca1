"""The attention of the package nystrom-attention 0.0.14, `LibraryAttention`, against the package's own numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import slides
import torch

from models.layers.attention import split_heads
from models.layers.nystrom import pseudo_inverse, segment_means
from models.layers.nystrom_library import LibraryAttention, fronted

LENGTHS = (16, 8, 4, 5, 13, 3, 1)
"""Multiples of the four landmarks, and lengths that get zeros in front."""


def package(gold: slides.Golden, variant: str) -> tuple[LibraryAttention, dict[str, str]]:
    layer = LibraryAttention(16, 2, 4, conv_kernel=33 if variant == "conv33" else None)
    names = {"qkv.weight": "to_qkv.weight", "out.weight": "to_out.0.weight", "out.bias": "to_out.0.bias"}
    if variant == "conv33":
        names["conv.weight_HK"] = "res_conv.weight"
    slides.load(layer, gold.weights(variant), names)
    return layer, names


def tokens(gold: slides.Golden, n: int, scale: float, name: str = "input.tokens") -> torch.Tensor:
    return torch.from_numpy(gold.rule.normal(name, (1, n, 16), scale))


@pytest.mark.real
@pytest.mark.parametrize("variant", ["conv33", "noconv"])
def test_outputs_of_any_length_are_the_packages(variant: str, real_data: Path) -> None:
    gold = slides.golden(real_data, "nystrom")
    layer, _ = package(gold, variant)
    for scale in (1, 8):
        for n in LENGTHS:
            gold.equal(layer(tokens(gold, n, scale)), f"{variant}/scale{scale}/n{n}/out")
    # The package starts the inverse of both from the larger of their norms; here each has what the package gives it alone.
    second = tokens(gold, 16, 24, "input.tokens.second")
    together = layer(torch.cat([tokens(gold, 16, 8), second]))
    gold.equal(together, f"{variant}/batch2/alone")
    assert (together - torch.from_numpy(gold.numbers[f"{variant}/batch2/out"])).abs().max() > 0.1


@pytest.mark.real
def test_its_inverse_is_the_packages(real_data: Path) -> None:
    gold = slides.golden(real_data, "nystrom")
    layer, _ = package(gold, "conv33")
    for scale in (1, 8):
        for n in LENGTHS:
            padded_1PC, _ = fronted(layer.qkv(tokens(gold, n, scale)), torch.tensor([n]), 4)
            q, k, _ = (segment_means(split_heads(x, 2), 4) for x in padded_1PC.chunk(3, -1))
            z = pseudo_inverse((q @ k.mT * 8**-0.5).softmax(-1), 6, heads_together=True)
            gold.equal(z, f"conv33/scale{scale}/n{n}/pinv", 5e-5)


@pytest.mark.real
def test_its_gradients_are_the_packages(real_data: Path) -> None:
    gold = slides.golden(real_data, "nystrom")
    layer, names = package(gold, "conv33")
    key = "conv33/scale1/n16"
    target = torch.from_numpy(gold.rule.normal("input.target", (1, 16, 16)))
    loss = (layer(tokens(gold, 16, 1)) * target).sum()
    loss.backward()
    gold.equal(loss, f"{key}/loss_dot_target")
    for ours, theirs in names.items():
        gold.equal(layer.get_parameter(ours).grad.norm(), f"{key}/grad/{theirs}", 1e-4)
