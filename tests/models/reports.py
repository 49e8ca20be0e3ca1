"""What tests of image-report systems share: packs of numbers that published code gave, and their loading."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


class Pack:
    """One pack: outputs of published code, on weights and inputs that `rule.py` beside it makes of their names."""

    def __init__(self, folder: Path, system: str):
        spec = importlib.util.spec_from_file_location("rule_of_reports", folder / "rule.py")
        assert spec is not None
        assert spec.loader is not None
        self.rule: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.rule)
        self.names = json.loads((folder / f"{system}.names.json").read_text())
        self.numbers = np.load(folder / f"{system}.npz")
        self.words = json.loads((folder / "vocab.json").read_text())["words"]

    def weights(self, module: str) -> dict[str, Tensor]:
        """By published names; integer buffers are left out."""
        made = {n: self.rule.weight(n, s, k) for n, s, k in self.names[module] if k != "integer"}
        return {n: torch.from_numpy(np.asarray(v)) for n, v in made.items()}

    def normal(self, name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
        return torch.from_numpy(self.rule.normal(name, shape, scale))

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.numbers[key]))

    def equal(self, found: Tensor, key: str, rtol: float = 1e-5, atol: float = 1e-6) -> None:
        """Within `rtol` of the largest number of the array."""
        wanted = self[key].double()
        got = found.detach().double()
        assert got.shape == wanted.shape, f"{key}: {tuple(got.shape)} for {tuple(wanted.shape)}"
        gap = (got - wanted).abs().max()
        assert gap <= rtol * wanted.abs().max() + atol, f"{key}: off by {float(gap)}, {got.flatten()[:5]}"


def pack(real_data: Path, system: str) -> Pack:
    """The pack of a system, beside the real data; skips where there is none."""
    folder = real_data.parent / "parity" / "image_text"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    return Pack(folder, system)


def load(module: torch.nn.Module, weights: dict[str, Tensor], rename: Callable[[str], str]) -> None:
    """Copies published weights into `module`, of which each parameter and running number must have one."""
    own = {n: v for n, v in module.state_dict().items() if v.is_floating_point()}
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[rename(name)].view_as(value))


def method_of(gold: Pack, name: str, folder: Path, **options: Any) -> Any:
    """A system over the pack's vocabulary, a BERT's, without dropout."""
    from models.contract import Field, Schema
    from models.registry import get_method

    (folder / "vocab.txt").write_text("\n".join(gold.words) + "\n")
    cls = get_method(name)
    given = {"tokenizer": str(folder / "vocab.txt"), "report_length": 16, **options}
    fields = {"image": Field("image", "image", "uint8"), "report": Field("report", "text")}
    method = cls(cls.Options.parse(given), Schema(fields))
    method.enter("pretrain")
    return method


def batch_of(ids_BL: Tensor, **more: Tensor) -> Any:
    """Texts as ids, each of a patient and a wording of its own."""
    from models.contract import Batch

    n = len(ids_BL)
    tensors = {
        "image": torch.zeros(n, 1, 1, 3, dtype=torch.uint8),
        "report": ids_BL,
        "text": torch.arange(n),
        "patient": torch.arange(n),
        "words": (ids_BL != 0).sum(1) - 2,
        **more,
    }
    return Batch(tensors, {name: torch.ones(n, dtype=torch.bool) for name in ("image", "report")})
