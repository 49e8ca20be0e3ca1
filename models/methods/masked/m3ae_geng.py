"""M3AE: Multimodal Masked Autoencoders Learn Transferable Representations (Geng et al. 2022, arXiv 2205.14204).

Patches of an image and words of its report are tokens of one transformer, three quarters of both hidden. One light decoder restores the
pixels and the words. The deployed encoder sees whole images alone. docs/methods/m3ae_geng.md says what is open and what was chosen.

Shape letters: B samples, N patches, T token places of a report, K kept ones, M hidden patches, P values of a patch, L tokens, D width,
V vocabulary, n hidden words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.decoders.joint import JointDecoder
from models.decoders.mae import patchify
from models.encoders.positions import sincos, sincos_2d
from models.encoders.vit import ViTOptions
from models.encoders.words import WordTokens
from models.layers.patches import kept, kept_words, mask_order, ratio_problems, standardise, take
from models.layers.vit_block import Gelu
from models.methods._report import Normalise, ReportMethod, ReportOptions
from models.methods.masked._restoring import beside, costs
from models.parallel import global_mean
from models.pictures import first
from models.registry import register
from models.transforms.image import to_pixels
from models.transforms.report_text import Unit


class M3aeGengOptions(ReportOptions):
    published: ClassVar = {
        "flip": True,
        "gelu": "tanh",
        "mask_shared": True,
        "mask_padding": True,
        "mask_words": "token",
        "text_loss_empty": "dilute",
    }

    image: ViTOptions = ViTOptions()
    """The encoder of both, which has a class token."""
    report_length: int = Bounded(128, ge=2)
    """Tokens of a report, without [CLS] and end; longer ones are cut (and counted in the diagnostics)."""
    text_unit: Unit = "report"
    """A text is one sentence of the report, another one at every visit, or all of them."""
    normalise: Normalise = "film"
    """Pixels with the mean and deviation of ImageNet or of radiographs taken out, from -1 to 1, or from 0 to 1."""
    gelu: Literal["exact", "tanh"] = "exact"
    """GELU of all blocks: exact, as timm's, or flax's approximation of it, as published."""
    mask_ratio: float = Bounded(0.75, gt=0, lt=1)
    """Share of patches hidden."""
    text_mask_ratio: float = Bounded(0.75, gt=0, lt=1)
    """Share of tokens of a report hidden."""
    mask_words: Literal["token", "whole_word"] = "token"
    """Tokens are hidden one by one, or all of a word together."""
    mask_shared: bool = False
    """The same places are hidden in all samples of a rank's batch (published), or others in each."""
    mask_padding: bool = False
    """The share that is hidden is of all places, padding too, so that a short report may show nothing (published); or of its tokens."""
    text_loss_empty: Literal["skip", "dilute"] = "skip"
    """A sample without a hidden token has no part in the mean of the text's loss, or is a 0 in it (published)."""
    text_weight: float = Bounded(0.5, gt=0)
    """Weight of the text's loss beside the image's."""
    norm_pix: bool = False
    """Restore patches that are standardised one by one, or normalised pixels as they are."""
    decoder_dim: int = Bounded(512, ge=4)
    """Width of the decoder."""
    decoder_depth: int = Bounded(8, ge=1)
    """Its blocks."""
    decoder_heads: int = Bounded(16, ge=1)
    """Its attention heads."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: the decoder expects a class token; set it to true"
        if self.image.dim % 2:
            yield f"{where}.image.dim: {self.image.dim} is odd, which positions of words cannot be; make it even"
        for unit in (self.decoder_heads, 4):
            if self.decoder_dim % unit:
                yield f"{where}.decoder_dim: {self.decoder_dim} is not a multiple of {unit} ({where}.decoder_heads, and 4); make it one"
        N = (self.image.image_size // self.image.patch) ** 2
        yield from ratio_problems(f"{where}.mask_ratio", self.mask_ratio, N)
        yield from ratio_problems(f"{where}.text_mask_ratio", self.text_mask_ratio, self.report_length, "tokens")


@register("m3ae_geng")
class M3aeGeng(ReportMethod):
    """`image` (the encoder, of patches and words), `words` (words to tokens), `decoder`; pooled is the mean of the patch tokens."""

    Options = M3aeGengOptions
    paper = "Geng et al., Multimodal Masked Autoencoders Learn Transferable Representations, arXiv 2205.14204, 2022"
    ends = 0
    by_class = False
    options: M3aeGengOptions

    def __init__(self, options: M3aeGengOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        gelu: Gelu = "tanh" if o.gelu == "tanh" else "none"
        block: Any
        for block in self.image.blocks:
            block.mlp.gelu = gelu
        self.words = WordTokens(self.tokens.rows, o.report_length, o.image.dim)
        (rows, columns), width = self.image.grid, o.decoder_dim
        self.values = 3 * o.image.patch**2
        self.decoder = JointDecoder(
            o.image.dim,
            width,
            o.decoder_depth,
            o.decoder_heads,
            {"image": sincos_2d(rows, columns, width), "report": sincos(torch.arange(o.report_length), width)},
            {"image": self.values, "report": self.tokens.rows},
            gelu,
        )
        self.enter("")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", "report"), epochs=200),)

    def no_weight_decay(self) -> Iterable[str]:
        """Positions, class token, word vectors, embeddings of a kind, vectors of what is hidden; as published."""
        spared = ("pos_embed", "cls_token", "kind_D", "kind_MW", "mask_MW")
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in spared or n == "words.words.weight"]

    def chance(self, batch_size: int) -> dict[str, float]:
        """ln V, all words alike; of standardised patches their variance, which is unbiased (blank patches have less)."""
        image = {"image": 1.0 - 1.0 / self.values} if self.options.norm_pix else {}
        return {"report": math.log(self.tokens.rows), **image}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """And in pre-training `noise` [N] and `report_noise` [T]; the places with the largest are hidden."""
        made = super().sample(record, rng)
        if self.stage:
            made.arrays["noise"] = rng.random(self.image.patches, np.float32)
            noise_T = rng.random(self.options.report_length, np.float32)
            word_T = self.tokens.word_of_token(made.arrays["report"])
            if self.options.mask_words == "whole_word":
                # All tokens of a word have the noise of its first place.
                noise_T = np.where(word_T >= 0, noise_T[np.maximum(word_T, 0)], noise_T)
            made.arrays["report_noise"] = noise_T
        return made

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        pixels_BCHW = self.pixels(batch["image"])
        tokens_BLD, made_BMP, masked_BM, logits_nV, hidden_BT = self._restored(pixels_BCHW, batch)
        target_BMP = self.targets(pixels_BCHW, masked_BM)[0]
        weight_B = batch.weight_B * batch.present["image"]
        image, baseline = costs(lambda a, b: (a - b).square().mean(-1), made_BMP, target_BMP, weight_B)
        report, right, own = self._word_loss(logits_nV, hidden_BT, batch)
        diagnostics, counts = self.report_diagnostics(batch)
        features = {"image": tokens_BLD[:, 1 : 1 + self.kept_patches].mean(1).detach()}
        total = image + self.options.text_weight * report
        diagnostics |= {"image_baseline": baseline, "report_right": right}
        return Output({"image": image, "report": report}, total, diagnostics, features, counts | own)

    @property
    def kept_patches(self) -> int:
        return kept(self.image.patches, self.options.mask_ratio)

    def _restored(self, pixels_BCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Tokens of what is seen [B, L, D], class token first, then patches, then words; what is made of hidden patches [B, M, P] in
        float32, and which these are [B, M]; scores of hidden words [n, V] float32, and which these are [B, T]."""
        o, ids_BT = self.options, batch["report"]
        noise_BN, noise_BT = (
            n[:1].expand_as(n) if o.mask_shared else n for n in (batch["noise"], batch["report_noise"])
        )
        patches_BK, masked_BM = mask_order(noise_BN, o.mask_ratio)
        masked_BM = masked_BM.sort(1).values
        real_BT = (ids_BT != self.tokens.pad) & batch.present["report"][:, None]
        words_BK, seen_BT = kept_words(noise_BT, real_BT, o.text_mask_ratio, o.mask_padding)
        hidden_BT = real_BT & ~seen_BT
        x_BLD = torch.cat([self.image.embed(pixels_BCHW.to(self.dtype), patches_BK), self.words(ids_BT, words_BK)], 1)
        # An image that is absent is black: nobody looks at its patches.
        has_B1 = batch.present["image"][:, None]
        real_BL = torch.cat([torch.ones_like(has_B1), has_B1.expand_as(patches_BK), seen_BT.gather(1, words_BK)], 1)
        tokens_BLD = self.image(x_BLD, real_BL=real_BL)
        whole_BN = torch.ones_like(noise_BN, dtype=torch.bool)
        hidden_BN = torch.zeros_like(whole_BN).scatter(1, masked_BM, True)
        said = self.decoder(
            tokens_BLD,
            {"image": patches_BK, "report": words_BK},
            {"image": ~hidden_BN, "report": seen_BT},
            {"image": whole_BN & has_B1, "report": real_BT},
            {"image": hidden_BN, "report": hidden_BT},
        )
        made_BMP = said["image"].float().unflatten(0, masked_BM.shape)
        return tokens_BLD, made_BMP, masked_BM, said["report"].float(), hidden_BT

    def targets(self, pixels_BCHW: Tensor, masked_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to restore, [B, M, P], and the mean and deviation that lead back to normalised pixels."""
        x_BMP = take(patchify(pixels_BCHW.float(), self.options.image.patch), masked_BM)
        return standardise(x_BMP) if self.options.norm_pix else (x_BMP, x_BMP.new_zeros(1), x_BMP.new_ones(1))

    def _word_loss(
        self, logits_nV: Tensor, hidden_BT: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """-log p, averaged over the hidden words of a sample and then over samples; the share of words that is told right; counts."""
        wanted_n = batch["report"][hidden_BT].long()
        each_n = F.cross_entropy(logits_nV, wanted_n, reduction="none")
        right_n = (logits_nV.detach().argmax(1) == wanted_n).float()
        count_B, weight_B = hidden_BT.sum(1), batch.weight_B.float()

        def of_sample(x_n: Tensor) -> Tensor:
            return torch.zeros_like(hidden_BT, dtype=x_n.dtype).masked_scatter(hidden_BT, x_n).sum(1)

        has_B = weight_B * (count_B > 0)
        over_B = has_B if self.options.text_loss_empty == "skip" else weight_B
        loss = global_mean((of_sample(each_n) / count_B.clamp_min(1) * has_B).sum(), over_B.sum())
        words = (count_B * weight_B).sum()
        right = global_mean((of_sample(right_n) * weight_B).sum(), words)
        return loss, right, {"report": over_B.sum(), "report_right": words}

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`reconstruction`, a row a sample: the image, what the encoder saw of it, what was made of the rest."""
        few = first(batch)
        pixels_BCHW = self.pixels(few["image"]).float()
        _, made_BMP, masked_BM, _, _ = self._restored(pixels_BCHW, few)
        _, mean, std = self.targets(pixels_BCHW, masked_BM)
        rows_BCHW = beside(pixels_BCHW, made_BMP * std + mean, masked_BM, self.options.image.patch)
        return {"reconstruction": np.concatenate(list(to_pixels(rows_BCHW, *self._colours())), 0)}
