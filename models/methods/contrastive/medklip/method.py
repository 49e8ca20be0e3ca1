"""MedKLIP: Medical Knowledge Enhanced Language-Image Pre-Training for X-ray Diagnosis (Wu et al., ICCV 2023, arXiv 2301.02228).

Of a report only triplets are kept: which finding is said to be present or absent, and where. Each entity asks the image, and the
answer tells whether it is there (two classes) and at which of eight positions. docs/methods/medklip.md says what the published code does
and what was chosen.

Shape letters: B samples, L places of the image, D its width, E entities, P positions, K candidates, C width of the decoder, W of vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import Batch, MethodError, Output, Record, Sample, Schema, Stage
from models.contract.image_encoder import ImageEncoder
from models.decoders.queries import QueryDecoder
from models.encoders.resnet import ResNetOptions
from models.layers.batch_norm import counted
from models.losses.classes import accuracy, cross_entropy
from models.methods._image import ImageMethod, field_problems
from models.methods.contrastive.medklip.knowledge import (
    ENTITIES,
    LONGEST,
    POSITIONS,
    Vectors,
    class_vectors,
    digest,
    entity_texts,
    mirrored_rows,
    position_texts,
    same_texts,
)
from models.methods.contrastive.medklip.options import MedklipOptions
from models.parallel import alone, global_mean
from models.pictures import first, row_of_images
from models.registry import register
from models.transforms.crops import Picture, picture_of
from models.transforms.randaugment import augmented
from models.transforms.report_tokens import tokens_of
from models.transforms.views import KINDS, ViewRule, drawn_view

PRESENT, UNKNOWN = 1, -1
NOTHING = -1  # in place of a candidate
SHAPE = (len(POSITIONS), len(ENTITIES))
OFFICIAL = ViewRule((0.2, 1.0))


@register("medklip")
class Medklip(ImageMethod):
    """`image`, `project` (its places), `entity` and `place` (vectors), `ask` (entities to queries), `decoder`, `exist`, `position`."""

    Options = MedklipOptions
    paper = "Wu et al., MedKLIP: Medical Knowledge Enhanced Language-Image Pre-Training for X-ray Diagnosis, ICCV 2023"
    pairs = "image + triplets of its report"
    outline: ClassVar = {"pretrain": "image, triplets"}
    by_class = False
    options: MedklipOptions
    texts_sha256: Tensor

    def __init__(self, options: MedklipOptions, schema: Schema):
        o = options
        wrong = list(field_problems(schema, "medklip", {"image": "image", "triplets": "array"}))
        if problems := wrong or list(_triplet_problems(schema)):
            raise MethodError(problems)
        super().__init__(options, schema)
        rules = {"mild": KINDS["mild"].views[0], "paper": KINDS["paper"].views[0], "official": OFFICIAL}
        rule = rules[o.views]
        self.rule = replace(rule, flip=0.0, scale=o.crop_scale or rule.scale)
        self.mirror_P, self.sided_P = mirrored_rows()
        self.columns_E = np.array(o.entities)
        fixed, D = o.text_vectors == "bert", self.image.width
        W = o.text.dim if fixed else o.vector_width
        self.project = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, o.dim))
        self.entity, self.place = Vectors(len(self.columns_E), W, fixed), Vectors(len(POSITIONS), W, fixed)
        self.ask = nn.Linear(W, o.dim)
        self.decoder = QueryDecoder(o.dim, o.depth, o.heads, o.inner, o.dropout)
        self.drop = nn.Dropout(o.dropout)
        self.exist, self.position = nn.Linear(o.dim, 2), nn.Linear(o.dim, W)
        for part in (self.project, self.ask, self.decoder, self.exist, self.position):
            for m in part.modules():
                if isinstance(m, nn.Linear):
                    nn.init.normal_(m.weight, std=0.02)
        self._tell(schema)
        self.register_load_state_dict_pre_hook(same_texts)
        self.enter("")

    def built(self) -> ImageEncoder:
        o = self.options
        if isinstance(o.image, ResNetOptions) and not o.last_stage:
            return o.image.build(leave_out=1)
        return super().built()

    def _tell(self, schema: Schema) -> None:
        """The texts' digest, and the vectors of a BERT where there is its file: weights of a run bring them along."""
        o = self.options
        texts = [t for i, t in enumerate(entity_texts(o.entity_text)) if i in o.entities]
        names = [n for i, n in enumerate(ENTITIES) if i in o.entities]
        fixed = o.text_vectors == "bert"
        self.register_buffer("texts_sha256", digest([*texts, *position_texts()] if fixed else [*names, *POSITIONS]))
        if fixed and o.text.init == "file":
            tokens = tokens_of(schema, "report", o.tokenizer, o.cased)
            bert = o.text.build(tokens.rows, LONGEST, tokens.sha256)
            self.entity.fill(class_vectors(bert, tokens, texts))
            self.place.fill(class_vectors(bert, tokens, position_texts()))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", "triplets"), epochs=100),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder.

        Raises:
            MethodError: to pre-train with a BERT's vectors without its file.
        """
        super().enter(stage)
        if stage and self.options.text_vectors == "bert" and not bool(self.entity.vector_NW.any()):
            raise MethodError(
                [
                    "method.text_vectors=bert needs the BERT: give method.text.init=file method.text.init_file=FILE "
                    "method.tokenizer=VOCAB; without one, method.text_vectors=learned"
                ]
            )
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.startswith("image."))

    def no_weight_decay(self) -> Iterable[str]:
        tokens = ("pos_embed", "cls_token", "vector_NW")
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in tokens]

    def chance(self, batch_size: int) -> dict[str, float]:
        """Both answers as likely, and all candidates."""
        return {"exist": math.log(2), "position": math.log(1 + self.options.negatives)}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """`image` [H, W, 3]; in pre-training `states` [E] (1 present, 0 absent, -1 not mentioned) and `candidates` [E, K]: of a present
        entity rows of positions, a true one first, then such that are not; -1 for none."""
        if not self.stage:
            return super().sample(record, rng)
        o, E = self.options, len(self.columns_E)
        arrays = {
            "image": np.zeros((self._size, self._size, 3), np.uint8),
            "states": np.full(E, UNKNOWN, np.int8),
            "candidates": np.full((E, 1 + o.negatives), NOTHING, np.int8),
        }
        present = {"image": record.has("image"), "triplets": record.has("triplets")}
        found_PE = self.triplets(record) if present["triplets"] else np.full((len(POSITIONS), E), UNKNOWN, np.int8)
        mirrored = bool(o.flip) and rng.random() < 0.5
        if mirrored and o.flip == "swap":
            mirrored = not (found_PE[self.sided_P] != UNKNOWN).any()
            found_PE = found_PE[self.mirror_P] if mirrored else found_PE
        if present["image"]:
            view_HWC = self.view(picture_of(record, "image", grayscale=False), rng)
            arrays["image"][:] = view_HWC[:, ::-1] if mirrored else view_HWC
        arrays["states"][:] = found_PE.max(0)
        for e in np.flatnonzero(arrays["states"] == PRESENT):
            arrays["candidates"][e] = drawn_candidates(found_PE[:, e] == PRESENT, o.negatives, rng)
        return Sample(arrays, present)

    def untold(self, record: Record) -> str:
        if (self.triplets(record) == UNKNOWN).all():
            return "a triplet of an entity that is learned; find them again (python -m shards triplets), or give method.leave_out=[]"
        return ""

    def triplets(self, record: Record) -> np.ndarray:
        """A sample's matrix, int8 [P, E] of the entities that are learned.

        Raises:
            MethodError: other numbers than -1, 0 and 1.
        """
        whole = record.read("triplets")
        if odd := sorted(set(np.unique(whole).tolist()) - {-1, 0, 1}):
            raise MethodError([f"field 'triplets' holds {', '.join(map(str, odd[:4]))}: it is 1, 0 or -1"])
        return whole[:, self.columns_E]

    def view(self, image: Picture, rng: np.random.Generator) -> np.ndarray:
        """A random view of an image, uint8 [H, W, 3]."""
        o = self.options
        picture = drawn_view(image, self._size, self.rule, rng)
        return np.asarray(augmented(picture, o.augmentations, o.magnitude, rng) if o.views == "official" else picture)

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch)
        exist_BE2, place_BEK, pooled_BD = self.answers(batch)
        state_BE = batch["states"].long()
        weight_N = (weight_B * batch.present["triplets"]).repeat_interleave(state_BE.shape[1])
        # The true position stands first among the candidates of an entity that is present.
        asked = {
            "exist": (exist_BE2.flatten(0, 1), state_BE.flatten()),
            "position": (place_BEK.flatten(0, 1), torch.where(state_BE == PRESENT, 0, UNKNOWN).flatten()),
        }
        losses = {n: self.over(partial(cross_entropy, *xy, weight_N), weight_N) for n, xy in asked.items()}
        total = o.exist_weight * losses["exist"] + o.position_weight * losses["position"]
        diagnostics = {f"{n}_accuracy": accuracy(x, y, weight_N) for n, (x, y) in asked.items()}
        known = {n: (weight_N * (y >= 0)).sum() for n, (_, y) in asked.items()}
        diagnostics |= {
            "present": global_mean(known["position"], known["exist"]),
            "mentioned": global_mean(known["exist"], weight_N.sum()),
        }
        counts = {**known, "exist_accuracy": known["exist"], "position_accuracy": known["position"]}
        counts |= {"present": known["exist"], "mentioned": weight_N.sum()}
        return Output(losses, total, diagnostics, {"image": pooled_BD.detach()}, counts)

    def answers(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of absent and present [B, E, 2] and of the candidates [B, E, K], float32; the image's vector [B, D]."""
        with counted(self.weight(batch)):
            tokens_BLD = self.image.tokens(self.pixels(batch["image"]).to(self.dtype))
        answer_BEC = self.asked(tokens_BLD)
        place_PW = self.place().to(self.dtype)
        place_BEP = (self.position(answer_BEC) @ place_PW.T).float()
        if self.options.position_scale == "width":
            place_BEP = place_BEP / math.sqrt(place_PW.shape[1])
        candidate_BEK = batch["candidates"].long()
        place_BEK = place_BEP.gather(2, candidate_BEK.clamp_min(0))
        # Finite: of an entity that is not present there is no candidate at all.
        place_BEK = place_BEK.masked_fill(candidate_BEK == NOTHING, torch.finfo(torch.float32).min)
        return self.exist(answer_BEC).float(), place_BEK, self.pooled(tokens_BLD)

    def asked(self, tokens_BLD: Tensor) -> Tensor:
        """What the image answers to each entity, [B, E, C]."""
        places_BLC = self.project(tokens_BLD[:, self._extra :])
        query_EC = self.ask(self.entity().to(self.dtype))
        return self.drop(self.decoder(query_EC.expand(len(places_BLC), -1, -1), places_BLC))

    def over(self, loss: Callable[[], Tensor], weight_N: Tensor) -> Tensor:
        """A loss over all ranks, or the mean over ranks of each rank's own."""
        if self.options.averaged == "all":
            return loss()
        with alone():
            value = loss()
        count = weight_N.sum().to(value.dtype)
        return global_mean(value * count, count)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the images as they came."""
        return {"images": row_of_images(first(batch)["image"])}


def drawn_candidates(true_P: np.ndarray, negatives: int, rng: np.random.Generator) -> np.ndarray:
    """Rows [1 + negatives] of positions: one of the true ones, then others; -1 where there are no more."""
    out_K = np.full(1 + negatives, NOTHING, np.int8)
    out_K[0] = rng.choice(np.flatnonzero(true_P))
    others = rng.permutation(np.flatnonzero(~true_P))[:negatives]
    out_K[1 : 1 + len(others)] = others
    return out_K


def _triplet_problems(schema: Schema) -> Iterable[str]:
    """What keeps the field from being matrices of MedKLIP's positions and entities."""
    field = schema.need("triplets")
    if field.shape != SHAPE or field.dtype != "int8":
        yield (
            f"field 'triplets' of {schema.source} is {field.dtype} {field.shape}, not int8 {SHAPE} (positions, entities); make it by "
            "`python -m shards triplets DIR`"
        )
    names = field.vocabulary or tuple(ENTITIES)
    if unknown := [n for n in names if n not in ENTITIES]:
        yield f"field 'triplets' of {schema.source} names {len(unknown)} entities that MedKLIP does not know: {', '.join(unknown[:4])}"
    elif names != tuple(ENTITIES):
        yield f"field 'triplets' of {schema.source} has MedKLIP's entities in another order; pack it in the order of medklip's docs"
