"""What MedKLIP knows of its entities and positions: their names, what they mean in words, and a vector for each.

Shape letters: N entities or positions, W width of a vector, L token places.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from models.contract import MethodError
from models.encoders.report_bert import ReportBert
from models.transforms.report_tokens import ReportTokens

_SAID: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("entities.yaml").read_text(encoding="utf-8"))
ENTITIES: Mapping[str, str] = _SAID["entities"]
"""What each entity means, by name, in the order of the columns of a matrix of triplets."""
POSITIONS: Mapping[str, str] = _SAID["positions"]
"""What each position is called, by name, in the order of its rows."""
LONGEST = 64  # tokens of a text


def entity_texts(how: str) -> list[str]:
    """A text an entity: `explanation`, or `name`."""
    return [text if how == "explanation" else name.replace("_", " ") for name, text in ENTITIES.items()]


def position_texts() -> list[str]:
    """A text a position."""
    return [f"This finding lies at {place}." for place in POSITIONS.values()]


def mirrored_rows() -> tuple[np.ndarray, np.ndarray]:
    """The row of each position's mirror image, and which rows name a side and have none (right middle lobe, right atrium and ventricle)."""
    names = list(POSITIONS)
    other = {"left": "right", "right": "left"}
    turned = ["_".join(other.get(part, part) for part in name.split("_")) for name in names]
    row_P = np.array([names.index(t) if t in names else i for i, t in enumerate(turned)])
    return row_P, np.array([t not in names for t in turned])


class Vectors(nn.Module):
    """Vectors [N, W]: learned ones of length 1, or fixed ones that the weights hold.

    fixed: whether they are given (by `fill`) and not learned.
    """

    vector_NW: Tensor

    def __init__(self, count: int, width: int, fixed: bool):
        super().__init__()
        self.fixed = fixed
        if fixed:
            self.register_buffer("vector_NW", torch.zeros(count, width))
        else:
            self.vector_NW = nn.Parameter(torch.randn(count, width) * 0.02)

    def fill(self, vector_NW: Tensor) -> None:
        self.vector_NW.copy_(vector_NW)

    def forward(self) -> Tensor:
        return self.vector_NW if self.fixed else F.normalize(self.vector_NW, dim=-1)


@torch.no_grad()
def class_vectors(bert: ReportBert, tokens: ReportTokens, texts: Sequence[str]) -> Tensor:
    """The last layer's [CLS] of each text, [N, W] float32, in evaluation mode.

    Raises:
        MethodError: texts that hold hardly a word of the vocabulary, or are longer than the encoder has places for.
    """
    bert.eval()
    ids = [tokens.encode(t, LONGEST) for t in texts]
    ids_NL = torch.from_numpy(np.stack([i for i, _ in ids])).long()
    words = int((ids_NL != tokens.pad).sum()) - 2 * len(texts)
    unknown = int((ids_NL == tokens.unk).sum())
    if 2 * unknown > words:
        raise MethodError(
            [
                f"method.tokenizer: {unknown} of the {words} tokens of MedKLIP's texts are unknown to this vocabulary; give that of an "
                "English BERT, or method.text_vectors=learned"
            ]
        )
    L = int((ids_NL != tokens.pad).sum(1).max())
    vector_NW: Tensor = bert(ids_NL[:, :L], ids_NL[:, :L] != tokens.pad)["hidden"][-1][:, 0]
    return vector_NW.float()


def digest(texts: Sequence[str]) -> Tensor:
    """SHA-256 of texts, uint8 [32]."""
    made = hashlib.sha256(json.dumps(list(texts)).encode()).digest()
    return torch.from_numpy(np.frombuffer(made, np.uint8).copy())


class Told(Protocol):
    """A method whose weights belong to certain texts."""

    texts_sha256: Tensor


def same_texts(method: Told, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Hook before `load_state_dict` of a method with a buffer `texts_sha256`: vectors of other texts mean something else.

    Raises:
        MethodError: the stored buffer is not the method's own.
    """
    theirs = state.get(f"{prefix}texts_sha256")
    if theirs is None or theirs.is_meta or torch.equal(theirs.cpu().to(torch.uint8), method.texts_sha256.cpu()):
        return
    raise MethodError(
        [
            "the weights belong to other entities or texts than method.leave_out, method.text_vectors and method.entity_text say; "
            "give those of their run, or medpair's version of then"
        ]
    )
