"""Systems whose images and texts lie in one space: by their cosines an image finds words, and words an image.

Shape letters: B images or texts, C compared width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from models.contract.batch import Batch, Sample


@dataclass(frozen=True)
class ReadText:
    """A text as a text encoder gets it.

    sample   its arrays, for `collate`; `present` says whether there is any word
    tokens   how many the whole text has, and how many of them the vocabulary does not know (`unknown`)
    room     how many the encoder reads; what is behind them is cut
    """

    sample: Sample
    tokens: int
    unknown: int
    room: int

    @property
    def key(self) -> bytes:
        """Equal for texts that the encoder cannot tell apart."""
        return b"".join(array.tobytes() for _, array in sorted(self.sample.arrays.items()))


@runtime_checkable
class JointSpace(Protocol):
    """A method that compares images with texts by the cosine of two vectors.

    What it keeps, it is measured by: zero-shot classification and retrieval ask every method that has these names, and no list.
    All are called in the deployed form (`enter("")`), in eval mode, without gradient.
    """

    def embed_images(self, batch: Batch) -> Tensor:
        """Compared vectors [B, C] of a batch of deployed samples; of any length."""
        ...

    def embed_texts(self, batch: Batch) -> Tensor:
        """Compared vectors [B, C] of a batch of `read_text` samples; of any length."""
        ...

    def read_text(self, text: str, prompt: bool = False) -> ReadText:
        """A report, of which the part that the method reads is taken whole, or a `prompt`, of which every word counts."""
        ...

    def similarity_scale(self) -> float:
        """What training multiplies cosines by before a softmax (1 / temperature)."""
        ...

    def joint_problem(self) -> str:
        """Why the options leave this model without such a space, with a remedy; "" where it has one."""
        ...


@runtime_checkable
class FittedSpace(JointSpace, Protocol):
    """A joint space without pre-training: a baseline that is fitted to images and reports of the training split when it is measured."""

    def fit(self, pixels_NP: np.ndarray, words_NV: np.ndarray) -> None:
        """What `encode` pools of N images, and the array `words` that `read_text` makes of their reports."""
        ...

    def shrink(self, strength: float) -> None:
        """Sets how much it keeps to the mean; chosen on the validation split."""
        ...
