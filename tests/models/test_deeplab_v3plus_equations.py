"""DeepLabv3+ against the library's whole network on the same weights, the paper's rates, and its published loss."""

from __future__ import annotations

import nets
import pytest
import torch
import torch.nn.functional as F

SMALL = {"encoder": "resnet18", "width": 16, "dropout": 0.0}
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


def whole(net, stride, encoder, width):
    """The library's network with the weights of ours."""
    from segmentation_models_pytorch import DeepLabV3Plus

    other = DeepLabV3Plus(
        encoder, encoder_weights=None, encoder_output_stride=stride, decoder_atrous_rates=RATES[stride], decoder_aspp_dropout=0.0,
        decoder_channels=width, in_channels=3, classes=net.question.outputs,
    )  # fmt: skip
    places = {
        "encoder.image.net.": "encoder.",
        "head.decoder.pyramid.": "decoder.",
        "head.decoder.out.": "segmentation_head.0.",
    }
    state = {
        there + n.removeprefix(here): v
        for n, v in net.state_dict().items()
        for here, there in places.items()
        if n.startswith(here)
    }
    other.load_state_dict(state, strict=True)
    return other


@pytest.mark.parametrize("stride", [16, 8])
def test_the_network_is_the_librarys_with_the_rates_of_the_paper(stride):
    net = nets.tuned(nets.build("deeplab_v3plus", output_stride=stride, **SMALL), 2).train()
    for norm in nets.batch_norms(net):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias)
    other, data = whole(net, stride, "resnet18", 16).train(), nets.batch_of(3, outputs=2)
    x = net.encoder.pixels(data)
    logits = net.logits(data)[0]
    assert logits.shape == (3, 2, nets.SIDE, nets.SIDE)
    torch.testing.assert_close(logits, other(x), rtol=1e-3, atol=1e-4)
    assert {m.dilation[0] for m in net.head.modules() if isinstance(m, torch.nn.Conv2d)} == {1, *RATES[stride]}


def test_the_maps_stop_shrinking_at_the_output_stride():
    for stride, strides in ((16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))):
        net = nets.build("deeplab_v3plus", output_stride=stride, **SMALL).eval()
        maps = net.image(torch.zeros(1, 3, 64, 64))
        assert net.image.strides == strides
        assert [(m.shape[1], 64 // m.shape[2]) for m in maps] == list(zip(net.image.channels, strides, strict=True))


def test_the_size_of_the_librarys_network():
    """26.68 million parameters with ResNet-50 and one structure."""
    net = nets.tuned(nets.build("deeplab_v3plus"))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(26.68e6, rel=5e-4)


def test_published_minimises_the_cross_entropy_of_pixels():
    data = nets.batch_of()
    net = nets.tuned(nets.build("deeplab_v3plus", conventions="published", **SMALL)).train()
    out = net(data)
    wanted = F.binary_cross_entropy_with_logits(net.logits(data)[0], data["target_mask"][:, None].float())
    assert list(out.losses) == ["task", "cross_entropy"]
    torch.testing.assert_close(out.total, wanted, rtol=1e-5, atol=1e-6)
