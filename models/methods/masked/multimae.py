"""MultiMAE: Multi-modal Multi-task Masked Autoencoders (Bachmann et al. 2022, arXiv 2204.01678), with genetics beside the image.

An image's patches and fragments of genetic vectors are tokens of one encoder, which sees a fixed number of them; how many of which
modality is drawn anew for every sample. From the kept tokens of all modalities a decoder of each restores what was hidden of it. The
deployed encoder sees whole images. docs/methods/multimae.md says what the paper leaves open for genetics and what was chosen.

Shape letters: B samples, M modalities, N patches, T fragments, S = N + T places, K kept ones, P values of a patch, F features, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Output, Record, Sample, Schema, Stage
from models.decoders.cross import CrossDecoder
from models.decoders.fragments import asked_mean, in_fragments
from models.decoders.mae import norm_patches, patchify, unpatchify
from models.encoders.gene_tokens import FragmentTokens
from models.encoders.positions import sincos_2d
from models.encoders.vit import ViTOptions
from models.layers.budget import kept_in_budget
from models.layers.patches import take
from models.methods._genetics import ReadsGenetics
from models.methods._image import ImageMethodOptions
from models.methods.masked._restoring import HidingMethod
from models.pictures import first
from models.registry import register
from models.transforms.expression import ExpressionOptions
from models.transforms.image import to_pixels


class MultiMaeGenes(ExpressionOptions):
    """Of the genetic vectors."""

    fragment: int = Bounded(128, ge=1)
    """Features that make one gene token."""
    hidden: int = Bounded(256, ge=1)
    """Hidden width of the network that makes a token of a fragment (an SNN)."""
    dropout: float = Bounded(0.25, ge=0, lt=1)
    """Its AlphaDropout."""


class MultiMaeOptions(ImageMethodOptions):
    conventions: Literal["recommended", "published"] = "recommended"
    """The official code means to spare embeddings of modalities weight decay, but misses their names: spared, or decayed as published."""
    genetics: tuple[str, ...] = ("snp", "pgs", "burden")
    """Genetic modalities, by field name: any vector field. Empty: images alone."""
    image: ViTOptions = ViTOptions()
    """The image encoder, whose class token is the global token; it has no norm behind the last block."""
    genes: MultiMaeGenes = MultiMaeGenes()
    """The genetic vectors. snp, burden and mutation are centred alone and never clipped."""
    tokens: int = Bounded(98, ge=1)
    """Tokens that the encoder sees of a sample, of all modalities."""
    alpha: float = Bounded(1.0, gt=0)
    """Of the Dirichlet distribution of the modalities' shares in them: small values make samples of one modality."""
    norm_pix: Literal["both", "plain", "norm"] = "both"
    """Decoders of the image: of normalised pixels, of patches that are standardised one by one, or one of each."""
    decoder_dim: int = Bounded(256, ge=4)
    """Width of each decoder."""
    decoder_depth: int = Bounded(2, ge=0)
    """Its blocks behind the one that looks at the encoder's tokens."""
    decoder_heads: int = Bounded(8, ge=1)
    """Its attention heads."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: it is the global token of multimae; set it to true"
        for unit in (self.decoder_heads, 4):
            if self.decoder_dim % unit:
                yield f"{where}.decoder_dim: {self.decoder_dim} is not a multiple of {unit} ({where}.decoder_heads, and 4); make it one"
        N = (self.image.image_size // self.image.patch) ** 2
        if self.tokens >= N:
            yield f"{where}.tokens: {self.tokens} of {N} patches hides nothing of a sample without genetics; give at most {N - 1}"


@register("multimae")
class MultiMae(ReadsGenetics, HidingMethod):
    """`image` (the encoder), `genes` (fragments to tokens), `decoders`; pooled is the mean of the patch tokens."""

    Options = MultiMaeOptions
    paper = "Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022"
    official = (0.2, 1.0)
    options: MultiMaeOptions

    def __init__(self, options: MultiMaeOptions, schema: Schema):
        o = options
        super().__init__(options, schema)
        self.image.add_parts(last_norm=False)
        self.genes = None
        if self.widths:
            g = o.genes
            self.genes = FragmentTokens(self.widths, g.fragment, o.image.dim, g.hidden, g.dropout, cls_token=False)
        self.sizes = {"image": self.image.patches, **({} if self.genes is None else self.genes.tokens)}
        self.decoders = nn.ModuleDict({name: self._decoder(name) for name in (*self._pictured, *self.widths)})
        self.enter("")

    @property
    def _pictured(self) -> tuple[str, ...]:
        """Decoders of the image."""
        return {"both": ("image", "norm_image"), "plain": ("image",), "norm": ("norm_image",)}[self.options.norm_pix]

    def _decoder(self, name: str) -> CrossDecoder:
        o, own = self.options, "image" if name in self._pictured else name
        values = 3 * o.image.patch**2 if own == "image" else o.genes.fragment
        rows, columns = self.image.grid
        fixed = {"image": sincos_2d(rows, columns, o.decoder_dim)}
        return CrossDecoder(
            o.image.dim, o.decoder_dim, o.decoder_depth, o.decoder_heads, values, self.sizes, own, fixed
        )

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", ("image", *self.options.genetics), epochs=200),)

    def no_weight_decay(self) -> Iterable[str]:
        """Tokens, positions, and embeddings of modalities; of these the official code misses the decoders'."""
        names = {
            "cls_token",
            "pos_embed",
            "mask_token",
            "position_TC",
            "modality_MC",
            *(f"places_{n}" for n in self.widths),
        }
        if self.options.conventions == "recommended":
            names.add("kind_MW")
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in names]

    def chance(self, batch_size: int) -> dict[str, float]:
        """The variance of a standardised patch, which is unbiased (blank patches have less)."""
        return {"norm_image": 1.0 - 1.0 / (3 * self.options.image.patch**2)} if "norm_image" in self._pictured else {}

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """In pre-training also the genetic vectors, `share` [M], `noise` and `order` [S]."""
        made = super().sample(record, rng)
        if not self.stage:
            return made
        vectors, has = self._read_genetics(record)
        present_M = np.array([made.present["image"], *has.values()])
        share_M = rng.gamma(self.options.alpha, size=len(present_M)) * present_M
        draws = {
            "share": (share_M / max(share_M.sum(), 1e-30)).astype(np.float32),
            "noise": rng.random(sum(self.sizes.values()), np.float32),
            "order": rng.random(sum(self.sizes.values()), np.float32),
        }
        return Sample(made.arrays | vectors | draws, made.present | has)

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        pixels_BCHW, (values, known) = self.pixels(batch["views"][:, 0]), self._vectors(batch)
        tokens_BLD, keep_BK, hidden_BS = self._seen(pixels_BCHW, values, batch)
        losses, diagnostics, total = dict[str, Tensor](), dict[str, Tensor](), pixels_BCHW.new_zeros(())
        for name, made_BNP in self._restored(tokens_BLD, keep_BK).items():
            target_BNP, asked_BNP = self._asked(name, pixels_BCHW, values, known, hidden_BS)
            # An image that is absent leaves its sample out: nothing that is deployed would see it.
            weight_B = self.weight(batch) * batch.present.get(name, batch.present["image"])
            losses[name] = asked_mean((made_BNP - target_BNP).square(), asked_BNP, weight_B)
            # What 0 costs as the answer: ImageNet's mean colour, or the training split's mean.
            diagnostics[f"{name}_baseline"] = asked_mean(target_BNP.square(), asked_BNP, weight_B)
            total = total + losses[name]
        kept_B = (~hidden_BS[:, : self.sizes["image"]]).float().sum(1) / keep_BK.shape[1]
        diagnostics["kept_image"] = asked_mean(
            kept_B[:, None, None], torch.ones_like(kept_B)[:, None, None], self.weight(batch)
        )
        return Output(losses, total, diagnostics, {"image": tokens_BLD.mean(1).detach()})

    def _seen(self, pixels_BCHW: Tensor, values: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of what is kept, the global one first [B, 1 + K, D]; which it is [B, K]; what is hidden [B, S]."""
        x_BLD = self.image.embed(pixels_BCHW.to(self.dtype))
        parts = [x_BLD[:, 1:]]
        if self.genes is not None:
            parts.append(self.genes({n: v.to(self.dtype) for n, v in values.items()}))
        present_BM = torch.stack([batch.present[n] for n in self.sizes], 1)
        draws = (batch["share"], batch["noise"], batch["order"])
        keep_BK, hidden_BS = kept_in_budget(*draws, present_BM, list(self.sizes.values()), self.options.tokens)
        kept_BKD = take(torch.cat(parts, 1), keep_BK)
        return self.image(torch.cat([x_BLD[:, :1], kept_BKD], 1)), keep_BK, hidden_BS

    def _restored(self, tokens_BLD: Tensor, keep_BK: Tensor) -> dict[str, Tensor]:
        """What each decoder makes of all places of its modality, in float32: patches (row, column, colour), fragments."""
        made = {n: d(tokens_BLD, keep_BK).float() for n, d in self.decoders.items()}
        # The published head's values are (colour, row, column).
        return {n: x.unflatten(-1, (3, -1)).mT.flatten(2) if n in self._pictured else x for n, x in made.items()}

    def _asked(
        self,
        name: str,
        pixels_BCHW: Tensor,
        values: dict[str, Tensor],
        known: dict[str, Tensor],
        hidden_BS: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What a decoder is to say, and where it is asked: at hidden places; of genes what is known."""
        if name in self._pictured:
            target_BNP = patchify(pixels_BCHW, self.options.image.patch)
            target_BNP = norm_patches(target_BNP) if name == "norm_image" else target_BNP
            return target_BNP, hidden_BS[:, : self.sizes["image"], None].expand_as(target_BNP)
        parts = dict(zip(self.sizes, hidden_BS.split(list(self.sizes.values()), 1), strict=True))
        F = self.options.genes.fragment
        target_BTF, known_BTF = in_fragments(values[name], F), in_fragments(known[name], F)
        return target_BTF, known_BTF & parts[name][..., None]

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`reconstruction`, a row a sample: the image, what the encoder saw of it, and that with normalised pixels restored."""
        if "image" not in self._pictured:
            return {}
        few, patch = first(batch), self.options.image.patch
        pixels_BCHW, (values, _) = self.pixels(few["views"][:, 0]), self._vectors(few)
        tokens_BLD, keep_BK, hidden_BS = self._seen(pixels_BCHW, values, few)
        made_BNP, whole_BNP = self._restored(tokens_BLD, keep_BK)["image"], patchify(pixels_BCHW, patch)
        hidden_BN1 = hidden_BS[:, : self.sizes["image"], None]
        columns = (whole_BNP, whole_BNP * ~hidden_BN1, torch.where(hidden_BN1, made_BNP, whole_BNP))
        rows_BCHW = torch.cat([unpatchify(x, patch, self.image.grid) for x in columns], 3)
        return {"reconstruction": np.concatenate(list(to_pixels(rows_BCHW)), 0)}
