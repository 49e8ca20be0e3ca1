"""Nystrom attention against eq. 2 to the letter, against its theory, and for what must not influence what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.layers.attention import attention
from models.layers.nystrom import (
    LongAttention,
    nystrom_attention,
    pseudo_inverse,
    segment_ids,
    segment_means,
)


def qkv(B=2, H=3, L=37, D=8, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return torch.randn(3, B, H, L, D, dtype=dtype).unbind(0)


def literal_means(x_LD: torch.Tensor, m: int) -> torch.Tensor:
    """m runs of consecutive tokens, the first L mod m of them one longer."""
    L = len(x_LD)
    sizes = [L // m + (i < L % m) for i in range(m)]
    return torch.stack([part.mean(0) for part in x_LD.split(sizes)])


def literal_eq2(q, k, v, m: int) -> torch.Tensor:
    """GiMP eq. 2 for one head, with the true pseudo-inverse and scale 1 / sqrt(D)."""
    q_, k_ = literal_means(q, m), literal_means(k, m)
    s = q.shape[-1] ** -0.5
    outer, middle, inner = ((a @ b.T * s).softmax(-1) for a, b in ((q, k_), (q_, k_), (q_, k)))
    return outer @ torch.linalg.pinv(middle) @ inner @ v


@pytest.mark.parametrize(("L", "m"), [(37, 5), (40, 8), (9, 8), (100, 3)])
def test_equals_eq_2(L, m):
    q, k, v = qkv(L=L)
    out = nystrom_attention(q, k, v, m, iterations=30)
    for b in range(2):
        for h in range(3):
            torch.testing.assert_close(out[b, h], literal_eq2(q[b, h], k[b, h], v[b, h], m), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("iterations", [0, 2, 6, 12])
def test_as_many_landmarks_as_tokens_is_exact_up_to_the_iteration(iterations):
    """With m = N all three factors are S = softmax(q k^T), and theory gives S Z S = U diag(s p(s^2 / c)) V^T exactly."""
    q, k, v = qkv(B=1, H=1, L=24)
    S = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)[0, 0]
    U, s, Vh = torch.linalg.svd(S)
    p = s**2 / (S.sum(0).max() * S.sum(1).max())
    for _ in range(iterations):
        p = p * (13 - p * (15 - p * (7 - p))) / 4
    got = S @ pseudo_inverse(S, iterations) @ S @ v[0, 0]
    torch.testing.assert_close(got, U @ torch.diag(s * p) @ Vh @ v[0, 0], rtol=1e-9, atol=1e-9)
    exact = attention(q, k, v)[0, 0]
    bound = (s * (1 - p)).max() * torch.linalg.matrix_norm(v[0, 0], 2)
    assert torch.linalg.matrix_norm(got - exact, 2) <= bound * (1 + 1e-6) + 1e-9
    # The bound says something: after twelve iterations it is a tenth of the output.
    if iterations == 12:
        assert bound < 0.1 * torch.linalg.matrix_norm(exact, 2)


def test_short_sequences_are_exact():
    q, k, v = qkv(L=16)
    torch.testing.assert_close(nystrom_attention(q, k, v, 16), attention(q, k, v))
    assert not torch.allclose(nystrom_attention(q, k, v, 15), attention(q, k, v), atol=1e-6)


def test_bags_of_up_to_so_many_tokens_are_exact_each_by_its_own_length():
    """`exact_tokens` beyond the landmarks: alone, padded, and beside a longer one, which is as without it."""
    torch.manual_seed(0)
    kind = {"conv_kernel": 5, "iterations": 6}
    auto, exact = LongAttention(32, 4, 8, exact_tokens=30, **kind).double(), LongAttention(32, 4, None, **kind).double()
    exact.load_state_dict(auto.state_dict())
    nystrom = LongAttention(32, 4, 8, **kind).double()
    nystrom.load_state_dict(auto.state_dict())
    x, lengths = torch.randn(4, 50, 32, dtype=torch.float64), [31, 30, 9, 5]
    together = auto(x, torch.tensor(lengths))
    for b, n in enumerate(lengths):
        alone = x[b : b + 1, :n]
        torch.testing.assert_close(together[b, :n], (nystrom if n > 30 else exact)(alone)[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(auto(alone), (nystrom if n > 30 else exact)(alone), rtol=1e-9, atol=1e-9)
        row = (nystrom if n > 30 else exact).first_row(alone)
        torch.testing.assert_close(auto.first_row(alone), row)
    assert not torch.allclose(nystrom(x[1:2, :30]), exact(x[1:2, :30]), atol=1e-6)


@pytest.mark.parametrize("mask", [None, True])
def test_a_bias_of_keys_is_that_of_a_matrix(mask):
    q, k, v = qkv()
    bias_BS, real_B1S = torch.randn(2, 37, dtype=torch.float64), torch.arange(37) < 30
    seen = None if mask is None else real_B1S[None, None, None]
    whole = bias_BS[:, None, None].masked_fill(~real_B1S, -torch.inf) if mask else bias_BS[:, None, None]
    torch.testing.assert_close(attention(q, k, v, seen, key_bias_BS=bias_BS), attention(q, k, v, whole))
    torch.testing.assert_close(
        attention(q, k, v, seen, scale=0.2, key_bias_BS=bias_BS), attention(q, k, v, whole, scale=0.2)
    )


def test_a_token_of_weight_two_stands_twice_and_one_of_weight_nought_not_at_all():
    """Exactly, in softmax and mean alike; of landmarks as far as their segments stay what they are."""
    q, k, v = qkv(L=16)
    weight_BL = torch.zeros(2, 16, dtype=torch.float64)
    weight_BL[:, 3], weight_BL[:, 5] = float(np.log(2)), -1e9
    as_often = [0, 1, 2, 3, 3, 4, *range(6, 16)]
    twice = nystrom_attention(q[:, :, as_often], k[:, :, as_often], v[:, :, as_often], 16)
    weighed = nystrom_attention(q, k, v, 16, log_weight_BL=weight_BL)
    torch.testing.assert_close(weighed[:, :, [0, 1, 2, 3, 4, 15]], twice[:, :, [0, 1, 2, 3, 5, 15]])
    # Two landmarks of eight places each: 3 stands twice, 5 not at all.
    long = nystrom_attention(q[:, :, as_often], k[:, :, as_often], v[:, :, as_often], 2)
    torch.testing.assert_close(
        nystrom_attention(q, k, v, 2, log_weight_BL=weight_BL)[:, :, [0, 3, 15]], long[:, :, [0, 3, 15]]
    )


def test_segments_of_ragged_bags_are_those_of_each_bag_alone():
    x = qkv(B=3, L=37)[0]
    lengths = torch.tensor([37, 20, 11])
    ragged = segment_means(x, 5, lengths)
    for b, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(ragged[b], segment_means(x[b : b + 1, :, :n], 5)[0])
        sizes = torch.bincount(segment_ids(lengths, 37, 5)[b, :n], minlength=5)
        assert sizes.tolist() == [n // 5 + (i < n % 5) for i in range(5)]


@pytest.mark.parametrize("landmarks", [8, None])
def test_a_bag_does_not_depend_on_its_batch_mates(landmarks):
    """Other samples, longer ones, and larger ones (which would move a start scaled over the batch) change nothing."""
    torch.manual_seed(0)
    layer = LongAttention(32, 4, landmarks, conv_kernel=5).double()
    x, lengths = torch.randn(4, 50, 32, dtype=torch.float64), torch.tensor([50, 30, 9, 5])
    x[0] *= 20
    together = layer(x, lengths)
    for b, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[b, :n], layer(x[b : b + 1, :n])[0], rtol=1e-9, atol=1e-9)


def test_padding_reaches_no_real_token_and_no_gradient():
    torch.manual_seed(0)
    layer = LongAttention(32, 4, 8, conv_kernel=5)
    x, lengths = torch.randn(3, 40, 32), torch.tensor([40, 25, 6])
    other = x.clone()
    other[1, 25:], other[2, 6:] = 1e3, -1e3
    x.requires_grad_()
    a, b = layer(x, lengths), layer(other, lengths)
    real = torch.arange(40) < lengths[:, None]
    assert torch.equal(a[real], b[real])
    a[real].square().sum().backward()
    assert not x.grad[~real].any()
    assert x.grad[real].any(-1).all()


def test_the_class_token_shares_its_landmark_with_neighbours_only():
    """A bag that does not divide by m: the first landmark is the mean of the CLS and the patches after it, no zeros."""
    x = torch.arange(1.0, 12.0).view(1, 1, 11, 1)
    torch.testing.assert_close(segment_means(x, 4).flatten(), torch.tensor([2.0, 5.0, 8.0, 10.5]))


def test_the_inverse_survives_half_precision_inputs():
    q, k, v = (x.to(torch.bfloat16) * 4 for x in qkv(L=64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = nystrom_attention(q, k, v, 16)
    assert out.isfinite().all()
    assert out.dtype == torch.bfloat16
    matrix = (torch.randn(4, 16, 16) * 8).softmax(-1).to(torch.bfloat16)
    assert pseudo_inverse(matrix, 6).dtype == torch.float32


def test_the_convolution_runs_over_tokens_one_kernel_a_head():
    torch.manual_seed(0)
    conv = LongAttention(6, 3, 4, conv_kernel=5).conv
    v = torch.randn(2, 11, 6)
    padded = F.pad(v, (0, 0, 2, 2))
    for token in range(11):
        for channel in range(6):
            want = padded[:, token : token + 5, channel] @ conv.weight_HK[channel // 2]
            torch.testing.assert_close(conv(v)[:, token, channel], want)
