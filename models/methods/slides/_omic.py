"""What the systems share that GiMP's Table 1 takes from image and report over to slide and genes: MGCA, BioViL and REFERS.

The paper says no more than their names, their length and that slide and genes have a class token each; the frame is ours
(docs/methods/mgca_omic.md): GiMP's encoders, a window of a slide in pre-training, runs of patches and groups of genes as local tokens.

Shape letters: B samples, L patches, F patch feature width, G genes, S segments, N gene groups, C width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import (
    Batch,
    Encoded,
    Head,
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
from models.encoders.group_msa import GroupMSA
from models.heads.mlp import MLPHead
from models.layers.nystrom import segment_means
from models.layers.pooling import shared_out
from models.losses.classes import accuracy, cross_entropy
from models.losses.contrastive import Pairs, SamePatient, all_pairs, chance, retrieval, symmetric
from models.methods.slides._bag import BagMethod, exact_problems, one_by_one, width_problems
from models.pictures import alike, first, matrices
from models.transforms.bags import tiled, window_start
from models.transforms.expression import ExpressionOptions, standardised
from models.transforms.labels import class_label, label_code
from models.transforms.patients import patient_number


class OmicGenes(ExpressionOptions):
    groups: int = Bounded(24, ge=1)
    """Groups of genes, which are the local tokens."""
    fragment: int | None = Bounded(None, ge=1)
    """Genes in a fragment; null: as many as make 720 fragments, but at least 64."""
    depth: int = Bounded(1, ge=1)
    """Transformer blocks inside the groups, and as many across them."""
    start: Literal["scratch", "supervised_frozen"] = "scratch"
    """Trained with the slides, without labels; or as GiMP does: first by the class label of the training split, then frozen. That sees
    labels."""


class OmicOptions(Options):
    unsaid: ClassVar = {"attention": "nystrom", "exact_tokens": 0}

    genes: OmicGenes = OmicGenes()
    """The gene encoder, GiMP's GroupMSA, as wide as the patch aggregator."""
    label: str | None = None
    """`genes.start=supervised_frozen`: the class label; null takes the only one, or else `subtype` or `label`."""
    dim: int = Bounded(512, ge=8)
    """Width of both encoders."""
    heads: int = Bounded(8, ge=1)
    """Their attention heads."""
    depth: int = Bounded(2, ge=1)
    """Attention layers of the patch aggregator."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Everywhere."""
    attention: Literal["nystrom", "auto"] = "nystrom"
    """Attention over patches: Nystrom, or exact for bags of up to `exact_tokens` and else Nystrom, which is another network."""
    exact_tokens: int = Bounded(0, ge=0)
    """Of `auto`: the longest bag, its class token counted, with exact attention. Stated, and never measured by a run."""
    landmarks: int = Bounded(256, ge=2)
    """Landmarks of Nystrom attention; shorter bags get exact attention."""
    conv_kernel: int | None = Bounded(33, ge=1)
    """Patches in the convolution of the values beside the attention, an odd number; null: none."""
    window: int = Bounded(6000, ge=2)
    """Consecutive patches of a slide in pre-training."""
    short_bags: Literal["tile", "pad"] = "pad"
    """Slides with fewer patches: repeated to fill the window, or taken as they are, batch padded."""
    segments: int = Bounded(256, ge=2)
    """Local tokens of a slide: means of so many runs of consecutive patch tokens; a bag of fewer patches has one a patch."""
    project: int = Bounded(128, ge=1)
    """Width of the compared vectors."""
    tau: float = Bounded(0.07, gt=0)
    """Temperature of the comparison of wholes, fixed."""
    same_patient: SamePatient = "positive"
    """Slides of one patient in a batch, whose genes are the same: each other's positives, left out, or negatives."""
    order: Literal["patient_unique", "shuffle"] = "patient_unique"
    """Batches with at most one slide of a patient, or of any slides."""
    finetune_bag: Literal["full", "window"] = "full"
    """Patches where the encoders are used: the whole slide, or the window in its middle."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.dim % self.heads:
            yield f"{where}.dim: {self.dim} is not a multiple of {where}.heads ({self.heads}); make it one"
        if self.conv_kernel is not None and self.conv_kernel % 2 == 0:
            yield f"{where}.conv_kernel: {self.conv_kernel} is even and has no centre; use {self.conv_kernel + 1}"


@dataclass(frozen=True)
class Sides:
    """Both sides of a batch: class tokens [B, C], local tokens, which segments are real, and the weight of pairs [B]."""

    slide_BC: Tensor
    segment_BSC: Tensor
    real_BS: Tensor
    gene_BC: Tensor
    group_BNC: Tensor
    weight_B: Tensor


class OmicMethod(BagMethod):
    """`slide` and `genes`, and `slide_proj`, `gene_proj` to the compared vectors; a subclass adds what it learns from beside the contrast.

    A pair without its slide or its genes is in no comparison.
    """

    inputs: tuple[str, ...] = ("patches", "rna")
    pairs = "slide bag + RNA-seq"
    outline: ClassVar = {"pretrain": "patches, rna"}
    hides: bool = False
    """Whether fragments of genes are hidden in training; never of a gene encoder that is frozen."""
    options: OmicOptions
    gene_mean_G: Tensor
    gene_std_G: Tensor

    def __init__(self, options: OmicOptions, schema: Schema):
        o = options
        problems = [p for n, axes in (("patches", 2), ("rna", 1)) for p in width_problems(schema, n, axes, self.name)]
        problems += o.genes.clip_problems("method.genes", ("rna",), schema)
        if problems := [*problems, *exact_problems(o.attention, o.exact_tokens, o.landmarks)]:
            raise MethodError(problems)
        super().__init__(options, schema)
        field = schema.need("rna")
        self.n_genes = G = int(field.shape[-1])  # type: ignore[index,arg-type]
        mean, std = o.genes.scale(field, G)
        self.register_buffer("gene_mean_G", torch.from_numpy(mean.copy()))
        # A gene that never varies carries nothing: it becomes 0, not a division by zero.
        self.register_buffer("gene_std_G", torch.from_numpy(np.where(std > 0, std, 1.0).astype(np.float32)))
        self.slide = PatchAggregator(
            self.features, o.dim, heads=o.heads, depth=o.depth, landmarks=o.landmarks, exact_tokens=o.exact_tokens,
            conv_kernel=o.conv_kernel, mask_token=False, dropout=o.dropout,
        )  # fmt: skip
        g = o.genes
        self.hides = self.hides and g.start == "scratch"
        self.genes = GroupMSA(
            G,
            o.dim,
            heads=o.heads,
            groups=g.groups,
            fragment=g.fragment,
            depth=g.depth,
            dropout=o.dropout,
            mask_token=self.hides,
        )
        self.slide_proj, self.gene_proj = (Projection(o.dim, o.project) for _ in range(2))
        self.label = class_label(schema, o.label) if g.start == "supervised_frozen" else None
        self.gene_head = None if self.label is None else nn.Linear(o.dim, len(self.label.classes))

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        pretrain = Stage("pretrain", ("patches", "rna"), self.options.order, compares=True, epochs=100)
        if self.label is None:
            return (pretrain,)
        return Stage("gene", ("rna",), select=("accuracy", "max"), epochs=100), pretrain

    def enter(self, stage: str) -> None:
        """`gene`, `pretrain`, or "" for the deployed encoders."""
        super().enter(stage)
        for name, p in self.named_parameters():
            p.requires_grad_(self._trained(name.split(".")[0], stage) and (stage != "" or "mask_token" not in name))
        self.train(self.training)

    def _trained(self, part: str, stage: str) -> bool:
        if stage == "":
            return part in ("slide", "genes")
        if stage == "gene":
            return part in ("genes", "gene_head")
        return part != "gene_head" and not (part == "genes" and self.label is not None)

    def train(self, mode: bool = True) -> OmicMethod:
        """As usual, but a frozen gene encoder stays in eval mode."""
        super().train(mode)
        if self.stage == "pretrain" and self.label is not None:
            self.genes.eval()
        return self

    def no_weight_decay(self) -> Iterable[str]:
        flat = ("position_NPC", "group_token_NC", "query_TC")
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in flat]

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln B; of labels ln K."""
        if self.stage == "gene":
            return {} if self.label is None else {"ce": float(np.log(len(self.label.classes)))}
        return {"contrast": float(np.log(max(2, batch_size)))}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        reads = ("rna",) if self.stage == "gene" else self.inputs
        arrays: dict[str, np.ndarray] = {}
        present = {name: record.has(name) for name in reads}
        if "patches" in reads:
            present["patches"] = present["patches"] and record.shape("patches")[0] > 0
            arrays["patches"] = (
                self._window(record, rng) if present["patches"] else np.zeros((1, self.features), np.float16)
            )
        if "rna" in reads:
            arrays["rna"] = record.read("rna") if present["rna"] else np.zeros(self.n_genes, np.float16)
        if self.stage:
            arrays["patient"] = patient_number(record.patient)
            if self.hides:
                arrays["hidden"] = self._hidden(rng)
            if self.stage == "gene" and self.label is not None:
                arrays["label"] = np.int64(label_code(record, self.label))  # type: ignore[assignment]
        return Sample(arrays, present)

    def _window(self, record: Record, rng: np.random.Generator) -> np.ndarray:
        N, L = record.shape("patches")[0], self.options.window
        if not self.stage and self.options.finetune_bag == "full":
            return record.read("patches")
        if N > L:
            start = window_start(N, L, rng) if self.stage else (N - L) // 2
            return record.rows("patches", start, start + L)
        patches_NF = record.read("patches")
        return patches_NF[tiled(N, L)] if self.stage and self.options.short_bags == "tile" else patches_NF

    def _hidden(self, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------------- forward

    def expression(self, batch: Batch) -> Tensor:
        """z-scores [B, G]; a sample without genes is the mean genome."""
        z_BG = standardised(batch["rna"], self.gene_mean_G, self.gene_std_G, self.options.genes.clip)
        return torch.where(batch.present["rna"][:, None], z_BG, 0.0).to(self.dtype)

    def sides(self, batch: Batch) -> Sides:
        x_BLF, mask_BL = self.bags(batch)
        slide_BC, patch_BLC = self.slide(x_BLF, None, batch.get("length"))
        S, length_B = self.options.segments, mask_BL.sum(1)
        segment_BSC = segment_means(patch_BLC[:, None], S, length_B)[:, 0]
        real_BS = torch.arange(S, device=length_B.device) < length_B[:, None]
        gene_BC, group_BNC = self.genes(self.expression(batch))
        weight_B = batch.weight_B * batch.present["patches"] * batch.present["rna"]
        return Sides(slide_BC, segment_BSC, real_BS, gene_BC, group_BNC, weight_B)

    def wholes(self, s: Sides, batch: Batch) -> Pairs:
        """All slides with all genes, at length 1, over the temperature."""
        scale = s.slide_BC.new_tensor(1 / self.options.tau, dtype=torch.float32)
        a_BC, b_BC = self.slide_proj(s.slide_BC), self.gene_proj(s.gene_BC)
        return all_pairs(a_BC, b_BC, scale, s.weight_B, batch["patient"], self.options.same_patient)

    def terms(self, s: Sides, batch: Batch, pairs: Pairs) -> tuple[dict[str, tuple[float, Tensor]], dict[str, Tensor]]:
        """{loss: (its weight, value)} beside the contrast's, and diagnostics."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        if self.stage == "gene":
            return self.forward_gene(batch)
        assert self.stage == "pretrain", "forward needs a stage: enter('pretrain')"
        s = self.sides(batch)
        pairs = self.wholes(s, batch)
        terms, diagnostics = self.terms(s, batch, pairs)
        terms = {"contrast": (1.0, symmetric(pairs)), **terms}
        found = retrieval(pairs)
        diagnostics |= {
            "slide_to_genes": found["top1_a_to_b"],
            "genes_to_slide": found["top1_b_to_a"],
            "contrast_chance": chance(pairs),
        }
        features = {"slide": s.slide_BC.detach(), "gene": s.gene_BC.detach()}
        total = torch.stack([w * v for w, v in terms.values()]).sum()
        return Output({n: v for n, (_, v) in terms.items()}, total, diagnostics, features)

    def forward_gene(self, batch: Batch) -> Output:
        """By the class label, as GiMP's first stage."""
        assert self.gene_head is not None
        cls_BC, _ = self.genes(self.expression(batch))
        logits_BK, weight_B = self.gene_head(cls_BC), batch.weight_B * batch.present["rna"]
        loss = cross_entropy(logits_BK, batch["label"], weight_B)
        right = accuracy(logits_BK, batch["label"], weight_B)
        return Output({"ce": loss}, loss, {"accuracy": right}, {"gene": cls_BC.detach()})

    # --------------------------------------------------------------------------------------------------------- encode

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head:
        """GiMP's: an MLP on the class tokens."""
        return MLPHead(pooled, target.outputs)

    def encode(self, batch: Batch) -> Encoded:
        """Patch tokens, then gene group tokens; pooled is [CLS_img ; CLS_ge], or CLS_img where no genes are read. Absent halves are 0."""
        slide_BC, tokens = one_by_one(self.rows(batch), self.slide)
        pooled = slide_BC * batch.present["patches"][:, None]
        if "rna" not in batch:
            return Encoded.of_bags(tokens, pooled)
        gene_BC, group_BNC = self.genes(self.expression(batch))
        known_B1 = batch.present["rna"][:, None]
        groups = group_BNC, known_B1.expand(group_BNC.shape[:2])
        return Encoded.of_bags(tokens, torch.cat([pooled, gene_BC * known_B1], 1), behind=groups)

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """What CLS_img gives to patches in the last layer, without what it gives to itself. Not of the convolution of values."""
        x_BLF, mask_BL = self.bags(batch)
        return {"class token": shared_out(self.slide.class_row(x_BLF, batch.get("length")), mask_BL)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.slide.weight.scored,)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """`similarity` for TensorBoard: cosines of slides' vectors (rows) with the genes'."""
        if "patches" not in batch:
            return {}
        few, was = first(batch), self.training
        self.eval()
        s = self.sides(few)
        values = alike(self.slide_proj(s.slide_BC), self.gene_proj(s.gene_BC))
        self.train(was)
        return {"similarity": matrices([[values]])}


class Projection(nn.Sequential):
    """Linear, ReLU, Linear to the compared vectors."""

    def __init__(self, dim: int, out: int):
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out))
