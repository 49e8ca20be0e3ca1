"""GiMP's equations, each against a few literal lines written from the paper (Jin et al., MICCAI 2023)."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from models.contract import MethodError
from models.encoders.group_msa import GroupMSA, fragments_per_group, gene_layout
from models.losses.classes import cross_entropy
from models.losses.masked import masked_l1
from models.losses.triplet import triplet
from models.transforms.bags import draw_mask, tiled, window_start

# ---------------------------------------------------------------------------------------------- section 2.1: GroupMSA


def literal_norm(x, norm):
    return (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + norm.eps
    ).sqrt() * norm.weight + norm.bias


def literal_msa(x_LC, attn):
    """Vanilla multi-head self-attention on one sequence (Vaswani et al. 2017)."""
    C, D = x_LC.shape[1], x_LC.shape[1] // attn.heads
    qkv = x_LC @ attn.qkv.weight.T + attn.qkv.bias
    heads = []
    for h in range(attn.heads):
        q, k, v = (qkv[:, part * C + h * D : part * C + (h + 1) * D] for part in range(3))
        heads.append((q @ k.T / math.sqrt(D)).softmax(-1) @ v)
    return torch.cat(heads, 1) @ attn.out.weight.T + attn.out.bias


def literal_block(x_LC, block):
    x_LC = x_LC + literal_msa(literal_norm(x_LC, block.norm1), block.attn)
    first, last = block.ffn[0], block.ffn[3]
    inner = torch.nn.functional.gelu(literal_norm(x_LC, block.norm2) @ first.weight.T + first.bias)
    return x_LC + inner @ last.weight.T + last.bias


def literal_group_msa(genes_G, m: GroupMSA):
    """Fragments, one projection; each group with its token by itself; then the tokens and the class token together."""
    fragments = [genes_G[i : i + m.fragment] for i in range(0, len(genes_G), m.fragment)]
    tokens = [m.class_token_C]
    for g in range(m.groups):
        group = [m.group_token_NC[g]]
        for p in range(m.per_group):
            h = m.project.weight @ fragments[g * m.per_group + p] + m.project.bias
            group.append(h + m.position_NPC[g, p])
        tokens.append(literal_block(torch.stack(group), m.intra[0])[0])
    return literal_norm(literal_block(torch.stack(tokens), m.inter[0]), m.norm)


def test_group_msa():
    torch.manual_seed(0)
    m = GroupMSA(genes=60, dim=16, heads=4, groups=5, fragment=4).double().eval()
    genes = torch.randn(3, 60, dtype=torch.float64)
    cls, groups = m(genes)
    for b in range(3):
        want = literal_group_msa(genes[b], m)
        torch.testing.assert_close(cls[b], want[0])
        torch.testing.assert_close(groups[b], want[1:])


def test_paper_layout_has_no_padding():
    assert fragments_per_group(60_480, 24, None) == fragments_per_group(60_480, 24, 84) == (30, 84)
    assert torch.equal(gene_layout(60_480, 24, 30, 84), torch.arange(60_480))


@pytest.mark.parametrize(
    ("genes", "groups", "fragment"), [(60_483, 24, None), (1554, 24, None), (61, 7, 4), (5, 5, None)]
)
def test_any_number_of_genes_is_covered_once(genes, groups, fragment):
    per_group, length = fragments_per_group(genes, groups, fragment)
    layout = gene_layout(genes, groups, per_group, length).view(groups, per_group, length)
    assert layout[layout < genes].sort().values.tolist() == list(range(genes))
    in_group = (layout < genes).flatten(1).sum(1)
    assert in_group.max() - in_group.min() <= 1
    assert layout.numel() < 1.15 * genes + groups * (fragment or 1)


def test_more_groups_than_genes_are_refused():
    with pytest.raises(MethodError, match="only 5 genes; set groups to 5 or less"):
        fragments_per_group(5, 6, None)


# --------------------------------------------------------------------------------------- section 2.3: windows and masks


@pytest.mark.parametrize("N", [6000, 7313, 485, 1000, 3001])
def test_exactly_half_is_masked_and_copies_go_together(N):
    L = 6000
    for seed in range(3):
        masked = draw_mask(N, L, 0.5, np.random.default_rng(seed))
        assert masked.sum() == L // 2
        patch = tiled(min(N, L), L)
        for p in np.unique(patch):
            assert len(set(masked[patch == p])) == 1


@pytest.mark.parametrize(("N", "L"), [(5, 8), (6, 8), (6, 16), (4, 4)])
def test_masks_are_uniform_over_all_sets_that_fill_half(N, L):
    copies = Counter(tiled(N, L).tolist())
    allowed = {s for k in range(N + 1) for s in combinations(range(N), k) if sum(copies[p] for p in s) == L // 2}
    rng = np.random.default_rng(0)
    seen = Counter(tuple(np.flatnonzero(draw_mask(N, L, 0.5, rng)[:N]).tolist()) for _ in range(4000))
    assert set(seen) == allowed
    expected = 4000 / len(allowed)
    chi2 = sum((seen[s] - expected) ** 2 / expected for s in allowed)
    # Mean n - 1, variance 2 (n - 1): five standard deviations.
    assert chi2 < len(allowed) - 1 + 5 * math.sqrt(2 * len(allowed))


@pytest.mark.parametrize(("N", "L", "most"), [(3, 16, 6), (1, 16, 0), (2, 7, 4)])
def test_where_half_cannot_be_reached_the_most_below_is_masked(N, L, most):
    copies = Counter(tiled(N, L).tolist())
    reachable = {sum(copies[p] for p in s) for k in range(N + 1) for s in combinations(range(N), k)}
    assert most == max(r for r in reachable if r <= round(L / 2))
    assert draw_mask(N, L, 0.5, np.random.default_rng(0)).sum() == most


def test_windows_start_anywhere_and_end_inside():
    rng = np.random.default_rng(0)
    starts = Counter(window_start(12, 10, rng) for _ in range(3000))
    assert set(starts) == {0, 1, 2}
    assert min(starts.values()) > 850
    assert window_start(10, 10, rng) == window_start(4, 10, rng) == 0


# ---------------------------------------------------------------------------------------------------- eq. 3 and eq. 4


def test_eq_3():
    torch.manual_seed(0)
    h, hat = torch.randn(2, 4, 10, 6)
    masked = torch.rand(4, 10) < 0.5
    masked[3] = False
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0])
    literal = [sum((h[b, j] - hat[b, j]).abs().sum() for j in range(10) if masked[b, j]) for b in range(2)]
    torch.testing.assert_close(masked_l1(hat, h, masked, weight, "sum"), (literal[0] + literal[1]) / 2)
    means = [value / (masked[b].sum() * 6) for b, value in enumerate(literal)]
    torch.testing.assert_close(masked_l1(hat, h, masked, weight, "mean"), (means[0] + means[1]) / 2)
    assert masked_l1(hat, h, masked & False, weight) == 0


def literal_triplets(x, y, delta):
    """Eq. 4 for every anchor, other sample of its class, sample of another class."""
    found = {}
    for a in range(len(x)):
        for p in range(len(x)):
            for n in range(len(x)):
                if a != p and y[a] == y[p] != y[n] and min(y[a], y[n]) >= 0:
                    plus, minus = float(((x[a] - x[p]) ** 2).sum()), float(((x[a] - x[n]) ** 2).sum())
                    found[a, p, n] = plus, minus, max(plus + delta - minus, 0.0)
    return found


@pytest.fixture
def labelled():
    torch.manual_seed(3)
    x = torch.randn(9, 3, dtype=torch.float64) * 0.6
    return x, torch.tensor([0, 1, 0, 2, 1, 0, -1, 2, 1]), torch.ones(9), torch.rand(9)


def test_eq_4_all_valid(labelled):
    x, y, weight, draw = labelled
    values = [v for *_, v in literal_triplets(x, y, 0.8).values()]
    loss, active, count = triplet(x, y, weight, draw, 0.8)
    live = [v for v in values if v > 0]
    assert count == len(values)
    assert 0 < len(live) < len(values)
    assert loss.item() == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert active.item() == pytest.approx(len(live) / len(values))
    assert triplet(x, y, weight, draw, 0.8, average="active")[0].item() == pytest.approx(
        sum(live) / len(live), rel=1e-5
    )


def test_eq_4_hard_and_semi_hard(labelled):
    x, y, weight, draw = labelled
    found = literal_triplets(x, y, 0.8)
    hard = []
    for a in range(9):
        mine = {k: v for k, v in found.items() if k[0] == a}
        if mine:
            hard.append(max(max(p for p, _, _ in mine.values()) + 0.8 - min(n for _, n, _ in mine.values()), 0))
    assert triplet(x, y, weight, draw, 0.8, "hard")[0].item() == pytest.approx(sum(hard) / len(hard), rel=1e-5)
    semi = [v for p, n, v in found.values() if p < n < p + 0.8]
    assert 0 < len(semi) < len(found)
    assert triplet(x, y, weight, draw, 0.8, "semi_hard")[0].item() == pytest.approx(sum(semi) / len(semi), rel=1e-5)


def test_eq_4_random_one(labelled):
    """One valid triplet an anchor; over many draws each positive and each negative comes as often as the others."""
    x, y, weight, _ = labelled
    found = literal_triplets(x, y, 0.8)
    anchors = {a for a, _, _ in found}
    generator = torch.Generator().manual_seed(0)
    draws = [triplet(x, y, weight, torch.rand(9, generator=generator), 0.8, "random_one") for _ in range(1500)]
    assert {int(count) for *_, count in draws} == {len(anchors)}
    expected = sum(np.mean([v for (a, _, _), (*_, v) in found.items() if a == anchor]) for anchor in anchors) / len(
        anchors
    )
    assert np.mean([loss.item() for loss, *_ in draws]) == pytest.approx(expected, rel=0.05)


def test_eq_4_gradient_reaches_all_three(labelled):
    x, y, weight, draw = labelled
    x.requires_grad_()
    triplet(x, y, weight, draw, 0.8)[0].backward()
    assert x.grad[y >= 0].abs().sum(1).gt(0).all()
    assert not x.grad[y < 0].any()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("mining", ["all", "hard", "semi_hard", "random_one"])
def test_one_class_gives_zero_and_a_zero_gradient(mining):
    x = torch.randn(4, 3, requires_grad=True)
    loss, active, count = triplet(x, torch.zeros(4, dtype=torch.long), torch.ones(4), torch.rand(4), 0.8, mining)
    loss.backward()
    assert loss == active == count == 0
    assert not x.grad.any()


@pytest.mark.parametrize("mining", ["all", "hard", "random_one"])
def test_chance_of_triplets_is_the_margin(mining):
    x = torch.ones(6, 3)
    assert triplet(x, torch.arange(6) % 2, torch.ones(6), torch.rand(6), 0.8, mining)[0].item() == pytest.approx(0.8)


def test_cross_entropy_counts_labelled_samples_of_weight():
    logits, label = torch.randn(4, 3), torch.tensor([0, 2, -1, 1])
    want = -(logits[0].log_softmax(0)[0] + logits[1].log_softmax(0)[2]) / 2
    torch.testing.assert_close(cross_entropy(logits, label, torch.tensor([1.0, 1.0, 1.0, 0.0])), want)
