"""Attention U-Net against its gates and levels written out with torch's own functions, its size by hand, its published loss."""

from __future__ import annotations

import itertools

import nets
import pytest
import torch
import torch.nn.functional as F

from models.contract import MethodError
from models.losses.finetune import class_dice

SMALL = {"features": 2}


def literal(net, x, gating):
    """The network in training mode, step by step; every batch norm with the statistics of the batch."""
    W = {n: p.detach() for n, p in net.named_parameters()}

    def conv(x, at, stride=1, padding=0):
        return F.conv2d(x, W[f"{at}.weight"], W.get(f"{at}.bias"), stride, padding)

    def norm(x, at):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * W[f"{at}.weight"][:, None, None] + W[f"{at}.bias"][:, None, None]

    def double(x, at):
        for i in (0, 3):
            x = norm(conv(x, f"{at}.{i}", padding=1), f"{at}.{i + 1}").clamp_min(0)
        return x

    def gated(x, g, at):
        theta, phi = conv(x, f"{at}.theta", 2), conv(g, f"{at}.phi")
        phi = F.interpolate(phi, theta.shape[2:], mode="bilinear", align_corners=False)
        a = torch.sigmoid(conv((theta + phi).clamp_min(0), f"{at}.psi"))
        assert a.shape[1] == 1
        a = F.interpolate(a, x.shape[2:], mode="bilinear", align_corners=False)
        return norm(conv(a * x, f"{at}.out.0"), f"{at}.out.1")

    maps = [x := double(x, "encoder.image.levels.0")]
    maps += [x := double(F.max_pool2d(x, 2), f"encoder.image.levels.{i}") for i in range(1, 5)]
    signal = norm(conv(x, "head.decoder.signal.0"), "head.decoder.signal.1").clamp_min(0)
    for i, skip in enumerate(maps[-2::-1]):
        if i < 3:
            skip = gated(skip, x if gating == "decoder" and i else signal, f"head.decoder.gates.{i}")
        up = F.conv_transpose2d(x, W[f"head.decoder.ups.{i}.weight"], W[f"head.decoder.ups.{i}.bias"], 2, 1)
        x = double(torch.cat([skip, up], 1), f"head.decoder.blocks.{i}")
    return conv(x, "head.decoder.out")


@pytest.mark.parametrize("gating", ["bottleneck", "decoder"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_network_is_its_gates_and_levels(gating, outputs):
    net = nets.tuned(nets.build("attention_unet", gating=gating, **SMALL), outputs).train()
    data = nets.batch_of(3, outputs=outputs)
    for norm in nets.batch_norms(net):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias)
    logits = net.logits(data)[0]
    assert logits.shape == (3, outputs, nets.SIDE, nets.SIDE)
    torch.testing.assert_close(logits, literal(net, net.encoder.pixels(data), gating), rtol=1e-3, atol=1e-4)


def test_the_size_by_hand():
    """Convolutions with biases, five levels, three gates as wide inside as what they gate."""
    f = [16, 32, 64, 128, 256]

    def double(a, b):
        return 9 * a * b + 9 * b * b + 2 * b + 4 * b

    def gate(c, g):
        return 4 * c * c + (g * c + c) + (c + 1) + (c * c + c) + 2 * c

    net = nets.tuned(nets.build("attention_unet"))
    counted = double(3, 16) + sum(double(a, b) for a, b in itertools.pairwise(f)) + 17
    counted += sum(16 * b * a + a + double(2 * a, a) for a, b in itertools.pairwise(f))
    counted += (256 * 128 + 128 + 2 * 128) + sum(gate(c, 128) for c in f[1:4])
    assert sum(p.numel() for p in net.parameters()) == counted


def test_first_weights_are_the_official_ones():
    net = nets.tuned(nets.build("attention_unet"))
    conv = net.head.decoder.blocks[0][3]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * conv.in_channels)) ** 0.5, rel=0.02)
    norms = torch.cat([n.weight.detach() for n in nets.batch_norms(net)])
    assert float(norms.mean()) == pytest.approx(1, abs=0.005)
    assert float(norms.std()) == pytest.approx(0.02, rel=0.1)


def test_published_minimises_the_dice_of_both_classes_of_each_image():
    data = nets.batch_of()
    net = nets.tuned(nets.build("attention_unet", conventions="published", **SMALL)).train()
    out, p, t = net(data), net.logits(data)[0].double().sigmoid()[:, 0], data["target_mask"].double()
    scores = [
        2 * ((a * b).sum() + 0.01) / (a.sum() + b.sum() + 0.01)
        for i in range(4)
        for a, b in ((p[i], t[i]), (1 - p[i], 1 - t[i]))
    ]
    assert list(out.losses) == ["task", "class_dice"]
    torch.testing.assert_close(out.total.double(), 1 - sum(scores) / 8, rtol=1e-5, atol=1e-6)
    assert list(nets.tuned(nets.build("attention_unet", **SMALL)).train()(data).losses) == ["task"]


def test_a_class_that_is_neither_there_nor_drawn_scores_two():
    """So the published loss can be negative; padding is in no mean."""
    logits, mask = torch.full((2, 1, 4, 4), -60.0), torch.zeros(2, 1, 4, 4)
    loss = class_dice(logits, mask, torch.ones(2))
    assert float(loss) == pytest.approx(1 - (2 + 2 * 16.01 / 32.01) / 2)
    assert float(loss) < 0
    logits[1] = 60.0
    assert float(class_dice(logits, mask, torch.tensor([1.0, 0.0]))) == pytest.approx(float(loss))


def test_sizes_that_the_strides_do_not_divide_are_refused():
    with pytest.raises(MethodError, match=r"40 is no multiple of 16.*; use 32 or 48"):
        nets.build("attention_unet", image_size=40)
