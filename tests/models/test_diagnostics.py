"""Numbers of heads and encoders that are watched and are no losses: averaged over what counts, and no part of what is minimised."""

from __future__ import annotations

import math

import pytest
import slides
import torch

from models.contract import HeadOutput
from models.finetuned import Downstream, watched
from models.methods.slides.clam import Clam

CLAM = {"embed": 7, "hidden": 4, "k": 3, "dropout": 0.0, "attention_dropout": 0.0}
FUSED = {
    "pathomic_fusion": {"embed": 8, "hidden": 4, "vector": 6, "width": 5, "gate_image": True, "dropout": 0.0},
    "porpoise": {"reduce": 64, "dropout": 0.0, "input_dropout": 0.0},
    "mcat": {"width": 8, "heads": 2, "inner": 8, "layers": 1, "contiguous": 2, "dropout": 0.0, "fusion": "bilinear"},
}


def test_means_are_over_the_samples_that_count_and_have_a_number():
    nan = math.nan
    found = {"a": torch.tensor([1.0, 3.0, 100.0, nan]), "none": torch.full((4,), nan)}
    values, counts = watched(found, torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert {n: float(v) for n, v in values.items()} == {"a": 2.0, "none": 0.0}
    assert {n: float(v) for n, v in counts.items()} == {"a": 2.0, "none": 0.0}
    assert not values["a"].requires_grad


def test_what_is_watched_is_without_gradient_and_in_no_total():
    x = torch.ones(2, requires_grad=True)
    with_it = HeadOutput(x[:, None], diagnostics={"gate": x * 5})
    assert not with_it["diagnostics"]["gate"].requires_grad
    terms, total = with_it.losses(x.sum())
    assert list(terms) == ["task"]
    assert float(total.detach()) == 2.0


def literal_accuracy(model: Downstream, x: torch.Tensor, y: int) -> float:
    """Share of the picked patches of a bag of class y that the classifiers of patches put where they belong."""
    head, o, right = model.head, model.encoder.options, []
    h = model.encoder.encode(slides.batch_of([x]))["tokens_BLD"][0]
    score = head.attention(h[None])[0]
    k = min(o.k, len(h) // 2)
    for c, judge in enumerate(head.instance):
        order = score[:, c if o.branches == "multi" else 0].argsort().tolist()
        said = [int(judge(v).argmax()) for v in h]
        high, low = order[-k:] if k else [], order[:k]
        if c == y:
            right += [said[i] == 1 for i in high] + [said[i] == 0 for i in low]
        elif o.subtyping:
            right += [said[i] == 0 for i in high]
    return sum(right) / len(right) if right else math.nan


@pytest.mark.parametrize("subtyping", [True, False])
@pytest.mark.parametrize("branches", ["single", "multi"])
def test_clams_instance_accuracy(branches, subtyping):
    """A bag of one patch has no instances, an unknown class neither: neither counts."""
    model, made = (
        slides.tuned(slides.build("clam", **CLAM, branches=branches, subtyping=subtyping), slides.kinds(2)),
        slides.bags(),
    )
    y = [0.0, 1.0, 1.0, 0.0]
    each = [literal_accuracy(model, x, int(c)) for x, c in zip(made, y, strict=True)]
    assert math.isnan(each[-1])
    out = model(slides.batch_of(made, math.nan, y))
    assert float(out.diagnostics["instance_accuracy"]) == pytest.approx(sum(each[:3]) / 3)
    assert float(out.counts["instance_accuracy"]) == 3
    out = model(slides.batch_of(made, math.nan, [0.0, math.nan, 1.0, 0.0]))
    assert float(out.diagnostics["instance_accuracy"]) == pytest.approx((each[0] + each[2]) / 2)
    assert set(out.losses) == {"task", "instance"}
    torch.testing.assert_close(out.total, 0.7 * out.losses["task"] + 0.3 * out.losses["instance"])


def test_dsmils_critical_patches():
    model, made = slides.tuned(slides.build("dsmil", query=4), slides.kinds(3)), slides.bags()
    *_, weight, critical = model.head.streams(model.encoder.encode(slides.batch_of(made)))
    each = [sum(float(weight[b, critical[b, j], j]) for j in range(3)) / 3 for b in range(len(made))]
    out = model(slides.batch_of([*made, made[0][:0]], math.nan, [0, 1, 2, 1, 0]))
    assert float(out.diagnostics["critical_attention"]) == pytest.approx(sum(each) / len(each))
    assert each[-1] == pytest.approx(1.0), "a bag of one patch is that patch"


@pytest.mark.parametrize("name", FUSED)
def test_gates_of_fused_systems(name):
    """Between 0 and 1; of samples that have both slide and genes."""
    model, made = slides.tuned(slides.build(name, **FUSED[name]), slides.BINARY), slides.bags()
    out = model(slides.batch_of(made, math.nan, [0, 1, 0, 1]))
    gates = {n: float(v) for n, v in out.diagnostics.items()}
    assert set(gates) == {"gate_slide", "gate_genes"}
    assert all(0 < v < 1 for v in gates.values())
    gap = model(slides.batch_of([*made, made[0][:0]], math.nan, [0, 1, 0, 1, 0]))
    assert {n: float(v) for n, v in gap.diagnostics.items()} == pytest.approx(gates)
    assert {float(c) for c in gap.counts.values()} == {4.0}


def test_a_side_without_a_gate_has_none_to_watch():
    model = slides.tuned(
        slides.build("pathomic_fusion", **{**FUSED["pathomic_fusion"], "gate_image": False}), slides.BINARY
    )
    assert set(model(slides.batch_of(slides.bags(), 0.0, [0, 1, 0, 1])).diagnostics) == {"gate_genes"}


def test_without_instance_losses_there_is_nothing_to_watch():
    model = slides.tuned(slides.build("clam", **CLAM, inst_loss="none"), slides.BINARY)
    assert isinstance(model.encoder, Clam)
    assert not model(slides.batch_of(slides.bags(), 0.0, [0, 1, 0, 1])).diagnostics
