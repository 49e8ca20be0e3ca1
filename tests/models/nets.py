"""Images and masks for the equation tests of segmentation networks, and the numbers of published code, for those who have them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.contract import Batch, Field, Method, Schema, TargetSpec
from models.contract.masks import MaskField
from models.decoders.build import make_decoder
from models.finetuned import Downstream, FinetuneSettings
from models.registry import get_method

SIDE = 32


def schema() -> Schema:
    return Schema({"image": Field("image", "image", "uint8", (SIDE, SIDE, 3))})


def build(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    cls = get_method(name)
    return cls(cls.Options.parse({"image_size": SIDE, **options}), schema())


def tuned(method: Method, outputs: int = 1) -> Downstream:
    """The method with its own decoder, as the fine-tune runner trains it."""
    torch.manual_seed(1)
    sizes = {"width": 8, "queries": 1, "mask_token": False, "gene_dim": 8}
    head = make_decoder(method, "auto", **sizes, outputs=outputs)  # type: ignore[arg-type]
    masks = tuple(MaskField(f"m{i}", "mask") for i in range(outputs))
    question = TargetSpec("segmentation", outputs, tuple(m.name for m in masks) if outputs > 1 else ())
    fit = FinetuneSettings(("image",), masks=masks)
    return Downstream(method, head, question, fit, lambda r: np.zeros(1, np.float32))


def batch_of(n: int = 4, channels: int = 3, outputs: int = 1, side: int = SIDE, seed: int = 0) -> Batch:
    """Noise with a bright square each, and the square as the mask (of several, its halves)."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 90, (n, side, side, channels), generator=rng, dtype=torch.uint8)
    mask = torch.zeros(n, outputs, side, side, dtype=torch.uint8)
    for i in range(n):
        top, left = (int(v) for v in torch.randint(0, side // 2, (2,), generator=rng))
        for k in range(outputs):
            mask[i, k, top + k * 4 : top + side // 3, left : left + side // 3] = 1
    image += (mask.amax(1) * 120)[..., None]
    target = mask[:, 0] if outputs == 1 else mask
    return Batch({"image": image, "target_mask": target}, {"image": torch.ones(n, dtype=torch.bool)})


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


# ------------------------------------------------------------------------------------------------- numbers of published code


class Golden:
    """One pack: what the published code gave, on weights and inputs that `rule.py` beside it makes of their names."""

    def __init__(self, folder: Path, system: str):
        spec = importlib.util.spec_from_file_location("rule_of_nets", folder / "rule.py")
        assert spec is not None
        assert spec.loader is not None
        self.rule = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.rule)
        self.names = json.loads((folder / f"{system}.names.json").read_text())
        self.numbers = np.load(folder / f"{system}.npz")

    def weights(self) -> dict[str, torch.Tensor]:
        return {
            n: torch.from_numpy(np.asarray(self.rule.weight(n, s["shape"], s["kind"]))) for n, s in self.names.items()
        }

    def normal(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(self.rule.normal(name, shape))

    def equal(self, found: torch.Tensor, key: str, atol: float = 1e-5, rtol: float = 0.0) -> None:
        wanted = torch.from_numpy(np.asarray(self.numbers[key], np.float32))
        torch.testing.assert_close(found.detach().float(), wanted, atol=atol, rtol=rtol, msg=lambda m: f"{key}: {m}")
