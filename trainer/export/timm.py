"""The image encoder of a method as a folder that plain timm loads: names and forms are timm's already, so this is arithmetic-free.

One with relative positions, of each block or of all together, becomes timm's BEiT. That has no bias of keys, which adds the same
number to all logits of a query and so changes no softmax.

Shape letters: B images, H x W pixels, L tokens, D width.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from models.contract import Method
from models.contract.image_view import ImageView, ShowsView
from models.encoders.resnet import ConvNet
from models.encoders.vit import ViT
from models.init.grids import grid_text
from models.init.weights import weights_bytes
from models.layers.relative import LayerScale
from trainer.errors import UserError
from trainer.export.opened import Exporting, provenance
from trainer.export.preprocessor import preprocessor
from trainer.state.files import write_atomic

TOLERANCE = 1e-5
# timm's entry points by (width, depth, heads, patch); every size is overridden by model_args, so that another one does no harm.
NAMES = {
    (192, 12, 3, 16): "vit_tiny_patch16_224",
    (384, 12, 6, 16): "vit_small_patch16_224",
    (384, 12, 6, 32): "vit_small_patch32_224",
    (768, 12, 12, 16): "vit_base_patch16_224",
    (768, 12, 12, 32): "vit_base_patch32_224",
    (1024, 24, 16, 16): "vit_large_patch16_224",
}
OTHER = "vit_base_patch16_224"
BEIT = "beit_base_patch16_224"


def model_args(vit: ViT, pool: str) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer for this encoder; its pooling after the last norm, as here."""
    block: Any = vit.blocks[0]
    hidden, ratio = block.mlp.fc1.out_features, block.mlp.fc1.out_features / vit.dim
    return {
        "img_size": list(vit.img_size),
        "patch_size": vit.patch,
        "in_chans": vit.patch_embed.proj.in_channels,
        "embed_dim": vit.dim,
        "depth": len(vit.blocks),
        "num_heads": block.attn.heads,
        # timm cuts the hidden width off to a whole number.
        "mlp_ratio": ratio if int(vit.dim * ratio) == hidden else (hidden + 0.5) / vit.dim,
        "qkv_bias": block.attn.qkv.bias is not None,
        "class_token": vit.cls_token is not None,
        "global_pool": pool,
        "fc_norm": False,
        **({"init_values": 1.0} if isinstance(block.ls1, LayerScale) else {}),
        **({"final_norm": False} if isinstance(vit.norm, nn.Identity) else {}),
        **({"act_layer": "gelu_tanh"} if block.mlp.gelu == "tanh" else {}),
    }


def is_beit(vit: ViT) -> bool:
    block: Any = vit.blocks[0]
    return vit.rel_pos_bias is not None or block.attn.relative_position_bias_table is not None


def beit_args(vit: ViT, pool: str) -> dict[str, Any]:
    """Arguments of timm's Beit, which pools by the mean, the class token or not at all.

    Raises:
        UserError: Beit cannot be without class token or last norm, or approximate its GELU.
    """
    args = model_args(vit, pool)
    if "act_layer" in args:
        raise UserError("timm has no transformer with relative positions and an approximate GELU; use --to safetensors")
    lacks = ["class token"] if not args.pop("class_token") else []
    lacks += [] if args.pop("final_norm", True) else ["last norm"]
    if lacks:
        raise UserError(
            f"timm has no transformer with relative positions and without {' or '.join(lacks)}; use --to safetensors"
        )
    del args["fc_norm"]
    shared = vit.rel_pos_bias is not None
    tables = {"use_rel_pos_bias": not shared, **({"use_shared_rel_pos_bias": True} if shared else {})}
    return args | {"init_values": 1.0, "use_abs_pos_emb": True, **tables, "use_fc_norm": False}


def beit_state(vit: ViT) -> dict[str, Tensor]:
    """The weights under Beit's names; without a layer scale one of ones."""
    state: dict[str, Tensor] = {}
    for name, w in vit.state_dict().items():
        at = name.removesuffix("qkv.bias")
        if at != name:
            state[f"{at}q_bias"], _, state[f"{at}v_bias"] = w.chunk(3)
        else:
            state[name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = w
    for i in range(len(vit.blocks)):
        for gamma in ("gamma_1", "gamma_2"):
            state.setdefault(f"blocks.{i}.{gamma}", torch.ones(vit.dim))
    return state


class Form(NamedTuple):
    """An image encoder as timm has it: a class with arguments, weights under its names, and how wide its features are."""

    architecture: str
    args: dict[str, Any]
    state: dict[str, Tensor]
    features: int
    first: str
    classifier: str
    fixed_size: bool = True


def form_of(image: nn.Module, view: ImageView) -> Form:
    """
    Raises:
        UserError, MethodError: nothing that timm has.
    """
    if isinstance(image, ConvNet):
        known = timm.get_pretrained_cfg(image.name)
        first, classifier = ("conv1", "fc") if known is None else (known.first_conv, known.classifier)
        state = image.timm_state()
        return Form(image.name, {"global_pool": view.pool}, state, image.width, str(first), str(classifier), False)
    assert isinstance(image, ViT)
    beit = is_beit(image)
    args = beit_args(image, view.pool) if beit else model_args(image, view.pool)
    size = (args["embed_dim"], args["depth"], args["num_heads"], args["patch_size"])
    name, state = (BEIT, beit_state(image)) if beit else (NAMES.get(size, OTHER), image.state_dict())
    return Form(name, args, state, image.dim, "patch_embed.proj", "head")


def config(opened: Exporting, form: Form, view: ImageView, image_size: tuple[int, int]) -> dict[str, Any]:
    """config.json as timm writes it for the Hugging Face hub, and under `medpair` what it has no words for."""
    notes = [_channels_note(view)] if view.channels != "rgb" else []
    if view.own_statistics:
        notes.append(
            "each image and channel is standardised by its own mean and deviation; mean and std here do nothing"
        )
    return {
        "architecture": form.architecture,
        "num_classes": 0,
        "num_features": form.features,
        "global_pool": view.pool,
        "model_args": form.args,
        "pretrained_cfg": {
            "tag": f"medpair_{opened.name}",
            "custom_load": False,
            "input_size": [3, *image_size],
            "fixed_input_size": form.fixed_size,
            "interpolation": view.resample,
            "crop_pct": 1.0,
            "crop_mode": "squash" if view.fit == "stretch" else "center",
            "mean": list(view.mean or (0.0, 0.0, 0.0)),
            "std": list(view.std or (1.0, 1.0, 1.0)),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": form.first,
            "classifier": form.classifier,
            "license": ", ".join(opened.licences),
            "paper_name": opened.method.paper,
            "notes": notes,
        },
        "medpair": {
            **provenance(opened),
            "preprocessing": {
                "channels": view.channels,
                "fit": view.fit,
                "interpolation": view.resample,
                "per_image_standardised": view.own_statistics,
            },
            "pooling": view.pooling,
        },
    }


def _channels_note(view: ImageView) -> str:
    what = {"grey": "images are made grey (ITU-R 601) first", "second": "the second of three channels is taken"}
    return f"{what[view.channels]} and repeated three times"


def exported(method: Method) -> tuple[ViT | ConvNet, ImageView] | None:
    """The image encoder that timm has too, and the method's view of an image, as far as timm's class for it can pool; None without."""
    image = method.image_encoder()
    if not isinstance(image, ViT | ConvNet) or not isinstance(method, ShowsView):
        return None
    view = method.image_view()
    pools = ("avg", "token") if isinstance(image, ViT) and is_beit(image) else ("avg", "max", "avgmax", "token")
    return image, view if view.pool in pools else replace(view, pool="")


def write_timm(opened: Exporting, folder: Path) -> str:
    """Writes weights and config.json, loads them back with timm and compares; what came of it, in a sentence.

    Raises:
        UserError: the image encoder is none that timm has.
    """
    found = exported(opened.method)
    if found is None:
        raise UserError(f"{opened.name}: its image encoder is not one that timm has")
    image, view = found
    form = form_of(image, view)
    content = config(opened, form, view, image.image_size)
    # Counters of batch norm are whole numbers.
    whole = {k: (v.float() if v.is_floating_point() else v).detach().contiguous() for k, v in form.state.items()}
    grid = grid_text(image) if isinstance(image, ViT) else {}
    write_atomic(folder / "model.safetensors", weights_bytes(whole, {"format": "pt", **grid}))
    write_atomic(folder / "config.json", json.dumps(content, indent=1).encode())
    write_atomic(folder / "preprocessor_config.json", json.dumps(preprocessor(view), indent=1).encode())
    return f"loaded back with plain timm: token features differ by {checked(image, folder):.1e} at most"


@torch.no_grad()
def checked(image: ViT | ConvNet, folder: Path) -> float:
    """Largest difference of token features [B, L, D] (of a convolutional network: its last map) between the encoder and the folder as
    timm loads it, on noise, in parts of the largest feature where that is above 1.

    Raises:
        UserError: they differ.
    """
    loaded = loaded_by_timm(folder)
    x_BCHW = torch.randn(2, 3, *image.image_size, generator=torch.Generator().manual_seed(0))
    own = image.float().eval()
    features = own(x_BCHW) if isinstance(own, ViT) else own.maps(x_BCHW, 1)[0]
    assert callable(loaded.forward_features)
    difference = float((loaded.forward_features(x_BCHW) - features).abs().max() / features.abs().max().clamp_min(1))
    if not difference < TOLERANCE:
        raise UserError(f"timm's features differ from the encoder's by {difference:.1e}; use --to safetensors")
    return difference


def loaded_by_timm(folder: Path) -> nn.Module:
    """The model as anybody would load it, every name checked."""
    from safetensors.torch import load_file

    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model
