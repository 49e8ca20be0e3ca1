"""Masked records, equation by equation, against few-line references written from the paper and the code's description.

Shape letters: B samples, N patches, M masked ones, P values of a patch, L report places, V vocabulary.
"""

from __future__ import annotations

import argparse
import math

import pytest
import torch
import torch.nn.functional as F
from synthetic import batch, build, records
from torch import nn

from models.contract import MethodError
from models.decoders.mae import patchify
from models.layers.patches import mask_order, standardise
from models.methods.masked.mrm_record.options import PUBLISHED, MrmRecordOptions
from models.methods.masked.mrm_record.published import published_state
from models.transforms.text import MASK, PAD


def made(n: int = 6, missing=None, **options):
    """A method in eval mode (no dropout) and a batch of it."""
    method = build("mrm_record", **options)
    method.enter("pretrain")
    method.eval()
    return method, batch(method, records(n, missing=missing))


# ------------------------------------------------------------------------------- the published losses, literally

LITERAL = {"target": "norm_patch", "image_weight": 1.0}  # where the demo recipe differs


class PublishedBert(nn.Module):
    """Hugging Face's BertForMaskedLM over embeddings, from its published names: nothing fused, nothing shared."""

    def __init__(self, state: dict[str, torch.Tensor], heads: int):
        super().__init__()
        self.state, self.heads = state, heads

    def p(self, name: str) -> torch.Tensor:
        return self.state[f"bert_encoder.model.{name}"]

    def linear(self, x, name):
        return x @ self.p(f"{name}.weight").T + self.p(f"{name}.bias")

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.p(f"{name}.weight"), self.p(f"{name}.bias"), 1e-12)

    def forward(self, ids, image_vector):
        e = "bert.embeddings"
        x = self.p(f"{e}.word_embeddings.weight")[ids] + self.p(f"{e}.position_embeddings.weight")[: ids.shape[1]]
        x = self.norm(x + self.p(f"{e}.token_type_embeddings.weight")[0], f"{e}.LayerNorm")
        x = x + image_vector[:, None]  # onto every position
        hide = torch.where(ids == PAD, -torch.inf, 0.0)[:, None, None, :]
        depth = len({n.split(".layer.")[1].split(".")[0] for n in self.state if ".layer." in n})
        for i in range(depth):
            at = f"bert.encoder.layer.{i}"
            q, k, v = (
                self.linear(x, f"{at}.attention.self.{n}").unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for n in ("query", "key", "value")
            )
            weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + hide).softmax(-1)
            y = self.linear((weights @ v).transpose(1, 2).flatten(2), f"{at}.attention.output.dense")
            x = self.norm(x + y, f"{at}.attention.output.LayerNorm")
            y = self.linear(F.gelu(self.linear(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
            x = self.norm(x + y, f"{at}.output.LayerNorm")
        h = "cls.predictions"
        x = self.norm(F.gelu(self.linear(x, f"{h}.transform.dense")), f"{h}.transform.LayerNorm")
        return self.linear(x, f"{h}.decoder")


def mae_block(x, s, at, heads):
    def norm(x, n):
        return F.layer_norm(x, x.shape[-1:], s[f"{at}.{n}.weight"], s[f"{at}.{n}.bias"], 1e-6)

    def linear(x, n):
        return x @ s[f"{at}.{n}.weight"].T + s[f"{at}.{n}.bias"]

    B, L, D = x.shape
    q, k, v = linear(norm(x, "norm1"), "attn.qkv").reshape(B, L, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
    y = (q @ k.transpose(-1, -2) * (D // heads) ** -0.5).softmax(-1) @ v
    x = x + linear(y.transpose(1, 2).reshape(B, L, D), "attn.proj")
    return x + linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")


def published_losses(s, o, image_448, noise, ids, masked_ids):
    """Image and report loss as the published code computes them, from weights under its names.

    image_448: normalised, three channels, at the target's size.
    """
    p, q = o.image.patch, o.image.patch * o.super_resolution
    small = F.interpolate(image_448, (o.image.image_size, o.image.image_size), mode="bicubic", align_corners=False)
    x = F.conv2d(small, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=p).flatten(2).transpose(1, 2)
    x = x + s["pos_embed"][:, 1:]
    B, N, D = x.shape
    shuffle = torch.argsort(noise, dim=1)  # ascending: small is kept
    restore = torch.argsort(shuffle, dim=1)
    keep = int(N * (1 - o.mask_ratio))
    x = torch.gather(x, 1, shuffle[:, :keep, None].repeat(1, 1, D))
    mask = torch.ones(B, N)
    mask[:, :keep] = 0
    mask = torch.gather(mask, 1, restore)
    x = torch.cat([(s["cls_token"] + s["pos_embed"][:, :1]).expand(B, -1, -1), x], 1)
    for i in range(o.image.depth):
        x = mae_block(x, s, f"blocks.{i}", o.image.heads)
    latent = F.layer_norm(x, (D,), s["norm.weight"], s["norm.bias"], 1e-6)
    # image decoder: mask tokens behind the visible ones, then back to the image's order
    y = latent @ s["decoder_embed.weight"].T + s["decoder_embed.bias"]
    y_ = torch.cat([y[:, 1:], s["mask_token"].repeat(B, N - keep, 1)], 1)
    y_ = torch.gather(y_, 1, restore[:, :, None].repeat(1, 1, y.shape[2]))
    y = torch.cat([y[:, :1], y_], 1) + s["decoder_pos_embed"]
    for i in range(o.decoder_depth):
        y = mae_block(y, s, f"decoder_blocks.{i}", o.decoder_heads)
    y = F.layer_norm(y, y.shape[-1:], s["decoder_norm.weight"], s["decoder_norm.bias"], 1e-6)
    pred = (y @ s["decoder_pred.weight"].T + s["decoder_pred.bias"])[:, 1:]
    g = int(N**0.5)
    target = torch.einsum("nchpwq->nhwpqc", image_448.reshape(B, 3, g, q, g, q)).reshape(B, N, q * q * 3)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    loss_image = (((pred - target) ** 2).mean(-1) * mask).sum() / mask.sum()
    # report decoder: mean of the projected visible patches, class token left out
    vector = (latent[:, 1:] @ s["bert_mlp.weight"].T + s["bert_mlp.bias"]).mean(1)
    logits = PublishedBert(s, o.report_heads)(masked_ids, vector)
    loss_report = F.cross_entropy(logits.flatten(0, 1), ids.flatten())  # all positions, padding too
    return loss_image, loss_report


def shaken(method):
    """Biases and norms start at 0 and 1: nothing may hide there."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in method.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return method


def expected(o, state, data):
    """The published code's losses on a batch, from weights under its names."""
    grey_B1HW = data["image"].permute(0, 3, 1, 2).float() / 255
    image = ((grey_B1HW - o.view.pixel_mean) / o.view.pixel_std).repeat(1, 3, 1, 1)
    ids = data["report"].long()
    return published_losses(state, o, image, data["noise"], ids, torch.where(data["hidden"], MASK, ids))


def test_both_losses_are_the_published_codes():
    method, data = made(conventions="published", **LITERAL)
    shaken(method)
    o, state = method.options, published_state(method)
    look_up, output = (
        state[f"bert_encoder.model.{n}.weight"] for n in ("bert.embeddings.word_embeddings", "cls.predictions.decoder")
    )
    assert not torch.equal(look_up, output), "the running published code scores words by a matrix of its own"
    image_loss, report_loss = expected(o, state, data)
    out = method(data)
    torch.testing.assert_close(out.losses["image"], image_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.losses["report"], report_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.total, image_loss + report_loss)


@pytest.mark.parametrize("conventions", ["published", "recommended"])
def test_a_file_as_the_published_code_writes_it_gives_its_losses(conventions, tmp_path):
    """Model, optimiser, epoch and the arguments as a namespace; with BERT's unused pooler and its counter of positions."""
    theirs = shaken(made(conventions="published", **LITERAL)[0])
    state, bert = published_state(theirs), "bert_encoder.model.bert"
    width = theirs.options.report_dim
    unused = {
        f"{bert}.pooler.dense.weight": torch.randn(width, width),
        f"{bert}.pooler.dense.bias": torch.randn(width),
        f"{bert}.embeddings.position_ids": torch.arange(theirs.options.report_length)[None],
    }
    file = tmp_path / "MRM.pth"
    content = {"model": state | unused, "optimizer": {"state": {}}, "epoch": 199, "scaler": {"scale": 1.0}}
    torch.save(content | {"args": argparse.Namespace(model="mrm", lr=1.5e-4, output_dir=None)}, file)
    all_places = {"tie": False, "mlm_loss_on": "all"} if conventions == "recommended" else {}
    method, data = made(published_file=str(file), conventions=conventions, **LITERAL, **all_places)
    assert set(method.loaded.skipped) == set(unused)
    image_loss, report_loss = expected(method.options, state, data)
    out = method(data)
    torch.testing.assert_close(out.losses["image"], image_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.losses["report"], report_loss, rtol=1e-5, atol=1e-6)


def test_a_report_without_words_counts_in_the_published_convention_alone():
    mute = records(6)
    mute[2].fields = mute[2].fields | {"report": " "}
    for conventions, counted in (("published", 6), ("recommended", 5)):
        method = build("mrm_record", conventions=conventions, **LITERAL)
        method.enter("pretrain")
        data = batch(method.eval(), mute)
        assert int(data.present["report"].sum()) == counted


def test_published_conventions_are_set_together_and_not_contradicted():
    options = MrmRecordOptions.parse({"conventions": "published"})
    assert {k: getattr(options, k) for k in PUBLISHED} == PUBLISHED
    assert MrmRecordOptions.parse(options.model_dump()) == options
    assert MrmRecordOptions.parse({}).mlm_loss_on == "masked"
    with pytest.raises(MethodError, match=r"contradicts method\.fuse_to=unmasked \(theirs: all\)"):
        MrmRecordOptions.parse({"conventions": "published", "fuse_to": "unmasked"})


# ------------------------------------------------------------------------------------------------ recommended losses


def test_report_loss_is_the_mean_over_hidden_words():
    method, data = made(missing={2: ("report",)})
    o = method.options
    scores_TV, _ = method._scores(
        method.encoder(method.encoder_image(method.pixels(data)), mask_order(data["noise"], o.mask_ratio)[0]),
        data,
        True,
    )
    log_p = scores_TV.unflatten(0, data["report"].shape).log_softmax(-1)
    terms = [
        -log_p[b, i, data["report"][b, i]]
        for b in range(6)
        for i in range(o.report_length)
        if b != 2 and data["hidden"][b, i]
    ]
    assert len(terms) > 10
    torch.testing.assert_close(method(data).losses["report"], torch.stack(terms).mean())


def test_unit_target_is_pixels_between_zero_and_one():
    method, data = made(target="unit", super_resolution=2)
    pixels = method.pixels(data)
    assert 0 <= pixels.min() < 0.1 < 0.5 < pixels.max() <= 1
    masked_BM = mask_order(data["noise"], method.options.mask_ratio)[1]
    target_BMP, mean, std = method.targets(pixels, masked_BM)
    assert (mean, std) == (0, 1)
    q, b, at = method.target_patch, 1, int(masked_BM[1, 0])
    row, column = divmod(at, method.encoder.grid[1])
    literal = pixels[b, 0, row * q : row * q + q, column * q : column * q + q]
    torch.testing.assert_close(target_BMP[b, 0].reshape(q, q, 3), literal[..., None].expand(-1, -1, 3))


def test_total_weighs_the_terms():
    method, data = made(image_weight=0.25, report_weight=3.0)
    out = method(data)
    torch.testing.assert_close(out.total, 0.25 * out.losses["image"] + 3.0 * out.losses["report"])


@pytest.mark.parametrize("gone", ["image", "report"])
def test_a_term_without_weight_takes_its_decoder_along(gone):
    method, data = made(**{f"{gone}_weight": 0})
    out = method(data)
    assert set(out.losses) == {"image", "report"} - {gone}
    out.total.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    if gone == "report":
        assert method.stages()[0].fields == ("image",)


def test_baseline_is_the_loss_of_the_best_constant():
    method, data = made(target="unit")
    target = method.targets(method.pixels(data), mask_order(data["noise"], method.options.mask_ratio)[1])[0]
    torch.testing.assert_close(method(data).diagnostics["image_baseline"], target.var(correction=0), rtol=1e-4, atol=0)


# ------------------------------------------------------------------------------------------------------------ fusion


@pytest.mark.parametrize("fuse", ["gap", "gmp"])
def test_radiograph_vector_is_mean_or_maximum_of_projected_patches(fuse):
    method, data = made(fuse=fuse)
    seen = {}
    method.report.register_forward_pre_hook(lambda m, args: seen.update(vector=args[2]))
    tokens = torch.randn(6, 10, method.options.image.dim)
    method._scores(tokens, data, True)
    projected = method.fuse(tokens[:, 1:])
    torch.testing.assert_close(seen["vector"], projected.mean(1) if fuse == "gap" else projected.max(1).values)


@pytest.mark.parametrize("to", ["all", "unmasked"])
def test_where_the_radiograph_is_added(to):
    method, data = made(fuse_to=to)
    seen = {}
    method.report.blocks[0].register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    tokens = torch.randn(6, 10, method.options.image.dim)
    method._scores(tokens, data, True)
    with_image = seen["x"]
    data.present["image"][:] = False
    method._scores(tokens, data, True)
    changed_BL = (with_image - seen["x"]).abs().amax(-1) > 0
    visible_BL = (data["report"] != PAD) & ~data["hidden"]
    assert torch.equal(changed_BL, torch.ones_like(changed_BL) if to == "all" else visible_BL)


def test_hidden_words_do_not_leak_into_their_prediction():
    method, data = made()
    tokens = torch.randn(6, 10, method.options.image.dim)
    before, _ = method._scores(tokens, data, True)
    data["report"] = torch.where(data["hidden"], (data["report"] + 1) % 20 + 4, data["report"])
    after, _ = method._scores(tokens, data, True)
    torch.testing.assert_close(before, after)


def test_hybrid_image_reads_the_visible_words():
    method, data = made(hybrid_image=True)
    before = method(data).losses["image"]
    data["report"] = torch.where(data["hidden"], data["report"], data["report"].roll(1, 0))
    data["hidden"] = data["hidden"] & (data["report"] != PAD)
    assert not torch.equal(method(data).losses["image"], before)


# ----------------------------------------------------------------------------------------------------------- patches


def test_super_resolution_patches_cover_the_same_region_at_both_scales():
    image = torch.arange(48 * 48.0).reshape(1, 1, 48, 48)
    half = F.avg_pool2d(image, 2)
    large, small = patchify(image, 16), patchify(half, 8)
    assert large.shape == (1, 9, 256)
    assert small.shape == (1, 9, 64)
    torch.testing.assert_close(large.mean(-1), small.mean(-1))


def test_mask_keeps_the_smallest_noise():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.4, 0.6]])
    keep, masked = mask_order(noise, 0.5)
    assert keep.tolist() == [[1, 3], [0, 2]]
    assert masked.tolist() == [[2, 0], [3, 1]]
    assert [len(i[0]) for i in mask_order(torch.rand(1, 196), 0.75)] == [49, 147]


def test_standardised_patches_have_unbiased_unit_variance():
    x = torch.randn(2, 3, 12, dtype=torch.float64) * 5 + 3
    y, mean, std = standardise(x)
    for b in range(2):
        for m in range(3):
            v = x[b, m]
            spread = ((v - v.sum() / 12) ** 2).sum() / 11
            torch.testing.assert_close(y[b, m], (v - v.sum() / 12) / (spread + 1e-6).sqrt())
    torch.testing.assert_close(y * std + mean, x)
