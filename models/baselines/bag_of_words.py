"""Which words an image's brightness goes with: what retrieval and zero-shot classification reach without an encoder.

A text is the bag of its words, weighed by how rare they are in training reports (Salton and Buckley, Information Processing & Management
24, 1988), words hashed to places (Weinberger et al., ICML 2009). An image is its pixels, averaged to 16 x 16 (mean_features.py), from
which one ridge regression says the words (Hoerl and Kennard, Technometrics 12, 1970). Both are compared by their cosine.

Shape letters: B images or texts, N images of the training split, P pixel means, V places of words.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor

from models.baselines._fixed import Fixed
from models.baselines.mean_features import SIDE, small
from models.contract import Batch, MethodError, Options, Record, Sample, Schema
from models.contract.joint import ReadText
from models.registry import register

WORD = re.compile(r"[^\W_]+")
LEAST = 1e-6
"""Of a further number of every vector, so that none is without length: where nothing is known all are alike."""


class BagOfWordsOptions(Options):
    places: int = Bounded(1024, ge=16, le=2**16)
    """Places V that words are hashed to."""


@register("bag_of_words")
class BagOfWords(Fixed):
    """`vector` [P] of an image, `words` [V] of a text; `fit` and `shrink` make them comparable."""

    Options = BagOfWordsOptions
    options: BagOfWordsOptions
    mean_P: Tensor
    mean_V: Tensor
    rare_V: Tensor
    weight_PV: Tensor

    def __init__(self, options: BagOfWordsOptions, schema: Schema):
        super().__init__(options, schema)
        if "image" not in schema.fields:
            raise MethodError([schema.lacks("image", self.name)])
        self.inputs = ("image",)
        P, V = SIDE * SIDE * 3, options.places
        self.register_buffer("mean_P", torch.zeros(P))
        self.register_buffer("mean_V", torch.zeros(V))
        self.register_buffer("rare_V", torch.zeros(V))
        self.register_buffer("weight_PV", torch.zeros(P, V))
        self._parts: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        present = record.has("image")
        pixels_P = small(record.read("image")) if present else np.zeros(len(self.mean_P), np.float32)
        return Sample({"vector": pixels_P}, {"image": present})

    def read_text(self, text: str, prompt: bool = False) -> ReadText:
        """Every word of a text, numbers among them."""
        words = WORD.findall(text.lower())
        place_W = [zlib.crc32(word.encode()) % self.options.places for word in words]
        count_V = np.bincount(np.array(place_W, int), minlength=self.options.places).astype(np.float32)
        return ReadText(Sample({"words": count_V}, {"report": bool(words)}), len(words), 0, max(1, len(words)))

    # ------------------------------------------------------------------------------------------------------------- fitted

    def fit(self, pixels_NP: np.ndarray, words_NV: np.ndarray) -> None:
        """Takes what all strengths of the ridge share from the training split."""
        held_V = (words_NV > 0).sum(0)
        rare_V = np.where(held_V > 0, np.log((1 + len(words_NV)) / (1 + held_V)) + 1, 0.0)
        self._set(mean_P=pixels_NP.mean(0), rare_V=rare_V)
        told_NV = self._told(torch.from_numpy(words_NV)).double().numpy()
        self._set(mean_V=told_NV.mean(0))
        away_NP = pixels_NP - pixels_NP.mean(0)
        size_P, turn_PP = np.linalg.eigh(away_NP.T.astype(np.float64) @ away_NP)
        self._parts = size_P.clip(0), turn_PP, turn_PP.T @ (away_NP.T @ (told_NV - told_NV.mean(0)))

    def shrink(self, strength: float) -> None:
        """The ridge regression with this strength, in units of the mean variance of the pixels, summed over images."""
        assert self._parts is not None, "fit comes first"
        size_P, turn_PP, known_PV = self._parts
        against = strength * max(float(size_P.mean()), LEAST)
        self._set(weight_PV=turn_PP @ (known_PV / (size_P + against)[:, None]))

    def _set(self, **values: np.ndarray) -> None:
        for name, value in values.items():
            getattr(self, name).copy_(torch.from_numpy(np.asarray(value, np.float32)))

    def _told(self, words_BV: Tensor) -> Tensor:
        """Logarithms of counts by how rare a word is, at unit length."""
        return torch.nn.functional.normalize(torch.log1p(words_BV.float()) * self.rare_V, dim=1)

    # ----------------------------------------------------------------------------------------------------------- compared

    def embed_images(self, batch: Batch) -> Tensor:
        """The words that regression says of an image, less those of all, [B, V + 1]."""
        return _with_length((batch["vector"].float() - self.mean_P) @ self.weight_PV)

    def embed_texts(self, batch: Batch) -> Tensor:
        return _with_length(self._told(batch["words"]) - self.mean_V)

    def similarity_scale(self) -> float:
        """Nothing was learned that would say."""
        return 1.0

    def joint_problem(self) -> str:
        return ""


def _with_length(x_BV: Tensor) -> Tensor:
    return torch.cat([x_BV, x_BV.new_full((len(x_BV), 1), LEAST)], 1)
