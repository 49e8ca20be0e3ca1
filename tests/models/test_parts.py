"""BEiT's parts for fine-tuning: relative positions and layer scale, added to any method's ViT without changing what it says."""

from __future__ import annotations

import pytest
import timm
import torch
from synthetic import batch, build, has_vit, image_options, records, seen_by

from models.contract import Method, MethodError
from models.encoders.beit import BeitOptions
from models.encoders.parts import add_parts
from models.encoders.vit import RELATIVE, ViT
from models.heads.linear import LinearHead
from models.layers.attention import attention
from models.layers.relative import relative_index, table_size
from models.registry import method_names

# One that was pre-trained with such parts keeps them (SimMIM: tests/models/test_simmim_equations.py).
WITH_VIT = [n for n in method_names() if has_vit(n) and not isinstance(image_options(n), BeitOptions)]


def grown(name: str, relative: bool = True, scale: float | None = 1.0, **options) -> tuple[Method, tuple[str, ...]]:
    method = build(name, **options)
    return method, add_parts(method, relative, scale)


def shaken(method: torch.nn.Module, names: tuple[str, ...]) -> None:
    torch.manual_seed(1)
    for n, p in method.named_parameters():
        if n in names:
            torch.nn.init.normal_(p, 0.5)


def test_offsets_have_entries_of_their_own():
    """Brute force on a grid that is not square; with a class token three entries more, behind all others."""
    rows, columns = 2, 3
    index = relative_index((rows, columns), 0)
    of: dict[tuple[int, int], int] = {}
    for q in range(rows * columns):
        for k in range(rows * columns):
            offset = (q // columns - k // columns, q % columns - k % columns)
            assert of.setdefault(offset, int(index[q, k])) == index[q, k]
    assert len(set(of.values())) == len(of) == table_size((rows, columns), 0) == 15
    with_class = relative_index((rows, columns), 1)
    assert torch.equal(with_class[1:, 1:], index)
    assert with_class[0, 1:].unique().tolist() == [15]
    assert with_class[1:, 0].unique().tolist() == [16]
    assert with_class[0, 0] == 17 == table_size((rows, columns), 1) - 1


def test_a_bias_is_added_to_the_scaled_logits():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4, requires_grad=True) for n in (5, 7, 7))
    bias = torch.randn(1, 3, 5, 7, requires_grad=True)
    want = (q @ k.mT / 2 + bias).softmax(-1) @ v
    got = attention(q, k, v, bias)
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(x.square().sum(), (q, k, v, bias)) for x in (got, want)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    half = attention(*(x.bfloat16() for x in (q, k, v)), bias)
    torch.testing.assert_close(half.float(), want, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", WITH_VIT)
def test_new_parts_change_nothing_at_first_and_learn(name):
    plain, (method, new) = build(name).eval(), grown(name)
    method.eval()
    depth = len(plain.image_encoder().blocks)
    assert len(new) == 3 * depth
    assert {n: p.shape for n, p in method.named_parameters() if n not in new} == {
        n: p.shape for n, p in plain.named_parameters()
    }
    assert [n for n in method.state_dict() if n not in plain.state_dict()] == [
        n for n in method.state_dict() if n in new
    ]
    data = batch(plain, records(3))
    with torch.no_grad():
        a, b = plain.encode(data), method.encode(data)
    torch.testing.assert_close(b["tokens_BLD"], a["tokens_BLD"], rtol=1e-5, atol=1e-6)
    method.encode(data)["tokens_BLD"].square().sum().backward()
    own = dict(method.named_parameters())
    for n in new:
        assert own[n].requires_grad
        assert own[n].grad.isfinite().all()
        assert own[n].grad.any(), n
    for part in (RELATIVE, "gamma"):
        other, names = grown(name)
        shaken(other, tuple(n for n in names if n.endswith(part)))
        assert (other.eval().encode(data)["tokens_BLD"] - a["tokens_BLD"]).abs().max() > 1e-3, part


@pytest.mark.parametrize("name", WITH_VIT)
@pytest.mark.parametrize(("relative", "scale"), [(True, None), (False, 0.1)])
def test_each_part_comes_alone(name, relative, scale):
    method, new = grown(name, relative, scale)
    depth = len(method.image_encoder().blocks)
    assert sum(n.endswith(RELATIVE) for n in new) == (depth if relative else 0)
    gammas = [p for n, p in method.named_parameters() if n in new and n.endswith("gamma")]
    assert len(gammas) == (2 * depth if scale else 0)
    assert all(torch.equal(p, torch.full_like(p, 0.1)) for p in gammas)


def test_a_method_without_a_vision_transformer_is_refused():
    with pytest.raises(MethodError, match="gimp has no vision transformer"):
        add_parts(build("gimp"), True, None)


@torch.no_grad()
def test_equals_timms_beit():
    """All weights in another implementation; it has no bias of keys, which adds the same to all logits of a query."""
    torch.manual_seed(0)
    vit = ViT(img_size=32, patch=8, dim=24, depth=3, heads=4, positions="learned")
    vit.add_parts(True, 1.0)
    for p in vit.parameters():
        torch.nn.init.normal_(p, std=0.3)
    beit = timm.models.beit.Beit(
        32, 8, num_classes=0, global_pool="", embed_dim=24, depth=3, num_heads=4, init_values=1.0, use_abs_pos_emb=True,
        use_rel_pos_bias=True,
    )  # fmt: skip
    state = {}
    for n, w in vit.state_dict().items():
        if n.endswith("qkv.bias"):
            at = n.removesuffix("qkv.bias")
            state[f"{at}q_bias"], _, state[f"{at}v_bias"] = w.chunk(3)
        else:
            state[n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = w
    told = beit.load_state_dict(state, strict=False)
    assert not told.unexpected_keys
    assert all(n.endswith(("k_bias", "relative_position_index")) for n in told.missing_keys)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(vit.eval()(x), beit.eval().forward_features(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_the_last_norm_it_is_the_published_classifier():
    """mrm_record's fine-tuning: timm's ViT pooled by the mean has no norm behind the blocks and a new one before the last layer."""
    method = build("mrm_record").eval()
    add_parts(method, False, None, last_norm=False)
    vit, head = method.image_encoder(), LinearHead(method.image_encoder().dim, 5, std=0.5)
    theirs = timm.models.vision_transformer.VisionTransformer(
        vit.img_size, vit.patch, num_classes=5, embed_dim=vit.dim, depth=len(vit.blocks), num_heads=vit.blocks[0].attn.heads,
        mlp_ratio=method.options.image.mlp_ratio, global_pool="avg",
    ).eval()  # fmt: skip
    state = {**vit.state_dict(), **{f"fc_norm.{n}": w for n, w in head.norm.state_dict().items()}}
    theirs.load_state_dict(state | {f"head.{n}": w for n, w in head.out.state_dict().items()}, strict=True)
    data = batch(method, records(3))
    got = head.score(method.encode(data)["pooled_BD"])
    torch.testing.assert_close(got, theirs(seen_by(method, data)), rtol=1e-4, atol=1e-5)
    last = vit.features(seen_by(method, data), (len(vit.blocks),))[0]
    assert torch.equal(last, method.encode(data)["tokens_BLD"])
    assert not torch.allclose(last, build("mrm_record").eval().encode(data)["tokens_BLD"], atol=1e-3)
