"""Image encoders keep one protocol, whether vision transformer or any convolutional network of timm."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from synthetic import build
from torch import nn

from models.contract import Method, MethodError, Options, Schema
from models.contract.image_encoder import ImageEncoder
from models.encoders.layer_decay import _layer_scale, layer_scales
from models.encoders.resnet import ConvNet
from models.encoders.vit import ViT, pyramid_blocks
from models.layers.batch_norm import GlobalBatchNormAct2d, _GlobalBatchNorm, globalised, holds_batch_norm

SIDE = 64
# One of each way in which timm builds and names networks.
NETWORKS = ("resnet18", "convnext_atto", "efficientnet_b0", "regnety_002", "mobilenetv3_small_050")


def image_encoder(name: str) -> ImageEncoder:
    torch.manual_seed(0)
    made: nn.Module = ViT(SIDE, 16, dim=32, depth=6, heads=4) if name == "vit" else ConvNet(name, SIDE)
    return made.eval()  # type: ignore[return-value]


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["vit", *NETWORKS])
def test_every_encoder_answers_alike(name):
    encoder, x = image_encoder(name), images()
    assert isinstance(encoder, ImageEncoder)
    assert encoder.image_size == (SIDE, SIDE)
    with torch.no_grad():
        tokens, maps = encoder.tokens(x), encoder.maps(x)
    assert tokens.shape[::2] == (2, encoder.width)
    assert len(maps) == 4
    for m, stride in zip(maps, encoder.strides[-4:], strict=True):
        assert m.shape[2:] == (SIDE // stride, SIDE // stride)
    # The last map holds the tokens of the patches, row by row.
    own = tokens[:, 1:] if name == "vit" else tokens
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), own)
    for n in (1, 2):
        few = encoder.maps(x, n)
        assert all(torch.equal(a, b) for a, b in zip(few, maps[-n:], strict=True))


@pytest.mark.parametrize("name", ["vit", *NETWORKS])
def test_layers_cover_every_parameter_once_from_bottom_to_top(name):
    encoder = image_encoder(name)
    layers = encoder.layers()
    at = [[i for i, names in enumerate(layers) if p.startswith(names)] for p, _ in encoder.named_parameters()]
    assert all(len(found) == 1 for found in at)
    order = [found[0] for found in at]
    assert set(order) == set(range(len(layers)))
    if name != "vit":  # whose last norm is with its last block, and whose tokens are declared first
        assert order == sorted(order)
        assert len(layers) == len(encoder.strides)


class Seen(Method):
    """A method of an image encoder alone, below a name of its own."""

    Options = Options

    def __init__(self, encoder: nn.Module):
        super().__init__(Options(), Schema({}, {}, "nothing"))
        self.images = nn.ModuleDict({"of": encoder})

    def image_encoder(self):
        return self.images["of"]


def test_layer_decay_asks_the_encoder():
    scale = layer_scales(Seen(image_encoder("resnet18")), 0.5)
    assert scale("images.of.net.conv1.weight") == 0.5**5
    assert scale("images.of.net.layer1.0.conv1.weight") == 0.5**4
    assert scale("images.of.net.layer4.1.bn2.weight") == 0.5
    assert layer_scales(Seen(image_encoder("resnet18")), 1.0)("images.of.net.conv1.weight") == 1.0


@pytest.mark.parametrize("name", ["mgi", "mrm_record", "mrm_relation"])
def test_a_vision_transformer_decays_as_by_the_names_of_its_blocks(name):
    method = build(name)
    image = method.image_encoder()
    at = next(n for n, m in method.named_modules() if m is image)
    scale = layer_scales(method, 0.5)
    depths = {f"{at}.blocks.": len(image.blocks)}
    names = [f"{at}.{n}" for n, _ in image.named_parameters()]
    assert len({scale(n) for n in names}) == len(image.blocks) + 1
    assert all(scale(n) == _layer_scale(n, depths, 0.5) for n in names)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_the_whole_network_load_from_a_file(name, tmp_path):
    """Maps are then those of timm's own network on the same weights, and its batch norms are the global ones."""
    torch.manual_seed(3)
    theirs = timm.create_model(name, features_only=True).eval()
    whole = timm.create_model(name)
    flat = {n.replace(".", "_"): v for n, v in whole.state_dict().items()}
    theirs.load_state_dict({n: flat[n.replace(".", "_")] for n in theirs.state_dict()})
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    encoder = image_encoder(name)
    loaded = encoder.load_file(tmp_path / "whole.safetensors")
    assert set(loaded.taken) == set(theirs.state_dict())
    assert loaded.skipped, "the classifier"
    assert len(loaded.taken) + len(loaded.skipped) == len(whole.state_dict())
    with torch.no_grad():
        for ours, expected in zip(encoder.maps(images(), len(encoder.strides)), theirs(images()), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(m, _GlobalBatchNorm) for m in norms)
    assert holds_batch_norm(encoder) == bool(norms)


def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    del state["layer1.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(2)
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    save_file(state, tmp_path / "wrong.safetensors")
    encoder = image_encoder("resnet18")
    before = {n: v.clone() for n, v in encoder.state_dict().items()}
    with pytest.raises(MethodError) as raised:
        encoder.load_file(tmp_path / "wrong.safetensors")
    said = str(raised.value)
    assert "lacks 1 of 120 tensors: layer1.0.conv1.weight" in said
    assert "layer9.weight" in said
    assert "conv1.weight is (64, 1, 7, 7), the model's (64, 3, 7, 7)" in said
    assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items()), "nothing was loaded"
    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "deeper.safetensors")
    with pytest.raises(MethodError, match=r"(?s)of other sizes.*tensors that the model does not"):
        encoder.load_file(tmp_path / "deeper.safetensors")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_tiny_patch16_224", "is of another network; give a file of this one, or name in the options the network"),
        ("resnet34", "is of a network of other sizes; give a file of these, or in the options the sizes"),
    ],
)
def test_what_a_file_is_of_is_one_error(name, said, tmp_path):
    save_file(timm.create_model(name).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(MethodError) as raised:
        image_encoder("resnet18").load_file(tmp_path / "other.safetensors")
    (problem,) = raised.value.problems
    assert problem.startswith(f"{tmp_path / 'other.safetensors'} {said}")
    assert "no such weights file from" in refusal_of(tmp_path / "absent.pth")


def refusal_of(path):
    with pytest.raises(MethodError) as raised:
        image_encoder("resnet18").load_file(path)
    return str(raised.value)


def test_a_file_without_counters_loads(tmp_path):
    """Files of before batch norm counted its batches."""
    state = {
        n: v for n, v in timm.create_model("resnet18").state_dict().items() if not n.endswith("num_batches_tracked")
    }
    save_file(state, tmp_path / "old.safetensors")
    encoder, drawn = image_encoder("resnet18"), torch.get_rng_state()
    assert len(encoder.load_file(tmp_path / "old.safetensors").taken) == 120
    assert torch.equal(torch.get_rng_state(), drawn), "loading draws no random number"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "timm has no model 'resnet5O'; did you mean 'resnet50'"),
        ("resnet18.a1_in1k", "did you mean 'resnet18'.*weights are given as a file, not as a tag"),
        ("hf-hub:timm/resnet18", "timm has no model"),
        ("vit_tiny_patch16_224", "no convolutional network"),
        ("swin_tiny_patch4_window7_224", "no convolutional network"),
    ],
)
def test_names_that_are_no_network_are_refused(name, message):
    with pytest.raises(MethodError, match=message):
        ConvNet(name, 224)


def test_sizes_that_a_network_cannot_take_are_refused():
    with pytest.raises(MethodError, match="image"):
        ConvNet("convnext_atto", (80, 50))
    assert ConvNet("resnet18", (80, 50)).grid == (3, 2)


def test_norms_with_an_activation_are_global_too():
    """timm's norm drops and activates what it has normalised; alone and without padding ours computes the same."""
    from timm.layers import BatchNormAct2d

    theirs = BatchNormAct2d(5)
    nn.init.normal_(theirs.weight)
    ours = globalised(nn.Sequential(BatchNormAct2d(5)))[0]
    assert isinstance(ours, GlobalBatchNormAct2d)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 5, 3, 3) + 2
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


def test_a_norm_without_a_global_form_is_refused():
    with pytest.raises(MethodError, match="BatchNorm3d: a batch norm without a global form"):
        globalised(nn.Sequential(nn.BatchNorm3d(2)))


def test_an_encoder_is_the_same_in_training_whatever_does_not_count():
    """Padding moves nothing: the batch norms see the samples that count alone."""
    from models.layers.batch_norm import counted

    x = images(4)
    padded = torch.cat([x, torch.full((1, 3, SIDE, SIDE), 1e4)])
    with counted(torch.tensor([1.0, 1, 1, 1, 0])):
        some = ConvNet.tokens(image_encoder("resnet18").train(), padded)[:4]
    torch.testing.assert_close(some, image_encoder("resnet18").train().tokens(x), rtol=1e-3, atol=1e-3)


def test_blocks_of_a_pyramid():
    assert pyramid_blocks(12) == (4, 6, 8, 12)
