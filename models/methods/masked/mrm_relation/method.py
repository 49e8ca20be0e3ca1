"""MRM: Masked Relation Modeling for Medical Image Pre-Training with Genetics (Yang et al., ICCV 2023).

Nothing of the input is hidden. Two passes share their weights: the intact pass is the encoders as they are deployed; in
the masked pass the first attention blocks lose their strongest relations, within a modality and across (eq. 3-6). From the
masked tokens of one modality and the intact ones of the other each modality is reconstructed (eq. 7), and the relations
between samples are asked to be the same in both passes (eq. 8-13). Without genetics it is the image-only variant (Table 5).
docs/methods/mrm_relation.md says what the paper leaves open and what was chosen.

Shape letters: B samples, H x W pixels, P patches, L image tokens, S gene tokens, F features, C width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import Batch, Encoded, Group, MethodError, Output, Record, Sample, Schema, Stage
from models.contract.image_view import ImageView
from models.decoders.mae import FusionDecoder, norm_patches, patchify, unpatchify
from models.encoders.gene_tokens import GeneTokens, GeneVector
from models.encoders.positions import sincos_2d
from models.encoders.relation import MaskPlan, TwoPass
from models.encoders.vit import ViT
from models.layers.relation import Masking
from models.losses.relation import Matching, colour_mean_baseline, cosines, squared_error
from models.methods._genetics import ReadsGenetics
from models.methods.masked.mrm_relation.options import MrmRelationOptions, problems_of
from models.parallel import global_mean
from models.pictures import first, matrices
from models.registry import register
from models.transforms.crops import picture_of
from models.transforms.image import MEAN, STD, augment, fitted, normalised, to_pixels


@register("mrm_relation")
class MrmRelation(ReadsGenetics):
    """ViT and gene encoder in two passes, two decoders; parameters lie in submodules only."""

    Options = MrmRelationOptions
    paper = "Yang et al., MRM: Masked Relation Modeling for Medical Image Pre-Training with Genetics, ICCV 2023"
    inputs = ("image",)
    options: MrmRelationOptions

    def __init__(self, options: MrmRelationOptions, schema: Schema):
        if problems := list(problems_of(options, schema)):
            raise MethodError(problems)
        super().__init__(options, schema)
        o = options
        self.gene_dim = o.genes.dim or o.image.dim
        vit = o.image.build()
        genes = o.genes.build(self.widths, o.image.dim, o.image.heads) if self.widths else None
        spare = {"renorm": o.renorm, "share_heads": o.share_heads, "spare_cls": not o.mask_cls}
        masks = (Masking(o.tau_image, **spare), Masking(o.tau_genes, **spare))
        plan = MaskPlan(o.cross_attn_blocks, o.cascade, *masks, cross=o.relations == "self_cross")
        self.encoder = TwoPass(vit, genes, plan, o.image.heads, self.gene_dim)
        self._build_decoders(vit, genes)
        self.match_proj = (
            nn.Linear(self.gene_dim, o.image.dim) if genes is not None and self.gene_dim != o.image.dim else None
        )
        self.enter("")

    def _build_decoders(self, vit: ViT, genes: GeneTokens | GeneVector | None) -> None:
        o = self.options

        def places(width: int) -> Tensor:
            return nn.functional.pad(sincos_2d(*vit.grid, width), (0, 0, 1, 0))

        self.image_decoder = FusionDecoder(
            o.image.dim,
            None if genes is None else self.gene_dim,
            o.decoder_dim,
            o.decoder_depth,
            o.decoder_heads,
            o.image.patch**2 * 3,
            places(o.decoder_dim),
        )
        self.gene_decoder = None
        if genes is not None:
            width, depth, heads = o.gene_decoder_dim, o.gene_decoder_depth, o.gene_decoder_heads
            self.gene_decoder = FusionDecoder(
                self.gene_dim, o.image.dim, width, depth, heads, genes.out, other_places=places(width)
            )
            # Starts near the training mean (0 after centring): thousands of features have nothing better at first.
            nn.init.normal_(self.gene_decoder.head.weight, std=0.02)

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        fields = ("image", *self.options.genetics)
        return (Stage("pretrain", fields, compares=self.options.match_weight > 0, epochs=50),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed image encoder."""
        super().enter(stage)
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.startswith("encoder.vit."))

    def no_weight_decay(self) -> Iterable[str]:
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in ("cls_token", "pos_embed", "kind_2W")]

    def param_groups(self) -> list[Group]:
        """The gene encoder apart, without weight decay: the paper's Adam for the SNN beside AdamW for the rest."""
        mine = {id(p) for n, p in self.named_parameters() if n.startswith("encoder.genes.")}
        groups = [
            Group(g.name, [p for p in g.params if id(p) not in mine], g.lr_scale, g.decay_scale)
            for g in super().param_groups()
        ]
        genes = [p for p in self.parameters() if p.requires_grad and id(p) in mine]
        groups.append(Group("genes", genes, self.options.genes.lr_scale, 0.0))
        return [g for g in groups if g.params]

    def chance(self, batch_size: int) -> dict[str, float]:
        """Normalised patches: their variance. Other terms depend on the data: see rec_image_baseline,
        rec_genes_baseline, match_self_shuffled, match_cross_shuffled among the diagnostics."""
        o, F = self.options, self.options.image.patch**2 * 3
        # Unbiased variance: the squared norm of a patch is F - 1, not F.
        return {"rec_image": (F - 1) / F} if o.norm_pix_loss and o.reduction == "mean" else {}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        view, size = self.options.view, self.options.image.image_size
        present = {"image": record.has("image")}
        image = (
            fitted(picture_of(record, "image", grayscale=False), size, view.fit)
            if present["image"]
            else np.zeros((size, size, 3), np.uint8)
        )
        if self.stage == "":
            return Sample({"image": image}, present)
        arrays = {"image": augment(image, rng, view.rotate, view.flip), "draw": rng.random(2, dtype=np.float32)}
        vectors, has = self._read_genetics(record)
        return Sample(arrays | vectors, present | has)

    # -------------------------------------------------------------------------------------------------------- forward

    def _weights(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """weight of every sample [B] with `missing: drop` applied, and whether it has any genetics [B]."""
        weight_B, has = batch.weight_B.float(), [batch.present[n] for n in self.widths]
        if self.options.missing == "drop":
            weight_B = weight_B * torch.stack([batch.present["image"], *has]).all(0)
        return weight_B, torch.stack(has).any(0) if has else torch.zeros_like(batch.present["image"])

    def _passes(self, batch: Batch) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], dict[str, Tensor]]:
        """Both passes, what they were given, and the masks of real tokens (absent where all are real)."""
        pixels = normalised(batch["image"])
        values, known = self._vectors(batch)
        genes, real, L = self.encoder.genes, {}, self.encoder.vit.patches + 1
        if not bool(batch.present["image"].all()):
            real["image"] = batch.present["image"][:, None].expand(-1, L)
        if genes is not None and not bool(torch.stack([batch.present[n] for n in self.widths]).all()):
            real["genes"] = genes.real(batch.present)
        cast = {n: v.to(self.dtype) for n, v in values.items()}
        out = self.encoder(pixels.to(self.dtype), cast, real.get("image"), real.get("genes"))
        return out, {"pixels": pixels, **values}, {**known, **{f"real_{n}": m for n, m in real.items()}}

    def forward(self, batch: Batch) -> Output:
        assert self.stage == "pretrain", "forward needs a stage: enter('pretrain')"
        o = self.options
        weight_B, has_genes_B = self._weights(batch)
        out, given, known = self._passes(batch)
        losses, diagnostics = self._image_loss(out["tokens"], given, known, weight_B * batch.present["image"])
        counts = {} if self.gene_decoder is None else self._gene_counts(batch, weight_B)
        if self.gene_decoder is not None:
            more = self._gene_loss(out["tokens"], given, known, batch, weight_B)
            losses, diagnostics = losses | more[0], diagnostics | more[1]
        matched, shuffled, features = self._match(out["tokens"], batch, weight_B, has_genes_B, known)
        losses, diagnostics = losses | matched, diagnostics | shuffled
        for name, mass_B in out["kept"].items():
            w = weight_B * batch.present["image"] * (1.0 if name == "self_image" else has_genes_B)
            diagnostics[f"kept_{name}"] = global_mean((mass_B * w).sum(), w.sum())
        scale = {"rec_image": o.image_weight, "rec_genes": o.gene_weight}
        # L = L_recon + lambda L_match
        total = sum((scale.get(n, o.match_weight) * v for n, v in losses.items()), torch.zeros(()).to(weight_B.device))
        return Output(losses, total, diagnostics, features, counts)

    def _image_loss(
        self, tokens: dict[str, Tensor], given: dict[str, Tensor], known: dict[str, Tensor], weight_B: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The image's addend of eq. 7, from z_I^F = concat[z_{I,M}; z_G]."""
        o = self.options
        target_BPF = patchify(given["pixels"], o.image.patch)
        target_BPF = norm_patches(target_BPF) if o.norm_pix_loss else target_BPF
        predicted_BPF = self._reconstructed(tokens, known)
        flat = {"image": predicted_BPF.flatten(1)}
        loss = squared_error(flat, {"image": target_BPF.flatten(1)}, {"image": weight_B[:, None]}, o.reduction)
        baseline = colour_mean_baseline(target_BPF, 3, weight_B)
        if o.reduction == "sum":
            baseline = baseline * target_BPF[0].numel()
        return {"rec_image": loss}, {"rec_image_baseline": baseline}

    def _reconstructed(self, tokens: dict[str, Tensor], known: dict[str, Tensor]) -> Tensor:
        """Predicted pixels of every patch [B, P, patch * patch * 3]."""
        return self.image_decoder(
            tokens["image_masked"], known.get("real_image"), tokens.get("genes"), known.get("real_genes")
        )[:, 1:]

    def _gene_loss(
        self,
        tokens: dict[str, Tensor],
        given: dict[str, Tensor],
        known: dict[str, Tensor],
        batch: Batch,
        weight_B: Tensor,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The genome's addend of eq. 7, from z_G^F = concat[z_{G,M}; z_I], over the features a sample has."""
        assert self.gene_decoder is not None
        assert self.encoder.genes is not None
        predicted = self.encoder.genes.split(
            self.gene_decoder(tokens["genes_masked"], known.get("real_genes"), tokens["image"], known.get("real_image"))
        )
        weight = {n: known[n] * (weight_B * batch.present[n])[:, None] for n in self.widths}
        bce = frozenset({"burden"} & set(self.widths)) if self.options.burden_loss == "bce" else frozenset[str]()
        # The squared error of centred values is that of the values themselves; a logit needs its 0 or 1 back.
        offset = self.options.genes.normalise == "stats"
        target = {
            n: given[n] + getattr(self, f"mean_{n}").float() if offset and n in bce else given[n] for n in self.widths
        }
        loss = squared_error(predicted, target, weight, self.options.reduction, bce)
        with torch.no_grad():
            mean = {n: self._predicted_mean(n, n in bce).expand_as(predicted[n]) for n in self.widths}
            diagnostics = {"rec_genes_baseline": squared_error(mean, target, weight, self.options.reduction, bce)}
            if len(self.widths) > 1:
                for n in self.widths:
                    only = {n: predicted[n]}
                    diagnostics[f"rec_{n}"] = squared_error(only, target, weight, self.options.reduction, bce)
        return {"rec_genes": loss}, diagnostics

    def _gene_counts(self, batch: Batch, weight_B: Tensor) -> dict[str, Tensor]:
        """Over how many samples the genome's values are means: those with a modality, each modality by its share of the features."""
        having = {n: (weight_B * batch.present[n]).sum() for n in self.widths}
        width = sum(self.widths.values())
        every = torch.stack([having[n] * (w / width) for n, w in self.widths.items()]).sum()
        return {"rec_genes": every, "rec_genes_baseline": every, **{f"rec_{n}": v for n, v in having.items()}}

    def _predicted_mean(self, name: str, as_logit: bool) -> Tensor:
        """What predicting the training mean of a modality's features would be, as the decoder would say it."""
        mean_F = getattr(self, f"mean_{name}").float()
        if as_logit:
            return mean_F.clamp(1e-3, 1 - 1e-3).logit()
        return mean_F if self.options.genes.normalise == "none" else torch.zeros_like(mean_F)

    def _pooled(self, tokens_BLC: Tensor, first: int, real_BL: Tensor | None = None) -> Tensor:
        """The sample's vector: mean of the real tokens behind the class token, or the class token."""
        if self.options.match_feature == "cls" and first == 1:
            return tokens_BLC[:, 0]
        x = tokens_BLC[:, first:]
        if real_BL is None:
            return x.mean(1)
        w_BL1 = real_BL[:, first:, None].to(x.dtype)
        return (x * w_BL1).sum(1) / w_BL1.sum(1).clamp_min(1)

    def _sample_vectors(
        self, tokens: dict[str, Tensor], known: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """z_I, z_{I,M}, z_G, z_{G,M} of eq. 8-11, all [B, C]; without genetics the last two are None."""
        z, zm = (self._pooled(tokens[n], 1) for n in ("image", "image_masked"))
        genes = self.encoder.genes
        if genes is None:
            return z, zm, None, None
        g, gm = (self._pooled(tokens[n], genes.first, known.get("real_genes")) for n in ("genes", "genes_masked"))
        return (z, zm, g, gm) if self.match_proj is None else (z, zm, self.match_proj(g), self.match_proj(gm))

    def _match(
        self,
        tokens: dict[str, Tensor],
        batch: Batch,
        weight_B: Tensor,
        has_genes_B: Tensor,
        known: dict[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """L_self and L_cross (eq. 10, 12), their values for shuffled samples, and the vectors for the monitors."""
        o = self.options
        z, zm, g, gm = self._sample_vectors(tokens, known)
        features, pair = {"image": z.detach()}, None
        if g is not None and gm is not None:
            features["genes"] = g.detach()
            pair = (g.detach(), gm) if o.match_stopgrad == "intact" else (g, gm)
            pair = (pair[0], gm.detach()) if o.match_stopgrad == "masked" else pair
        image = (z.detach() if o.match_stopgrad == "intact" else z, zm.detach() if o.match_stopgrad == "masked" else zm)
        matching = Matching(
            image, pair, batch["draw"], weight_B * batch.present["image"], has_genes_B, o.match_n, o.match_mode
        )
        own, cross = matching.losses()
        with torch.no_grad():
            own_shuffled, cross_shuffled = matching.losses(shuffled=True)
        losses, shuffled = {}, {}
        if o.match != "cross":
            losses["match_self"], shuffled["match_self_shuffled"] = own, own_shuffled
        if o.match != "self" and pair is not None:
            losses["match_cross"], shuffled["match_cross_shuffled"] = cross, cross_shuffled
        return losses, shuffled, features

    # --------------------------------------------------------------------------------------------------------- encode

    def image_encoder(self) -> ViT:
        return self.encoder.vit

    def pixels(self, batch: Batch) -> Tensor:
        """What the image encoder takes, [B, 3, H, W]."""
        return normalised(batch["image"]).to(self.dtype)

    def image_view(self) -> ImageView:
        o, by_class = self.options, self.options.match_feature == "cls"
        fit: Literal["box", "stretch"] = "box" if o.view.fit == "crop" else "stretch"
        pool, words = ("token", "the class token") if by_class else ("avg", "mean of the patch tokens")
        return ImageView(o.image.image_size, "rgb", fit, "bilinear", MEAN, STD, pool, words)  # type: ignore[arg-type]

    def encode(self, batch: Batch) -> Encoded:
        """Tokens of the intact image pass, class token first; pooled as `match_feature` says."""
        tokens_BLC, maps = self.encoder.vit.tokens_and_maps(self.pixels(batch))
        seen_B1 = batch.present["image"][:, None]
        mask_BL = seen_B1.expand(tokens_BLC.shape[:2])
        pooled_BC = self._pooled(tokens_BLC, 1) * seen_B1
        return Encoded(tokens_BLC, mask_BL, pooled_BC, maps, {"image": (tokens_BLC, mask_BL)})

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For people, of at most eight samples: `reconstruction` (input above what the image decoder makes of masked
        relations) and `similarity` (cosines between samples, intact above masked: image-image, then image-gene)."""
        few = first(batch)
        training = self.training
        self.eval()
        out, given, known = self._passes(few)
        pixels_BPF = self._reconstructed(out["tokens"], known)
        self.train(training)
        if self.options.norm_pix_loss:
            patches = patchify(given["pixels"], self.options.image.patch)
            pixels_BPF = pixels_BPF * (patches.var(-1, keepdim=True) + 1e-6).sqrt() + patches.mean(-1, keepdim=True)
        made = unpatchify(pixels_BPF.float(), self.options.image.patch, self.encoder.vit.grid)
        rows = [np.concatenate(list(to_pixels(x)), 1) for x in (given["pixels"], made)]
        z, zm, g, gm = self._sample_vectors(out["tokens"], known)
        pairs = [(z, zm)] if g is None or gm is None else [(z, zm), (g, gm)]
        tiles = [
            [cosines(first, other) for other in side]
            for first, side in zip((z, zm), zip(*pairs, strict=True), strict=True)
        ]
        return {"reconstruction": np.concatenate(rows, 0), "similarity": matrices(tiles)}
