"""U-Net against its levels written out with torch's own functions, its batch Dice by hand, and the published code's numbers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.contract import MethodError, Schema
from models.losses.finetune import batch_dice, bce_dice
from models.registry import get_method

SMALL = {"features": 2}


def literal(net, x):
    """The network in training mode, level by level; every batch norm with the statistics of the batch."""
    W = {n: p.detach() for n, p in net.named_parameters()}

    def double(x, at):
        for conv, norm in ((0, 1), (3, 4)):
            x = F.conv2d(x, W[f"{at}.{conv}.weight"], padding=1)
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (var + 1e-5).sqrt()
            x = (x * W[f"{at}.{norm}.weight"][:, None, None] + W[f"{at}.{norm}.bias"][:, None, None]).clamp_min(0)
        return x

    down = [x := double(x, "encoder.image.levels.0")]
    for i in (1, 2, 3, 4):
        B, C, H, Wd = x.shape
        x = x.reshape(B, C, H // 2, 2, Wd // 2, 2).amax((3, 5))
        down.append(x := double(x, f"encoder.image.levels.{i}"))
    for i, skip in enumerate(down[-2::-1]):
        x = F.conv_transpose2d(x, W[f"head.decoder.ups.{i}.weight"], W[f"head.decoder.ups.{i}.bias"], 2)
        x = double(torch.cat([x, skip], 1), f"head.decoder.blocks.{i}")
    return F.conv2d(x, W["head.decoder.out.weight"], W["head.decoder.out.bias"])


@pytest.mark.parametrize(("channels", "outputs"), [("all3", 1), ("flair", 3)])
def test_the_network_is_its_levels(channels, outputs):
    net, data = (
        nets.tuned(nets.build("unet", channels=channels, **SMALL), outputs).train(),
        nets.batch_of(3, outputs=outputs),
    )
    for norm in nets.batch_norms(net):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias)
    if channels == "flair":
        data["image"] = data["image"][..., 1:2]
    x = data["image"].permute(0, 3, 1, 2).float()
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), correction=0, keepdim=True)
    logits, pooled = net.logits(data)
    torch.testing.assert_close(logits, literal(net, x), rtol=1e-4, atol=1e-4)
    assert logits.shape == (3, outputs, nets.SIDE, nets.SIDE)
    assert pooled.shape == (3, 2 * 16)


def test_the_published_size():
    """7,763,041 parameters, as the README of the official code's model has it: counted by hand level by level as well."""
    net = nets.tuned(nets.build("unet", features=32))

    def double(a, b):
        return 9 * a * b + 9 * b * b + 4 * b

    f = [32, 64, 128, 256, 512]
    counted = double(3, 32) + sum(double(a, b) for a, b in itertools.pairwise(f)) + 33
    counted += sum(4 * b * a + a + double(2 * a, a) for a, b in itertools.pairwise(f))
    assert sum(p.numel() for p in net.parameters()) == counted == 7_763_041


def test_published_minimises_the_dice_of_the_batch_and_recommended_the_tasks_loss():
    data = nets.batch_of()
    for conventions, own in (("published", True), ("recommended", False)):
        net = nets.tuned(nets.build("unet", conventions=conventions, **SMALL)).train()
        logits, out = net.logits(data)[0], net(data)
        t, ones = data["target_mask"][:, None], torch.ones(4)
        torch.testing.assert_close(out.losses["task"], bce_dice(logits, t, ones))
        assert ("batch_dice" in out.losses) is own
        if own:
            p = logits.double().sigmoid()
            wanted = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            torch.testing.assert_close(out.total.double(), wanted, rtol=1e-5, atol=1e-6)
        else:
            torch.testing.assert_close(out.total, out.losses["task"])


def test_batch_dice_counts_the_batch_and_no_padding():
    logits, mask = torch.full((3, 2, 1, 2), -50.0), torch.zeros(3, 2, 1, 2)
    mask[0, 0] = 1
    logits[0, 0] = 50.0
    # Channel 0 is drawn perfectly; in channel 1 nobody has anything, and nothing is drawn: both cost nothing.
    assert float(batch_dice(logits, mask, torch.ones(3))) == pytest.approx(0, abs=1e-6)
    logits[1, 1] = 50.0  # two pixels too many in channel 1: 1 - 1 / 3, halved by the mean over channels
    assert float(batch_dice(logits, mask, torch.ones(3))) == pytest.approx(1 / 3, abs=1e-6)
    assert float(batch_dice(logits, mask, torch.tensor([1.0, 0, 1]))) == pytest.approx(0, abs=1e-6)
    logits[1] = math.nan
    logits.requires_grad_()
    loss = batch_dice(logits, mask, torch.tensor([1.0, 0, 1]))
    assert loss.isfinite()


@pytest.mark.parametrize("normalise", ["slice", "none"])
def test_brightness_of_a_slice_matters_only_where_it_is_not_taken_out(normalise):
    net, data = nets.build("unet", normalise=normalise, **SMALL).eval(), nets.batch_of(2)
    x = net.pixels(data)
    data["image"] = data["image"] // 2 * 2
    before = net.pixels(data)
    data["image"] = data["image"] // 2
    after = net.pixels(data)
    assert torch.allclose(after, before, atol=1e-5) is (normalise == "slice")
    if normalise == "none":
        assert 0 <= x.min() <= x.max() <= 1


def test_grey_and_flair_images():
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (20, 40, 3), np.uint8)

    class Record:
        def __init__(self, image):
            self.image = image

        def has(self, name):
            return self.image is not None

        def read(self, name):
            return self.image

    def image(channels, stored):
        return nets.build("unet", channels=channels, **SMALL).sample(Record(stored), rng).arrays["image"]

    grey = image("all3", colour[..., :1])
    assert grey.shape == (nets.SIDE, nets.SIDE, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    np.testing.assert_array_equal(image("flair", colour), image("flair", colour[..., 1:2]))
    absent = nets.build("unet", **SMALL).sample(Record(None), rng)
    assert not absent.present["image"]
    assert not absent.arrays["image"].any()


def test_sizes_that_the_strides_do_not_divide_are_refused_with_those_that_fit():
    with pytest.raises(MethodError, match=r"method\.image_size: 72 is no multiple of 16.*; use 64 or 80"):
        nets.build("unet", image_size=72)
    cls = get_method("unet")
    with pytest.raises(MethodError) as found:
        cls(cls.Options(image_size=40), Schema({}))
    assert len(found.value.problems) == 2, "all at once"


def test_other_tasks_have_any_head_on_the_pooled_bottleneck():
    from models.contract import TargetSpec

    net = nets.build("unet", **SMALL)
    assert net.task_head(TargetSpec("binary", 1, ("no", "yes")), 32, 32) is None


# ------------------------------------------------------------------------------------------------------ the published code


def published_names(net) -> dict[str, str]:
    """{name here: name there} of all parameters and buffers."""
    parts = {"head.decoder.out": "conv"}
    for i, name in enumerate(("enc1", "enc2", "enc3", "enc4", "bottleneck")):
        whole = "bottleneck" if i == 4 else f"encoder{i + 1}"
        parts |= {f"encoder.image.levels.{i}.{at}": f"{whole}.{name}{kind}" for at, kind in LAYERS.items()}
    for i in range(4):
        parts[f"head.decoder.ups.{i}"] = f"upconv{4 - i}"
        parts |= {f"head.decoder.blocks.{i}.{at}": f"decoder{4 - i}.dec{4 - i}{kind}" for at, kind in LAYERS.items()}
    return {n: f"{parts[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}" for n in net.state_dict()}


LAYERS = {0: "conv1", 1: "norm1", 3: "conv2", 4: "norm2"}


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path, monkeypatch):
    folder = real_data.parent / "parity" / "restoration_segmentation_gwas"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    gold = nets.Golden(folder, "unet_buda")
    net = nets.tuned(nets.build("unet", image_size=64, features=8, conventions="published"))
    names, weights = published_names(net), gold.weights()
    assert sorted(names.values()) == sorted(weights)
    fresh = {ours: weights[theirs].clone() for ours, theirs in names.items()}
    # The pack's images are numbers as they enter the network.
    x, mask = gold.normal("input.image", (2, 3, 64, 64)), gold.normal("input.mask", (2, 1, 64, 64)) > 0.8
    data = nets.batch_of(2, side=64)
    data["target_mask"] = mask[:, 0].to(torch.uint8)
    monkeypatch.setattr(net.encoder, "pixels", lambda batch: x)

    def check(key):
        out = net(data)
        gold.equal(net.logits(data)[0].sigmoid(), f"{key}_prob")
        gold.equal(out.total, f"{key}_dice_loss")
        return out

    net.load_state_dict(fresh)
    net.eval()
    check("eval")
    net.train()
    net.zero_grad()
    check("train").total.backward()
    grads = {names[n]: p.grad for n, p in net.named_parameters()}
    for key in [k for k in gold.numbers.files if k.startswith("grad.")]:
        gold.equal(grads[key.removeprefix("grad.")].norm(), key, atol=1e-9, rtol=1e-4)
    net.load_state_dict(fresh)
    for norm in nets.batch_norms(net):
        norm.momentum = 1.0
    net(data)
    net.eval()
    check("eval_warm")
