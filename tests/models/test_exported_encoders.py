"""Every system with an image encoder, at small sizes: its folder for timm gives the same features once plain timm has loaded it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import build, records

from models.contract import Method
from models.contract.image_view import ShowsView
from models.registry import get_method, method_names
from trainer.export.card import prepare_code
from trainer.export.timm import exported, loaded_by_timm, write_timm

WITH_IMAGES = [
    n for n in method_names() if get_method(n).outline and get_method(n).image_encoder is not Method.image_encoder
]


def opened(name: str, method: Method) -> Any:
    """As much of a finished run as a folder for timm asks for."""
    run = SimpleNamespace(fingerprint="f", config=SimpleNamespace(data=SimpleNamespace(split="train")))
    options = method.options.model_dump(mode="json")
    return SimpleNamespace(
        name=name, method=method, options=options, tuned=None, run=run, sets=[], parts=(), licences=["CC0-1.0"], sha256="0" * 64,
        card={"versions": {}},
    )  # fmt: skip


def test_all_that_are_pretrained_on_images_are_asked() -> None:
    assert len(WITH_IMAGES) >= 20
    assert all(issubclass(get_method(n), ShowsView) for n in WITH_IMAGES)


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_IMAGES)
def test_plain_timm_has_the_same_features(name: str, tmp_path: Path) -> None:
    method = build(name).eval()
    method.enter("")
    method.inputs = ("image",)
    found = exported(method)
    assert found is not None, (
        "an image encoder that is neither a ViT nor a ConvNet needs a form in trainer/export/timm.py"
    )
    said = write_timm(opened(name, method), tmp_path)
    assert said.startswith("loaded back with plain timm")
    record = records(1)[0]
    names: dict[str, Any] = {}
    exec(prepare_code(found[1]), names)
    x_BCHW = names["prepare"](record.read("image"))
    encoded = method.encode(method.collate([method.sample(record, np.random.default_rng(0))]))
    theirs = loaded_by_timm(tmp_path)
    own = encoded["maps"][-1] if theirs.forward_features(x_BCHW).ndim == 4 else encoded["tokens_BLD"]
    scale = float(own.abs().max().clamp_min(1))
    torch.testing.assert_close(theirs.forward_features(x_BCHW) / scale, own / scale, rtol=0, atol=1e-5)
    if found[1].pool:
        torch.testing.assert_close(theirs(x_BCHW), encoded["pooled_BD"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_the_preprocessor_says_what_it_has_words_for(name: str) -> None:
    from trainer.export.preprocessor import preprocessor

    view = build(name).image_view()
    said = preprocessor(view)
    assert json.loads(json.dumps(said)) == said
    assert said["medpair"]["exact"] == (view.channels == "rgb" and view.fit == "stretch" and view.mean is not None)
    assert said["size"] == (
        {"height": view.size, "width": view.size} if view.fit == "stretch" else {"shortest_edge": view.size}
    )
    assert said["do_normalize"] == (view.mean is not None)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_a_processor_of_the_hub_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    """But for what the file itself says is lacking. Where that makes no difference (a square image, its channels alike; each image's own
    mean and deviation taken out behind the processor) all of it is the same: nothing else is lacking. With Pillow, that is: torchvision,
    which the processors use where they find it, scales to whole grey levels of its own, two of 255 from Pillow's at most."""
    from transformers import AutoImageProcessor

    from trainer.export.preprocessor import preprocessor

    view = build(name).image_view()
    said = preprocessor(view)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    names: dict[str, Any] = {}
    exec(prepare_code(view), names)
    for shape in [(90, 90), (61, 90)]:
        image_HWC = np.random.default_rng(0).integers(0, 256, (*shape, 1), dtype=np.uint8).repeat(3, 2)
        own = names["prepare"](image_HWC)
        for backend, off in (("pil", 1e-6), ("torchvision", 2 / 255 / min(view.std or (1.0,)) + 1e-6)):
            processor = AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
            x_BCHW = processor(images=Image.fromarray(image_HWC), return_tensors="pt")["pixel_values"]
            if view.own_statistics:
                std, mean = torch.std_mean(x_BCHW, (2, 3), keepdim=True, correction=0)
                x_BCHW, off = (x_BCHW - mean) / std, off / float(std.min())
            square = shape[0] == shape[1] or view.fit == "stretch"
            assert (float((x_BCHW - own).abs().max()) <= off) == square, (shape, backend)
