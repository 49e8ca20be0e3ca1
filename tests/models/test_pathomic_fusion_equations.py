"""Pathomic Fusion's vectors, and its fusion against the published code's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import slides
import torch
from torch import nn

from models.contract import MethodError
from models.registry import get_method


def test_image_and_genes_are_vectors_that_are_fused():
    method = slides.build("pathomic_fusion", conventions="published", embed=5, hidden=4)
    made = slides.bags((7, 1))
    batch = slides.batch_of(made)
    pooled = method.encode(batch)["pooled_BD"]
    assert pooled.shape == (2, 64)
    for b, x in enumerate(made):
        h = method.embed(x)
        score = method.attention(h[None])[0, :, 0].softmax(0)
        image = (method.image[0].weight @ (score @ h) + method.image[0].bias).clamp_min(0)
        gene = method.genes(batch)[b]
        for layer in method.gene.layers[::3]:
            gene = nn.functional.elu(layer.weight @ gene + layer.bias)
        torch.testing.assert_close(pooled[b], method.fused(image[None], gene[None])[0], rtol=1e-4, atol=1e-5)
    assert [layer.out_features for layer in method.gene.layers[::3]] == [64, 48, 32, 32]


def test_a_side_without_its_gate_keeps_its_width():
    cls = get_method("pathomic_fusion")
    with pytest.raises(MethodError) as told:
        cls(cls.Options(gate_image=False, reduce_image=2, gate_gene=False, reduce_gene=2), slides.schema())
    assert len(told.value.problems) == 2
    assert "set method.reduce_image=1 or method.gate_image=true" in str(told.value)
    method = slides.build("pathomic_fusion")
    assert method.fusion.first.gate is None
    assert method.fusion.encoder1[0].in_features == 33 * 17


# ------------------------------------------------------------------------------------------------------ the published code

SETTINGS = {
    "grad.official": {},
    "surv.official": {"gate_image": True, "gate_gene": False, "reduce_gene": 1},
    "c2.like_grad": {},
    "c2.both_gates_skip": {"gate_image": True, "reduce_gene": 1, "skip": True},
    "c2.linear_gate": {"bilinear": False, "gate_image": True, "reduce_gene": 1},
}
FUSION = {
    f"fusion.{side}.{a}": f"fusion.linear_{b}{i}"
    for i, side in ((1, "first"), (2, "second"))
    for a, b in (("embed.0", "h"), ("gate", "z"), ("out.0", "o"))
}


def theirs(ours: str, bilinear: bool) -> str:
    """The published name of a part: all but bilinear gates stand in a sequence."""
    name = FUSION.get(ours) or ours.replace("gene.layers.", "omic_net.encoder.").replace("out", "classifier")
    if name.startswith("omic_net"):
        return f"omic_net.encoder.{int(name.rsplit('.', 1)[1]) // 3}.0"
    return name if name.endswith(".0") or ("_z" in name and bilinear) else f"{name}.0"


@pytest.mark.real
@pytest.mark.parametrize("variant", list(SETTINGS))
def test_published_code_on_the_same_weights(variant, real_data: Path):
    gold = slides.golden(real_data, "pathomic_fusion")
    options = {"conventions": "published", "genes": {"normalise": "none"}, **SETTINGS[variant]}
    method = slides.build("pathomic_fusion", 64, 80, **options)
    weights = gold.weights(variant)
    K = len(weights["classifier.0.bias"])
    # The published image part is one vector; here everything behind it is compared.
    net = nn.ModuleDict({"fusion": method.fusion, "gene": method.gene, "out": nn.Linear(64, K)})
    names = {
        n: f"{theirs(n.rsplit('.', 1)[0], method.options.bilinear)}.{n.rsplit('.', 1)[1]}"
        for n, _ in net.named_parameters()
    }
    slides.load(net, weights, names)
    for B in (6, 1):
        key = f"{variant}/b{B}"
        genes = torch.from_numpy(gold.rule.normal("input.genes", (B, 80)))
        image = torch.from_numpy(gold.rule.normal("input.path_vector", (B, 32))).abs()
        net.zero_grad(set_to_none=True)
        features = method.fused(image, method.gene(genes)[0])
        gold.equal(features, f"{key}/features")
        logits = net["out"](features)
        label = torch.arange(B) % K
        if K == 1:
            gold.equal(6 * logits.sigmoid() - 3, f"{key}/out")
            loss = cox(6 * logits[:, 0].sigmoid() - 3, gold, B)
            gold.equal(loss, f"{key}/cox")
        else:
            gold.equal(logits.log_softmax(1), f"{key}/out")
            loss = nn.functional.cross_entropy(logits, label)
            gold.equal(loss, f"{key}/nll")
        loss.backward()
        known = [
            (a, k) for a, b in names.items() for k in gold.numbers if k.startswith(key) and k.endswith(f"grad/{b}")
        ]
        assert bool(known) is (B == 6)
        for ours, full in known:
            gold.equal(net.get_parameter(ours).grad.norm(), full, 1e-4)


def cox(risk, gold, B: int):
    """Ours, over the events, brought to the published mean over the batch."""
    from models.losses.finetune import cox as of_events

    time = torch.from_numpy(gold.rule.normal("input.time", (B,))).abs() * 100
    event = torch.tensor([1.0, 0, 1, 1, 0, 1])[:B]
    target = torch.stack([time, event], 1)
    return of_events(risk, target, torch.ones(B), "breslow") * event.sum() / B
