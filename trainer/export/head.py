"""The head of a fine-tuned run beside its encoder: what is needed to give answers, and the model that gives them.

head.json           what is asked, how the head is built, which fields are read
head.safetensors    its weights
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.contract import MethodError, TargetSpec
from models.contract.masks import MaskField
from models.finetuned import Downstream, FinetuneSettings
from models.init.weights import weights_bytes
from trainer.build import HeadParts, head_of
from trainer.errors import UserError
from trainer.export.opened import load_exported
from trainer.state.files import write_atomic

SAID = "its head too"
"""Begins what is said of an export that has one."""
DESCRIBED, WEIGHTS, FORMAT = "head.json", "head.safetensors", 1


def write_head(run: Path, seed: int, weights: Path, out: Path) -> str:
    """Writes both files, from what a fine-tune kept of itself (trained.json); what was written, in words; where it kept nothing
    of its head (one of before), what to do.

    Args:
        seed: which seed's weights are exported.
        weights: encoder and head, as the fine-tune left them.
    """
    try:
        kept = json.loads((run / "trained.json").read_bytes())
        question = next(s["question"] for s in kept["seeds"] if s["seed"] == seed)
        content = {
            "format": FORMAT,
            "task": kept["task"]["name"],
            "question": question,
            "fields": kept["fields"],
            **kept["head"],
        }
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return f"without its head, which {run / 'trained.json'} does not describe: the fine-tune's own command writes it again, then export"
    state = {n.removeprefix("head."): w for n, w in load_file(weights).items() if n.startswith("head.")}
    write_atomic(out / WEIGHTS, weights_bytes(state, {}))
    write_atomic(out / DESCRIBED, json.dumps(content, indent=1).encode())
    model = load_tuned(out)
    assert all(w.equal(model.head.state_dict()[n]) for n, w in state.items()), "what was written is not what was read"
    return f"{SAID}: all {len(state)} tensors are equal"


def load_tuned(folder: str | Path) -> Downstream:
    """The fine-tuned model of an `--to safetensors` export, encoder and head, in eval mode: `scores` asks it.

    Raises:
        UserError: no such export, or one without a head.
        MethodError: weights that do not fit.
    """
    folder = Path(folder)
    encoder = load_exported(folder)
    try:
        content = json.loads((folder / DESCRIBED).read_bytes())
        state = load_file(folder / WEIGHTS)
    except FileNotFoundError as e:
        raise UserError(
            f"{folder} is an encoder without a head ({e.filename} is missing): export a fine-tune, launch/export.py RUN --to safetensors"
        ) from e
    except (OSError, ValueError, SafetensorError) as e:
        raise UserError(f"{folder}: its head cannot be read ({e}); export the run again") from e
    if content.get("format") != FORMAT:
        raise UserError(
            f"{folder / DESCRIBED}: format {content.get('format')!r}, this version reads {FORMAT}; export the run again"
        )
    question = TargetSpec(**_tuples(content["question"]))
    encoder.inputs = fields = tuple(content["fields"])
    head = head_of(encoder, question, HeadParts(**content["parts"]), *content["widths"])
    try:
        head.load_state_dict(state, strict=True)
    except RuntimeError as e:
        raise MethodError([f"{folder / WEIGHTS}: {e}; export the run again"]) from e
    masks = tuple(MaskField(name, of, tuple(values)) for name, of, values in content["masks"])
    fit = FinetuneSettings(fields=fields, pad=content["pad"], masks=masks, mask_absent=True)
    unknown = np.full(2 if question.kind == "survival" else question.outputs, np.nan, np.float32)
    return Downstream(encoder, head, question, fit, lambda record: unknown).eval()


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _with_channels(image: np.ndarray | str) -> np.ndarray | str:
    return image[..., None] if isinstance(image, np.ndarray) and image.ndim == 2 else image


class Case:
    """A case to be asked about, of arrays by the names of their fields: Case(image=uint8 [H, W] or [H, W, 3], patches=[N, D])."""

    key = patient = ""
    labels: Mapping[str, str | float | None] = MappingProxyType({})

    def __init__(self, **fields: np.ndarray | str):
        self._fields = {n: _with_channels(v) if n.startswith("image") else v for n, v in fields.items()}

    def has(self, name: str) -> bool:
        return name in self._fields

    def shape(self, name: str) -> tuple[int, ...]:
        return np.shape(self._fields[name])

    def read(self, name: str) -> np.ndarray | str:
        return self._fields[name]

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return np.asarray(self._fields[name])[start:stop]


@torch.no_grad()
def scores(model: Downstream, cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
    """What the model says of cases, [B] or [B, K] (of masks [B, H, W]), and the features [B, D] that it was said of."""
    rng = np.random.default_rng(0)  # nothing is drawn in eval mode, but by methods that sample patches
    return model.scores(model.collate([model.eval_sample(case, rng) for case in cases]))
