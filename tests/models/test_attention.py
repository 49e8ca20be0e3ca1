"""Attention: its values, its masks, which kernels it takes; the checkpointing switch."""

from __future__ import annotations

import sys
import types
import warnings

import pytest
import torch

from models.layers import attention as module
from models.layers.attention import SelfAttention, attention, backend, merge_heads, split_heads, xformers_loads
from models.layers.checkpointing import activation_checkpointing, set_activation_checkpointing
from models.layers.nystrom import LongAttention
from models.layers.transformer import Block

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


def test_equals_the_formula():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    mask = torch.rand(2, 1, 1, 7) < 0.6
    mask[..., 0] = True
    want = (q @ k.mT / 2).masked_fill(~mask, -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(attention(q, k, v, mask), want)
    torch.testing.assert_close(attention(q, k, v, scale=1.0), (q @ k.mT).softmax(-1) @ v)


def test_a_query_without_a_key_gives_zeros():
    q = torch.randn(1, 1, 2, 4, requires_grad=True)
    out = attention(q, q, q, torch.zeros(1, 1, 1, 2, dtype=torch.bool))
    out.sum().backward()
    assert not out.any()
    assert q.grad.isfinite().all()


def test_heads_split_and_merge():
    x = torch.randn(2, 5, 12)
    assert torch.equal(merge_heads(split_heads(x, 3)), x)
    assert torch.equal(split_heads(x, 3)[:, 1], x[..., 4:8])


def test_dispatch(monkeypatch):
    """xformers only for unmasked half precision on CUDA, and only when its kernels load."""
    monkeypatch.setattr(module, "xformers_loads", lambda *_: True)
    assert backend(CUDA, torch.float16, 64, masked=False) == "xformers"
    assert backend(CUDA, torch.bfloat16, 64, masked=False) == "xformers"
    assert backend(CUDA, torch.float16, 64, masked=True) == "sdpa"
    assert backend(CUDA, torch.float32, 64, masked=False) == "sdpa"
    assert backend(CPU, torch.bfloat16, 64, masked=False) == "sdpa"
    monkeypatch.setattr(module, "xformers_loads", lambda *_: False)
    assert backend(CUDA, torch.float16, 64, masked=False) == "sdpa"


def test_kernels_that_do_not_load_are_named_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    xformers_loads.cache_clear()
    with pytest.warns(UserWarning, match="attention runs on PyTorch's kernels: xformers does not work here"):
        assert not xformers_loads(0, torch.float16, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not xformers_loads(0, torch.float16, 64)
    xformers_loads.cache_clear()


def test_the_xformers_path_gives_the_same_values(monkeypatch):
    """Its layout is [B, L, H, D]; a stand-in with the documented signature checks that we hand over and take back that."""

    def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None):
        assert attn_bias is None
        return (
            torch.einsum("blhd,bshd->bhls", query, key)
            .mul(scale)
            .softmax(-1)
            .matmul(value.transpose(1, 2))
            .transpose(1, 2)
        )

    ops = types.SimpleNamespace(memory_efficient_attention=memory_efficient_attention)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    torch.testing.assert_close(module._xformers_attention(q, k, v, 0.0, 0.5), attention(q, k, v))


def test_self_attention_ignores_what_is_not_real():
    torch.manual_seed(0)
    layer, x, real = SelfAttention(8, 2), torch.randn(2, 6, 8), torch.arange(6) < torch.tensor([[4], [6]])
    torch.testing.assert_close(layer(x, real)[0, :4], layer(x[:1, :4])[0])


@pytest.fixture
def checkpointing():
    set_activation_checkpointing(True)
    yield
    set_activation_checkpointing(False)


@pytest.mark.parametrize("make", [lambda: Block(16, 4, dropout=0.3), lambda: LongAttention(16, 4, 8, conv_kernel=3)])
def test_checkpointing_changes_memory_not_values(make, checkpointing):
    assert activation_checkpointing()
    torch.manual_seed(0)
    block, x = make(), torch.randn(2, 20, 16)
    grads, saved = [], []
    for on in (True, False):
        set_activation_checkpointing(on)
        block.zero_grad()
        torch.manual_seed(1)
        kept = 0

        def pack(t):
            nonlocal kept
            kept += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = block(x).square().sum()
        saved.append(kept)
        loss.backward()
        grads.append([p.grad.clone() for p in block.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
    assert saved[0] < 0.5 * saved[1]
