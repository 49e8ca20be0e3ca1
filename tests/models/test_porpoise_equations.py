"""PORPOISE's fusion model written out, and against the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slides
import torch
from torch import nn


def linear(W, name, v):
    return W[f"{name}.weight"] @ v + W[f"{name}.bias"]


@pytest.mark.parametrize("conventions", ["recommended", "published"])
def test_slide_and_genes_are_encoded_apart_and_then_fused(conventions):
    method = slides.build("porpoise", conventions=conventions, fusion="concat").double()
    W = {n: p.detach() for n, p in method.named_parameters()}
    made = slides.bags((7, 1))
    batch = slides.batch_of([x.double() for x in made])
    pooled = method.encode(batch)["pooled_BD"]
    bend = torch.selu if conventions == "recommended" else nn.functional.elu
    for b, x in enumerate(made):
        h = [linear(W, "embed.1", v.double()).clamp_min(0) for v in x]
        score = [
            math.exp(
                linear(
                    W,
                    "attention.weigh",
                    linear(W, "attention.tanh", v).tanh() * linear(W, "attention.gate", v).sigmoid(),
                )
            )
            for v in h
        ]
        v1 = linear(W, "path.0", sum(s * v for s, v in zip(score, h, strict=True)) / sum(score)).clamp_min(0)
        v2 = bend(linear(W, "gene.layers.3", bend(linear(W, "gene.layers.0", method.genes(batch)[b]))))
        wanted = linear(W, "fusion.2", linear(W, "fusion.0", torch.cat([v1, v2])).clamp_min(0)).clamp_min(0)
        torch.testing.assert_close(pooled[b], wanted, rtol=1e-5, atol=1e-6)


def test_each_option_of_the_product_is_one_of_its_parts():
    fusion = {
        str(o): slides.build("porpoise", **o).fusion
        for o in (
            {},
            {"gate_path": False},
            {"gate_gene": False},
            {"skip": False},
            {"reduce": 4},
            {"fusion_dropout": 0.25},
        )
    }
    whole = fusion["{}"]
    assert whole.first.gate is not None
    assert whole.second.gate is not None
    assert whole.encoder1[0].in_features == 33 * 33
    assert whole.encoder2[0].in_features == 256 * 3
    assert fusion["{'gate_path': False}"].first.gate is None
    assert fusion["{'gate_gene': False}"].second.gate is None
    assert fusion["{'skip': False}"].encoder2[0].in_features == 256
    assert fusion["{'reduce': 4}"].encoder1[0].in_features == 65 * 65
    for made, p in ((whole, 0.0), (fusion["{'fusion_dropout': 0.25}"], 0.25)):
        assert [part[-1].p for part in (made.first.out, made.encoder1, made.encoder2)] == [0.25, p, p]


def test_the_gene_network_bends_as_conventions_say_and_the_option_overrides_them():
    for given, wanted in (
        ({}, nn.SELU),
        ({"conventions": "published"}, nn.ELU),
        ({"conventions": "published", "genes": {"act": "selu"}}, nn.SELU),
        ({"genes": {"act": "elu"}}, nn.ELU),
    ):
        assert isinstance(slides.build("porpoise", **given).gene.layers[1], wanted), given


# ------------------------------------------------------------------------------------------------------ the published code

PARTS = {
    "encoder.embed.1": "attention_net.1",
    "encoder.attention.tanh": "attention_net.4.attention_a.0",
    "encoder.attention.gate": "attention_net.4.attention_b.0",
    "encoder.attention.weigh": "attention_net.4.attention_c",
    "encoder.path.0": "rho.0",
    "encoder.gene.layers.0": "fc_omic.0.0",
    "encoder.gene.layers.3": "fc_omic.1.0",
    "head.out": "classifier_mm",
}
FUSION = {
    f"encoder.fusion.{side}.{a}": f"mm.linear_{b}{i}.0"
    for i, side in ((1, "first"), (2, "second"))
    for a, b in (("embed.0", "h"), ("gate", "z"), ("out.0", "o"))
} | {f"encoder.fusion.encoder{i}.0": f"mm.encoder{i}.0" for i in (1, 2)}
VARIANTS = [
    "mmf.bilinear.gates11.skip", "mmf.bilinear.gates11.noskip", "mmf.bilinear.gates00.skip", "mmf.bilinear.gates10.skip",
    "mmf.bilinear.gates01.skip", "mmf.concat.gates11.skip",
]  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("kind", VARIANTS)
def test_published_code_on_the_same_weights(kind, real_data: Path):
    gold = slides.golden(real_data, "porpoise")
    _, fusion, gates, skip = kind.split(".")
    options = {
        "conventions": "published", "genes": {"normalise": "none"}, "fusion": fusion, "skip": skip == "skip",
        "gate_path": gates[5] == "1", "gate_gene": gates[6] == "1",
    }  # fmt: skip
    genes = torch.from_numpy(gold.rule.normal("input.genes", (1, 40)))
    found = [v for v in gold.names if v.startswith(f"{kind}.c")]
    assert found
    for variant in found:
        K = int(variant[-1])
        model = slides.tuned(slides.build("porpoise", 64, 40, **options), slides.kinds(K))
        fused = FUSION if fusion == "bilinear" else {"encoder.fusion.0": "mm.0", "encoder.fusion.2": "mm.2"}
        names = {f"{a}.{w}": f"{b}.{w}" for a, b in {**PARTS, **fused}.items() for w in ("weight", "bias")}
        ours = dict(model.named_parameters())
        names = {a: b for a, b in names.items() if a in ours}
        slides.load(model, gold.weights(variant), names)
        for N in (30, 1):
            check(gold, model, names, variant, N, genes)


def check(gold, model, names, variant: str, N: int, genes) -> None:
    def batch(target=None):
        return slides.batch_of([gold.patches(N, 64)], target=target, genes=genes)

    gold.equal(model.logits(batch())[0], f"{variant}/n{N}/logits")
    for y in (0, 1):
        key = f"{variant}/n{N}/ce/y{y}"
        if key not in gold.numbers:
            continue
        terms, grads = slides.losses(model, batch([y]))
        gold.equal(terms["total"], key)
        for ours, theirs in names.items():
            if f"{key}/grad/{theirs}" in gold.numbers:
                gold.equal(grads[ours].norm(), f"{key}/grad/{theirs}", 1e-4)
