"""Bags for the equation tests of systems that learn from a task's labels, and the numbers of published code, for those who have them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from models.contract import Batch, Field, Head, Label, Method, Schema, TargetSpec
from models.finetuned import Downstream, FinetuneSettings
from models.heads.linear import LinearHead
from models.registry import get_method

F, GENES = 6, 8
LENGTHS = (9, 5, 2, 1)
BINARY = TargetSpec("binary", 1, ("no", "yes"))


def kinds(outputs: int) -> TargetSpec:
    return TargetSpec("multiclass", outputs, tuple("abcdef"[:outputs]))


def schema(width: int = F, genes: int = GENES, statistics: bool = True) -> Schema:
    """Patches and genes; without `statistics` genes are read as stored."""
    mean, std = (np.linspace(-1, 1, genes), np.linspace(0.5, 2, genes)) if statistics else (None, None)
    names = tuple(f"GENE{i}" for i in range(genes))
    return Schema(
        {
            "patches": Field("patches", "array", "float32", (None, width)),
            "rna": Field("rna", "array", "float32", (genes,), names, mean, std),
        },
        {"subtype": Label("subtype", "class", ("no", "yes"))},
    )


def build(name: str, width: int = F, genes: int = GENES, /, **options: Any) -> Method:
    torch.manual_seed(0)
    cls = get_method(name)
    return cls(
        cls.Options.parse(options), schema(width, genes, options.get("genes", {}).get("normalise") != "none")
    ).eval()


def bags(lengths: Sequence[int] = LENGTHS, width: int = F, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=rng) for n in lengths]


def genome(bag: torch.Tensor, genes: int = GENES) -> torch.Tensor:
    """Genes that belong to a bag, whatever its order: bags of a test differ in length."""
    return torch.randn(genes, generator=torch.Generator().manual_seed(1000 + len(bag)))


def batch_of(
    made: Sequence[torch.Tensor],
    fill: float = 0.0,
    target: Sequence[float] | None = None,
    genes: int | Sequence[torch.Tensor] = GENES,
) -> Batch:
    """A padded batch; `fill` stands in the padding. A bag of no patches is a missing one. `genes`: how many, or the genomes themselves."""
    most = max(1, *(len(x) for x in made))
    x_BNF = torch.full((len(made), most, made[0].shape[1]), fill)
    for row, x in zip(x_BNF, made, strict=True):
        row[: len(x)] = x
    tensors = {"patches": x_BNF, "length": torch.tensor([max(1, len(x)) for x in made])}
    tensors["rna"] = torch.stack([genome(x, genes) for x in made] if isinstance(genes, int) else list(genes))
    if target is not None:
        tensors["target"] = torch.tensor(target, dtype=torch.float32)[:, None]
    present = {"patches": torch.tensor([len(x) > 0 for x in made]), "rna": torch.ones(len(made), dtype=torch.bool)}
    return Batch(tensors, present)


def tuned(method: Method, target: TargetSpec) -> Downstream:
    """The method with its own head, or a linear one, as the fine-tune runner trains it."""
    width, genes = (method.schema.fields[n].shape[-1] for n in ("patches", "rna"))
    encoded = method.encode(batch_of(bags((2,), width), genes=genes))
    torch.manual_seed(1)
    head = method.task_head(target, encoded["pooled_BD"].shape[1], encoded["tokens_BLD"].shape[2])
    head = head or LinearHead(encoded["pooled_BD"].shape[1], target.outputs)
    assert isinstance(head, Head)
    return Downstream(method, head, target, FinetuneSettings(method.inputs), lambda r: np.zeros(1, np.float32)).eval()


def losses(model: Downstream, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Loss terms with `total`, and the gradients by parameter."""
    model.zero_grad(set_to_none=True)
    out = model(batch)
    out.total.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {**{k: v.detach() for k, v in out.losses.items()}, "total": out.total.detach()}, grads


def check_bags(
    model: Downstream, target: Callable[[int], float], lengths: Sequence[int] = LENGTHS, ordered: bool = False
) -> None:
    """What holds of every system: a padded batch equals its bags alone, padding may be NaN, order changes nothing (unless `ordered`)."""
    made = bags(lengths)
    y = [target(i) for i in range(len(made))]
    together = batch_of(made, target=y)
    logits, terms = model.logits(together)[0], losses(model, together)
    alone = [batch_of([x], target=[t]) for x, t in zip(made, y, strict=True)]
    for i, one in enumerate(alone):
        torch.testing.assert_close(model.logits(one)[0][0], logits[i], rtol=1e-5, atol=1e-5)
    each = [losses(model, one)[0]["total"] for one in alone]
    torch.testing.assert_close(terms[0]["total"], torch.stack(each).mean(), rtol=1e-5, atol=1e-5)
    spoilt = losses(model, batch_of(made, float("nan"), y))
    shuffled = losses(model, batch_of([x[torch.randperm(len(x))] for x in made], target=y))
    if ordered:
        assert not torch.allclose(shuffled[0]["total"], terms[0]["total"], rtol=1e-5)
    for other in (spoilt,) if ordered else (spoilt, shuffled):
        for part, wanted in zip(other, terms, strict=True):
            assert part.keys() == wanted.keys()
            for key, value in wanted.items():
                torch.testing.assert_close(part[key], value, rtol=1e-4, atol=1e-5, msg=key)


def check_missing(model: Downstream, genes: bool = False) -> None:
    """A slide without patches: pooled to zero, no token, finite losses and gradients, and nothing changes for the others.

    `genes`: of a system that answers from genes alone; the slide's half is the first, and no more than genes' tokens are real.
    """
    made = bags()
    with_gap = batch_of([*made, made[0][:0]], float("nan"), [0, 1, 0, 1, 1])
    encoded = model.encoder.encode(with_gap)
    pooled, real = encoded["pooled_BD"][-1], encoded["mask_BL"][-1]
    half = len(pooled) // 2 if genes else len(pooled)
    assert not pooled[:half].any()
    assert pooled[half:].any() == genes
    assert not real[: with_gap["patches"].shape[1]].any()
    torch.testing.assert_close(encoded["pooled_BD"][:-1], model.encoder.encode(batch_of(made))["pooled_BD"])
    terms, grads = losses(model, with_gap)
    assert all(v.isfinite() for v in terms.values())
    assert all(g.isfinite().all() for g in grads.values())
    # Of weight 0 it is as if it were not there.
    with_gap.weight_B[-1] = 0
    told, _ = losses(model, with_gap)
    for key, value in losses(model, batch_of(made, target=[0, 1, 0, 1]))[0].items():
        torch.testing.assert_close(told[key], value, rtol=1e-5, atol=1e-6, msg=key)


# ------------------------------------------------------------------------------------------------- numbers of published code


def golden(real_data: Path, system: str) -> Golden:
    """The pack of a system, beside the real data; skips where there is none."""
    folder = real_data.parent / "parity" / "slides"
    if not (folder / f"{system}.npz").is_file():
        pytest.skip("the published code's numbers are not part of the repository")
    return Golden(folder, system)


class Golden:
    """One pack: what the published code gave, on weights and inputs that `rule.py` beside it makes of their names."""

    def __init__(self, folder: Path, system: str):
        self.rule = _module(folder / "rule.py")
        self.names = json.loads((folder / f"{system}.names.json").read_text())
        self.numbers = np.load(folder / f"{system}.npz")

    def weights(self, variant: str) -> dict[str, torch.Tensor]:
        return {n: torch.from_numpy(np.asarray(x)) for n, x in self.rule.weights(self.names[variant]).items()}

    def patches(self, N: int, width: int) -> torch.Tensor:
        return torch.from_numpy(self.rule.normal("input.patches", (N, width)))

    def equal(self, found: torch.Tensor, key: str, tolerance: float = 1e-5) -> None:
        """Within the tolerance of the largest value, or 1e-6, whatever shape it was stored in."""
        wanted = torch.from_numpy(np.asarray(self.numbers[key], np.float32)).flatten()
        got = found.detach().float().flatten()
        assert got.shape == wanted.shape, key
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max() + 1e-6, f"{key}: {got} for {wanted}"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("rule_of_slides", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(module: torch.nn.Module, weights: dict[str, torch.Tensor], names: dict[str, str]) -> None:
    """Copies published weights into parameters: {name here: name there}; every parameter must have one."""
    ours = dict(module.named_parameters())
    assert ours.keys() == names.keys(), ours.keys() ^ names.keys()
    with torch.no_grad():
        for name, p in ours.items():
            p.copy_(weights[names[name]].reshape(p.shape))
