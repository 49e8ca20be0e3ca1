"""MGCA on slides and genes: its three terms written out, and the frame that BioViL and REFERS on slides and genes share."""

from __future__ import annotations

import numpy as np
import pytest
import slides
import torch
from synthetic import MemoryRecord
from torch.nn.functional import normalize

from models.contract import MethodError
from models.losses.prototypes import codes, swapped
from models.losses.token_alignment import align, shares

SMALL = {
    "dim": 8,
    "heads": 2,
    "depth": 1,
    "landmarks": 4,
    "conv_kernel": 3,
    "window": 12,
    "segments": 4,
    "project": 6,
    "dropout": 0.0,
}
GROUPS = {"genes": {"groups": 2}}


def begun(name: str = "mgca_omic", stage: str = "pretrain", **options):
    method = slides.build(name, **{**SMALL, **GROUPS, **options})
    method.enter(stage)
    return method


def paired(made, fill: float = 0.0):
    batch = slides.batch_of(made, fill)
    batch["patient"] = torch.arange(len(made))
    return batch


def test_tokens_find_themselves_in_what_they_found_on_the_other_side():
    torch.manual_seed(0)
    a, b, share = torch.randn(2, 3, 5), torch.randn(2, 4, 5), torch.rand(2, 3)
    real_a, real_b = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)
    real_a[1, 2] = real_b[1, 3] = False
    share = share * real_a
    found = align(a, real_a, share, b, real_b, torch.ones(2), 0.3)
    wanted = []
    for i, (L, S) in enumerate(((3, 4), (2, 3))):
        x, y = normalize(a[i, :L].double(), dim=-1), normalize(b[i, :S].double(), dim=-1)
        o = normalize((x @ y.T / 0.3).softmax(1) @ y, dim=-1)
        s = x @ o.T / 0.3
        each = [-(s[k].log_softmax(0)[k] + s[:, k].log_softmax(0)[k]) / 2 * share[i, k] for k in range(L)]
        wanted.append(sum(each))
    torch.testing.assert_close(found.double(), (wanted[0] + wanted[1]) / 2, rtol=1e-5, atol=1e-6)
    kept = align(a, real_a, share, b, real_b, torch.tensor([1.0, 0.0]), 0.3)
    torch.testing.assert_close(kept.double(), wanted[0], rtol=1e-5, atol=1e-6)


def test_tokens_near_the_class_token_count_more():
    token = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    real = torch.tensor([[True, True, False]])
    share = shares(torch.tensor([[1.0, 1.0]]), token, real)[0]
    torch.testing.assert_close(share[:2], (torch.tensor([2.0, 1.0]) / 2**0.5).softmax(0))
    assert share[2] == 0


def test_codes_share_the_samples_evenly_and_are_foretold_by_the_other_side():
    torch.manual_seed(0)
    a, b, real = torch.rand(6, 3), torch.rand(6, 3), torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    q = codes(a, real, 0.5, 50)
    torch.testing.assert_close(q.sum(1), real.float())
    torch.testing.assert_close(q.sum(0), torch.full((3,), 5 / 3), rtol=1e-3, atol=1e-3)
    loss = swapped(a, b, real.float(), 0.2, 0.05)
    wanted = torch.zeros((), dtype=torch.float64)
    for x, y in ((a[:5], b[:5]), (b[:5], a[:5])):
        w = (x.double() / 0.05).exp()
        for _ in range(3):
            w = w / w.sum(0) / 3
            w = w / w.sum(1, keepdim=True) / 5
        wanted = wanted - ((5 * w) * (y.double() / 0.2).log_softmax(1)).sum() / 10
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
    same = torch.zeros(6, 3)
    torch.testing.assert_close(swapped(same, same, real.float()), torch.tensor(3.0).log())


def test_segments_are_means_of_runs_of_patch_tokens_and_short_bags_have_one_a_patch():
    method, made = begun(), slides.bags((10, 3))
    s = method.sides(paired(made, float("nan")))
    assert s.real_BS.tolist() == [[True] * 4, [True] * 3 + [False]]
    for bag, segments, runs in zip(made, s.segment_BSC, ([3, 3, 2, 2], [1, 1, 1]), strict=True):
        tokens = method.slide(bag[None])[1][0]
        wanted = torch.stack([t.mean(0) for t in tokens.split(runs)])
        torch.testing.assert_close(segments[: len(runs)], wanted, rtol=1e-4, atol=1e-5)


def test_slides_of_up_to_so_many_tokens_have_exact_attention_where_the_options_say_so():
    made = slides.bags((10,))[0][None]
    exact, nystrom = (begun(landmarks=n).slide(made)[0] for n in (11, 4))
    auto, shorter = (begun(landmarks=4, attention="auto", exact_tokens=n).slide(made)[0] for n in (11, 10))
    torch.testing.assert_close(auto, exact)
    torch.testing.assert_close(shorter, nystrom)
    assert not torch.allclose(exact, nystrom, atol=1e-4)
    with pytest.raises(MethodError, match=r"set method\.attention=auto"):
        begun(exact_tokens=300)


def test_the_total_is_the_weighted_sum_and_a_term_of_weight_0_is_not_there():
    batch = paired(slides.bags((10, 3, 5)))
    out = begun()(batch)
    wanted = out.losses["contrast"] + 0.7 * out.losses["local"] + 0.5 * out.losses["prototype"]
    torch.testing.assert_close(out.total, wanted)
    assert list(begun(local_weight=0.0, prototype_weight=0.0)(batch).losses) == ["contrast"]
    assert begun(token_shares="equal")(batch).losses["local"] != out.losses["local"]


@pytest.mark.parametrize("name", ["mgca_omic", "biovil_omic", "refers_omic"])
def test_a_pair_without_slide_or_genes_changes_no_term(name):
    method, made = begun(name), slides.bags((10, 3, 5, 4))
    whole, lacking = paired(made[:2]), paired([*made[:2], made[2][:0], made[3]], float("nan"))
    lacking.present["rna"][3], lacking["rna"][3] = False, torch.nan
    if method.hides:
        hidden = torch.zeros(4, 2, dtype=torch.bool)
        hidden[:, 0] = True
        whole["hidden"], lacking["hidden"] = hidden[:2], hidden
    a, b = method(whole), method(lacking)
    for term in set(a.losses) - {"masked"}:  # genes without a slide are still predicted
        torch.testing.assert_close(b.losses[term], a.losses[term], rtol=1e-4, atol=1e-5, msg=term)
    b.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def drawn(method, N: int, seed: int = 0) -> list[int]:
    record = MemoryRecord("s", "p", {}, {"patches": np.arange(N, dtype=np.float16)[:, None].repeat(slides.F, 1)})
    return method.sample(record, np.random.default_rng(seed)).arrays["patches"][:, 0].astype(int).tolist()


def test_a_window_in_pre_training_and_the_whole_slide_after_unless_said_otherwise():
    method = begun()
    starts = {drawn(method, 15, s)[0] for s in range(40)}
    assert starts == {0, 1, 2, 3}
    assert all(np.diff(drawn(method, 15, s)).tolist() == [1] * 11 for s in range(5))
    assert drawn(method, 5) == [0, 1, 2, 3, 4]
    assert drawn(begun(short_bags="tile"), 5) == [i % 5 for i in range(12)]
    assert drawn(begun(stage=""), 15) == list(range(15))
    middle = begun(stage="", finetune_bag="window")
    assert {tuple(drawn(middle, 16, s)) for s in range(5)} == {tuple(range(2, 14))}


@pytest.mark.parametrize("name", ["mgca_omic", "biovil_omic", "refers_omic"])
def test_genes_by_the_label_first_then_frozen(name):
    method = begun(name, "gene", genes={"groups": 2, "start": "supervised_frozen"})
    assert [s.name for s in method.stages()] == ["gene", "pretrain"]
    batch = paired(slides.bags((3, 3)))
    batch["label"] = torch.tensor([0, 1])
    logits = method.gene_head(method.genes(method.expression(batch))[0])
    torch.testing.assert_close(method(batch).total, torch.nn.functional.cross_entropy(logits, batch["label"]))
    assert {n.split(".")[0] for n, p in method.named_parameters() if p.requires_grad} == {"genes", "gene_head"}
    method.enter("pretrain")
    method.train()
    assert not method.genes.training
    assert "genes" not in {n.split(".")[0] for n, p in method.named_parameters() if p.requires_grad}
    assert "masked" not in method(batch).losses
