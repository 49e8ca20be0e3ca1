"""Options of MRM (method.py), and what it cannot be built from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field as Bounded

from models.contract import Options, Schema
from models.encoders.relation import Cascade
from models.losses.relation import MatchMode, Reduction
from models.transforms.expression import clip_problems

# Allele counts and flags are centred on the training mean but keep their scale; everything else becomes a z-score.
COUNTS = ("snp", "burden", "mutation")


class MrmRelationOptions(Options):
    genetics: tuple[str, ...] = ("snp", "pgs", "burden")
    """Genetic modalities, by field name: any vector field. Empty: images alone (Table 5)."""
    missing: Literal["mask", "drop"] = "mask"
    """Samples that lack a modality: its tokens are left out everywhere, or the whole sample is."""
    img_size: int = Bounded(224, ge=8)
    """Pixels of a side."""
    patch: int = Bounded(16, ge=2)
    """Pixels of a patch's side."""
    fit: Literal["crop", "stretch"] = "crop"
    """Images that are not square: the centre is cut out, or they are stretched."""
    rotate: float = Bounded(20.0, ge=0, le=180)
    """Largest rotation in training, in degrees."""
    flip: float = Bounded(0.5, ge=0, le=1)
    """Probability of a horizontal flip in training."""
    dim: int = Bounded(768, ge=8)
    """Width of the image encoder."""
    depth: int = Bounded(12, ge=1)
    """Its blocks."""
    heads: int = Bounded(12, ge=1)
    """Attention heads of both encoders and of the cross attention."""
    positions: Literal["sincos", "learned"] = "sincos"
    """Positions of patches: fixed 2-D sine-cosine, or learned (in fine-tuning, on from the fixed ones)."""
    drop_path: float = Bounded(0.0, ge=0, lt=1)
    """Stochastic depth of the image encoder's last block; it grows linearly from the first (0.1 in fine-tuning)."""
    init: Literal["scratch", "imagenet_mae"] = "scratch"
    """Start of the image encoder: random, or MAE's ImageNet weights from `weights`."""
    weights: str | None = None
    """File for init=imagenet_mae (mae_pretrain_vit_base.pth, or any timm ViT of these sizes)."""
    gene_encoder: Literal["snn_tok", "snn_vec"] = "snn_tok"
    """Fragments of the vectors as tokens with self-attention, or one vector from a plain SNN (no gene masking)."""
    gene_dim: int | None = Bounded(None, ge=8)
    """Width of the gene encoder; None: as the image encoder. Another width adds a projection for matching."""
    gene_depth: int = Bounded(4, ge=1)
    """Its transformer blocks."""
    fragment: int = Bounded(128, ge=1)
    """Features that make one gene token."""
    gene_hidden: int = Bounded(256, ge=1)
    """Hidden width of the SNN."""
    gene_dropout: float = Bounded(0.25, ge=0, lt=1)
    """Its AlphaDropout."""
    normalise: Literal["stats", "none"] = "stats"
    """By the training split's statistics: z-scores, but snp, burden and mutation only centred; or all as stored."""
    gene_clip: float | None = Bounded(None, gt=0)
    """Cut z-scores off at so many deviations either way, as input and as target; null: none are (the paper). Real tables hold genes that
    are all but constant in the training split and thousands of deviations off elsewhere. snp, burden and mutation stay as they are."""
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
    gene_lr_scale: float = Bounded(1.0, gt=0)
    """Learning rate of the gene encoder relative to the rest; it takes no weight decay (Adam beside AdamW)."""


def problems_of(o: MrmRelationOptions, schema: Schema) -> Iterable[str]:
    """Everything in the options and the data that the method cannot be built from."""
    has = ", ".join(sorted(schema.fields)) or "none"
    if "image" not in schema.fields:
        yield f"{schema.source} has no field 'image', which mrm_relation reads; it has {has}"
    for name in o.genetics:
        field = schema.fields.get(name)
        if field is None:
            yield f"{schema.source} has no field '{name}' (method.genetics); it has {has}; set method.genetics to a list of them"
        elif field.kind != "array" or not field.shape or len(field.shape) != 1 or field.shape[0] is None:
            yield f"field '{name}' of {schema.source} is no vector of one width (shape {field.shape}); pack it as one"
    if len(set(o.genetics)) < len(o.genetics):
        yield f"method.genetics: {list(o.genetics)} names a field twice; name each once"
    sizes = {"dim": o.dim, "gene_dim": o.gene_dim or o.dim}
    yield from (
        f"method.{n}: {v} is not a multiple of method.heads ({o.heads})" for n, v in sizes.items() if v % o.heads
    )
    for n in ("decoder", "gene_decoder"):
        width, heads = getattr(o, f"{n}_dim"), getattr(o, f"{n}_heads")
        if width % math.lcm(4, heads):
            yield f"method.{n}_dim: {width} is not a multiple of 4 and of method.{n}_heads ({heads})"
    yield from _block_problems(o)
    yield from clip_problems(o.gene_clip, o.normalise, (n for n in o.genetics if n not in COUNTS), schema)
    if o.match == "cross" and not o.genetics:
        yield "method.match=cross needs method.genetics: an image alone has no cross relations; use self"
    if (o.init == "imagenet_mae") != (o.weights is not None):
        yield "method.init=imagenet_mae and method.weights=FILE belong together; give both or neither"
    if not o.image_weight and not (o.gene_weight and o.genetics) and not o.match_weight:
        yield "method.image_weight, gene_weight and match_weight are all 0: nothing would be learned; set one of them"


def _block_problems(o: MrmRelationOptions) -> Iterable[str]:
    blocks, tokens = o.cross_attn_blocks, bool(o.genetics) and o.gene_encoder == "snn_tok"
    depth = min(o.depth, o.gene_depth) if tokens else o.depth
    if not blocks or list(blocks) != sorted(set(blocks)) or min(blocks) < 0 or max(blocks) >= depth:
        yield f"method.cross_attn_blocks: {list(blocks)} must be rising numbers of blocks from 0 to {depth - 1}"
    elif o.cascade == "self_then_cross" and o.relations == "self":
        yield "method.cascade=self_then_cross has cross relations and method.relations=self has none; use method.cascade=per_block"
    elif o.cascade == "self_then_cross" and tokens and len(blocks) < 2:
        yield "method.cascade=self_then_cross needs two blocks in method.cross_attn_blocks; give [0, 1]"
