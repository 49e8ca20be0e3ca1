"""C2L against a few literal lines: what is compared with what, the mix, the queue; and the published code's numbers."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import batch, build, records

from models.contract import Batch
from models.methods.contrastive.c2l import mixing
from models.transforms.cutout import holes
from trainer.engine.queues import enqueued, write

CNN = {"kind": "resnet", "name": "resnet18", "image_size": 32}


def started(**options):
    method = build("c2l", **options)
    method.enter("pretrain")
    return method.train()


def literal_nce(q, k, queue, tau):
    """-log( exp(q k / tau) / (exp(q k / tau) + sum over the queue) ), the mean over samples."""
    terms = []
    for a, b in zip(q, k, strict=True):
        own = math.exp(float(a @ b) / tau)
        terms.append(-math.log(own / (own + sum(math.exp(float(a @ n) / tau) for n in queue))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("image", [{}, CNN], ids=["vit", "resnet"])
def test_the_three_comparisons(image):
    method, again = (started(image=image, temperature=0.3) for _ in range(2))
    for m in (method, again):
        m.head.weight.data.mul_(3)  # student and teacher differ
    data = batch(method, records(5))
    out = method(data)
    x1, x2 = (torch.where(data["holes"][:, v, None] > 0, 0.0, again.pixels(data["views"][:, v])) for v in range(2))
    mix = mixing(data["mix"], data.weight_B)
    lam, pi = float(mix.share), mix.partner_G.tolist()
    assert 0.5 <= lam <= 1
    assert sorted(pi) == list(range(5))

    def n(x):
        return x / x.norm(dim=1, keepdim=True)

    def f(x):
        return again.head(again.pooled(again.image.tokens(x)))

    def t(x):
        return again.momentum_head(again.pooled(again.momentum_image.tokens(x)))

    with torch.no_grad():
        t2 = t(x2)
        q1, k1 = n(f(x1)), n(t2)
        qm, km = n(f(lam * x1 + (1 - lam) * x1[pi])), n(t(lam * x2 + (1 - lam) * x2[pi]))
        kf = n(lam * t2 + (1 - lam) * t2[pi])
    queue = again.queue_keys
    expected = [literal_nce(q, k, queue, 0.3) for q, k in ((q1, k1), (qm, km), (qm, kf))]
    assert [out.losses[k].item() for k in ("views", "mixed", "mixed_features")] == pytest.approx(expected, rel=1e-4)
    assert out.total.item() == pytest.approx(sum(expected) / 3, rel=1e-4)
    (rows, weight) = out.enqueue["keys"]
    torch.testing.assert_close(rows, k1, rtol=1e-4, atol=1e-5)
    assert torch.equal(weight, data.weight_B)


def test_the_queue_starts_full_of_vectors_of_about_length_one():
    method = build("c2l", queue=4000)
    assert bool(method.queue_keys_valid.all())
    assert method.queue_keys.norm(dim=1).mean().item() == pytest.approx(1, abs=0.02)
    assert method.queue_keys.mean().item() == pytest.approx(0, abs=0.01)
    assert set(method.chance(8).values()) == {math.log(4001)}


def test_each_term_finds_the_keys_of_the_one_before_where_asked_for():
    method, once = started(enqueue="each", queue=12), started(queue=12)
    once.load_state_dict(method.state_dict())
    method.get_buffer("queue_keys_at").fill_(11)
    data = batch(method, records(3))
    a, b = method(data), once(data)
    torch.testing.assert_close(a.losses["views"], b.losses["views"])
    assert (a.losses["mixed"] - b.losses["mixed"]).abs() > 1e-3
    rows, _ = a.enqueue["keys"]
    assert rows.shape == (3, 3, method.options.dim)
    write(method, enqueued([a]))
    for j in range(3):  # all first keys, then all second ones, from place 11 on
        for i in range(3):
            assert torch.equal(method.queue_keys[(11 + 3 * j + i) % 12], rows[i, j])
    assert int(method.queue_keys_at) == (11 + 9) % 12


def test_the_mix_is_of_samples_that_count_and_the_same_whoever_computes_it():
    draws = torch.tensor([[0.1, 0.5], [0.2, 0.9], [0.8, 0.1], [0.6, 0.7]], dtype=torch.float64)
    mix = mixing(draws, torch.tensor([0.0, 1, 1, 1]))
    assert mix.share.item() == pytest.approx(0.8), "of the first that counts, the larger side"
    assert mix.partner_G.tolist() == [0, 2, 3, 1], "in the order of the second numbers; who does not count keeps out"
    nobody = mixing(draws, torch.zeros(4))
    assert nobody.partner_G.tolist() == [0, 1, 2, 3]
    assert nobody.share.isfinite()


def test_partners_and_shares_vary():
    method = started()
    made = [mixing(batch(method, records(6), epoch=e)["mix"], torch.ones(6)) for e in range(8)]
    assert len({float(m.share) for m in made}) == 8
    assert len({tuple(m.partner_G.tolist()) for m in made}) > 4


def test_squares_are_cut_out_after_normalising():
    rng = np.random.default_rng(0)
    assert holes(20, 0, 4, rng).sum() == 0
    for _ in range(20):
        hole = holes(20, 1, 6, rng)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns
        assert 3 <= rows <= 6
        assert 3 <= columns <= 6
    sizes = {holes(20, 1, 6, rng).sum() for _ in range(50)}
    assert 36 in sizes, "whole ones too"
    method = started(cutout=2)
    data = batch(method, records(3))
    x = method._cut(data["views"][:, 0], data["holes"][:, 0])
    inside = data["holes"][:, 0] > 0
    assert inside.any()
    assert (x[:, 0][inside] == 0).all()
    assert (x[:, 0][~inside] != 0).any()


def test_the_teacher_is_a_copy_that_follows():
    method = started()
    assert method.teachers(0.3) == {"momentum_image": ("image", 0.9), "momentum_head": ("head", 0.9)}
    for name, p in method.named_parameters():
        if name.startswith("momentum_"):
            assert torch.equal(p, method.get_parameter(name.removeprefix("momentum_")))
            assert not p.requires_grad


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
@pytest.mark.timeout(300)
def test_published_code_on_the_same_weights(real_data: Path):
    folder = real_data.parent / "parity" / "restoration_segmentation_gwas"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    spec = importlib.util.spec_from_file_location("rule_of_restoration", folder / "rule.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    gold = np.load(folder / "c2l.npz")
    names = json.loads((folder / "c2l.names.json").read_text())
    method = started(
        image={**CNN, "image_size": 224}, dim=128, queue=64, temperature=0.07, enqueue="each",
    )  # fmt: skip
    ours = {n: n.replace("encoder.module.fc", "head").replace("encoder.module", "image.net") for n in names}
    state = method.state_dict()
    for n, about in names.items():
        value = torch.from_numpy(rule.weight(n, about["shape"], about["kind"]))
        state[ours[n]] = value
        follows = "momentum_" + ours[n]
        moved = follows in dict(method.named_parameters())
        state[follows] = (
            value + torch.from_numpy(rule.normal("teacher." + n, about["shape"], 0.005)) if moved else value
        )
    state["queue_keys"] = F.normalize(torch.from_numpy(rule.normal("input.queue", (64, 128))), dim=1)
    method.load_state_dict(state)
    draws = torch.zeros(4, 2)
    draws[:, 0] = float(gold["draw.lam"])
    draws[torch.from_numpy(gold["draw.mix"]), 1] = torch.arange(4.0)
    method.pixels = lambda x: x
    views = torch.from_numpy(rule.normal("input.views", (4, 6, 224, 224))).unflatten(1, (2, 3))
    data = Batch(
        {
            "views": views,
            "holes": torch.zeros(4, 2, 224, 224, dtype=torch.uint8),
            "mix": draws,
            "patient": torch.arange(4),
        },
        {"image": torch.ones(4, dtype=torch.bool)},
    )
    out = method(data)
    out.total.backward()
    for j, name in enumerate(("views", "mixed", "mixed_features"), 1):
        torch.testing.assert_close(out.losses[name], torch.from_numpy(gold[f"soft.loss{j}"]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            out.enqueue["keys"][0][:, j - 1], torch.from_numpy(gold[f"k{j}"]), rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(out.total, torch.from_numpy(gold["soft.total"]), rtol=1e-4, atol=1e-5)
    for n, place in ours.items():
        if f"soft.grad.{n}" in gold:
            p = method.get_parameter(place)
            torch.testing.assert_close(p.grad.norm(), torch.from_numpy(gold[f"soft.grad.{n}"]), rtol=1e-3, atol=1e-5)
    write(method, enqueued([out]))
    torch.testing.assert_close(method.queue_keys, torch.from_numpy(gold["queue_after"]), rtol=1e-4, atol=1e-5)
    assert int(method.queue_keys_at) == int(gold["queue_index"])
    for prefix, key in (("image", "soft.bn1"), ("momentum_image", "soft.teacher.bn1")):
        found = method.state_dict()[f"{prefix}.net.bn1.running_mean"]
        torch.testing.assert_close(found, torch.from_numpy(gold[f"{key}.running_mean"]), rtol=1e-4, atol=1e-5)
