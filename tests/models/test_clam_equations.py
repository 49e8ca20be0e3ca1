"""CLAM's attention, bag and instance losses, written out bag by bag and class by class, and against the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import slides
import torch

from models.contract import TargetSpec
from models.losses.instances import two_way

SMALL = {"embed": 7, "hidden": 4, "k": 3, "dropout": 0.0, "attention_dropout": 0.0}


def row_loss(score, right, kind):
    """Of two scores, one row."""
    a, b = float(score[right]), float(score[1 - right])
    if kind == "ce":
        return -a + math.log(math.exp(a) + math.exp(b))
    return math.log(math.exp(b + 1 - a) + 1)


def literal(model, x, y):
    """Outputs of the classes and the instance loss of one bag of class y, in double precision."""
    o = model.encoder.options
    W = {n: p.detach().double() for n, p in model.named_parameters()}

    def linear(name, v):
        return W[f"{name}.weight"] @ v + W[f"{name}.bias"]

    h = [linear("encoder.embed.0", v.double()).clamp_min(0) for v in x]
    score = []
    for v in h:
        a = linear("head.attention.tanh", v).tanh()
        if o.gated:
            a = a * linear("head.attention.gate", v).sigmoid()
        score.append(linear("head.attention.weigh", a))
    C = 2 if model.question.kind == "binary" else model.question.outputs
    logits, total = [], 0.0
    k = min(o.k, len(h) if o.conventions == "published" else len(h) // 2)
    for c in range(C):
        branch = c if o.branches == "multi" else 0
        e = [math.exp(float(s[branch])) for s in score]
        M = sum(w * v for w, v in zip(e, h, strict=True)) / sum(e)
        logits.append(linear(f"head.bag.{c}", M)[0] if o.branches == "multi" else linear("head.bag", M)[c])
        if k == 0:
            continue
        order = sorted(range(len(h)), key=lambda i: e[i])
        judged = [linear(f"head.instance.{c}", v) for v in h]
        high = order[-k:]
        if c == y:
            rows = [row_loss(judged[i], 1, o.inst_loss) for i in high] + [
                row_loss(judged[i], 0, o.inst_loss) for i in order[:k]
            ]
            total += sum(rows) / (2 * k)
        elif o.subtyping:
            total += sum(row_loss(judged[i], 0, o.inst_loss) for i in high) / k
    return torch.stack(logits), total / C if o.subtyping else total, k > 0


CASES = [
    {"branches": "single", "gated": True, "inst_loss": "svm", "subtyping": True, "conventions": "recommended"},
    {"branches": "multi", "gated": False, "inst_loss": "ce", "subtyping": True, "conventions": "published"},
    {"branches": "single", "gated": False, "inst_loss": "ce", "subtyping": False, "conventions": "published"},
    {"branches": "multi", "gated": True, "inst_loss": "svm", "subtyping": False, "conventions": "recommended"},
]
every_case = pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())))
every_target = pytest.mark.parametrize("target", [slides.BINARY, slides.kinds(3)], ids=["binary", "three"])


@every_target
@every_case
def test_outputs_and_both_losses_are_those_of_the_paper(options, target):
    model, made = slides.tuned(slides.build("clam", **SMALL, **options), target), slides.bags()
    for y in range(2):
        batch = slides.batch_of(made, target=[y] * len(made))
        logits, (terms, _) = model.logits(batch)[0], slides.losses(model, batch)
        wanted = [literal(model, x, y) for x in made]
        for got, (each, _, _) in zip(logits, wanted, strict=True):
            each = each[1:] - each[:1] if target.kind == "binary" else each
            torch.testing.assert_close(got.double(), each, rtol=1e-5, atol=1e-6)
        have = [loss for _, loss, has in wanted if has]
        torch.testing.assert_close(float(terms["instance"]), sum(have) / len(have), rtol=1e-5, atol=1e-6)
        task = -torch.stack([each.log_softmax(0)[y] for each, _, _ in wanted]).mean()
        torch.testing.assert_close(
            float(terms["total"]), 0.7 * float(task) + 0.3 * float(terms["instance"]), rtol=1e-5, atol=1e-6
        )


@every_case
def test_bags_of_any_length_stand_for_themselves(options):
    """The mean of the instance term is over the bags that have one; here all have."""
    model = slides.tuned(slides.build("clam", **SMALL, **options), slides.kinds(2))
    slides.check_missing(model)
    if options["conventions"] == "published":
        slides.check_bags(model, lambda i: i % 2)
        return
    made = slides.bags()
    logits = model.logits(slides.batch_of(made, float("nan")))[0]
    for x, got in zip(made, logits, strict=True):
        torch.testing.assert_close(model.logits(slides.batch_of([x]))[0][0], got, rtol=1e-5, atol=1e-5)


def test_a_bag_of_one_patch_has_no_instance_loss_unless_as_published():
    for conventions, has in (("recommended", False), ("published", True)):
        model = slides.tuned(slides.build("clam", **SMALL, conventions=conventions), slides.kinds(2))
        terms, grads = slides.losses(model, slides.batch_of(slides.bags((1,)), target=[1.0]))
        assert bool(terms["instance"] > 0) is has
        assert all(g.isfinite().all() for g in grads.values())


def test_margins_are_smooth_near_and_hard_far():
    s = torch.tensor([[0.0, 0.5], [0.0, 20.0], [20.0, 0.0]])
    torch.testing.assert_close(two_way(s, True, "svm"), torch.tensor([math.log(1 + math.exp(0.5)), 0.0, 21.0]))
    torch.testing.assert_close(two_way(s, True, "ce"), -s.log_softmax(1)[:, 1])
    torch.testing.assert_close(two_way(s, False, "ce"), -s.log_softmax(1)[:, 0])


def test_unknown_classes_and_other_kinds_have_no_instance_term():
    made = slides.bags((6, 4))
    model = slides.tuned(slides.build("clam", **SMALL), slides.BINARY)
    terms, _ = slides.losses(model, slides.batch_of(made, target=[1.0, math.nan]))
    alone, _ = slides.losses(model, slides.batch_of(made[:1], target=[1.0]))
    torch.testing.assert_close(terms["instance"], alone["instance"])
    ordered = slides.tuned(slides.build("clam", **SMALL, branches="multi"), TargetSpec("ordinal", 3, ("1", "2", "3")))
    assert list(slides.losses(ordered, slides.batch_of(made, target=[1.0, 2.0]))[0]) == ["task", "total"]
    none = slides.tuned(slides.build("clam", **SMALL, inst_loss="none"), slides.BINARY)
    assert list(slides.losses(none, slides.batch_of(made, target=[1.0, 0.0]))[0]) == ["task", "total"]


def test_the_published_attention_drops_a_quarter_whenever_anything_is_dropped():
    for conventions, dropout, wanted in (("published", 0.1, 0.25), ("published", 0.0, 0.0), ("recommended", 0.1, 0.4)):
        options = {**SMALL, "conventions": conventions, "dropout": dropout, "attention_dropout": 0.4}
        assert slides.tuned(slides.build("clam", **options), slides.BINARY).head.attention.drop.p == wanted


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
@pytest.mark.parametrize("variant", [f"{b}.{v}" for b in ("sb", "mb") for v in ("c2.gated", "c2.plain", "c3.gated")])
def test_published_code_on_the_same_weights(variant, real_data: Path):
    folder = real_data.parent / "parity" / "slides"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    gold = slides.Golden(folder, "clam")
    branches, classes, attention = variant.split(".")
    modes = sorted(
        {k.split("/")[2] for k in gold.numbers if k.startswith(f"{variant}/n40/") and "." in k.split("/")[2]}
    )
    assert len(modes) == (4 if variant.endswith("c2.gated") else 2)
    for mode in modes:
        inst, kind = mode.split(".")
        options = {
            "conventions": "published", "branches": {"sb": "single", "mb": "multi"}[branches], "gated": attention == "gated",
            "dropout": 0.0, "inst_loss": inst, "subtyping": kind == "subtyping",
        }  # fmt: skip
        K = int(classes[1])
        model = slides.tuned(slides.build("clam", 64, **options), slides.kinds(K))
        names = published_names(branches, attention, K)
        slides.load(model, gold.weights(variant), names)
        for N in (40, 12, 8, 3, 1):
            check(gold, model, names, f"{variant}/n{N}", mode, K, N)


def published_names(branches: str, attention: str, K: int) -> dict[str, str]:
    net = "attention_net.3"
    parts = {
        "encoder.embed.0": "attention_net.0",
        **{f"head.instance.{c}": f"instance_classifiers.{c}" for c in range(K)},
    }
    if attention == "gated":
        own = {"tanh": "attention_a.0", "gate": "attention_b.0", "weigh": "attention_c"}
    else:
        own = {"tanh": "module.0", "weigh": "module.2"}
    parts |= {f"head.attention.{a}": f"{net}.{b}" for a, b in own.items()}
    parts |= (
        {"head.bag": "classifiers"} if branches == "sb" else {f"head.bag.{c}": f"classifiers.{c}" for c in range(K)}
    )
    return {f"{a}.{w}": f"{b}.{w}" for a, b in parts.items() for w in ("weight", "bias")}


def check(gold, model, names, key: str, mode: str, K: int, N: int) -> None:
    x = gold.patches(N, 64)
    batch = slides.batch_of([x])
    gold.equal(model.logits(batch)[0], f"{key}/logits")
    gold.equal(model.scores(batch)[0], f"{key}/prob")
    h_BND = model.encoder.encode(batch)["tokens_BLD"]
    gold.equal(model.head.attention(h_BND)[0].T, f"{key}/attention_raw")
    for y in range(K):
        terms, grads = slides.losses(model, slides.batch_of([x], target=[y]))
        here = f"{key}/{mode}/y{y}"
        for found, name in (
            (terms["task"], "loss_bag"),
            (terms["instance"], "loss_instance"),
            (terms["total"], "loss"),
        ):
            gold.equal(found, f"{here}/{name}")
        known = [ours for ours, theirs in names.items() if f"{here}/grad/{theirs}" in gold.numbers]
        assert bool(known) is (N in (40, 3))
        for ours in known:
            gold.equal(grads[ours].norm(), f"{here}/grad/{names[ours]}", 1e-4)
