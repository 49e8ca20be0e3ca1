"""DSMIL against section 3.2 of Li et al. 2021, written out instance by instance, and against the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slides
import torch

from models.contract import TargetSpec

SMALL = {"query": 4}


def literal(model, x):
    """Outputs of the bag and of the critical instances of one bag, in double precision, sum by sum."""
    W = {n: p.detach().double() for n, p in model.named_parameters()}
    x, K = x.double(), model.question.outputs

    def linear(name, v):
        return W[f"{name}.weight"] @ v + W[f"{name}.bias"]

    if model.encoder.options.nonlinear:
        q = [linear("encoder.query.2", linear("encoder.query.0", v).clamp_min(0)).tanh() for v in x]
    else:
        q = [linear("encoder.query", v) for v in x]
    values = [linear("encoder.value.1", v).clamp_min(0) for v in x] if model.encoder.options.pass_v else list(x)
    c = [linear("head.instance", v) for v in x]
    highest, means = [], []
    for j in range(K):
        m = max(range(len(x)), key=lambda i: float(c[i][j]))
        highest.append(c[m][j])
        share = [math.exp(float(q[i] @ q[m]) / math.sqrt(len(q[m]))) for i in range(len(x))]
        means.append(sum(s * v for s, v in zip(share, values, strict=True)) / sum(share))
    return linear("head.bag", torch.cat(means)), torch.stack(highest)


@pytest.mark.parametrize("target", [slides.BINARY, slides.kinds(3)], ids=["one", "three"])
@pytest.mark.parametrize(("nonlinear", "pass_v"), [(True, False), (False, True)])
def test_both_streams_are_those_of_the_paper(nonlinear, pass_v, target):
    model = slides.tuned(slides.build("dsmil", nonlinear=nonlinear, pass_v=pass_v, **SMALL), target)
    made = slides.bags()
    bag, highest, weight, _ = model.head.streams(model.encoder.encode(slides.batch_of(made)))
    for b, x in enumerate(made):
        wanted = literal(model, x)
        torch.testing.assert_close(bag[b].double(), wanted[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(highest[b].double(), wanted[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weight[b].sum(0), torch.ones(target.outputs))
        assert not weight[b, len(x) :].any()


@pytest.mark.parametrize("conventions", ["recommended", "published"])
@pytest.mark.parametrize("target", [slides.BINARY, slides.kinds(2)], ids=["one", "two"])
def test_bags_of_any_length_stand_for_themselves(target, conventions):
    model = slides.tuned(slides.build("dsmil", conventions=conventions, **SMALL), target)
    slides.check_bags(model, lambda i: i % 2)
    slides.check_missing(model)


def test_padding_is_never_the_critical_instance():
    """All answers are below 0, which is what padding of zeros would give."""
    model = slides.tuned(slides.build("dsmil", **SMALL), slides.BINARY)
    model.head.instance.bias.data.fill_(-50.0)
    model.head.instance.weight.data.fill_(0.1)
    made = [-x.abs() for x in slides.bags()]
    _, highest, _, critical = model.head.streams(model.encoder.encode(slides.batch_of(made)))
    assert all(int(i) < len(x) for i, x in zip(critical[:, 0], made, strict=True))
    torch.testing.assert_close(highest[:, 0], torch.stack([(0.1 * x.sum(1) - 50).max() for x in made]))


def test_half_the_loss_is_the_bags_and_half_the_highest_instances():
    made, y = slides.bags((4, 3)), [2.0, 0.0]
    for conventions in ("recommended", "published"):
        model = slides.tuned(slides.build("dsmil", conventions=conventions, **SMALL), slides.kinds(3))
        batch = slides.batch_of(made, target=y)
        bag, highest, _, _ = model.head.streams(model.encoder.encode(batch))
        if conventions == "recommended":
            each = [-s.log_softmax(1)[range(2), [2, 0]].mean() for s in (bag, highest)]
        else:
            hot = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
            each = [-(hot * s.sigmoid().log() + (1 - hot) * (-s).sigmoid().log()).mean() for s in (bag, highest)]
        terms, _ = slides.losses(model, batch)
        torch.testing.assert_close(terms["total"], (each[0] + each[1]).detach() / 2)
        torch.testing.assert_close(terms["max"], each[1].detach())


def test_numbers_are_learned_on_their_own_scale_by_both_streams():
    asked = TargetSpec("regression", 1, ("age",), mean_K=(50.0,), std_K=(10.0,))
    model, made = slides.tuned(slides.build("dsmil", **SMALL), asked), slides.bags((4, 3))
    batch = slides.batch_of(made, target=[40.0, 70.0])
    bag, highest, _, _ = model.head.streams(model.encoder.encode(batch))
    z = torch.tensor([[-1.0], [2.0]])
    terms, _ = slides.losses(model, batch)
    torch.testing.assert_close(terms["task"], (bag - z).square().mean().detach())
    torch.testing.assert_close(terms["max"], (highest - z).square().mean().detach())


def test_first_weights_are_orthogonal():
    model = slides.tuned(slides.build("dsmil", **SMALL), slides.kinds(3))
    for W in (model.encoder.query[0].weight, model.head.bag.weight):
        torch.testing.assert_close(W @ W.T, torch.eye(len(W)), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
@pytest.mark.parametrize("value", ["v", "identity"])
@pytest.mark.parametrize("kind", ["nonlinear", "linear"])
@pytest.mark.parametrize("C", [1, 2])
def test_published_code_on_the_same_weights(C, kind, value, real_data: Path):
    folder = real_data.parent / "parity" / "slides"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    gold, variant = slides.Golden(folder, "dsmil"), f"c{C}.{kind}.{value}"
    options = {"conventions": "published", "nonlinear": kind == "nonlinear", "pass_v": value == "v"}
    # Two yes-or-no answers: as findings, so that "neither" can be asked too.
    asked = slides.BINARY if C == 1 else TargetSpec("multilabel", 2, ("a", "b"))
    model = slides.tuned(slides.build("dsmil", 64, **options), asked)
    parts = {"head.instance": "i_classifier.fc.0", "head.bag": "b_classifier.fcc"}
    parts |= (
        {f"encoder.query.{i}": f"b_classifier.q.{i}" for i in (0, 2)}
        if kind == "nonlinear"
        else {"encoder.query": "b_classifier.q"}
    )
    parts |= {"encoder.value.1": "b_classifier.v.1"} if value == "v" else {}
    names = {f"{a}.{w}": f"{b}.{w}" for a, b in parts.items() for w in ("weight", "bias")}
    slides.load(model, gold.weights(variant), names)
    for N in (20, 2, 1):
        key, batch = f"{variant}/n{N}", slides.batch_of([gold.patches(N, 64)])
        bag, highest, weight, critical = model.head.streams(model.encoder.encode(batch))
        for found, name in (
            (bag, "bag_logits"),
            (highest, "max_logits"),
            (weight, "attention"),
            (critical, "critical"),
        ):
            gold.equal(found, f"{key}/{name}")
        gold.equal(model.scores(batch)[0], f"{key}/score")
        labels = sorted({k.split("/")[2] for k in gold.numbers if k.startswith(f"{key}/y")})
        assert len(labels) == C + 1
        for label in labels:
            batch["target"] = torch.tensor([[float(bit) for bit in label[1:]]])
            terms, grads = slides.losses(model, batch)
            for found, name in ((terms["task"], "loss_bag"), (terms["max"], "loss_max"), (terms["total"], "loss")):
                gold.equal(found, f"{key}/{label}/{name}")
            for ours, theirs in names.items():
                gold.equal(grads[ours].norm(), f"{key}/{label}/grad/{theirs}", 1e-4)
