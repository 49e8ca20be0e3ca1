"""The attention baseline: its size, and its pooling written out instance by instance."""

from __future__ import annotations

import math

import slides
import torch


def test_it_has_the_size_that_it_is_called_by():
    model = slides.tuned(slides.build("attention_baseline", 1024), slides.BINARY)
    assert 0.90e6 < sum(p.numel() for p in model.parameters()) < 0.93e6


def test_the_bag_is_the_weighted_mean_of_its_embedded_patches():
    method = slides.build("attention_baseline", embed=5, hidden=4)
    W = {n: p.detach().double() for n, p in method.named_parameters()}

    def linear(name, v):
        return W[f"{name}.weight"] @ v + W[f"{name}.bias"]

    made = slides.bags()
    pooled = method.encode(slides.batch_of(made))["pooled_BD"]
    for x, found in zip(made, pooled, strict=True):
        h = [linear("embed.0", v.double()).clamp_min(0) for v in x]
        score = [
            math.exp(
                linear("attention.weigh", linear("attention.tanh", v).tanh() * linear("attention.gate", v).sigmoid())
            )
            for v in h
        ]
        wanted = sum(s * v for s, v in zip(score, h, strict=True)) / sum(score)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
