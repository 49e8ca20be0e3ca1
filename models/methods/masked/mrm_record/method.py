"""MRM: Advancing Radiograph Representation Learning with Masked Record Modeling (Zhou et al., ICLR 2023, arXiv 2301.13155).

A radiograph at half resolution loses 75 % of its patches, its report 50 % of its words. The encoder sees the visible
patches; an image decoder restores the hidden ones at full resolution (eq. 2), a report decoder the hidden words from the
visible ones and from the mean of the visible patches (eq. 1); L = L_R + lambda L_I (eq. 3). The encoder is what is kept.
docs/methods/mrm_record.md says where paper and published code differ and what was chosen.

Shape letters: B samples, C colours, H x W pixels, N patches, K kept and M masked ones, P values of a target patch,
L report places, T report places of the batch that are scored, D encoder width, R report decoder width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Batch, Encoded, Method, MethodError, Output, Record, Sample, Schema, Stage
from models.contract.image_view import ImageView
from models.decoders.image import MaskedImageDecoder
from models.decoders.mae import patchify
from models.decoders.report import ReportDecoder
from models.encoders.vit import ViT
from models.init.first import xavier_linears
from models.layers.patches import kept, mask_order, ratio_problems, standardise, take
from models.methods._image import field_problems
from models.methods.masked.mrm_record import pictures
from models.methods.masked.mrm_record.options import MrmRecordOptions
from models.methods.masked.mrm_record.published import load_published
from models.parallel import global_mean
from models.pictures import first
from models.registry import register
from models.transforms.crops import centre_view, picture_of, random_view
from models.transforms.text import CLS, PAD, UNK, draw_report_mask, same_tokenizer, tokenizer_of


@register("mrm_record")
class MrmRecord(Method):
    """Image encoder, image decoder, report decoder; parameters lie in submodules only."""

    Options = MrmRecordOptions
    paper = "Zhou et al., Advancing Radiograph Representation Learning with Masked Record Modeling, ICLR 2023"
    pairs = "image + report"
    outline: ClassVar = {"pretrain": "image, report"}
    inputs = ("image",)
    options: MrmRecordOptions

    def __init__(self, options: MrmRecordOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        if problems := list(_problems(o, schema)):
            raise MethodError(problems)
        self.encoder = o.image.build()
        self.target_patch = o.image.patch * o.super_resolution
        self.decoder: nn.Module | None = None
        if o.image_weight > 0:
            values = 3 * self.target_patch**2
            size = (o.decoder_dim, o.decoder_depth, o.decoder_heads, values)
            self.decoder = MaskedImageDecoder(o.image.dim, self.encoder.grid, *size)
        self.report: nn.Module | None = None
        if o.report_weight > 0:
            self._build_report(o, schema)
        if o.published_file is not None:
            self.loaded = load_published(self, o.published_file)
        self.enter("")

    def _build_report(self, o: MrmRecordOptions, schema: Schema) -> None:
        self.tokenizer = tokenizer_of(schema, "report", o.tokenizer)
        self.report = ReportDecoder(
            len(self.tokenizer),
            length=o.report_length,
            dim=o.report_dim,
            depth=o.report_depth,
            heads=o.report_heads,
            inner=o.report_inner,
            dropout=o.report_dropout,
            positions=o.report_positions,
            init=o.init_text,
            tie=o.tie,
        )
        self.fuse = nn.Linear(o.image.dim, o.report_dim)
        xavier_linears(self.fuse)
        if o.hybrid_image and self.decoder is not None:
            self.hybrid = nn.Linear(o.report_dim, o.image.dim)
        # Rows of the word matrix mean nothing under another vocabulary, so the weights carry its hash.
        digest = np.frombuffer(bytes.fromhex(self.tokenizer.sha256), np.uint8)
        self.register_buffer("tokenizer_sha256", torch.from_numpy(digest.copy()))
        self.register_load_state_dict_pre_hook(same_tokenizer)

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        fields = ("image",) if self.report is None else ("image", "report")
        return (Stage("pretrain", fields, epochs=200),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoder: whole images, nothing masked."""
        super().enter(stage)
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.startswith("encoder."))

    def no_weight_decay(self) -> Iterable[str]:
        """Learned positions; the class token decays, as in MAE's pre-training."""
        return [n for n, _ in self.named_parameters() if n.endswith("pos_embed")]

    def chance(self, batch_size: int) -> dict[str, float]:
        """Report: ln V, all words alike. Image: the variance of a standardised patch (blank patches have less)."""
        found = {} if self.report is None else {"report": float(np.log(len(self.tokenizer)))}
        if self.decoder is not None and self.options.target == "norm_patch":
            found["image"] = 1.0 - 1.0 / (3 * self.target_patch**2)
        return found

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        o = self.options
        side = o.image.image_size * (o.super_resolution if self.stage else 1)
        present = {"image": record.has("image")}
        arrays: dict[str, np.ndarray] = {"image": np.zeros((side, side, 1 if o.view.grayscale else 3), np.uint8)}
        if present["image"]:
            picture = picture_of(record, "image", o.view.grayscale)
            if self.stage:
                arrays["image"] = random_view(picture, side, o.view.crop_scale, o.view.flip, rng)
            else:
                arrays["image"] = centre_view(picture, side)
        if self.stage:
            arrays["noise"] = rng.random(self.encoder.patches, np.float32)
            if self.report is not None:
                present["report"] = self._read_report(record, rng, arrays)
        return Sample(arrays, present)

    def _read_report(self, record: Record, rng: np.random.Generator, arrays: dict[str, np.ndarray]) -> bool:
        """Ids, hidden places and length of the report; False where it is absent, or holds no word (the published code counts that one)."""
        o = self.options
        text = record.read("report") if record.has("report") else ""
        ids_L, count = self.tokenizer.encode(text, o.report_length)
        arrays["report"] = ids_L
        arrays["hidden"] = draw_report_mask(ids_L, self.tokenizer.continues_V, o.mlm_ratio, o.mlm_mask, rng)
        arrays["words"] = np.int32(count)  # type: ignore[assignment]
        return count > 0 or (o.conventions == "published" and record.has("report"))

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        assert self.stage == "pretrain", "forward needs a stage: enter('pretrain')"
        o = self.options
        pixels_BCHW = self.pixels(batch)
        keep_BK, masked_BM = mask_order(batch["noise"], o.mask_ratio)
        tokens_BLD = self.encoder(self.encoder_image(pixels_BCHW), keep_BK)
        losses: dict[str, Tensor] = {}
        diagnostics: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        context_BR = None
        if self.report is not None:
            losses["report"], context_BR, found, counts = self._report_loss(tokens_BLD, batch)
            diagnostics |= found
        if self.decoder is not None:
            if o.hybrid_image and context_BR is not None:
                known_B1 = batch.present["report"][:, None]
                tokens_BLD = tokens_BLD + (self.hybrid(context_BR) * known_B1)[:, None]
            losses["image"], found = self._image_loss(tokens_BLD, pixels_BCHW, keep_BK, masked_BM, batch)
            diagnostics |= found
        # L = L_R + lambda L_I (eq. 3)
        weight = {"report": o.report_weight, "image": o.image_weight}
        total = torch.stack([weight[n] * v for n, v in losses.items()]).sum()
        return Output(losses, total, diagnostics, {"image": tokens_BLD[:, 1:].mean(1).detach()}, counts)

    def pixels(self, batch: Batch) -> Tensor:
        """Pixels in [0, 1], float32 [B, 1 or 3, H, W]."""
        return batch["image"].permute(0, 3, 1, 2).float() / 255

    def encoder_image(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalised, at the encoder's size, in three channels."""
        o, side = self.options, self.options.image.image_size
        x = (pixels_BCHW - o.view.pixel_mean) / o.view.pixel_std
        if x.shape[-1] != side:
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=o.antialias)
        return x.to(self.dtype).expand(-1, 3, -1, -1)

    def targets(self, pixels_BCHW: Tensor, masked_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to restore, [B, M, P], and the mean and deviation that lead back to pixels (0 and 1 in `unit`)."""
        o = self.options
        x_BCHW = pixels_BCHW if o.target == "unit" else (pixels_BCHW - o.view.pixel_mean) / o.view.pixel_std
        x_BMP = take(patchify(x_BCHW.expand(-1, 3, -1, -1), self.target_patch), masked_BM)
        if o.target == "norm_patch":
            return standardise(x_BMP)
        return x_BMP, x_BMP.new_zeros(1), x_BMP.new_ones(1)

    def _image_loss(
        self, tokens_BLD: Tensor, pixels_BCHW: Tensor, keep_BK: Tensor, masked_BM: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 2: squared error, averaged over a patch's values, then over masked patches."""
        assert self.decoder is not None
        target_BMP = self.targets(pixels_BCHW, masked_BM)[0]
        error_BM = (self.decoder(tokens_BLD, keep_BK, masked_BM).float() - target_BMP).square().mean(-1)
        weight_B1 = (batch.weight_B * batch.present["image"])[:, None]
        count = weight_B1.sum() * masked_BM.shape[1]
        loss = global_mean((error_BM * weight_B1).sum(), count)
        with torch.no_grad():
            # The loss of the best constant answer: what knowing nothing of the image costs.
            mean = global_mean((target_BMP.mean(-1) * weight_B1).sum(), count)
            square = global_mean((target_BMP.square().mean(-1) * weight_B1).sum(), count)
        return loss, {"image_baseline": square - mean.square()}

    def _report_loss(
        self, tokens_BLD: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Eq. 1 as a mean over the chosen places of the global batch; the mean visible word; diagnostics; counts."""
        o = self.options
        ids_BL, hidden_BL = batch["report"].long(), batch["hidden"]
        scores_TV, context_BR = self._scores(tokens_BLD, batch, o.mlm_loss_on == "all")
        at_BL = hidden_BL if o.mlm_loss_on == "masked" else torch.ones_like(hidden_BL)
        weight_BL = (batch.weight_B * batch.present["report"])[:, None].expand_as(at_BL)
        each_T = F.cross_entropy(scores_TV.float(), ids_BL[at_BL], reduction="none")
        weight_T = weight_BL[at_BL]
        loss = global_mean((each_T * weight_T).sum(), weight_T.sum())
        found, counts = self._report_diagnostics(scores_TV, at_BL, weight_BL, batch)
        return loss, context_BR, found, {"report": weight_T.sum(), **counts}

    def _scores(self, tokens_BLD: Tensor, batch: Batch, everywhere: bool) -> tuple[Tensor, Tensor]:
        """Word scores [T, V], at hidden places or everywhere, and the mean visible word [B, R]."""
        assert self.report is not None
        o = self.options
        ids_BL, hidden_BL = batch["report"].long(), batch["hidden"]
        visible_BKR = self.fuse(tokens_BLD[:, 1:])
        image_BR = visible_BKR.mean(1) if o.fuse == "gap" else visible_BKR.amax(1)
        image_BR = image_BR * batch.present["image"][:, None]
        to_BL = (ids_BL != PAD) & ~hidden_BL if o.fuse_to == "unmasked" else None
        return self.report(ids_BL, hidden_BL, image_BR, to_BL, None if everywhere else hidden_BL)

    @torch.no_grad()
    def _report_diagnostics(
        self, scores_TV: Tensor, at_BL: Tensor, weight_BL: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Hidden words found; shares of tokens hidden and unknown, of reports cut and without any word; and of how many each is."""
        ids_BL, hidden_BL, weight_B = batch["report"].long(), batch["hidden"], weight_BL[:, 0]
        real_BL = (ids_BL != PAD) & (ids_BL != CLS)

        right_T = scores_TV.argmax(-1) == ids_BL[at_BL]
        shares = {
            "report_accuracy": (right_T, weight_BL[at_BL] * hidden_BL[at_BL]),
            "report_hidden": (hidden_BL, weight_BL * real_BL),
            "report_unknown": (ids_BL == UNK, weight_BL * real_BL),
            "report_cut": (batch["words"] > self.options.report_length - 1, weight_B),
            "report_empty": (~batch.present["report"], batch.weight_B),
        }
        counts = {name: of.sum() for name, (_, of) in shares.items()}
        return {name: global_mean((yes * of).sum(), counts[name]) for name, (yes, of) in shares.items()}, counts

    # --------------------------------------------------------------------------------------------------------- encode

    def image_encoder(self) -> ViT:
        return self.encoder

    def image_view(self) -> ImageView:
        view = self.options.view
        mean, std = (view.pixel_mean,) * 3, (view.pixel_std,) * 3
        channels: Literal["grey", "rgb"] = "grey" if view.grayscale else "rgb"
        return ImageView(
            self.options.image.image_size, channels, "crop", "bicubic", mean, std, "avg", "mean of the patch tokens"
        )

    def encode(self, batch: Batch) -> Encoded:
        """Class token, then patch tokens; pooled is the mean of the patches (section 4.6's fine-tuning in code)."""
        tokens_BLD, maps = self.encoder.tokens_and_maps(self.encoder_image(self.pixels(batch)))
        known_B1 = batch.present["image"][:, None]
        mask_BL = known_B1.expand(tokens_BLD.shape[:2])
        pooled_BD = tokens_BLD[:, 1:].mean(1) * known_B1
        return Encoded(tokens_BLD, mask_BL, pooled_BD, maps, {"image": (tokens_BLD, mask_BL)})

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`reconstruction` of images and `words` of reports (some hidden ones and their predictions), uint8 [H, W, 3]."""
        few, made = first(batch), {}
        if self.decoder is not None:
            made["reconstruction"] = pictures.reconstruction(self, few)
        if self.report is not None:
            keep_BK, _ = mask_order(few["noise"], self.options.mask_ratio)
            tokens_BLD = self.encoder(self.encoder_image(self.pixels(few)), keep_BK)
            scores_TV, _ = self._scores(tokens_BLD, few, everywhere=True)
            made["words"] = pictures.hidden_words(self, few, scores_TV.unflatten(0, few["report"].shape))
        return made


def _problems(o: MrmRecordOptions, schema: Schema) -> Iterable[str]:
    """Everything in the options and the data that an MrmRecord cannot be built from."""
    wanted = {"image": "image", **({"report": "text"} if o.report_weight > 0 else {})}
    yield from field_problems(schema, "mrm_record", wanted)
    for what, width, heads in (("decoder", o.decoder_dim, o.decoder_heads), ("report", o.report_dim, o.report_heads)):
        if width % heads:
            yield f"method.{what}_dim: {width} is not a multiple of method.{what}_heads ({heads}); make it one"
    if o.decoder_dim % 4:
        yield f"method.decoder_dim: {o.decoder_dim} is not a multiple of 4, which its positions need"
    if o.image_weight == 0 and o.report_weight == 0:
        yield "method.image_weight and method.report_weight are both 0: nothing would be learned; set one of them"
    patches = (o.image.image_size // o.image.patch) ** 2
    if o.image_weight > 0 or not kept(patches, o.mask_ratio):  # a report alone may be completed from a whole image
        yield from ratio_problems("method.mask_ratio", o.mask_ratio, patches)
