"""Weights of MRM under the names of the published checkpoint: what is where, and a strict exchange in both directions.

Image side as MAE (`blocks.N...`, `decoder_blocks.N...`), report side `bert_mlp` and `bert_encoder.model` with the names
of Hugging Face's BERT, whose query, key and value are three matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.contract import MethodError
from models.contract.loaded import Loaded
from models.init.weights import read_weights

if TYPE_CHECKING:
    from models.methods.masked.mrm_record.method import MrmRecord

BERT = "bert_encoder.model.bert"
HEAD = "bert_encoder.model.cls.predictions"
# Hugging Face keeps 0, 1, 2, ... as a buffer in some versions; the pooler is built and never used.
NO_WEIGHTS = (f"{BERT}.embeddings.position_ids", f"{BERT}.pooler.dense.weight", f"{BERT}.pooler.dense.bias")
SHOWN = 12


def _pair(name: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weight and bias of a linear layer or norm."""
    yield f"{name}.weight", module.weight  # type: ignore[misc]
    yield f"{name}.bias", module.bias  # type: ignore[misc]


def _report_names(report: nn.Module) -> Iterator[tuple[str, Tensor]]:
    e = f"{BERT}.embeddings"
    yield f"{e}.word_embeddings.weight", report.word_VC  # type: ignore[misc]
    yield f"{e}.position_embeddings.weight", report.position_LC  # type: ignore[misc]
    yield f"{e}.token_type_embeddings.weight", report.segment_2C  # type: ignore[misc]
    yield from _pair(f"{e}.LayerNorm", report.norm)  # type: ignore[arg-type]
    for i, block in enumerate(report.blocks):  # type: ignore[arg-type]
        at = f"{BERT}.encoder.layer.{i}"
        parts = zip(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True)
        for name, (weight, bias) in zip(("query", "key", "value"), parts, strict=True):
            yield f"{at}.attention.self.{name}.weight", weight
            yield f"{at}.attention.self.{name}.bias", bias
        yield from _pair(f"{at}.attention.output.dense", block.proj)
        yield from _pair(f"{at}.attention.output.LayerNorm", block.norm1)
        yield from _pair(f"{at}.intermediate.dense", block.fc1)
        yield from _pair(f"{at}.output.dense", block.fc2)
        yield from _pair(f"{at}.output.LayerNorm", block.norm2)
    yield f"{HEAD}.bias", report.out_bias_V  # type: ignore[misc]
    yield from _pair(f"{HEAD}.transform.dense", report.transform)  # type: ignore[arg-type]
    yield from _pair(f"{HEAD}.transform.LayerNorm", report.transform_norm)  # type: ignore[arg-type]
    # Tied: the same tensors under two names. The published code as it runs has untied the weight, not the bias.
    yield f"{HEAD}.decoder.weight", report.word_VC if report.out_VC is None else report.out_VC  # type: ignore[misc]
    yield f"{HEAD}.decoder.bias", report.out_bias_V  # type: ignore[misc]


def published_views(method: MrmRecord) -> dict[str, Tensor]:
    """Published name -> the tensor of `method` that it means (a view, so that copying into it loads it)."""
    views = dict(method.encoder.state_dict(keep_vars=True))
    if method.decoder is not None:
        for name, value in method.decoder.state_dict(keep_vars=True).items():
            views[name if name == "mask_token" else f"decoder_{name}"] = value
    if method.report is not None:
        views |= dict(_pair("bert_mlp", method.fuse))
        views |= dict(_report_names(method.report))
    return {name: value.detach() for name, value in views.items()}


def published_state(method: MrmRecord) -> dict[str, Tensor]:
    """A copy of the weights under the published names."""
    return {name: value.clone() for name, value in published_views(method).items()}


def load_published(method: MrmRecord, path: str) -> Loaded:
    """Loads a checkpoint with the published names; every name and shape must match.

    Raises:
        MethodError: not readable, or a list of all that did not match: missing, unknown, of another shape, or tied
            tensors that differ.
    """
    found = read_weights(path)
    state = {n: v for n, v in found.items() if n not in NO_WEIGHTS}
    views = published_views(method)
    problems = _mismatches(path, state, views)
    for name, tied, remedy in (
        (
            f"{HEAD}.decoder.weight",
            f"{BERT}.embeddings.word_embeddings.weight",
            "; set method.tie=false, as it was trained",
        ),
        (f"{HEAD}.decoder.bias", f"{HEAD}.bias", ""),
    ):
        untied = name.endswith("weight") and not method.options.tie
        if not untied and name in state and tied in state and not torch.equal(state[name], state[tied]):
            problems.append(f"{path}: {name} differs from {tied}, which it is tied to{remedy}")
    if problems:
        raise MethodError(problems)
    with torch.no_grad():
        for name, view in views.items():
            view.copy_(state[name])
    return Loaded(path, tuple(views), tuple(n for n in found if n in NO_WEIGHTS))


def _mismatches(path: str, state: dict[str, Tensor], views: dict[str, Tensor]) -> list[str]:
    missing = [n for n in views if n not in state]
    unknown = [n for n in state if n not in views]
    shapes = [
        f"{n} is {tuple(state[n].shape)}, the model's {tuple(v.shape)}"
        for n, v in views.items()
        if n in state and state[n].shape != v.shape
    ]
    found = []
    for what, names in (
        ("lacks", missing),
        ("has, and the model does not,", unknown),
        ("has of another shape", shapes),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            found.append(f"{path} {what} {len(names)} tensors: {'; '.join(names[:SHOWN])}{more}")
    return found
