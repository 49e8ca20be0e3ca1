"""Positions of a ViT from files: kept, turned onto another grid, or refused where the file does not say which grid it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from models.contract import MethodError
from models.encoders.positions import sincos_2d
from models.encoders.vit import ViT, fit_positions
from models.init.grids import grid_text, grids_in
from models.init.weights import read_weights

WIDE = [
    (96, 160),
    (112, 448),
    (64, 256),
    (64, 1024),
]  # 6 x 10, 7 x 28, 4 x 16, 4 x 64 patches: the last three in squares' numbers


def vit(size: int | tuple[int, int], seed: int = 0, **options: object) -> ViT:
    torch.manual_seed(seed)
    given = {"dim": 32, "depth": 1, "heads": 2, "positions": "learned", **options}
    return ViT(img_size=size, **given).eval()  # type: ignore[arg-type]


def saved(model: ViT, path: Path, form: str) -> Path:
    file = path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
    if form == "safetensors":
        save_file(model.state_dict(), file, grid_text(model))
    else:
        torch.save({"model": model.state_dict()} if form == "checkpoint" else model.state_dict(), file)
    return file


@pytest.mark.parametrize("form", ["state dict", "checkpoint", "safetensors"])
@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize("size", WIDE)
def test_a_models_own_file_is_loaded_as_it_is(tmp_path, size, cls_token, form):
    one, other = vit(size, cls_token=cls_token), vit(size, seed=1, cls_token=cls_token)
    other.load_weights(saved(one, tmp_path, form))
    assert torch.equal(one.pos_embed, other.pos_embed)
    x_BCHW = torch.randn(1, 3, *size)
    assert torch.equal(one(x_BCHW), other(x_BCHW))


@pytest.mark.parametrize(
    ("size", "to"), [((112, 448), 224), ((64, 256), (128, 128)), (224, (112, 448)), ((96, 160), 96)]
)
def test_positions_are_interpolated_from_the_grid_they_have(tmp_path, size, to):
    one, other = vit(size), vit(to, seed=1)
    other.load_weights(saved(one, tmp_path, "state dict"))
    map_1DHW = one.pos_embed[:, 1:].transpose(1, 2).reshape(1, 32, *one.grid)
    want = F.interpolate(map_1DHW, other.grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(other.pos_embed[:, 1:], want)
    torch.testing.assert_close(other.pos_embed[:, :1], one.pos_embed[:, :1])


def test_fixed_positions_tell_their_grid_themselves(tmp_path):
    for size in ((112, 448), 224):
        file = tmp_path / "weights.safetensors"
        save_file(vit(size, positions="sincos").state_dict(), file)  # nothing is said of the grid
        wide = vit((112, 448), seed=1)
        wide.load_weights(file)
        want = sincos_2d(7, 28, 32)
        if size == 224:
            map_1DHW = sincos_2d(14, 14, 32).T.reshape(1, 32, 14, 14)
            want = F.interpolate(map_1DHW, (7, 28), mode="bicubic", align_corners=False).flatten(2)[0].T
        torch.testing.assert_close(wide.pos_embed[0, 1:], want)


def test_learned_positions_of_two_possible_grids_are_refused(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(vit(224).state_dict(), file)
    with pytest.raises(MethodError, match=r"197 positions are of 14 x 14 patches or of 7 x 28") as caught:
        vit((112, 448)).load_weights(file)
    save_file(vit((112, 448)).state_dict(), file, metadata={"grid": "7x28"})  # the remedy that the message names
    vit((112, 448)).load_weights(file)
    assert "metadata" in str(caught.value)
    save_file(vit((96, 160)).state_dict(), file)
    with pytest.raises(MethodError, match="61 positions, which are of no square image"):
        vit(96).load_weights(file)


def test_published_files_are_of_square_images(tmp_path):
    file = tmp_path / "weights.pth"
    square = vit(224)
    torch.save(dict(square.state_dict()), file)
    small = vit(112, seed=1)
    small.load_weights(file)
    map_1DHW = square.pos_embed[:, 1:].transpose(1, 2).reshape(1, 32, 14, 14)
    want = F.interpolate(map_1DHW, (7, 7), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(small.pos_embed[:, 1:], want)


def test_the_grid_stands_beside_the_weights_of_any_module(tmp_path):
    model = torch.nn.ModuleDict({"encoder": vit((112, 448)), "head": torch.nn.Linear(2, 2)})
    assert grids_in(model.state_dict()) == {"encoder": (7, 28)}
    assert grid_text(model) == {"grid.encoder": "7x28"}
    save_file(model.state_dict(), tmp_path / "a.safetensors", grid_text(model))
    read = read_weights(tmp_path / "a.safetensors")
    assert read.grids == {"encoder": (7, 28)}
    square = torch.nn.ModuleDict({"encoder": vit(224, seed=1), "head": torch.nn.Linear(2, 2)})
    for state in (read, model.state_dict()):
        fitted = fit_positions(square, state)["encoder.pos_embed"]
        map_1DHW = model["encoder"].pos_embed[:, 1:].transpose(1, 2).reshape(1, 32, 7, 28)
        want = F.interpolate(map_1DHW, (14, 14), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        torch.testing.assert_close(fitted[:, 1:], want)


def test_a_grid_that_does_not_fit_is_named(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(vit((112, 448)).state_dict(), file, metadata={"grid": "7x27"})
    with pytest.raises(MethodError, match="197 positions, for a grid of 7 x 27"):
        vit((112, 448)).load_weights(file)
    save_file(vit((112, 448)).state_dict(), file, metadata={"grid": "wide"})  # says nothing
    with pytest.raises(MethodError, match="the file does not say"):
        vit((112, 448)).load_weights(file)
