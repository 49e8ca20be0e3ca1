"""ResU-Net against its residual units written out with torch's own functions, its size by hand, its published loss."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F

from models.contract import MethodError

SMALL = {"features": 2}


def literal(net, x):
    """The network in training mode, unit by unit; every batch norm with the statistics of the batch."""
    W = {n: p.detach() for n, p in net.named_parameters()}

    def norm(x, at):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * W[f"{at}.weight"][:, None, None] + W[f"{at}.bias"][:, None, None]

    def unit(x, at, stride=1, first=False, shortcut=True):
        y = x if first else norm(x, f"{at}.body.0").clamp_min(0)
        i = 0 if first else 2
        y = norm(F.conv2d(y, W[f"{at}.body.{i}.weight"], None, stride, 1), f"{at}.body.{i + 1}").clamp_min(0)
        y = F.conv2d(y, W[f"{at}.body.{i + 3}.weight"], W[f"{at}.body.{i + 3}.bias"], 1, 1)
        return y + norm(F.conv2d(x, W[f"{at}.shortcut.0.weight"], None, stride), f"{at}.shortcut.1")

    down = [x := unit(x, "encoder.image.levels.0", first=True)]
    down += [x := unit(x, f"encoder.image.levels.{i}", stride=2) for i in (1, 2, 3)]
    for i, skip in enumerate(down[-2::-1]):
        x = F.interpolate(x, skip.shape[2:], mode="bilinear")
        x = unit(torch.cat([x, skip], 1), f"head.decoder.units.{i}")
    return F.conv2d(x, W["head.decoder.out.weight"], W["head.decoder.out.bias"])


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_network_is_its_units(outputs):
    net, data = nets.tuned(nets.build("resunet", **SMALL), outputs).train(), nets.batch_of(3, outputs=outputs)
    for norm in nets.batch_norms(net):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias)
    x = net.encoder.pixels(data)
    torch.testing.assert_close(net.logits(data)[0], literal(net, x), rtol=1e-4, atol=1e-4)


def test_the_size_by_hand():
    """Three convolutions a unit, and norms: 64, 128, 256, 512 down, 256, 128, 64 up."""

    def unit(a, b, first=False):
        return 9 * a * b + 9 * b * b + b + a * b + 2 * (2 * b) + (0 if first else 2 * a)

    net = nets.tuned(nets.build("resunet", features=64))
    down = unit(3, 64, True) + unit(64, 128) + unit(128, 256) + unit(256, 512)
    up = unit(512 + 256, 256) + unit(256 + 128, 128) + unit(128 + 64, 64)
    assert sum(p.numel() for p in net.parameters()) == down + up + 65 == 8_220_993


def test_published_minimises_the_squared_error_of_the_probability():
    data = nets.batch_of()
    net = nets.tuned(nets.build("resunet", conventions="published", **SMALL)).train()
    p, out = net.logits(data)[0].double().sigmoid(), net(data)
    torch.testing.assert_close(
        out.total.double(), (p - data["target_mask"][:, None]).square().mean(), rtol=1e-5, atol=1e-6
    )
    assert list(out.losses) == ["task", "mse"]
    plain = nets.tuned(nets.build("resunet", **SMALL)).train()
    assert list(plain(data).losses) == ["task"]


def test_sizes_that_the_strides_do_not_divide_are_refused():
    with pytest.raises(MethodError, match=r"36 is no multiple of 8.*; use 32 or 40"):
        nets.build("resunet", image_size=36)
