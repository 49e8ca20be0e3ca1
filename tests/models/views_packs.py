"""The published numbers of self-supervised systems, for those who have them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


class Pack:
    """What the published code gave, on weights and inputs that `rule.py` beside it makes of their names."""

    def __init__(self, real_data: Path, system: str):
        folder = real_data.parent / "parity" / "self_supervised"
        if not (folder / f"{system}.npz").is_file():
            pytest.skip("the published code's numbers are not part of the repository")
        self.rule = _module(folder / "rule.py")
        self.numbers = np.load(folder / f"{system}.npz")
        self.names: dict[str, list[Any]] = json.loads((folder / f"{system}.names.json").read_text())

    def weights(self, part: str = "state_dict") -> dict[str, torch.Tensor]:
        """{published name: value} of those that a rule fills."""
        return {
            n: torch.from_numpy(np.asarray(self.rule.weights(n, tuple(shape))))
            for n, shape, how in self.names[part]
            if how == "rule"
        }

    def image(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(self.rule.image(name, shape))

    def equal(self, found: torch.Tensor, key: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
        np.testing.assert_allclose(found.detach().numpy(), self.numbers[key], rtol=rtol, atol=atol, err_msg=key)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("rule_of_views", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
