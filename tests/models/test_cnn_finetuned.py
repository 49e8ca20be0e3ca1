"""A convolutional image encoder in fine-tuning and export, as any method that has one: maps, pooled vector, layer decay, timm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import records, schema

from models.contract import Batch, Encoded, Method, MethodError, Options, Record, Sample, TargetSpec
from models.contract.image_view import ImageView
from models.contract.masks import MaskField
from models.decoders.build import make_decoder
from models.encoders.image import ImageOptions
from models.encoders.vit import ViTOptions
from models.finetuned import Downstream, FinetuneSettings, make_head, unreached
from models.transforms.image import MEAN, STD, fitted, normalised
from trainer.errors import UserError
from trainer.export.timm import exported, loaded_by_timm, write_timm

SIDE = 64


class ToyOptions(Options):
    image: ImageOptions = ViTOptions(image_size=SIDE, patch=16, dim=24, depth=2, heads=4)
    """Its image encoder."""


class Toy(Method):
    """An image encoder of either kind, and nothing else; it gives gene tokens if it is asked for them."""

    name, paper = "toy", "a test"
    Options = ToyOptions
    inputs = ("image",)
    genes = False

    def __init__(self, options: ToyOptions, where: Any):
        super().__init__(options, where)
        self.image: Any = options.image.build()

    def image_encoder(self) -> Any:
        return self.image

    def image_view(self) -> ImageView:
        return ImageView(SIDE, "rgb", "stretch", "bilinear", MEAN, STD, "avg", "mean of the places")

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        return Sample({"image": fitted(record.read("image"), SIDE, "stretch")}, {"image": record.has("image")})

    def encode(self, batch: Batch) -> Encoded:
        tokens_BLD, maps = self.image.tokens_and_maps(normalised(batch["image"]).to(self.dtype))
        mask_BL = batch.present["image"][:, None].expand(tokens_BLD.shape[:2])
        gene = (torch.ones(batch.size, 3, 8), torch.ones(batch.size, 3, dtype=torch.bool))
        return Encoded(tokens_BLD, mask_BL, tokens_BLD.mean(1), maps, {"genes": gene} if self.genes else None)


def toy(name: str = "resnet18") -> Toy:
    torch.manual_seed(0)
    image = {} if name == "vit" else {"image": {"kind": "resnet", "name": name, "image_size": SIDE}}
    return Toy(ToyOptions.parse(image), schema())


def segmenter(decoder: str, name: str = "resnet18", auxiliary: float = 0.0, **more) -> Downstream:
    encoder, target = toy(name), TargetSpec("segmentation", 1, ())
    head = make_decoder(
        encoder, decoder, width=16, queries=2, mask_token=False, gene_dim=8, auxiliary=auxiliary > 0, outputs=1
    )
    fit = FinetuneSettings(("image",), masks=(MaskField("mask", "mask"),), auxiliary=auxiliary, **more)
    return Downstream(encoder, head, target, fit, lambda record: np.zeros(1))


def batch_of(method: Downstream, n: int = 4) -> Batch:
    return method.collate([method.sample(r, np.random.default_rng(i)) for i, r in enumerate(records(n))])


@pytest.mark.parametrize(
    ("decoder", "name"),
    [(d, "resnet18") for d in ("upernet", "setr_pup", "two_way", "linear")]
    + [("upernet", "vit"), ("two_way", "vit"), ("upernet", "convnext_atto")],
)
def test_every_decoder_draws_from_the_maps(decoder, name):
    """All the parameters that draw are trained, those of the encoder with them, and the mask has the image's size."""
    auxiliary = 0.4 if decoder in ("upernet", "setr_pup") else 0.0
    method = segmenter(decoder, name, auxiliary).train()
    method.encoder.genes = decoder == "two_way"
    batch = batch_of(method)
    out = method(batch)
    assert set(out.losses) == ({"task", "auxiliary"} if auxiliary else {"task"})
    out.total.backward()
    assert out.total.isfinite()
    image = method.encoder.image
    assert all(p.grad is not None and p.grad.isfinite().all() for p in image.parameters())
    assert not [n for n, p in method.head.named_parameters() if p.grad is None]
    logits, pooled = method.eval().logits(batch)
    assert logits.shape == (4, 1, SIDE, SIDE)
    assert pooled.shape == (4, image.width)


@pytest.mark.parametrize("name", ["resnet18", "vit"])
def test_each_of_the_four_maps_counts_in_upernet(name):
    method = segmenter("upernet", name).eval()
    batch = batch_of(method)
    encoded = method.encoder.encode(batch)
    maps, whole = encoded["maps"], method.head(encoded).logits
    for i in range(4):
        encoded["maps"] = [m + (j == i) * torch.randn_like(m) for j, m in enumerate(maps)]
        assert not torch.allclose(method.head(encoded).logits, whole)


def test_a_convolutional_network_learns_to_draw():
    method = segmenter("upernet", "resnet10t").train()
    method.head.drop.p = 0.0
    batch = batch_of(method)
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        total = method(batch).total
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.8 * losses[0]


def test_learning_rates_fall_from_map_to_map():
    method = segmenter("upernet", layer_decay=0.5)
    scale = {id(p): g.lr_scale for g in method.param_groups() for p in g.params}
    rates = {n: scale[id(p)] for n, p in method.encoder.named_parameters()}
    assert rates["image.net.layer4.1.conv2.weight"] == 0.5
    assert rates["image.net.layer1.0.conv1.weight"] == 0.5**4
    assert rates["image.net.conv1.weight"] == 0.5**5
    assert {scale[id(p)] for p in method.head.parameters()} == {1.0}


def test_labels_from_the_pooled_vector():
    encoder, target = toy(), TargetSpec("binary", 1, ("no", "yes"))
    head = make_head(
        encoder, target, encoder.image.width, encoder.image.width, head="auto", norm=True, hidden=8, dropout=0
    )
    method = Downstream(
        encoder, head, target, FinetuneSettings(("image",)), lambda r: np.array([float(r.labels["subtype"] == "alpha")])
    )  # fmt: skip
    batch = batch_of(method)
    assert unreached(method, batch) == [], "every weight of the network is behind the pooled vector"
    (stage,) = method.stages()
    assert stage.compares, "batch statistics compare samples"
    assert method.train()(batch).total.isfinite()


def opened(method: Method) -> Any:
    """As much of a finished run as an export asks for."""
    run = SimpleNamespace(fingerprint="f", config=SimpleNamespace(data=SimpleNamespace(split="train")))
    return SimpleNamespace(
        name="toy", method=method, options=method.options.model_dump(mode="json"), tuned=None, run=run, sets=[],
        licences=["CC0-1.0"], parts=(), sha256="0" * 64, card={"versions": {}},
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "vit"])
def test_plain_timm_has_the_same_features(name, tmp_path):
    method = toy(name).eval()
    assert exported(method) is not None
    assert "loaded back with plain timm" in write_timm(opened(method), tmp_path)
    theirs = loaded_by_timm(tmp_path)
    data = method.collate([method.sample(r, np.random.default_rng(0)) for r in records(2)])
    encoded = method.encode(data)
    pooled = encoded["pooled_BD"] if name != "vit" else encoded["tokens_BLD"][:, 1:].mean(1)
    torch.testing.assert_close(theirs(normalised(data["image"])), pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_atto"])
def test_a_network_that_timm_ends_otherwise_is_refused(name, tmp_path):
    """Weights behind the last map were never trained: an export would make them up."""
    with pytest.raises((MethodError, UserError), match=r"behind its last map.*use --to safetensors"):
        write_timm(opened(toy(name)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_method_without_a_view_is_not_exported():
    method = toy()
    assert exported(method) is not None
    assert exported(Method(Options(), schema())) is None
