"""Options of MRM (method.py), and what it cannot be built from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field as Bounded

from models.contract import Options, Schema
from models.encoders.gene_tokens import GeneTokenOptions
from models.encoders.relation import Cascade
from models.encoders.vit import ViTOptions
from models.losses.relation import MatchMode, Reduction
from models.methods._genetics import genetic_problems
from models.transforms.view_options import TurnedOptions


class RelationView(TurnedOptions):
    fit: Literal["crop", "stretch"] = "crop"
    """Images that are not square: the centre is cut out, or they are stretched."""
    rotate: float = Bounded(20.0, ge=0, le=180)
    """Largest rotation in training either way, in degrees."""


class RelationGenes(GeneTokenOptions):
    lr_scale: float = Bounded(1.0, gt=0)
    """Learning rate of the gene encoder relative to the rest; it takes no weight decay (Adam beside AdamW)."""


class MrmRelationOptions(Options):
    renamed: ClassVar = {
        "img_size": "image.image_size",
        "weights": "image.init_file",
        **{n: f"image.{n}" for n in ("patch", "dim", "depth", "heads", "positions", "drop_path", "init")},
        **{n: f"view.{n}" for n in ("fit", "rotate", "flip")},
        **{n: f"genes.{n}" for n in ("fragment", "normalise")},
        **{f"gene_{n}": f"genes.{n}" for n in ("encoder", "dim", "depth", "hidden", "dropout", "clip", "lr_scale")},
    }
    reworded: ClassVar = {"image.init": {"imagenet_mae": "file"}}
    unsaid: ClassVar = {"image.kind": "vit", "image.mlp_ratio": 4.0, "image.cls_token": True}

    genetics: tuple[str, ...] = ("snp", "pgs", "burden")
    """Genetic modalities, by field name: any vector field. Empty: images alone (Table 5)."""
    missing: Literal["mask", "drop"] = "mask"
    """Samples that lack a modality: its tokens are left out everywhere, or the whole sample is."""
    image: ViTOptions = ViTOptions()
    """The image encoder, which has a class token. Recommended: mae_pretrain_vit_base.pth as its file."""
    view: RelationView = RelationView()
    """The images."""
    genes: RelationGenes = RelationGenes()
    """The encoder of the genetic vectors. snp, burden and mutation are centred alone and never clipped."""
    relations: Literal["self_cross", "self"] = "self_cross"
    """Relations masked: within a modality and across, or within alone (ablation, Table 3): then there is no cross attention."""
    cross_attn_blocks: tuple[int, ...] = (0, 1)
    """Blocks of both encoders that mask relations in the masked pass."""
    cascade: Cascade = "per_block"
    """Each such block masks self, then cross relations; or the first masks self and the others have cross instead."""
    tau_image: float = Bounded(0.75, ge=0, le=1)
    """Share of relations masked in rows whose query is an image token (tau_I)."""
    tau_genes: float = Bounded(0.5, ge=0, le=1)
    """The same for gene tokens (tau_G)."""
    renorm: bool = False
    """Scale what is left of a row to sum 1 (not in eq. 4)."""
    share_heads: bool = False
    """Mask the same elements in all heads, chosen by their mean."""
    mask_cls: bool = True
    """Class tokens are masked like any other; false: their rows and columns stay and do not count."""
    decoder_dim: int = Bounded(512, ge=8)
    """Width of the image decoder."""
    decoder_depth: int = Bounded(8, ge=1)
    """Its blocks."""
    decoder_heads: int = Bounded(16, ge=1)
    """Its heads."""
    gene_decoder_dim: int = Bounded(256, ge=8)
    """Width of the gene decoder."""
    gene_decoder_depth: int = Bounded(2, ge=1)
    """Its blocks."""
    gene_decoder_heads: int = Bounded(8, ge=1)
    """Its heads."""
    reduction: Reduction = "mean"
    """Reconstruction: mean over batch and elements, or the squared norms of eq. 7 to the letter (of order 1e5)."""
    norm_pix_loss: bool = False
    """Image target: each patch scaled to mean 0 and variance 1, instead of ImageNet-normalised pixels."""
    burden_loss: Literal["mse", "bce"] = "mse"
    """Burden scores (0 or 1): squared error as the paper, or binary cross-entropy."""
    image_weight: float = Bounded(1.0, ge=0)
    """Weight of the image reconstruction."""
    gene_weight: float = Bounded(1.0, ge=0)
    """Weight of the genome reconstruction."""
    match_weight: float = Bounded(1.0, ge=0)
    """Weight of relation matching (lambda)."""
    match: Literal["both", "self", "cross"] = "both"
    """Relations matched: within modalities and across (eq. 13), or one of them (ablation, Table 3); none: match_weight 0."""
    match_feature: Literal["mean", "cls"] = "mean"
    """Vector of a sample: mean of its tokens after the last norm without the class token, or the class token."""
    match_n: int = Bounded(8, ge=2)
    """Samples of the global batch whose relations are matched ("8 random pairs")."""
    match_mode: MatchMode = "subset"
    """Relations among that many samples, or that many single relations."""
    match_stopgrad: Literal["none", "intact", "masked"] = "none"
    """The pass that gets no gradient from matching."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: the encoder of mrm_relation has one; set it to true"


def problems_of(o: MrmRelationOptions, schema: Schema) -> Iterable[str]:
    """Everything in the options and the data that the method cannot be built from."""
    yield from genetic_problems("mrm_relation", o, schema)
    if o.genes.dim is not None and o.genes.dim % o.image.heads:
        yield f"method.genes.dim: {o.genes.dim} is not a multiple of method.image.heads ({o.image.heads})"
    for n in ("decoder", "gene_decoder"):
        width, heads = getattr(o, f"{n}_dim"), getattr(o, f"{n}_heads")
        if width % math.lcm(4, heads):
            yield f"method.{n}_dim: {width} is not a multiple of 4 and of method.{n}_heads ({heads})"
    yield from _block_problems(o)
    if o.match == "cross" and not o.genetics:
        yield "method.match=cross needs method.genetics: an image alone has no cross relations; use self"
    if not o.image_weight and not (o.gene_weight and o.genetics) and not o.match_weight:
        yield "method.image_weight, gene_weight and match_weight are all 0: nothing would be learned; set one of them"


def _block_problems(o: MrmRelationOptions) -> Iterable[str]:
    blocks, tokens = o.cross_attn_blocks, bool(o.genetics) and o.genes.encoder == "snn_tok"
    depth = min(o.image.depth, o.genes.depth) if tokens else o.image.depth
    if not blocks or list(blocks) != sorted(set(blocks)) or min(blocks) < 0 or max(blocks) >= depth:
        yield f"method.cross_attn_blocks: {list(blocks)} must be rising numbers of blocks from 0 to {depth - 1}"
    elif o.cascade == "self_then_cross" and o.relations == "self":
        yield "method.cascade=self_then_cross has cross relations and method.relations=self has none; use method.cascade=per_block"
    elif o.cascade == "self_then_cross" and tokens and len(blocks) < 2:
        yield "method.cascade=self_then_cross needs two blocks in method.cross_attn_blocks; give [0, 1]"
