"""Options that nest: groups with one spelling in every method, told apart by `kind`, and every error names the key as it is typed."""

from __future__ import annotations

from typing import ClassVar

import pytest
import timm
import torch
from safetensors.torch import save_file

from models.contract import Method, MethodError, Options
from models.contract.start_files import replaced, start_files, start_keys, with_start_file, without_start_files
from models.describe import option_table
from models.encoders.image import ImageOptions
from models.encoders.resnet import ConvNet, ResNetOptions
from models.encoders.vit import ViT, ViTOptions


class Given(Options):
    renamed: ClassVar = {"img_size": "image.image_size", "start": "image.init"}
    reworded: ClassVar = {"image.init": {"imagenet": "file"}}
    unsaid: ClassVar = {"image.kind": "vit", "image.mlp_ratio": 2.0}
    image: ImageOptions = ViTOptions(image_size=64, patch=8, cls_token=False)
    """The image encoder."""
    temperature: float = 0.1
    """Of the loss."""


def said(**given) -> str:
    with pytest.raises(MethodError) as raised:
        Given.parse(given)
    return str(raised.value)


def test_a_group_in_part_takes_the_rest_from_the_methods_default():
    got = Given.parse({"image": {"dim": 96}}).image
    assert (got.kind, got.image_size, got.patch, got.cls_token, got.dim) == ("vit", 64, 8, False, 96)
    assert Given.parse({"image": {"kind": "vit", "depth": 2}}).image.patch == 8
    assert Given.parse(Given.parse({}).model_dump(mode="json")) == Given.parse({})


def test_another_kind_takes_nothing_of_the_default():
    got = Given.parse({"image": {"kind": "resnet", "name": "resnet18"}}).image
    assert got == ResNetOptions(name="resnet18")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": {"dimm": 3}}, "method.image.dimm: unknown key; did you mean 'dim'?"),
        ({"dim": 3}, "method.dim: unknown key; did you mean 'image.dim'?"),
        ({"patsh": 3}, "method.patsh: unknown key; did you mean 'image.patch'?"),
        ({"image": {"temperature": 3}}, "method.image.temperature: unknown key; did you mean 'method.temperature'?"),
        ({"image": {"kind": "resnot"}}, "method.image.kind: 'resnot' is none of vit, resnet; did you mean 'resnet'?"),
        (
            {"image": {"kind": "resnet", "patch": 8}},
            "method.image.patch: unknown key; it is a key of method.image.kind=vit, and this is resnet; "
            "take it out, or write method.image.kind=vit",
        ),
        ({"image": {"name": "resnet18"}}, "write method.image.kind=resnet"),
        ({"image": 5}, "method.image: is a section with keys of its own, this is 5; write method.image.KEY=value"),
        ({"image": {"patch": "small"}}, "method.image.patch: Input should be a valid integer"),
        ({"image": {"patch": 1}}, "method.image.patch: Input should be greater than or equal to 2"),
        ({"image": {"dim": 10**9}}, "method.image.dim: more than any use could want"),
        ({"image": {"image_size": 50, "patch": 16}}, "method.image.image_size: 50 is not a multiple of the patch"),
        ({"image": {"dim": 36, "heads": 5}}, "method.image.dim: 36 is not a multiple of method.image.heads (5)"),
        ({"image": {"dim": 18, "heads": 3}}, "which method.image.positions=sincos needs"),
        ({"image": {"init": "file"}}, "method.image.init=file and method.image.init_file=FILE go together"),
        ({"image": {"init_file": "a.pth"}}, "method.image.init=file and method.image.init_file=FILE go together"),
    ],
)
def test_what_is_wrong_in_a_group_is_named_as_it_is_typed(given, message):
    assert message in said(**given)


def test_all_problems_of_all_groups_at_once():
    lines = said(image={"dimm": 3, "patch": "x"}, temperatur=1).split("\n")
    assert sorted(line.split(":")[0] for line in lines) == [
        "method.image.dimm", "method.image.patch", "method.temperatur",
    ]  # fmt: skip


def test_names_and_words_of_before():
    assert Given.todays({"img_size": 32}) == {"image": {"image_size": 32}}
    old = Given.stored({"img_size": 32, "start": "imagenet"})
    assert old == {"image": {"image_size": 32, "init": "file", "kind": "vit", "mlp_ratio": 2.0}}
    today = {"image": {"kind": "resnet"}}
    assert Given.stored(today) == today, "what has today's names said all there was"


def test_start_files_are_found_replaced_and_left_out_in_their_groups():
    given = {"image": {"init": "file", "init_file": "a/b.pth", "dim": 8}, "temperature": 1.0}
    assert list(start_keys(Given)) == ["image.init_file"]
    assert start_files(Given, given) == {"image.init_file": "a/b.pth"}
    scratch = without_start_files(Given, given)
    assert scratch == {"image": {"init": "scratch", "init_file": None, "dim": 8}, "temperature": 1.0}
    assert start_files(Given, scratch) == {}
    assert replaced(Given, given, "a/b.pth", "sha256:1")["image"]["init_file"] == "sha256:1"
    assert with_start_file(Given, {"image": {"kind": "resnet"}}, "w.pth") == {
        "image": {"kind": "resnet", "init": "file", "init_file": "w.pth"}
    }
    assert with_start_file(Options, {}, "w.pth") is None
    assert given["image"]["init_file"] == "a/b.pth", "what was given stays as it was"


def test_build_gives_the_encoder_with_the_weights_of_its_file(tmp_path):
    torch.manual_seed(0)
    small = {"image_size": 32, "patch": 8, "dim": 24, "depth": 2, "heads": 4}
    vit = ViTOptions(**small).build()
    assert isinstance(vit, ViT)
    assert (vit.image_size, vit.patch, vit.dim, len(vit.blocks)) == ((32, 32), 8, 24, 2)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    again = ViTOptions(**small, init="file", init_file=str(tmp_path / "vit.safetensors")).build()
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in vit.state_dict().items())
    whole = timm.create_model("resnet18")
    save_file(whole.state_dict(), tmp_path / "cnn.safetensors")
    net = ResNetOptions(
        name="resnet18", image_size=64, init="file", init_file=str(tmp_path / "cnn.safetensors")
    ).build()
    assert isinstance(net, ConvNet)
    assert net.image_size == (64, 64)
    assert torch.equal(net.net.conv1.weight, whole.conv1.weight)
    with pytest.raises(MethodError, match="lacks"):
        ViTOptions(**small, init="file", init_file=str(tmp_path / "cnn.safetensors")).build()


def test_the_table_of_options_says_which_kind_has_what():
    class Example(Method):
        Options = Given

    rows = [row.split(" | ") for row in option_table(Example).splitlines()[2:]]
    names = [row[0].strip("| `") for row in rows]
    assert len(names) == len(set(names)), "a common option stands once"
    by_name = dict(zip(names, rows, strict=True))
    assert by_name["image.kind"][1] == "`vit`"
    assert "`vit`, `resnet`" in by_name["image.kind"][2]
    assert by_name["image.patch"][1] == "`8`", "the method's default, not the class's"
    assert by_name["image.patch"][2].startswith("`kind: vit`.")
    assert by_name["image.name"][2].startswith("`kind: resnet`.")
    assert by_name["image.image_size"][1:3][0] == "`64`"
