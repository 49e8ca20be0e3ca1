"""Options of MedKLIP (method.py)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field as Bounded
from pydantic import model_validator

from models.encoders.image import ImageOptions
from models.encoders.report_bert import BertOptions
from models.encoders.resnet import ResNetOptions
from models.encoders.vit import ViTOptions
from models.methods._image import ImageMethodOptions
from models.methods._published import with_published
from models.methods.contrastive.medklip.knowledge import ENTITIES, POSITIONS


class MedklipOptions(ImageMethodOptions):
    published: ClassVar[Mapping[str, Any]] = {"views": "official", "flip": True, "averaged": "rank"}
    """What `conventions: published` means, by key."""

    conventions: Literal["recommended", "published"] = "recommended"
    """`published` sets what the published code does where we recommend otherwise (docs); a key that contradicts it is refused."""
    image: ImageOptions = ResNetOptions()
    """The image encoder."""
    last_stage: bool | None = None
    """Of a convolutional network: whether its last stage (layer4 of a ResNet) is kept. None given: it is left out, as published, and places
    are half as far apart."""
    flip: bool | Literal["swap"] = False
    """Mirror half of the images: not at all, since positions name sides; with left and right exchanged in the triplets (an image with a
    finding in the right middle lobe, atrium or ventricle is not mirrored); or with positions as they were (as published)."""
    augmentations: int = Bounded(2, ge=0, le=8)
    """With `views: official`: operations of RandAugment on an image."""
    magnitude: float = Bounded(7.0, ge=0, le=10)
    """Their strength, out of 10."""
    text_vectors: Literal["learned", "bert"] = "learned"
    """What stands for an entity and for a position: a learned vector of length 1; or the [CLS] of a text under a frozen BERT
    (`text.init=file`), computed once, which the weights then hold."""
    entity_text: Literal["explanation", "name"] = "explanation"
    """With `text_vectors: bert`, the text of an entity: a sentence that explains it (entities.yaml), or its bare name."""
    vector_width: int = Bounded(768, ge=4)
    """Width of learned vectors."""
    text: BertOptions = BertOptions(dropout=0.0)
    """With `text_vectors: bert`, the BERT that makes them."""
    tokenizer: str | None = None
    """With `text_vectors: bert`, the vocabulary of `text.init_file`: its vocab.txt, or a file of `python -m shards tokenizer`; none given:
    the one stored with the data set's field `report`."""
    cased: bool = False
    """Of a BERT's vocab.txt: its words keep capitals and accents."""
    leave_out: tuple[str, ...] = ()
    """Entities that are not learned, by name, so that they can be asked for unseen."""
    negatives: int = Bounded(7, ge=1, le=len(POSITIONS) - 1)
    """Other positions beside a true one that an entity's position is chosen from."""
    dim: int = Bounded(256, ge=4)
    """Width of the decoder."""
    depth: int = Bounded(4, ge=1)
    """Its layers."""
    heads: int = Bounded(4, ge=1)
    """Its attention heads."""
    inner: int = Bounded(1024, ge=1)
    """Width of its feed-forward part."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Dropout in the decoder, of attention weights too, and behind it."""
    exist_weight: float = Bounded(1.0, ge=0)
    """Weight of telling whether an entity is present."""
    position_weight: float = Bounded(1.0, ge=0)
    """Weight of telling where it is."""
    position_scale: Literal["none", "width"] = "none"
    """Products with positions as they are (published), or divided by the root of their width."""
    averaged: Literal["all", "rank"] = "all"
    """Losses are means over the entities of all ranks, or means over ranks of each rank's own (as published)."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: object) -> object:
        return with_published(cls.published, given)

    @property
    def entities(self) -> tuple[int, ...]:
        """The columns of the triplets that are learned."""
        return tuple(i for i, name in enumerate(ENTITIES) if name not in self.leave_out)

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.dim % self.heads:
            yield f"{where}.dim: {self.dim} is not a multiple of {where}.heads ({self.heads}); make it one"
        if isinstance(self.image, ViTOptions) and self.last_stage is not None:
            yield f"{where}.last_stage: a vision transformer has no such stage; take it out"
        if not self.exist_weight and not self.position_weight:
            yield f"{where}.exist_weight and {where}.position_weight are both 0, so there is nothing to learn; give one of them"
        if self.text_vectors == "learned" and (self.text.init == "file" or self.tokenizer or self.cased):
            yield f"{where}.text_vectors=learned reads no BERT and no vocabulary; give {where}.text_vectors=bert, or drop them"
        for name in (n for n in self.leave_out if n not in ENTITIES):
            near = difflib.get_close_matches(name, ENTITIES, n=1, cutoff=0.6)
            yield f"{where}.leave_out: no entity '{name}'" + (f"; did you mean '{near[0]}'?" if near else " (docs)")
        if not self.entities:
            yield f"{where}.leave_out: leaves no entity to learn; name fewer"
