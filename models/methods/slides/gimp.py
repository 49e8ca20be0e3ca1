"""GiMP: Gene-Induced Multimodal Pre-training for Image-Omic Classification (Jin et al., MICCAI 2023, arXiv 2309.02702).

A slide is a bag of patch features, a genome a vector of expression values. Stage `gene` trains the gene encoder by
the class label (section 3.1); stage `pretrain` freezes it and trains the patch aggregator by masked patch modelling
(eq. 3) and by triplets of patient vectors CLS_pat = [CLS_img ; CLS_ge] (eq. 4). Both stages use labels: this is
supervised pre-training. docs/methods/gimp.md says what the paper leaves open and what was chosen.

Shape letters: B samples, L patches, F patch feature width, G genes, C width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import (
    Batch,
    Encoded,
    Head,
    Method,
    MethodError,
    Options,
    Output,
    Record,
    Sample,
    Schema,
    Stage,
    TargetSpec,
)
from models.encoders.aggregator import PatchAggregator
from models.encoders.group_msa import GroupMsaOptions
from models.heads.mlp import MLPHead
from models.layers.pooling import shared_out
from models.losses.classes import accuracy, cross_entropy
from models.losses.masked import masked_l1
from models.losses.triplet import Mining, triplet
from models.methods.slides._bag import exact_problems, filled, one_by_one, real_patches, real_rows, width_problems
from models.parallel import global_mean, total
from models.pictures import alike, first, matrices
from models.registry import register
from models.transforms.bags import draw_mask, tiled, window_start
from models.transforms.expression import standardised
from models.transforms.labels import class_label, label_code


class GimpOptions(Options):
    renamed: ClassVar = {
        "gene_encoder": "genes.encoder",
        "groups": "genes.groups",
        "fragment": "genes.fragment",
        "gene_depth": "genes.depth",
        "normalise": "genes.normalise",
        "gene_clip": "genes.clip",
    }
    unsaid: ClassVar = {"genes.act": "elu", "exact_tokens": 0}

    label: str | None = None
    """Class label to learn from; None takes the only class label, or else `subtype` or `label` where there is one of them."""
    genes: GroupMsaOptions = GroupMsaOptions()
    """The gene encoder, as wide as the patch aggregator and with as many heads."""
    dim: int = Bounded(512, ge=8)
    """Width of both encoders; CLS_pat has twice as many."""
    heads: int = Bounded(8, ge=1)
    """Attention heads of both encoders."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Dropout of both encoders (the SNN has its own, 0.25)."""
    depth: int = Bounded(2, ge=1)
    """Attention layers of the patch aggregator."""
    attention: Literal["nystrom", "exact", "auto"] = "nystrom"
    """Attention over patches: the paper's approximation, exact, or exact for bags of up to `exact_tokens` and else the paper's."""
    exact_tokens: int = Bounded(0, ge=0)
    """Of `auto`: the longest bag, its class token counted, with exact attention. Stated, and never measured by a run."""
    landmarks: int = Bounded(256, ge=2)
    """Landmarks of Nystrom attention (m); shorter bags get exact attention."""
    pinv_iterations: int = Bounded(6, ge=1)
    """Newton-Schulz iterations of its pseudo-inverse."""
    conv_residual: bool = True
    """A depth-wise convolution of the values beside the attention (not in eq. 2, but in the usual implementation)."""
    conv_kernel: int = Bounded(33, ge=1)
    """Its kernel, an odd number of patches."""
    ppeg: bool = False
    """TransMIL's convolutional positions between the first two layers."""
    pos: Literal["none", "sincos1d"] = "none"
    """Positions of patches in the sequence."""
    window: int = Bounded(6000, ge=2)
    """Consecutive patches of a slide in pre-training (L)."""
    short_bags: Literal["tile", "pad"] = "tile"
    """Slides with fewer patches: repeated to fill the window (the paper), or taken as they are, batch padded."""
    mask_ratio: float = Bounded(0.5, ge=0, lt=1)
    """Share of the window's places that are masked, exactly; all copies of a repeated patch together."""
    mask_with: Literal["token", "zeros"] = "token"
    """What stands in a masked place: a learned token after the input projection, or zeros before it."""
    rec_reduction: Literal["mean", "sum"] = "mean"
    """L1 over masked places and features: their mean, or their sum (eq. 3 to the letter, of order 1e6)."""
    rec_weight: float = Bounded(1.0, ge=0)
    """Weight of the reconstruction term."""
    triplet_weight: float = Bounded(1.0, ge=0)
    """Weight of the triplet term."""
    margin: float = Bounded(0.8, gt=0)
    """Triplet margin (delta)."""
    mining: Mining = "all"
    """Triplets of a batch: all valid ones, each anchor's hardest, semi-hard ones, or one random one an anchor."""
    triplet_mean: Literal["valid", "active"] = "valid"
    """Mean over all mined triplets or over those above zero."""
    triplet_normalise: Literal["l2", "none"] = "l2"
    """Scale each half of CLS_pat to length 1 first (squared distances then lie in [0, 8]), or compare raw features."""
    triplet_on: Literal["pair", "img"] = "pair"
    """Vector of the triplets: CLS_pat, or CLS_img alone."""


@register("gimp")
class Gimp(Method):
    """Gene encoder, patch aggregator, reconstruction decoder; parameters lie in submodules only."""

    Options = GimpOptions
    paper = "Jin et al., Gene-Induced Multimodal Pre-training for Image-Omic Classification, MICCAI 2023"
    pairs = "slide bag + RNA-seq, with a class label"
    outline: ClassVar = {"gene": "rna, and the class label", "pretrain": "patches, rna, and the class label"}
    options: GimpOptions

    gene_mean_G: Tensor
    gene_std_G: Tensor

    def __init__(self, options: GimpOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        if problems := list(_problems(o, schema)):
            raise MethodError(problems)
        self.label = class_label(schema, o.label)
        self.features = schema.need("patches").width
        self.inputs = ("patches",) if o.genes.encoder == "none" else ("patches", "rna")
        self.aggregator = PatchAggregator(
            self.features,
            o.dim,
            heads=o.heads,
            depth=o.depth,
            attention=o.attention,
            exact_tokens=o.exact_tokens,
            landmarks=o.landmarks,
            iterations=o.pinv_iterations,
            conv_kernel=o.conv_kernel if o.conv_residual else None,
            ppeg=o.ppeg,
            pos=o.pos,
            mask_token=o.mask_with == "token" and o.mask_ratio > 0,
            dropout=o.dropout,
        )
        self.decoder = nn.Sequential(nn.Linear(o.dim, o.dim), nn.GELU(), nn.Linear(o.dim, self.features))
        self.genes: nn.Module | None = None
        if o.genes.encoder != "none":
            self._build_genes(o, schema)
        self.enter("")

    def _build_genes(self, o: GimpOptions, schema: Schema) -> None:
        field = schema.need("rna")
        self.n_genes = G = field.width
        self.genes = o.genes.build(G, o.dim, o.heads, o.dropout)
        self.gene_head = nn.Linear(o.dim, len(self.label.classes))
        mean, std = o.genes.scale(field, G)
        # A gene that never varies carries nothing: it becomes 0, not a division by zero.
        self.register_buffer("gene_mean_G", torch.from_numpy(mean.copy()))
        self.register_buffer("gene_std_G", torch.from_numpy(np.where(std > 0, std, 1.0).astype(np.float32)))

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        pretrain = Stage("pretrain", self.inputs, "class_balanced", self.label.name, compares=True, epochs=100)
        if self.genes is None:
            return (pretrain,)
        return Stage("gene", ("rna",), select=("accuracy", "max"), epochs=100), pretrain

    def enter(self, stage: str) -> None:
        """`gene`, `pretrain`, or "" for the deployed encoders: whole slides, nothing masked."""
        super().enter(stage)
        trained = {"gene": ("genes", "gene_head"), "pretrain": ("aggregator", "decoder"), "": ("genes", "aggregator")}
        for name, p in self.named_parameters():
            p.requires_grad_(name.split(".")[0] in trained[stage] and (stage == "pretrain" or "mask_token" not in name))
        self.train(self.training)

    def train(self, mode: bool = True) -> Gimp:
        """As usual, but a frozen gene encoder stays in eval mode: no dropout in what is only compared with."""
        super().train(mode)
        if self.stage == "pretrain" and self.genes is not None:
            self.genes.eval()
        return self

    def no_weight_decay(self) -> Iterable[str]:
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in ("position_NPC", "group_token_NC")]

    def chance(self, batch_size: int) -> dict[str, float]:
        """Cross-entropy ln K; triplets the margin, their value when all distances are equal."""
        if self.stage == "gene":
            return {"ce": float(np.log(len(self.label.classes)))}
        if self.stage == "pretrain" and self.options.triplet_weight > 0 and self.options.mining != "semi_hard":
            return {"triplet": self.options.margin}
        return {}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        arrays: dict[str, np.ndarray] = {"label": np.int64(label_code(record, self.label))}  # type: ignore[dict-item]
        present: dict[str, bool] = {}
        if "rna" in self._reads():
            present["rna"] = record.has("rna")
            arrays["rna"] = record.read("rna") if present["rna"] else np.zeros(self.n_genes, np.float16)
        if "patches" in self._reads():
            present["patches"] = record.has("patches") and record.shape("patches")[0] > 0
            arrays |= self._window(record, rng) if present["patches"] else self._no_patches()
            arrays["draw"] = np.float32(rng.random())  # type: ignore[assignment]
        return Sample(arrays, present)

    def _reads(self) -> tuple[str, ...]:
        return ("rna",) if self.stage == "gene" else self.inputs

    def _window(self, record: Record, rng: np.random.Generator) -> dict[str, np.ndarray]:
        N, L = record.shape("patches")[0], self.options.window
        if self.stage == "":
            return {"patches": record.read("patches"), "masked": np.zeros(N, bool)}
        if N >= L or self.options.short_bags == "pad":
            L = min(N, L)
            start = window_start(N, L, rng)
            patches = record.rows("patches", start, start + L)
        else:
            patches = record.read("patches")[tiled(N, L)]
        return {"patches": patches, "masked": draw_mask(N, L, self.options.mask_ratio, rng)}

    def _no_patches(self) -> dict[str, np.ndarray]:
        L = self.options.window if self.stage == "pretrain" and self.options.short_bags == "tile" else 1
        return {"patches": np.zeros((L, self.features), np.float16), "masked": np.zeros(L, bool)}

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stacks; bags of different length are padded at their ends and get `length`."""
        names = [n for n in ("patches", "masked") if n in samples[0].arrays]
        return super().collate(filled(samples, names))

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        if self.stage == "gene":
            return self._forward_gene(batch)
        assert self.stage == "pretrain", "forward needs a stage: enter('gene') or enter('pretrain')"
        return self._forward_pretrain(batch)

    def _encode_genes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """CLS_ge [B, C] and the group tokens, from z-scores; a sample without genes is encoded as the mean genome."""
        assert self.genes is not None
        z_BG = standardised(batch["rna"], self.gene_mean_G, self.gene_std_G, self.options.genes.clip)
        return self.genes(torch.where(batch.present["rna"][:, None], z_BG, 0.0).to(self.dtype))

    def _forward_gene(self, batch: Batch) -> Output:
        cls_BC, _ = self._encode_genes(batch)
        logits_BK = self.gene_head(cls_BC)
        weight_B = batch.weight_B * batch.present["rna"]
        loss = cross_entropy(logits_BK, batch["label"], weight_B)
        right = accuracy(logits_BK, batch["label"], weight_B)
        return Output({"ce": loss}, loss, {"accuracy": right}, {"gene": cls_BC.detach()})

    def _forward_pretrain(self, batch: Batch) -> Output:
        o = self.options
        patches_BLF, _ = real_patches(batch, self.dtype)
        image_BC, tokens_BLC = self.aggregator(patches_BLF, batch["masked"], batch.get("length"))
        seen_B = batch.weight_B * batch.present["patches"]
        rec = masked_l1(self.decoder(tokens_BLC), patches_BLF, batch["masked"], seen_B, o.rec_reduction)
        gene_BC = None
        if self.genes is not None:
            with torch.no_grad():
                gene_BC = self._encode_genes(batch)[0]
        tri, diagnostics, features = self._triplets(batch, image_BC, gene_BC)
        diagnostics |= self._reconstruction_diagnostics(patches_BLF, batch, seen_B)
        # L_pre = L_tri + L_rec (section 2.3)
        total_loss = o.rec_weight * rec + o.triplet_weight * tri
        return Output({"rec": rec, "triplet": tri}, total_loss, diagnostics, features)

    def _triplets(
        self, batch: Batch, image_BC: Tensor, gene_BC: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Eq. 4 on CLS_pat, the shares of live triplets of each half alone, and the vectors for the monitors."""
        o = self.options
        image, gene = self._half(image_BC), None if gene_BC is None else self._half(gene_BC)
        pair = image if gene is None else torch.cat([image, gene], -1)
        seen_B = batch.weight_B * batch.present["patches"]
        both_B = seen_B if gene is None else seen_B * batch.present["rna"]

        def mine(x: Tensor, weight_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return triplet(x, batch["label"], weight_B, batch["draw"], o.margin, o.mining, o.triplet_mean)

        loss, active, count = mine(pair, both_B) if o.triplet_on == "pair" else mine(image, seen_B)
        diagnostics = {"triplet_active": active, "triplet_count": count.float()}
        features = {"image": image_BC.detach()}
        if gene is not None and gene_BC is not None:
            diagnostics["triplet_active_image"] = mine(image.detach(), both_B)[1]
            diagnostics["triplet_active_gene"] = mine(gene, both_B)[1]
            features |= {"gene": gene_BC, "pair": pair.detach()}
        return loss, diagnostics, features

    def _half(self, x_BC: Tensor) -> Tensor:
        return F.normalize(x_BC.float(), dim=-1) if self.options.triplet_normalise == "l2" else x_BC.float()

    @torch.no_grad()
    def _reconstruction_diagnostics(self, patches_BLF: Tensor, batch: Batch, seen_B: Tensor) -> dict[str, Tensor]:
        """`rec_baseline`: the loss of predicting the mean visible patch of the batch; `masked`: share of places."""
        x, masked_BL = patches_BLF.float(), batch["masked"]
        real_BL = torch.ones_like(masked_BL)
        if "length" in batch:
            real_BL = torch.arange(x.shape[1], device=x.device) < batch["length"][:, None]
        visible_BL = (real_BL & ~masked_BL) * seen_B[:, None]
        count = total(visible_BL.sum())
        mean_F = total(torch.einsum("blf,bl->f", x, visible_BL)) / count.clamp_min(1)
        baseline = masked_l1(mean_F.expand_as(x), x, masked_BL, seen_B, self.options.rec_reduction)
        share_B = masked_BL.sum(1) / real_BL.sum(1)
        return {"rec_baseline": baseline, "masked": global_mean((share_B * seen_B).sum(), seen_B.sum())}

    # --------------------------------------------------------------------------------------------------------- encode

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """Section 2.4: an MLP on the class token(s)."""
        return MLPHead(pooled, target.outputs)

    def encode(self, batch: Batch) -> Encoded:
        """Patch tokens, then gene group tokens; pooled is CLS_pat, or CLS_img where no genes are read.

        A half whose modality a sample lacks is zero, and its tokens are marked as not real.
        """
        slides = real_rows(batch, batch.present["patches"])
        image_BC, tokens = one_by_one(slides.of(slides.rows_PD.to(self.dtype)), self.aggregator)
        pooled = image_BC * batch.present["patches"][:, None]
        if self.genes is None or "rna" not in batch:
            return Encoded.of_bags(tokens, pooled)
        gene_BC, group_BNC = self._encode_genes(batch)
        known_B1 = batch.present["rna"][:, None]
        groups = group_BNC, known_B1.expand(group_BNC.shape[:2])
        return Encoded.of_bags(tokens, torch.cat([pooled, gene_BC * known_B1], 1), behind=groups)

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """What CLS_img gives to patches in the last layer, without what it gives to itself. Not of the convolution of values."""
        patches_BLF, mask_BL = real_patches(batch, self.dtype)
        return {"class token": shared_out(self.aggregator.class_row(patches_BLF, batch.get("length")), mask_BL)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.aggregator.weight.scored,)

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`similarity` for TensorBoard: cosines of CLS_img, then of CLS_ge, between samples, sorted by class."""
        few, was = first(batch), self.training
        order, vectors = few["label"].argsort(stable=True), []
        self.eval()
        if "patches" in few:
            vectors.append(self.aggregator(real_patches(few, self.dtype)[0], few["masked"], few.get("length"))[0])
        if "rna" in few:
            vectors.append(self._encode_genes(few)[0])
        self.train(was)
        return {"similarity": matrices([[alike(v[order]) for v in vectors]])}


def _problems(o: GimpOptions, schema: Schema) -> Iterable[str]:
    """Everything in the options and the data that a Gimp cannot be built from."""
    for name in ("patches",) if o.genes.encoder == "none" else ("patches", "rna"):
        yield from width_problems(schema, name, 2 if name == "patches" else 1, "gimp")
    yield from o.genes.clip_problems("method.genes", () if o.genes.encoder == "none" else ("rna",), schema)
    if o.dim % o.heads:
        yield f"method.dim: {o.dim} is not a multiple of method.heads ({o.heads}); make it one"
    if o.conv_residual and o.conv_kernel % 2 == 0:
        yield f"method.conv_kernel: {o.conv_kernel} is even and has no centre; use {o.conv_kernel + 1}"
    yield from exact_problems(o.attention, o.exact_tokens, o.landmarks)
    if o.rec_weight == 0 and o.triplet_weight == 0:
        yield "method.rec_weight and method.triplet_weight are both 0: nothing would be learned; set one of them"
