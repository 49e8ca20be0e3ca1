"""Decoders of segmentation: the two-way decoder of MGI, UPerNet over a ViT's blocks, SETR-PUP, the linear head."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from synthetic import build
from torch import nn

from models.contract import MethodError
from models.decoders.maps import LayerNorm2d, token_map
from models.decoders.setr_pup import SetrPupDecoder
from models.decoders.two_way import MOMENTUM, TwoWayBlock, TwoWayDecoder, pooled_runs
from models.decoders.upernet import FCNHead, LinearMaskHead, UPerNetDecoder
from models.encoders.positions import sincos_2d
from models.encoders.vit import ViT, pyramid_blocks
from models.finetuned import side_of
from models.losses.finetune import bce_dice

ODD_GRIDS = [(1, 1), (1, 4), (3, 5), (7, 7)]


def two_way(seed=0, **options):
    torch.manual_seed(seed)
    small = {"image_dim": 24, "gene_dim": 12, "width": 16, "heads": 2, "mlp": 32, "n_query": 4}
    return TwoWayDecoder(**{**small, **options})


def inputs(B=3, grid=(4, 3), Q=10, image_dim=24, gene_dim=12, extra=0, seed=1):
    g = torch.Generator().manual_seed(seed)
    image, genes = (
        torch.randn(B, n, d, generator=g) for n, d in ((grid[0] * grid[1] + extra, image_dim), (Q, gene_dim))
    )
    real = torch.ones(B, Q, dtype=torch.bool)
    real[1:2, 5:] = False
    real[2:3] = False
    return image, genes, real, grid


def assert_all_learn(module, loss):
    loss.backward()
    assert not [n for n, p in module.named_parameters() if p.grad is None], "no gradient"
    assert not [n for n, p in module.named_parameters() if not p.grad.isfinite().all()], "not finite"
    # The softmax does not see a key's bias.
    blind = [n for n, p in module.named_parameters() if not p.grad.any() and not n.endswith("k.bias")]
    assert not blind, "all zero"


# ----------------------------------------------------------------------------------------------------------------- two-way


def literal_attention(a, q, k, v):
    """Head by head, key by key."""
    q, k, v = q @ a.q.weight.T + a.q.bias, k @ a.k.weight.T + a.k.bias, v @ a.v.weight.T + a.v.bias
    d, made = q.shape[-1] // a.heads, []
    for h in range(a.heads):
        s = slice(h * d, (h + 1) * d)
        made.append((q[..., s] @ k[..., s].mT / math.sqrt(d)).softmax(-1) @ v[..., s])
    return torch.cat(made, -1) @ a.out.weight.T + a.out.bias


def literal_two_way(m, image, genes, grid):
    """Spec and Fig. 2, step by step, for genes that are all real."""
    Q, N = genes.shape[1], m.queries.n_query
    runs = [genes[:, i * Q // N : -((-(i + 1) * Q) // N)].mean(1) for i in range(N)]
    start = genes_ = torch.stack(runs, 1) @ m.queries.proj.weight.T + m.queries.proj.bias
    if m.mask_token:
        start = genes_ = torch.cat([m.queries.mask_token_C.expand(len(genes), 1, -1), genes_], 1)
    pixels, places = image @ m.image_proj.weight.T + m.image_proj.bias, sincos_2d(*grid, m.image_proj.out_features)
    for i, b in enumerate(m.blocks):
        asking = genes_ if i == 0 else genes_ + start
        genes_ = b.norm1(genes_ + literal_attention(b.to_genes, asking, asking, genes_))
        genes_ = b.norm2(genes_ + literal_attention(b.to_image, genes_ + start, pixels + places, pixels))
        genes_ = b.norm3(genes_ + b.mlp[2](b.mlp[0](genes_).clamp_min(0)))
        pixels = b.norm4(pixels + literal_attention(b.from_image, pixels + places, genes_ + start, genes_))
    genes_ = m.last_norm(genes_ + literal_attention(m.last, genes_ + start, pixels + places, pixels))
    up = pixels.mT.reshape(len(image), -1, *grid)
    up = F.conv_transpose2d(up, m.upsample[0].weight, m.upsample[0].bias, stride=2)
    mean, var = up.mean(1, keepdim=True), up.var(1, keepdim=True, correction=0)
    up = F.gelu((up - mean) / (var + 1e-6).sqrt())
    up = F.gelu(F.conv_transpose2d(up, m.upsample[3].weight, m.upsample[3].bias, stride=2))
    for i in (0, 2, 4):
        genes_ = genes_ @ m.to_mask[i].weight.T + m.to_mask[i].bias
        genes_ = genes_.clamp_min(0) if i < 4 else genes_
    query = genes_[:, 0] if m.mask_token else genes_.mean(1)
    return (query[:, :, None, None] * up).sum(1, keepdim=True)


@pytest.mark.parametrize("mask_token", [False, True])
def test_two_way_is_the_paper_step_by_step(mask_token):
    m = two_way(mask_token=mask_token)
    image, genes, _, grid = inputs()
    got = m(image, genes, torch.ones(3, 10, dtype=torch.bool), grid)
    torch.testing.assert_close(got, literal_two_way(m, image, genes, grid), rtol=1e-4, atol=1e-5)


def test_two_way_at_the_recommended_size():
    """Width 256, 16 x 16 patches to 64 x 64; parameters by hand."""
    m = TwoWayDecoder(768, 256, gene_missing="learned")
    C, half, mlp = 256, 128, 2048
    attend = {inner: 3 * (C * inner + inner) + inner * C + C for inner in (C, half)}
    block = attend[C] + 2 * attend[half] + (C * mlp + mlp + mlp * C + C) + 4 * 2 * C
    up = C * 64 * 4 + 64 + 2 * 64 + 64 * 32 * 4 + 32
    head = 2 * (C * C + C) + C * 32 + 32
    want = (768 * C + C) + 16 * 256 + 2 * block + attend[half] + 2 * C + up + head
    assert sum(p.numel() for p in m.parameters()) == want
    image, genes, real, grid = inputs(1, (16, 16), 40, 768, 256)
    assert m(image, genes, real, grid).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("mask_token", [False, True])
@pytest.mark.parametrize("missing", ["learned", "mean"])
def test_two_way_learns_everywhere_and_from_odd_inputs(missing, mask_token):
    for grid, Q in zip(ODD_GRIDS, (1, 3, 16, 37), strict=True):
        m = two_way(mask_token=mask_token, gene_missing=missing)
        image, genes, real, _ = inputs(grid=grid, Q=Q, extra=1)
        out = m(image, genes, real, grid)
        assert out.shape == (3, 1, 4 * grid[0], 4 * grid[1])
        if grid != (1, 1):
            assert_all_learn(m, bce_dice(out, torch.ones_like(out).tril(), torch.ones(3)))


def test_two_way_leaves_the_class_token_out():
    m = two_way()
    image, genes, real, grid = inputs()
    with_class = torch.cat([torch.full((3, 1, 24), torch.nan), image], 1)
    assert torch.equal(m(with_class, genes, real, grid), m(image, genes, real, grid))
    with pytest.raises(AssertionError, match="14 tokens are no grid of 4 x 3"):
        m(torch.zeros(3, 14, 24), genes, real, grid)


def test_two_way_reads_the_genes_and_knows_where_a_patch_is():
    """Logits of either sample change with the genes, and a moved patch is not just a moved logit."""
    m = two_way().eval()
    image, genes, _, grid = inputs(2)
    real = torch.ones(2, 10, dtype=torch.bool)
    own = m(image, genes, real, grid)
    assert (own - m(image, genes.flip(0), real, grid)).abs().amax((1, 2, 3)).min() > 1e-4
    turned = m(image.flip(1), genes, real, grid)
    # Up-sampling kernels are not symmetric, so patches are compared by their 4 x 4 means.
    assert (F.avg_pool2d(turned.flip(2, 3), 4) - F.avg_pool2d(own, 4)).abs().max() > 1e-4


@pytest.mark.parametrize("missing", ["learned", "mean"])
def test_absent_genes_do_not_enter(missing):
    m = two_way(gene_missing=missing).eval()
    image, genes, real, grid = inputs()
    want = m(image, genes, real, grid)
    spoilt = genes.masked_fill(~real[..., None], torch.nan)
    assert torch.equal(m(image, spoilt, real, grid), want)
    by_sample = torch.tensor([True, True, False])
    torch.testing.assert_close(m(image, genes, by_sample, grid)[[0, 2]], want[[0, 2]])
    assert not torch.allclose(m(image, genes, by_sample, grid)[1], want[1])
    assert want.isfinite().all()


def test_the_running_mean_stands_in_for_absent_genes():
    m = two_way(gene_missing="mean")
    image, genes, real, grid = inputs()
    runs, has = pooled_runs(genes, real, 4)
    assert has.tolist() == [[True] * 4, [True, True, False, False], [False] * 4]
    want = torch.stack([runs[:2, 0].mean(0), runs[:2, 1].mean(0), runs[0, 2], runs[0, 3]])
    m.eval()(image, genes, real, grid)
    assert not m.queries.mean_NE.any(), "evaluation must not move it"
    m.train()(image, genes, real, grid)
    torch.testing.assert_close(m.queries.mean_NE, want)
    m(image, genes + 1, real, grid)
    torch.testing.assert_close(m.queries.mean_NE, want + (1 - MOMENTUM))
    before = m.queries.mean_NE.clone()
    m(image, genes, torch.zeros_like(real), grid)
    assert torch.equal(m.queries.mean_NE, before), "a batch without genes says nothing"
    # A sample without genes is drawn as one that has the mean.
    m.eval()
    repeated = before.repeat_interleave(3, 0)[None]
    all_real = torch.ones(1, 12, dtype=torch.bool)
    torch.testing.assert_close(
        m(image[2:], repeated, all_real, grid), m(image[2:], genes[2:], real[2:], grid), rtol=1e-4, atol=1e-5
    )


def test_pooled_runs_are_adaptive_pooling_over_what_is_real():
    tokens = torch.arange(7.0).view(1, 7, 1)
    real = torch.tensor([[True, True, False, True, True, False, False]])
    means, has = pooled_runs(tokens, real, 3)  # runs 0-2, 2-4, 4-6
    assert has.tolist() == [[True, True, True]]
    torch.testing.assert_close(means.flatten(), torch.tensor([0.5, 3.5, 4.0]))
    means, has = pooled_runs(tokens[:, :2], real[:, :2], 4)  # fewer tokens than queries: repeated
    torch.testing.assert_close(means.flatten(), torch.tensor([0.0, 0, 1, 1]))


@pytest.mark.parametrize("kind", ["two_way", "upernet", "setr_pup", "linear"])
def test_half_precision(kind):
    """Weights and inputs in bfloat16, as the engine holds them, up to a finite loss and the running mean."""
    image, genes, real, grid = (x.bfloat16() if i < 2 else x for i, x in enumerate(inputs()))
    makers = {
        "two_way": two_way,
        "upernet": lambda: upernet(dim=24),
        "setr_pup": lambda: setr_pup(dim=24),
        "linear": lambda: LinearMaskHead(24),
    }
    decoder = makers[kind]().bfloat16()
    args = {"two_way": (image, genes, real), "upernet": ([image] * 4,)}.get(kind, (image,))
    out = decoder(*args, grid)
    assert out.dtype == torch.bfloat16
    assert_all_learn(decoder, bce_dice(out, torch.ones_like(out).tril(), torch.ones(3)))


def test_two_way_refuses_sizes_that_do_not_divide():
    with pytest.raises(MethodError) as e:
        TwoWayDecoder(24, 12, width=20, heads=3, n_query=0, gene_missing="zeros")  # type: ignore[arg-type]
    assert len(e.value.problems) == 3
    assert "use 256 and 8" in str(e.value)
    assert "use learned or mean" in str(e.value)


def test_a_block_passes_through_what_attention_adds_nothing_to():
    """With all outputs at zero a step is a LayerNorm alone: the residuals are there."""
    block = TwoWayBlock(8, 2, 16, first=True)
    for linear in (block.to_genes.out, block.to_image.out, block.mlp[2], block.from_image.out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    genes, image = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    got_genes, got_image = block(genes, image, genes, torch.zeros(5, 8))
    torch.testing.assert_close(got_genes, F.layer_norm(genes, (8,)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got_image, F.layer_norm(image, (8,)))


# ---------------------------------------------------------------------------------------------------- features, UPerNet, linear


def small_vit(depth=4, side=(48, 80), cls_token=True):
    torch.manual_seed(0)
    return ViT(side, 16, dim=16, depth=depth, heads=2, cls_token=cls_token)


def test_features_are_the_tokens_between_blocks():
    vit, x = small_vit(), torch.randn(2, 3, 48, 80)
    tokens, seen = vit.embed(x), {}
    for i, block in enumerate(vit.blocks, 1):
        seen[i] = tokens = block(tokens)
    got = vit.features(x, (3, 1, 1, 4))
    for made, want in zip(got, (seen[3], seen[1], seen[1], vit(x)), strict=True):
        assert torch.equal(made, want)
    calls = []
    vit.blocks[2].register_forward_hook(lambda *_: calls.append(1))
    vit.features(x, (1, 2))
    assert not calls, "blocks above the last one asked for are not run"
    for bad in ((0,), (2, 5)):
        with pytest.raises(AssertionError, match="there are 1 to 4"):
            vit.features(x, bad)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (4, 6, 8, 12)), (24, (8, 12, 16, 24)), (4, (1, 2, 3, 4)), (2, (1, 1, 1, 2)), (1, (1, 1, 1, 1))],
)
def test_pyramid_blocks(depth, blocks):
    assert pyramid_blocks(depth) == blocks


def test_token_map_is_row_by_row():
    made = token_map(torch.arange(12.0).view(1, 6, 2), (2, 3))
    assert made[0, 0].tolist() == [[0, 2, 4], [6, 8, 10]]


def test_layer_norm_2d():
    torch.manual_seed(0)
    norm, x = LayerNorm2d(5), torch.randn(2, 5, 3, 4)
    nn.init.normal_(norm.weight)
    want = torch.stack(
        [
            norm.weight * (v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt()
            for v in x.permute(0, 2, 3, 1).reshape(-1, 5)
        ]
    )
    torch.testing.assert_close(norm(x), want.view(2, 3, 4, 5).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)


def upernet(**options):
    torch.manual_seed(0)
    return UPerNetDecoder(**{"dim": 16, "channels": 16, "dropout": 0.0, **options})


@pytest.mark.parametrize("grid", ODD_GRIDS)
@pytest.mark.parametrize("B", [1, 2])
def test_upernet_learns_on_any_grid(grid, B):
    decoder, features = upernet(out_channels=2), [torch.randn(B, 1 + grid[0] * grid[1], 16) for _ in range(4)]
    out = decoder(features, grid)
    assert out.shape == (B, 2, 4 * grid[0], 4 * grid[1])
    if grid == (7, 7):
        assert_all_learn(decoder, bce_dice(out, torch.ones_like(out).tril(), torch.ones(B)))


def test_upernet_uses_each_of_its_four_maps():
    decoder, grid = upernet().eval(), (4, 4)
    features = [torch.randn(1, 16, 16) for _ in range(4)]
    own = decoder(features, grid)
    for i in range(4):
        other = [torch.randn(1, 16, 16) if i == j else f for j, f in enumerate(features)]
        assert (decoder(other, grid) - own).abs().max() > 1e-3
    with pytest.raises(AssertionError, match="takes 4 maps, not 3"):
        decoder(features[:3], grid)


def test_upernet_has_no_statistics_of_the_batch():
    """Samples are independent in training too, so ranks and micro batches of any size agree."""
    decoder = upernet()
    assert not list(decoder.buffers())
    assert not [m for m in decoder.modules() if isinstance(m, nn.ReLU) and m.inplace]
    features = [torch.randn(3, 20, 16) for _ in range(4)]
    alone = torch.cat([decoder([f[i : i + 1] for f in features], (4, 5)) for i in range(3)])
    torch.testing.assert_close(decoder(features, (4, 5)), alone, rtol=1e-4, atol=1e-5)


def test_upernet_at_the_size_of_a_vit_base():
    """Parameters by hand: rescaling, LayerNorms of the maps, pyramid pooling, feature pyramid, fusion, last convolution."""
    D, C = 768, 256
    rescale = 3 * (D * D * 4 + D) + 2 * D
    pooling = 4 * (D * C + 2 * C) + ((D + 4 * C) * C * 9 + 2 * C)
    pyramid = 3 * (D * C + 2 * C) + 3 * (C * C * 9 + 2 * C) + (4 * C * C * 9 + 2 * C)
    assert sum(p.numel() for p in UPerNetDecoder(D).parameters()) == rescale + 4 * 2 * D + pooling + pyramid + C + 1


def setr_pup(**options):
    torch.manual_seed(0)
    return SetrPupDecoder(**{"dim": 16, "patch": 16, "channels": 16, **options})


@pytest.mark.parametrize("patch", [1, 2, 8, 16, 32])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_setr_pup_ends_at_the_images_size(patch, grid):
    decoder = setr_pup(patch=patch, out_channels=2)
    out = decoder(torch.randn(2, 1 + grid[0] * grid[1], 16), grid)
    assert out.shape == (2, 2, grid[0] * patch, grid[1] * patch)
    assert len(decoder.convs) == math.log2(patch)
    if grid == (2, 3):
        assert_all_learn(decoder, bce_dice(out, torch.ones_like(out).tril(), torch.ones(2)))


def test_setr_pup_step_by_step():
    """Convolution, norm, ReLU, doubling, four times, then the last convolution at full size, as the paper draws it."""
    decoder, grid, tokens = setr_pup(out_channels=3), (2, 3), torch.randn(2, 6, 16)
    nn.init.normal_(decoder.out.bias)
    x = tokens.transpose(1, 2).reshape(2, 16, 2, 3)
    for i in range(4):
        x = F.group_norm(F.conv2d(x, decoder.convs[i].weight, padding=1), 2)
        x = F.interpolate(x.clamp_min(0), scale_factor=2, mode="bilinear", align_corners=False)
    want = F.conv2d(x, decoder.out.weight, decoder.out.bias)
    torch.testing.assert_close(decoder(tokens, grid), want, rtol=1e-4, atol=1e-5)
    # 256 channels at a ViT-B, counted by hand.
    size = (768 + 3 * 256) * 256 * 9 + 4 * 2 * 256 + 256 + 1
    assert sum(p.numel() for p in SetrPupDecoder(768, 16).parameters()) == size
    assert not list(decoder.buffers()), "no statistics of the batch"


def test_setr_pup_refuses_patches_that_doubling_does_not_fill():
    with pytest.raises(MethodError, match="patches of 6 are no power of two; use upernet"):
        setr_pup(patch=6)


def test_light_heads():
    torch.manual_seed(0)
    tokens, grid = torch.randn(2, 16, 16), (3, 5)
    linear, aux = LinearMaskHead(16, 2), FCNHead(16, channels=16)
    assert sum(p.numel() for p in linear.parameters()) == 34
    assert sum(p.numel() for p in FCNHead(768).parameters()) == 768 * 256 * 9 + 2 * 256 + 256 + 1
    at_patches = linear(tokens, grid)
    torch.testing.assert_close(at_patches[1, :, 2, 4], linear.out.weight[:, :, 0, 0] @ tokens[1, -1] + linear.out.bias)
    assert linear(tokens, grid, (48, 80)).shape == (2, 2, 48, 80)
    assert_all_learn(linear, linear(tokens, grid, (48, 80)).square().mean())
    assert aux(tokens, grid).shape == (2, 1, 3, 5)
    assert_all_learn(aux, aux(tokens, grid).square().mean())


@pytest.mark.parametrize("kind", ["two_way", "upernet", "setr_pup", "linear"])
def test_a_sample_does_not_depend_on_its_batch(kind):
    image, genes, real, grid = inputs()
    if kind == "two_way":
        decoder, args = two_way(gene_missing="mean"), [image, genes, real]
        decoder(*args, grid)
    else:
        decoder = {
            "upernet": lambda: upernet(dim=24, dropout=0.5),
            "setr_pup": lambda: setr_pup(dim=24),
            "linear": lambda: LinearMaskHead(24),
        }[kind]()
        args = [image]
    decoder.eval()

    def run(rows):
        own = [a[rows] for a in args]
        return decoder([own[0] * (i + 1) for i in range(4)], grid) if kind == "upernet" else decoder(*own, grid)

    whole = run(slice(None))
    for i in range(3):
        torch.testing.assert_close(run(slice(i, i + 1)), whole[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["two_way", "upernet", "setr_pup"])
def test_a_decoder_can_learn_a_mask(kind):
    """A bright square on noise, found by encoder and decoder together."""
    torch.manual_seed(0)
    vit = small_vit(side=(64, 64))
    mask, size = torch.zeros(4, 1, 16, 16), (16, 16)
    for i in range(4):
        mask[i, :, 4 * (i % 2) : 4 * (i % 2) + 8, 2 * i : 2 * i + 8] = 1
    image = torch.randn(4, 3, 64, 64) * 0.3 + F.interpolate(mask, size=(64, 64))
    decoder = {"two_way": lambda: two_way(image_dim=16), "upernet": upernet, "setr_pup": setr_pup}[kind]()
    genes, real = torch.randn(4, 6, 12), torch.ones(4, 6, dtype=torch.bool)
    optimizer = torch.optim.AdamW([*vit.parameters(), *decoder.parameters()], 3e-3)
    losses = []
    for _ in range(60):
        if kind == "upernet":
            out = decoder(vit.features(image, pyramid_blocks(4)), vit.grid)
        else:
            out = decoder(vit(image), *([genes, real] if kind == "two_way" else []), vit.grid)
        out = F.interpolate(out, size, mode="area") if kind == "setr_pup" else out
        loss = bce_dice(out, mask, torch.ones(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]
    hit = (out > 0) == (mask > 0)
    assert hit.float().mean() > 0.9


def test_a_method_without_an_image_encoder_is_refused(monkeypatch):
    method = build("mgi")
    monkeypatch.setattr(method, "image_encoder", lambda: None)
    with pytest.raises(MethodError, match="has no image encoder"):
        side_of(method)
