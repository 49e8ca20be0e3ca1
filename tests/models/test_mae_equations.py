"""MAE against a few literal lines: what is hidden, what is restored, the loss patch by patch; and the published code's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records
from views_packs import Pack

from models.contract import Batch, MethodError
from models.layers.patches import kept, mask_order
from models.registry import get_method
from models.transforms.image import normalised


def entered(**options):
    method = build("mae", **options)
    method.enter("pretrain")
    return method


def literal(method, data, norm: bool) -> float:
    """Mean over hidden patches of counted images of the mean squared gap to the patch, standardised if `norm`."""
    patch, side = method.options.image.patch, method.options.image.image_size
    x = normalised(data["views"][:, 0])
    _, made, masked = method._restored(x, data["noise"])
    terms = []
    for i in range(len(x)):
        if not data.weight_B[i] * data.present["image"][i]:
            continue
        for place, guess in zip(masked[i].tolist(), made[i], strict=True):
            row, column = divmod(place, side // patch)
            pixels = x[i, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            want = pixels.permute(1, 2, 0).flatten()
            if norm:
                want = (want - want.mean()) / (want.var(unbiased=True) + 1e-6).sqrt()
            terms.append(float(((guess - want) ** 2).mean().detach()))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("norm", [True, False])
def test_the_loss_is_that_of_hidden_patches_of_counted_images(norm):
    method = entered(norm_pix=norm)
    data = batch(method, records(5, missing={1: ["image"]}))
    data.weight_B[3] = 0
    out = method(data)
    assert out.losses["image"].item() == pytest.approx(literal(method, data, norm), rel=1e-5)
    assert (method.chance(5) == {}) != norm


def test_what_is_hidden_is_not_seen_and_what_is_seen_is_not_in_the_loss():
    method = entered()
    data = batch(method, records(2))
    x = normalised(data["views"][:, 0])
    seen, made, masked = method._restored(x, data["noise"])
    patch, columns = method.options.image.patch, method.image.grid[1]
    row, column = divmod(int(masked[0, 0]), columns)
    spoilt = x.clone()
    spoilt[0, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 9
    again = method._restored(spoilt, data["noise"])
    torch.testing.assert_close(again[0], seen)
    torch.testing.assert_close(again[1], made)
    keep = mask_order(data["noise"], 0.75)[0]
    row, column = divmod(int(keep[0, 0]), columns)
    spoilt = x.clone()
    spoilt[0, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 1
    assert not torch.equal(method._restored(spoilt, data["noise"])[0], seen)
    torch.testing.assert_close(method.targets(spoilt, masked)[0], method.targets(x, masked)[0])


@pytest.mark.parametrize(
    ("N", "ratio", "K"), [(196, 0.75, 49), (100, 0.9, 10), (10, 0.9, 1), (196, 0.6, 78), (64, 0.75, 16)]
)
def test_how_many_patches_are_kept(N, ratio, K):
    """0.1 of 100 is ten, though 100 * (1 - 0.9) is 9.999999999999998."""
    assert kept(N, ratio) == K
    keep, masked = mask_order(torch.rand(2, N), ratio)
    assert (keep.shape[1], masked.shape[1]) == (K, N - K)
    assert sorted([*keep[0].tolist(), *masked[0].tolist()]) == list(range(N))


def test_a_patch_without_variation_has_the_target_0():
    """It has no deviation, and nothing is divided by 0."""
    method = entered()
    data = batch(method, records(2))
    method.pixels = lambda views: torch.full((2, 3, 48, 48), 1.5)
    out = method(data)
    out.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert out.total.isfinite()
    assert out.diagnostics["image_baseline"].item() == pytest.approx(0, abs=1e-4)


def test_a_constant_answer_costs_the_baseline():
    method = entered()
    with torch.no_grad():
        method.decoder.pred.weight.zero_()
        method.decoder.pred.bias.zero_()
    out = method(batch(method, records(6)))
    assert out.losses["image"].item() == pytest.approx(out.diagnostics["image_baseline"].item(), rel=1e-3)
    assert out.losses["image"].item() <= method.chance(6)["image"] + 1e-6


def test_views_draw_one_view_without_colour():
    for views, scale in (("mild", (0.5, 1.0)), ("official", (0.2, 1.0)), ("paper", None)):
        method = entered(views=views)
        [rule] = method.drawn.rules
        assert rule.scale == scale
        assert not any(rule.jitter)
        assert rule.rotate == (20 if views == "paper" else 0)
    assert entered(crop_scale=[0.3, 0.4]).drawn.rules[0].scale == (0.3, 0.4)


def test_the_deployed_encoder_sees_whole_images_and_pools_patches():
    method = build("mae")
    data = batch(method, records(2))
    tokens = method.encode(data)["tokens_BLD"]
    assert tokens.shape[1] == 1 + method.image.patches
    torch.testing.assert_close(method.encode(data)["pooled_BD"], tokens[:, 1:].mean(1))
    assert method.image_view().pool == "avg"
    assert not [n for n, p in method.named_parameters() if p.requires_grad != n.startswith("image.")]


def test_options_that_make_no_system_are_told_at_once():
    with pytest.raises(MethodError) as raised:
        get_method("mae").Options.parse(
            {
                "image": {"cls_token": False, "image_size": 32},
                "mask_ratio": 0.99,
                "decoder_dim": 30,
                "crop_scale": [0, 1],
            }
        )
    said = str(raised.value)
    for part in (
        "method.image.cls_token: the decoder expects a class token",
        "method.decoder_dim: 30 is not a multiple of method.decoder_heads (16)",
        "method.decoder_dim: 30 is not a multiple of 4",
        "method.mask_ratio: 0.99 of 4 patches hides all or none; give a share between 0.25 and 0.75",
        "method.crop_scale",
    ):
        assert part in said


def test_a_picture_of_what_was_restored():
    method = entered()
    data = batch(method, records(3))
    made = method.pictures(data)["reconstruction"]
    assert made.shape == (3 * 48, 3 * 48, 3)
    shown = data["views"][0, 0].numpy().astype(int)
    assert np.abs(made[:48, :48].astype(int) - shown).max() <= 1
    keep = mask_order(data["noise"], 0.75)[0][0]
    row, column = (int(v) * 6 for v in divmod(int(keep[0]), 8))
    right = made[:48, 96:].astype(int)
    assert np.abs(right[row : row + 6, column : column + 6] - shown[row : row + 6, column : column + 6]).max() <= 1


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
@pytest.mark.parametrize("norm", [False, True])
def test_published_code_on_the_same_weights(norm, real_data: Path):
    pack = Pack(real_data, "mae")
    method = entered(
        image={"image_size": 64, "patch": 16, "dim": 64, "depth": 2, "heads": 4, "mlp_ratio": 4.0},
        decoder_dim=32, decoder_depth=2, decoder_heads=4, norm_pix=norm,
    )  # fmt: skip

    def here(name: str) -> str:
        if name.startswith("decoder_"):
            return "decoder." + name.removeprefix("decoder_")
        return "decoder.mask_token" if name == "mask_token" else f"image.{name}"

    given = {here(n): v for n, v in pack.weights().items()}
    assert given.keys() == {n for n, _ in method.named_parameters()}
    method.load_state_dict({**method.state_dict(), **given})
    pack.equal(method.image.pos_embed, "pos_embed")
    pack.equal(method.decoder.pos_embed, "decoder_pos_embed")

    x, noise = (
        pack.image("input.image", (2, 3, 64, 64)),
        torch.from_numpy(pack.rule.uniform("input.noise", (2, 16))).float(),
    )
    # The pack's images are normal numbers, no pixels.
    method.pixels = lambda views: x
    data = Batch({"views": torch.zeros(2, 1, 1), "noise": noise}, {"image": torch.ones(2, dtype=torch.bool)})
    tokens, made, masked = method._restored(x, noise)
    pack.equal(tokens, "latent")
    published = torch.from_numpy(pack.numbers["pred"])
    index = masked[..., None].expand(-1, -1, published.shape[-1])
    torch.testing.assert_close(made, published.gather(1, index), rtol=1e-4, atol=1e-5)
    hidden = torch.from_numpy(pack.numbers["mask"])
    assert torch.equal(torch.zeros(2, 16).scatter(1, masked, 1.0), hidden.float())
    target = torch.from_numpy(pack.numbers["target_norm" if norm else "target"])
    torch.testing.assert_close(method.targets(x, masked)[0], target.gather(1, index), rtol=1e-4, atol=1e-4)

    out = method(data)
    end = "_norm" if norm else ""
    pack.equal(out.total, f"loss{end}")
    out.total.backward()
    found = dict(method.named_parameters())
    checked = [n for n in pack.weights() if f"grad:{n}{end}" in pack.numbers]
    assert len(checked) >= 8
    for name in checked:
        pack.equal(found[here(name)].grad.norm(), f"grad:{name}{end}")
