"""M3AE: Multi-Modal Masked Autoencoders for Medical Vision-and-Language Pre-Training (Chen et al. 2022, arXiv 2209.07098), with genetics
in place of reports.

An encoder each makes tokens of an image and of fragments of genetic vectors; in two streams they look at each other. Patches of which a
quarter is seen are restored from the image's stream at half its depth, hidden fragments from the end of theirs, and from both class
tokens is told whether image and genetics are of one sample. The deployed encoder sees images alone.

Not the M3AE of Geng et al. 2022 (one encoder for all tokens). docs/methods/m3ae_chen.md says what genetics leave open and what was chosen.

Shape letters: B samples, N patches, K kept and M masked ones, P values of a patch, T fragments, F features, L and S tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Group, Output, Record, Sample, Schema, Stage
from models.decoders.fragments import asked_mean, in_fragments
from models.decoders.image import MaskedImageDecoder
from models.decoders.mae import patchify
from models.encoders.gene_tokens import GeneTokens
from models.encoders.two_streams import TwoStreams, start_as_bert
from models.encoders.vit import ViTOptions
from models.heads.token_values import TokenValues
from models.layers.patches import mask_order, ratio_problems, standardise, take
from models.layers.vit_block import as_clips
from models.losses.matching import matched, partners
from models.methods._genetics import ReadsGenetics
from models.methods._image import ImageMethodOptions
from models.methods.masked._restoring import DrawnMethod
from models.parallel import gather, global_mean
from models.registry import register
from models.transforms.expression import ExpressionOptions
from models.transforms.patients import patient_number
from models.transforms.views import ViewRule


class M3aeGenes(ExpressionOptions):
    """Of the genetic vectors and their encoder."""

    dim: int | None = Bounded(None, ge=8)
    """Width of the gene encoder; none given: as the image encoder."""
    depth: int = Bounded(4, ge=1)
    """Its transformer blocks, with as many heads as the image encoder's."""
    fragment: int = Bounded(128, ge=1)
    """Features that make one gene token."""
    hidden: int = Bounded(256, ge=1)
    """Hidden width of the network that makes a token of a fragment (an SNN)."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Its AlphaDropout."""


class M3aeChenOptions(ImageMethodOptions):
    conventions: Literal["recommended", "published"] = "recommended"
    """As published: the image decoder has CLIP's GELU and epsilon, and an image may be matched against another of the same person as if it
    were somebody else's."""
    genetics: tuple[str, ...] = ("snp", "pgs", "burden")
    """Genetic modalities, by field name: any vector field."""
    image: ViTOptions = ViTOptions()
    """The image encoder, which has a class token."""
    genes: M3aeGenes = M3aeGenes()
    """The genetic vectors and their encoder. snp, burden and mutation are centred alone and never clipped."""
    fusion_dim: int = Bounded(768, ge=1)
    """Width of the two streams."""
    fusion_depth: int = Bounded(6, ge=1)
    """Layers of each stream."""
    fusion_heads: int = Bounded(12, ge=1)
    """Their attention heads."""
    fusion_dropout: float = Bounded(0.1, ge=0, lt=1)
    """Dropout in the streams."""
    fusion_lr: float = Bounded(1.0, gt=0)
    """Learning rate of streams, heads and decoder in multiples of the encoders' (published: 5, over pre-trained encoders)."""
    mim_layer: int = Bounded(3, ge=0)
    """After so many layers of the image's stream hidden patches are restored."""
    mask_ratio: float = Bounded(0.75, gt=0, lt=1)
    """Share of patches hidden."""
    norm_pix: bool = True
    """Restore patches that are standardised one by one, or normalised pixels as they are."""
    gene_ratio: float = Bounded(0.5, gt=0, lt=1)
    """Share of a sample's fragments hidden, at least one (M3AE: 0.15 of the words of a report)."""
    decoder_dim: int = Bounded(384, ge=4)
    """Width of the image decoder."""
    decoder_depth: int = Bounded(4, ge=1)
    """Its blocks."""
    decoder_heads: int = Bounded(6, ge=1)
    """Its attention heads."""
    image_weight: float = Bounded(1.0, ge=0)
    """Weight of restored patches."""
    gene_weight: float = Bounded(1.0, ge=0)
    """Weight of restored fragments."""
    match_weight: float = Bounded(1.0, ge=0)
    """Weight of matching."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.genetics:
            yield f"{where}.genetics: m3ae_chen needs a genetic modality; name a field (mae is for images alone)"
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: decoder and matching need a class token; set it to true"
        for name, of in (("fusion_dim", "fusion_heads"), ("decoder_dim", "decoder_heads")):
            if getattr(self, name) % getattr(self, of):
                yield f"{where}.{name}: {getattr(self, name)} is not a multiple of {where}.{of} ({getattr(self, of)}); make it one"
        if self.decoder_dim % 4:
            yield f"{where}.decoder_dim: {self.decoder_dim} is not a multiple of 4, which its positions need"
        if self.genes.dim and self.genes.dim % self.image.heads:
            yield f"{where}.genes.dim: {self.genes.dim} is not a multiple of {where}.image.heads ({self.image.heads}); make it one"
        if self.mim_layer > self.fusion_depth:
            yield f"{where}.mim_layer: {self.mim_layer} of {self.fusion_depth} layers; give at most {where}.fusion_depth"
        N = (self.image.image_size // self.image.patch) ** 2
        yield from ratio_problems(f"{where}.mask_ratio", self.mask_ratio, N)


@register("m3ae_chen")
class M3aeChen(ReadsGenetics, DrawnMethod):
    """`image` and `genes` (the encoders), `fusion` (the streams), `decoder` and two heads; pooled is the mean of the patch tokens."""

    Options = M3aeChenOptions
    paper = "Chen et al., Multi-Modal Masked Autoencoders for Medical Vision-and-Language Pre-Training, MICCAI 2022"
    official = (1.0, 1.0)
    options: M3aeChenOptions

    def __init__(self, options: M3aeChenOptions, schema: Schema):
        o, g = options, options.genes
        super().__init__(options, schema)
        if o.views == "official":
            self.drawn.rules = (ViewRule(None, flip=0.0),)  # the centre square, nothing drawn
        width, D = g.dim or o.image.dim, o.fusion_dim
        self.genes = GeneTokens(
            self.widths, width, g.depth, o.image.heads, g.fragment, g.hidden, g.dropout, mask_token=True
        )
        self.fusion = TwoStreams(o.image.dim, width, D, o.fusion_depth, o.fusion_heads, o.fusion_dropout)
        self.decoder = MaskedImageDecoder(
            D, self.image.grid, o.decoder_dim, o.decoder_depth, o.decoder_heads, 3 * o.image.patch**2
        )
        if o.conventions == "published":
            as_clips(self.decoder)
        self.gene_head, self.match_head = TokenValues(D, g.fragment), nn.Linear(2 * D, 2)
        start_as_bert(self.match_head)
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", *self.options.genetics), compares=True, epochs=100),)

    def no_weight_decay(self) -> Iterable[str]:
        """Tokens, positions, and embeddings of modalities."""
        names = {"cls_token", "pos_embed", "mask_token", "position_TC", "modality_MC", "kind_2D"}
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in names]

    def param_groups(self) -> list[Group]:
        """Streams, heads and decoder apart, at their own multiple of the rate."""
        encoders = {id(p) for part in (self.image, self.genes) for p in part.parameters()}
        found = []
        for g in super().param_groups():
            for name, scale, inside in (("", 1.0, True), ("fusion_", self.options.fusion_lr, False)):
                params = [p for p in g.params if (id(p) in encoders) == inside]
                found.append(Group(f"{name}{g.name}", params, g.lr_scale * scale, g.decay_scale))
        return [g for g in found if g.params]

    def chance(self, batch_size: int) -> dict[str, float]:
        """The variance of a standardised patch, which is unbiased (blank patches have less); a coin."""
        image = {"image": 1.0 - 1.0 / (3 * self.options.image.patch**2)} if self.options.norm_pix else {}
        return image | {"match": math.log(2)}

    def hides(self, rng: np.random.Generator) -> np.ndarray:
        """Noise; the patches with the largest are hidden."""
        return rng.random(self.image.patches, np.float32)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training also the genetic vectors, `noise` [N], `gene_noise` [T], `draw` and `patient`."""
        made = super().sample(record, rng)
        if not self.stage:
            return made
        vectors, has = self._read_genetics(record)
        draws = {
            "gene_noise": rng.random(sum(self.genes.embed.tokens.values()), np.float32),
            "draw": np.asarray(rng.random(), np.float32),
            "patient": patient_number(record.patient),
        }
        return Sample(made.arrays | vectors | draws, made.present | has)

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o, weight_B = self.options, self.weight(batch).float()
        pixels_BCHW, (values, known) = self.pixels(batch["views"][:, 0]), self._vectors(batch)
        real_BS, given = self.genes.real(batch.present), {n: v.to(self.dtype) for n, v in values.items()}
        whole_BLD, genes_BSD = self.image(pixels_BCHW.to(self.dtype)), self.genes(given, real_BS)
        losses, said = dict[str, Tensor](), dict[str, Tensor]()
        losses["image"], said["image_baseline"] = self._image_loss(
            pixels_BCHW, batch["noise"], genes_BSD, real_BS, weight_B
        )
        hidden_BT = self.hidden_fragments(batch["gene_noise"], real_BS[:, 1:])
        restored_BSD = self.fusion(whole_BLD, self.genes(given, real_BS, hidden_BT), real_BS)[1]
        target_BTF, known_BTF = (self._fragments(x) for x in (values, known))
        asked_BTF = known_BTF & hidden_BT[..., None]
        gap_BTF = (self.gene_head(restored_BSD[:, 1:]) - target_BTF).square()
        losses["genes"] = asked_mean(gap_BTF, asked_BTF, weight_B)
        # What 0 costs as the answer: the training split's mean.
        said["genes_baseline"] = asked_mean(target_BTF.square(), asked_BTF, weight_B)
        losses["match"], said["match_accuracy"], asked_B = self._matching(
            whole_BLD, genes_BSD, real_BS, batch, weight_B
        )
        total = o.image_weight * losses["image"] + o.gene_weight * losses["genes"] + o.match_weight * losses["match"]
        genes = (weight_B * asked_BTF.any(2).any(1)).sum()
        counts = {"genes": genes, "genes_baseline": genes, "match": asked_B.sum(), "match_accuracy": asked_B.sum()}
        features = {"image": whole_BLD[:, self._extra :].mean(1).detach(), "genes": genes_BSD[:, 0].detach()}
        return Output(losses, total, said, features, counts)

    def _image_loss(
        self, pixels_BCHW: Tensor, noise_BN: Tensor, genes_BSD: Tensor, real_BS: Tensor, weight_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Squared error of hidden patches, from the image's stream after `mim_layer` layers; and what 0 costs as the answer."""
        o = self.options
        keep_BK, masked_BM = mask_order(noise_BN, o.mask_ratio)
        seen_BKD = self.image(pixels_BCHW.to(self.dtype), keep_BK)
        stream_BKD = self.fusion(seen_BKD, genes_BSD, real_BS, o.mim_layer)[0]
        made_BMP = self.decoder(stream_BKD, keep_BK, masked_BM).float()
        target_BMP = take(patchify(pixels_BCHW, o.image.patch), masked_BM)
        target_BMP = standardise(target_BMP)[0] if o.norm_pix else target_BMP

        def average(x_BMP: Tensor) -> Tensor:
            return global_mean((x_BMP.mean((1, 2)) * weight_B).sum(), weight_B.sum())

        return average((made_BMP - target_BMP).square()), average(target_BMP.square())

    def hidden_fragments(self, noise_BT: Tensor, there_BT: Tensor) -> Tensor:
        """Those with the least noise of what a sample has: `gene_ratio` of them, one at least."""
        count_B1 = (self.options.gene_ratio * there_BT.sum(1, keepdim=True)).round().clamp_min(1)
        rank_BT = torch.where(there_BT, noise_BT, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        return (rank_BT < count_B1) & there_BT

    def _fragments(self, vectors: dict[str, Tensor]) -> Tensor:
        """Of all modalities [B, T, F], in the order of tokens."""
        return torch.cat([in_fragments(vectors[n], self.options.genes.fragment) for n in self.widths], 1)

    def _matching(
        self, whole_BLD: Tensor, genes_BSD: Tensor, real_BS: Tensor, batch: Batch, weight_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whether image and genetics are of one sample: the loss, the share told right, and who was asked [B]."""
        counts_B = (weight_B > 0) & real_BS.any(1)
        same = self.options.conventions == "published"
        place_B, own_B, asked_B = partners(batch["draw"], counts_B, batch["patient"], same)
        given_BSD, given_BS = gather(genes_BSD)[place_B], gather(real_BS)[place_B]
        image_BD, gene_BD = self.fusion(whole_BLD, given_BSD, given_BS, pooled=True)
        logits_B2 = self.match_head(torch.cat([gene_BD, image_BD], 1))
        return *matched(logits_B2, own_B, asked_B), asked_B
