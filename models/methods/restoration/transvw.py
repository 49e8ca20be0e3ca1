"""TransVW: Transferable Visual Words (Haghighi et al., IEEE Transactions on Medical Imaging 2021, arXiv 2102.10680).

A visual word is a place that looks alike in many images of one kind. A network sees a word's neighbourhood, deformed and changed; it says
which word it is and restores the neighbourhood. docs/methods/transvw.md says how words are found and what was chosen.

Shape letters: B images, D width, H x W pixels, C channels, K words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, MethodError, Output, Record, Sample, Schema
from models.contract.assets import Asset
from models.encoders.resnet import ConvNet
from models.heads.visual_words import MapWords, PooledWords
from models.layers.batch_norm import counted
from models.methods.restoration._restore import RestorationMethod, RestorationOptions
from models.parallel import global_mean
from models.registry import register
from models.transforms.corrupt import Perturbation, flipped
from models.transforms.crops import Picture, picture_of, resized
from models.transforms.visual_words import Places, VisualWords, drawn_places, read_words

APART = 0.01  # of a side, between two words
NOWHERE = -1


class TransVwOptions(RestorationOptions):
    views: Literal["official"] = "official"
    """Whole images, since a word is a place of them; its neighbourhood is cut out."""
    flip_p: float = 0.0
    """Rows or columns are reversed while a number falls below it, three times at most."""
    words: Literal["file", "places"] = "file"
    """Words that `medpair words` found, or places alone, drawn once for all images."""
    words_file: Asset = None
    """The file of the words, found on training images."""
    places: int = Bounded(50, ge=2, le=10_000)
    """With `words: places`: how many."""
    neighbourhood: float = Bounded(0.5, gt=0, le=1)
    """Side of what is cut out around a word, as a share of the shorter side."""
    jitter: float = Bounded(1 / 16, ge=0, le=0.5)
    """Its centre is moved by up to so much of the shorter side either way."""
    zoom: tuple[float, float] = (0.8, 1.25)
    """Its side is multiplied by a number between these."""
    elastic: float = Bounded(0.05, ge=0, le=0.25)
    """Deviation of the elastic deformation's moves, as a share of the side; 0: none."""
    shuffle_windows: int = Bounded(5, ge=1, le=100_000)
    """Windows of a shuffle."""
    hidden: int = Bounded(1024, ge=1)
    """Width within the head that names words."""
    restore_weight: float = Bounded(1.0, gt=0)
    """Weight of the restoration."""
    word_weight: float = Bounded(0.01, gt=0)
    """Weight of the words' cross-entropy."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not 0 < self.zoom[0] <= self.zoom[1] <= 4:
            yield f"{where}.zoom: {self.zoom} is no range within (0, 4]"
        if self.crop_scale is not None:
            yield f"{where}.crop_scale: words are places of whole images, of which {where}.neighbourhood is cut out; take it out"
        if self.words == "places" and self.words_file is not None:
            yield f"{where}.words_file: {where}.words=places reads no file; take one of them out"


@register("transvw")
class TransVw(RestorationMethod):
    """As the base, and `word` (the head that names words)."""

    Options = TransVwOptions
    paper = (
        "Haghighi et al., Transferable Visual Words: Exploiting the Semantics of Anatomical Patterns for "
        "Self-Supervised Learning, IEEE TMI 2021"
    )
    options: TransVwOptions

    def __init__(self, options: TransVwOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        self.words = _words(o)
        self.corruption = Perturbation(o.elastic, o.shuffle_windows)
        head = MapWords if isinstance(self.image, ConvNet) else PooledWords
        self.word = head(self.image.width, o.hidden, self.words.words)
        self.enter("")

    def chance(self, batch_size: int) -> dict[str, float]:
        """All words as likely: ln K."""
        return {"word": math.log(self.words.words)}

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """As the base: `target` is the neighbourhood of one of the image's words; `word` its number, -1 where it has none."""
        if not self.stage:
            return super().sample(record, rng)
        if not record.has("image"):
            made, found = self.corrupted(None, rng), None
        else:
            found = self.words.draw(record.key, rng)
            made = self.corrupted(self.around(picture_of(record, "image", self.options.grayscale), found, rng), rng)
        made.arrays["word"] = np.array(NOWHERE if found is None else found[0], np.int64)
        return made

    def made_of(self) -> Mapping[str, Iterable[str]]:
        return {} if isinstance(self.words, Places) else {"words_file": self.words.images}

    def around(self, picture: Picture, found: tuple[int, float, float] | None, rng: np.random.Generator) -> np.ndarray:
        """The neighbourhood of a word in the centre square of an image, uint8 [H, W, C]; of none a place anywhere."""
        o = self.options
        whole = min(picture.size)
        side = min(whole, max(1, round(whole * o.neighbourhood * rng.uniform(*o.zoom))))
        centre = rng.random(2) if found is None else np.array(found[1:])
        moved = centre + rng.uniform(-o.jitter, o.jitter, 2)
        # Held within the square: near the border a neighbourhood has its word beside its centre.
        corner = np.clip(np.rint(moved * whole - side / 2).astype(int), 0, whole - side)
        top, left = (int(c) + (n - whole) // 2 for c, n in zip(corner, picture.size, strict=True))
        cut_HWC = resized(picture, (left, top, left + side, top + side), (self._size, self._size))
        return flipped(cut_HWC, o.flip_p, 2, rng)

    def forward(self, batch: Batch) -> Output:
        weight_B, o = self.weight(batch), self.options
        made = self.restored(batch["corrupted"], weight_B)
        restore, diagnostics = self.restoring_loss(made.made_BCHW, batch, weight_B)
        pooled_BD = self.pooled(made.tokens_BLD)
        with counted(weight_B):
            logits_BK = self.word(pooled_BD, made.maps[-1] if made.maps else None).float()
        word, told = word_loss(logits_BK, batch["word"], weight_B)
        total = o.restore_weight * restore + o.word_weight * word
        return Output({"restore": restore, "word": word}, total, {**diagnostics, **told}, {"image": pooled_BD.detach()})


def word_loss(logits_BK: Tensor, word_B: Tensor, weight_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the images that have a word, the mean over all ranks; how often it is found, and how many have one."""
    weight = weight_B.sum()
    weight_B = weight_B * (word_B != NOWHERE)
    known_B = word_B.clamp_min(0)
    each_B = torch.where(weight_B > 0, F.cross_entropy(logits_BK, known_B, reduction="none"), 0.0)

    def mean(x_B: Tensor) -> Tensor:
        return global_mean((x_B * weight_B).sum(), weight_B.sum())

    right = mean((logits_BK.detach().argmax(1) == known_B).float())
    return mean(each_B), {"word_accuracy": right, "with_word": global_mean(weight_B.sum(), weight)}


def _words(o: TransVwOptions) -> VisualWords | Places:
    """The words that the options name.

    Raises:
        MethodError: no file is given, or one that does not fit.
    """
    if o.words == "places":
        return Places(drawn_places(o.places, o.neighbourhood / 4, APART, np.random.default_rng(0)))
    if o.words_file is None:
        raise MethodError(
            [
                "method.words_file: words are found on your training images, by `medpair words RUN DATA --out FILE`; "
                "give the file, or method.words=places"
            ]
        )
    return read_words(o.words_file)
