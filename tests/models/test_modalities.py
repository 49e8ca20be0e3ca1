"""What a method says of its modalities is what the runner goes by: no field has a meaning by its name."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from synthetic import MemoryRecord, build, has_vit, record, schema
from torch import nn

from models.contract import Encoded, Method, Options, Sample, TargetSpec
from models.encoders.vit import ViT
from models.finetuned import Downstream, FinetuneSettings, image_side, make_head
from models.registry import get_method, method_names
from models.view import Augmentation


class Films(Method):
    """Reads a picture under a name of its own, and blood values."""

    name, Options = "films", Options
    inputs = ("front", "side", "blood")
    modalities: ClassVar = {"image": ("front", "side"), "blood": ("blood",)}

    def __init__(self):
        super().__init__(Options(), schema())
        self.blood = nn.Linear(4, 4)
        self.image = nn.Linear(2, 4)

    def sample(self, record, rng):
        arrays = {n: record.read(n).astype(np.float32) for n in self.inputs if record.has(n)}
        return Sample(arrays, {n: record.has(n) for n in self.inputs})

    def encode(self, batch):
        x_BD = self.image(torch.stack([batch[n].mean((1, 2, 3)) for n in ("front", "side")], 1))
        x_BD = x_BD + self.blood(batch["blood"]) if "blood" in batch else x_BD
        return Encoded(x_BD[:, None], torch.ones(len(x_BD), 1, dtype=torch.bool), x_BD)


def patient(i: int) -> MemoryRecord:
    rng = np.random.default_rng(i)
    pixels = {n: rng.integers(0, 255, (8, 8, 1), dtype=np.uint8) for n in ("front", "side")}
    return MemoryRecord(f"s{i}", f"p{i}", {}, {**pixels, "blood": rng.normal(size=4)})


def tuned(fields: tuple[str, ...], change: Augmentation | None = None) -> Downstream:
    method, target = Films(), TargetSpec("binary", 1, ("no", "yes"))
    head = make_head(method, target, 4, 4, head="auto", norm=True, hidden=4, dropout=0.0)
    fit = FinetuneSettings(fields, change=change or Augmentation())
    return Downstream(method, head, target, fit, lambda r: np.zeros(1))


def test_the_image_side_and_parts_are_what_the_method_says():
    assert image_side(Films()) == ("front", "side")
    assert Films().fields_of("blood") == ("blood",)
    assert Films().parts("blood") == ("blood.",)
    assert Films().parts("genes") == ()


def test_all_pictures_are_turned_alike_and_nothing_else():
    method = tuned(("front", "side", "blood"), Augmentation(flip=1.0))
    made, sample = patient(0), method.sample(patient(0), np.random.default_rng(0))
    for name in ("front", "side"):
        np.testing.assert_array_equal(sample.arrays[name], made.read(name)[:, ::-1])
    np.testing.assert_array_equal(sample.arrays["blood"], made.read("blood").astype(np.float32))


def test_a_control_exchanges_what_is_not_of_the_image_side():
    method = tuned(("front", "side", "blood"))
    sample = method.eval_sample(patient(0), np.random.default_rng(0), genes=patient(1))
    np.testing.assert_array_equal(sample.arrays["side"], patient(0).read("side"))
    np.testing.assert_array_equal(sample.arrays["blood"], patient(1).read("blood").astype(np.float32))


@pytest.mark.parametrize("name", method_names())
def test_every_input_is_of_a_modality(name):
    """And every modality that a system needs is one that it reads."""
    method = build(name)
    assert set(method.inputs) == set(method.fields_of(*method.modalities))
    assert all(method.fields_of(m) for m in get_method(name).needs)
    assert image_side(method), "every system so far sees images or slides"
    assert isinstance(method.image_encoder(), ViT) == has_vit(name), "its options say which encoder it has"


@pytest.mark.parametrize("name", ["gimp", "mgi"])
def test_genes_are_a_part_that_can_be_frozen(name):
    method = build(name)
    (lead,) = method.parts("genes")
    method.enter("")
    before = method.encode(method.collate([method.sample(record(0), np.random.default_rng(0))]))["pooled_BD"]
    with torch.no_grad():
        for n, p in method.named_parameters():
            if n.startswith(lead):
                p.mul_(1.5)
    after = method.encode(method.collate([method.sample(record(0), np.random.default_rng(0))]))["pooled_BD"]
    half = before.shape[1] // 2 if name == "gimp" else method.options.image.dim
    assert not torch.equal(before[:, half:], after[:, half:]), "the genes' half"
