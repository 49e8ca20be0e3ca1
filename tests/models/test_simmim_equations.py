"""SimMIM against a few literal lines and another library's encoder: what is hidden, what stands in for it, what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from synthetic import batch, build, records

from models.contract import MethodError
from models.encoders.beit import BeitOptions
from models.encoders.parts import add_parts
from models.encoders.vit import RELATIVE, ViT, fit_positions
from models.layers.patches import blocks_hidden, drawn_blocks, places_of
from models.layers.relative import fitted_table
from models.registry import get_method
from models.transforms.image import normalised
from trainer.export.timm import beit_args, beit_state

SMALL = {"image_size": 32, "patch": 8, "dim": 24, "depth": 3, "heads": 4}


def entered(**options):
    method = build("simmim", **options)
    method.enter("pretrain")
    return method


def shaken(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """All weights far from their start, so that none can be left out unseen."""
    torch.manual_seed(seed)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def timms(vit: ViT) -> torch.nn.Module:
    """The same encoder as timm has it."""
    args = beit_args(vit, "")
    beit = timm.models.beit.Beit(**args, num_classes=0)
    told = beit.load_state_dict(beit_state(vit), strict=False)
    assert not told.unexpected_keys
    assert all(n.endswith(("k_bias", "relative_position_index")) for n in told.missing_keys)
    return beit.eval()


# ---------------------------------------------------------------------------------------------------------- what is hidden


def test_whole_pieces_are_hidden_as_many_in_every_image():
    drawn = [drawn_blocks((14, 14), 2, 0.6, np.random.default_rng(i)) for i in range(20)]
    assert {int(h.sum()) for h in drawn} == {30 * 4}  # ceil(49 x 0.6) pieces of 2 x 2 patches: 61.2 %
    for hidden in drawn:
        pieces = hidden.reshape(7, 2, 7, 2)
        assert (pieces.any((1, 3)) == pieces.all((1, 3))).all()
    assert len({h.tobytes() for h in drawn}) == 20
    often = np.mean([drawn_blocks((4, 4), 1, 0.5, np.random.default_rng(i)) for i in range(4000)], 0)
    assert np.abs(often - 0.5).max() < 0.04  # no place is preferred


@pytest.mark.parametrize(
    ("G", "ratio", "hidden"), [(49, 0.6, 30), (100, 0.07, 7), (100, 0.071, 8), (4, 0.5, 2), (16, 0.01, 1)]
)
def test_how_many_pieces_are_hidden(G, ratio, hidden):
    """math.ceil(100 * 0.07) is 8."""
    assert blocks_hidden(G, ratio) == hidden


def test_places_of_what_is_hidden():
    hidden = torch.tensor([[0, 1, 0, 1, 1], [1, 1, 0, 0, 1]], dtype=torch.uint8)
    assert places_of(hidden).tolist() == [[1, 3, 4], [0, 1, 4]]


# ------------------------------------------------------------------------------------------------------------ the equation


def literal(method, data) -> float:
    """Mean absolute gap over hidden pixels and colours of counted images, from all tokens, by convolution and pixel shuffle."""
    o = method.options
    x, side = normalised(data["views"][:, 0]), o.image.image_size // o.image.patch
    hidden = data["noise"].bool()
    vit = method.image
    patches = torch.nn.functional.conv2d(
        x, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=o.image.patch
    )
    tokens = patches.flatten(2).transpose(1, 2).clone()
    tokens[hidden] = method.mask.mask_token[0, 0]
    tokens = torch.cat([vit.cls_token.expand(len(x), -1, -1), tokens], 1)
    for block in vit.blocks:
        tokens = block(tokens, vit.rel_pos_bias())
    z = vit.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    made = torch.nn.functional.conv2d(z, method.head.weight[:, :, None, None], method.head.bias)
    made = torch.nn.functional.pixel_shuffle(made, o.image.patch)
    mask = hidden.reshape(-1, 1, side, side).float()
    mask = torch.nn.functional.interpolate(mask, scale_factor=o.image.patch)
    mask = mask * (data.weight_B * data.present["image"])[:, None, None, None]
    return float(((x - made).detach().abs() * mask).sum() / (mask.sum() + 1e-5) / 3)


def test_the_loss_is_the_absolute_gap_at_hidden_pixels_of_counted_images():
    method = shaken(entered())
    data = batch(method, records(5, missing={1: ["image"]}))
    data.weight_B[3] = 0
    assert method(data).losses["image"].item() == pytest.approx(literal(method, data), rel=1e-5)
    assert method.chance(5) == {}


def test_what_is_hidden_is_not_seen_and_what_is_seen_is_not_in_the_loss():
    method = shaken(entered())
    data = batch(method, records(2))
    x, side, patch = normalised(data["views"][:, 0]), 8, 6
    tokens, made, masked = method._restored(x, data["noise"])

    def changed(place: int) -> torch.Tensor:
        row, column = divmod(place, side)
        other = x.clone()
        other[0, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 3
        return other

    spoilt = changed(int(masked[0, 0]))
    torch.testing.assert_close(method._restored(spoilt, data["noise"])[0], tokens)
    assert not torch.equal(method.targets(spoilt, masked)[0], method.targets(x, masked)[0])
    seen = int((data["noise"][0] == 0).nonzero()[0])
    assert not torch.allclose(method._restored(changed(seen), data["noise"])[1], made)
    torch.testing.assert_close(method.targets(changed(seen), masked)[0], method.targets(x, masked)[0])


def test_the_mean_as_the_answer_costs_the_baseline():
    method = entered()
    data = batch(method, records(6))
    target = method.targets(normalised(data["views"][:, 0]), places_of(data["noise"]))[0]
    with torch.no_grad():
        method.head.weight.zero_()
        method.head.bias.fill_(target.mean())
    out = method(data)
    assert out.losses["image"].item() == pytest.approx(out.diagnostics["image_baseline"].item(), rel=1e-5)
    assert out.losses["image"].item() == pytest.approx((target - target.mean()).abs().mean().item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------- the encoder


@torch.no_grad()
def test_the_encoder_is_timms_beit_with_a_shared_table():
    vit = shaken(BeitOptions(**SMALL).build()).eval()
    x = torch.randn(2, 3, 32, 32)
    beit = timms(vit)
    assert beit.pos_embed.abs().max() == 0
    assert beit.rel_pos_bias is not None
    torch.testing.assert_close(vit(x), beit.forward_features(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vit.features(x, (1, 3))[1], vit(x))
    before = vit(x)
    vit.rel_pos_bias.relative_position_bias_table.zero_()
    assert (vit(x) - before).abs().max() > 1e-3


@torch.no_grad()
def test_for_fine_tuning_each_block_goes_on_with_a_copy_of_the_table():
    method = shaken(build("simmim")).eval()
    data = batch(method, records(3))
    before, table = method.encode(data)["tokens_BLD"], method.image.rel_pos_bias.relative_position_bias_table.clone()
    new = add_parts(method, True, 1.0)
    assert new == tuple(f"image.blocks.{i}.attn.{RELATIVE}" for i in range(2)), "its own layer scale stays"
    assert all(torch.equal(dict(method.named_parameters())[n], table) for n in new)
    assert not [n for n, _ in method.named_parameters() if "rel_pos_bias" in n]
    torch.testing.assert_close(method.encode(data)["tokens_BLD"], before)
    torch.testing.assert_close(
        timms(method.image).forward_features(torch.ones(1, 3, 48, 48)), method.image(torch.ones(1, 3, 48, 48))
    )


@torch.no_grad()
def test_images_of_another_size_interpolate_the_table():
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    table = torch.cat([torch.stack([rows.flatten(), columns.flatten()], 1), torch.randn(3, 2)])
    larger = fitted_table(table, (4, 4), (8, 8), 1)
    assert larger.shape == (15 * 15 + 3, 2)
    torch.testing.assert_close(larger[-3:], table[-3:])
    wide = larger[:-3, 0].reshape(15, 15)
    assert wide[7, 7] == pytest.approx(0, abs=1e-5)
    assert (wide[1:] > wide[:-1]).all(), "offsets keep their order"
    small, large = shaken(BeitOptions(**SMALL).build()), BeitOptions(**{**SMALL, "image_size": 64}).build()
    state = fit_positions(large, small.state_dict())
    large.load_state_dict(state)
    name = f"rel_pos_bias.{RELATIVE}"
    torch.testing.assert_close(state[name], fitted_table(small.state_dict()[name], (4, 4), (8, 8), 1))
    same = fit_positions(small, small.state_dict())
    assert torch.equal(same[name], small.state_dict()[name])


def test_first_weights_are_cut_off_at_one_deviation():
    torch.manual_seed(0)
    vit = BeitOptions(**{**SMALL, "dim": 96}).build()
    for i, block in enumerate(vit.blocks, 1):
        for name, w in (("qkv", block.attn.qkv.weight), ("fc1", block.mlp.fc1.weight)):
            assert w.abs().max() <= 0.02, name
            assert w.std().item() == pytest.approx(0.0108, rel=0.03), name
        for w in (block.attn.proj.weight, block.mlp.fc2.weight):
            assert w.std().item() == pytest.approx(0.0108 / math.sqrt(2 * i), rel=0.03)
        assert block.ls1.gamma.unique().tolist() == pytest.approx([0.1])
        assert not block.attn.qkv.bias.any()
    assert not vit.pos_embed.any()
    assert "pos_embed" in dict(vit.named_buffers())


def test_it_may_have_the_encoder_of_the_other_systems():
    method = build("simmim", image={"positions": "sincos", "relative_positions": False, "layer_scale": None})
    mine, other = method.image.state_dict(), build("mae").image.state_dict()
    assert {n: v.shape for n, v in mine.items()} == {n: v.shape for n, v in other.items()}
    torch.testing.assert_close(mine["pos_embed"], other["pos_embed"])


def test_what_decays():
    method = entered()
    flat = {id(p) for g in method.param_groups() if g.decay_scale == 0 for p in g.params}
    decays = {n for n, p in method.named_parameters() if id(p) not in flat}
    assert "image.cls_token" not in decays
    assert {"mask.mask_token", f"image.rel_pos_bias.{RELATIVE}", "head.weight"} <= decays
    assert not [n for n in decays if n.endswith(("bias", "gamma"))]


# -------------------------------------------------------------------------------------------------------------- the rest


def test_views_draw_one_view_without_colour():
    for views, scale in (("mild", (0.5, 1.0)), ("official", (0.67, 1.0)), ("paper", None)):
        [rule] = entered(views=views).drawn.rules
        assert rule.scale == scale
        assert not any(rule.jitter)


def test_the_deployed_encoder_sees_whole_images_and_pools_patches():
    method = build("simmim")
    data = batch(method, records(2))
    tokens = method.encode(data)["tokens_BLD"]
    assert tokens.shape[1] == 1 + method.image.patches
    torch.testing.assert_close(method.encode(data)["pooled_BD"], tokens[:, 1:].mean(1))
    assert not [n for n, p in method.named_parameters() if p.requires_grad != n.startswith("image.")]


def test_a_picture_of_what_was_restored():
    method = entered()
    data = batch(method, records(3))
    made = method.pictures(data)["reconstruction"]
    assert made.shape == (3 * 48, 3 * 48, 3)
    shown = data["views"][0, 0].numpy().astype(int)
    assert np.abs(made[:48, :48].astype(int) - shown).max() <= 1
    with torch.no_grad():  # a head that says red is bright, in its own order of values
        method.head.weight.zero_()
        method.head.bias.copy_(torch.tensor([2.0, -2.0, -2.0]).repeat_interleave(36))
    row, column = (int(v) * 6 for v in divmod(int(places_of(data["noise"])[0, 0]), 8))
    patch = method.pictures(data)["reconstruction"][row : row + 6, 96 + column : 96 + column + 6]
    assert patch[..., 0].min() > 200
    assert patch[..., 1:].max() < 50


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask_block": 24}, "method.mask_block: 24 is not a multiple of method.image.patch (16)"),
        ({"mask_block": 48}, "that divides method.image.image_size (224); use 16"),
        ({"mask_ratio": 0.99}, "method.mask_ratio: 0.99 of 49 pieces of 32 pixels hides all; give a share up to 0.98"),
        ({"mask_block": 224}, "0.6 of 1 pieces of 224 pixels hides all; give a smaller method.mask_block"),
        ({"image": {"layer_scale": 0}}, "method.image.layer_scale"),
        ({"image": {"positions": "rope"}}, "method.image.positions"),
        ({"crop_scale": [0, 1]}, "method.crop_scale"),
    ],
)  # fmt: skip
def test_options_that_make_no_system_are_told(given, said):
    with pytest.raises(MethodError) as raised:
        get_method("simmim").Options.parse(given)
    assert said in str(raised.value)


def test_a_plain_file_starts_an_encoder_without_the_parts(tmp_path):
    """timm's weights, as the option's words say; with the parts they are refused by name."""
    plain = timm.models.vision_transformer.VisionTransformer(32, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0)
    save_file(plain.state_dict(), tmp_path / "vit.safetensors")
    words = {"image_size": 32, "patch": 8, "dim": 16, "depth": 2, "heads": 2, "init": "file"}
    words["init_file"] = str(tmp_path / "vit.safetensors")
    without = {"positions": "learned", "relative_positions": False, "layer_scale": None}
    ours = BeitOptions.parse(words | without).build()
    x_BCHW = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.tokens(x_BCHW), plain.eval().forward_features(x_BCHW))
    with pytest.raises(MethodError, match=r"lacks 5 of .* tensors: blocks.0.ls1.gamma"):
        BeitOptions.parse(words | {"positions": "learned"}).build()
