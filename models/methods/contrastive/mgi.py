"""MGI: Multimodal Contrastive Pre-training of Genomic and Medical Imaging (Zhou et al. 2024, arXiv 2406.00631).

A slice goes through a Vision Transformer, the patient's expression vector through a Mamba; both are pooled (a mix of
maximum and mean), projected and pulled together by a contrastive loss (eq. 1). The paper states no width, depth, size,
temperature or optimiser: docs/methods/mgi.md says what was chosen and why.

Shape letters: B samples, C channels, H x W pixels, L tokens, G genes, D image width, E gene width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, Encoded, Method, MethodError, Options, Output, Record, Sample, Schema, Stage
from models.contract.image_view import ImageView, Pool
from models.encoders.mamba import MambaOptions, PooledGenes
from models.encoders.vit import ViT, ViTOptions
from models.layers.pooling import MixedPooling
from models.losses.contrastive import Pairs, SamePatient, Temperature, all_pairs, chance, joint, retrieval, symmetric
from models.pictures import alike, first, matrices, row_of_images
from models.registry import register
from models.transforms.crops import eight_bit
from models.transforms.expression import standardised
from models.transforms.patients import patient_number
from models.transforms.slices import augmented, resized, zscored
from models.transforms.view_options import TurnedOptions

IMAGE_KEYS = (
    "image_size", "init", "init_file", "patch", "dim", "depth", "heads", "mlp_ratio", "cls_token", "positions", "drop_path",
)  # fmt: skip
"""Of the image encoder, as they were called before they were a group."""
FLAIR = 1  # place of FLAIR in kaggle_3m's channels: pre-contrast, FLAIR, post-contrast


class MgiGenes(MambaOptions):
    micro: int | None = Bounded(None, ge=1)
    """Samples the gene encoder holds at once, each part recomputed in the backward pass; None: all."""
    drop_constant: bool = False
    """Leave out genes that never vary in the training split (otherwise they are zeros)."""
    drop: float = Bounded(0.0, ge=0, lt=1)
    """Augmentation: share of a sample's genes that are set to their mean, others at every visit. (Not in the paper: a patient's genes
    are otherwise the same at every visit, and a small cohort is soon known by heart.)"""
    missing: Literal["absent", "mean"] = "absent"
    """A sample without genes, where the encoders are used: its gene half is 0 and its gene tokens are not real, or both are the mean
    genome's. (In pre-training it is in no pair.)"""


class MgiView(TurnedOptions):
    channels: Literal["flair", "all3"] = "flair"
    """Of an image with three channels the second (FLAIR in the LGG set; of one with one channel, that), repeated three times; or all."""
    scale: float = Bounded(0.1, ge=0, lt=1)
    """Zoom in training by up to this share either way."""


class MgiOptions(Options):
    renamed: ClassVar = {
        **{n: f"image.{n}" for n in IMAGE_KEYS},
        **{n: f"view.{n}" for n in ("channels", "rotate", "scale", "flip")},
        **{
            n: f"genes.{n}"
            for n in ("chunk", "states", "conv", "expand", "bidirectional", "normalise", "drop_constant")
        },
        **{f"gene_{n}": f"genes.{n}" for n in ("tokens", "dim", "depth", "micro", "clip", "drop", "missing")},
    }
    reworded: ClassVar = {"image.init": {"imagenet": "file"}}
    unsaid: ClassVar = {"image.kind": "vit"}

    image: ViTOptions = ViTOptions(image_size=256, cls_token=False)
    """The image encoder; a class token is left out of the pooling. Recommended: MAE's ViT-B/16 as its file."""
    view: MgiView = MgiView()
    """The slices in pre-training."""
    genes: MgiGenes = MgiGenes()
    """The gene encoder."""
    alpha: float = Bounded(0.5, ge=0, le=1)
    """Mixed pooling: share of the maximum; the rest is the mean."""
    learn_alpha: bool = False
    """Learn that share, one for each encoder."""
    project: int = Bounded(256, ge=1)
    """Width of the compared vectors."""
    loss: Literal["symmetric", "joint"] = "symmetric"
    """Two cross-entropies, image to gene and gene to image (the paper's text), or one softmax over all pairs (its eq. 1)."""
    temperature: float = Bounded(0.07, gt=0)
    """Temperature tau, or where it starts."""
    learn_temperature: bool = True
    """Learn it."""
    min_temperature: float = Bounded(0.01, gt=0)
    """Where a learned temperature stops falling."""
    order: Literal["patient_unique", "shuffle"] = "patient_unique"
    """Batches with at most one slice of a patient (the paper), or of any slices."""
    same_patient: SamePatient = "positive"
    """Two slices of one patient in a batch: each other's positives too, left out, or (as a plain loss does) negatives."""


@register("mgi")
class Mgi(Method):
    """Image encoder, gene encoder, poolings, projections, temperature; parameters lie in submodules only."""

    Options = MgiOptions
    paper = (
        "Zhou et al., MGI: Multimodal Contrastive Pre-training of Genomic and Medical Imaging, arXiv 2406.00631, 2024"
    )
    options: MgiOptions
    pairs = "image + RNA-seq"
    outline: ClassVar = {"pretrain": "image, rna"}
    inputs = ("image", "rna")

    gene_mean_G: Tensor
    gene_std_G: Tensor
    gene_order: Tensor
    kept_genes: Tensor

    def __init__(self, options: MgiOptions, schema: Schema):
        super().__init__(options, schema)
        o = options
        if problems := list(_problems(o, schema)):
            raise MethodError(problems)
        self.image = o.image.build()
        self.image_pool = MixedPooling(o.alpha, o.learn_alpha)
        self.image_proj = nn.Linear(o.image.dim, o.project)
        encoder = o.genes.build(self._know_genes(o.genes, schema))
        self.genes = PooledGenes(encoder, MixedPooling(o.alpha, o.learn_alpha), o.genes.micro)
        self.gene_proj = nn.Linear(o.genes.dim, o.project)
        self.temperature = Temperature(o.temperature, o.learn_temperature, o.min_temperature)
        self.register_load_state_dict_pre_hook(_check_gene_order)
        self.enter("")

    def _know_genes(self, o: MgiGenes, schema: Schema) -> int:
        """Registers statistics and the digest of the genes' order; the number of genes that enter."""
        field = schema.need("rna")
        self.n_genes = G = field.width
        kept = np.flatnonzero(np.asarray(field.std) > 0) if o.drop_constant else np.arange(G)
        mean, std = o.scale(field, G)
        self.register_buffer("gene_mean_G", torch.from_numpy(mean.copy()))
        self.gene_mean = mean  # for `sample`, which works on the host
        # A gene that never varies carries nothing: it becomes 0, not a division by zero.
        self.register_buffer("gene_std_G", torch.from_numpy(np.where(std > 0, std, 1.0).astype(np.float32)))
        self.register_buffer("kept_genes", torch.from_numpy(kept))
        names = "\n".join(field.vocabulary or ()).encode()
        digest = hashlib.sha256(names).digest() if names else bytes(32)
        self.register_buffer("gene_order", torch.tensor(list(digest), dtype=torch.uint8))
        return len(kept)

    # --------------------------------------------------------------------------------------------------------- stages

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("pretrain", self.inputs, self.options.order, compares=True, epochs=200),)

    def enter(self, stage: str) -> None:
        """`pretrain`, or "" for the deployed encoders: no augmentation, no projection, no temperature."""
        super().enter(stage)
        compared = ("image_proj", "gene_proj", "temperature")
        for name, p in self.named_parameters():
            p.requires_grad_(stage == "pretrain" or name.split(".")[0] not in compared)

    def no_weight_decay(self) -> Iterable[str]:
        flat = ("A_log", "pos_embed", "cls_token", "place_LC")
        return [n for n, _ in self.named_parameters() if n.split(".")[-1] in flat]

    def chance(self, batch_size: int) -> dict[str, float]:
        """All similarities equal: ln B, or 2 ln B for the joint softmax, whose lower bound is ln B."""
        return {"contrastive": math.log(max(2, batch_size)) * (2 if self.options.loss == "joint" else 1)}

    # ----------------------------------------------------------------------------------------------------------- data

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        o, names = self.options, self.inputs
        arrays: dict[str, np.ndarray] = {"patient": patient_number(record.patient)}
        present = {name: record.has(name) for name in names}
        if "image" in names:
            width = 1 if o.view.channels == "flair" else 3
            side, v = o.image.image_size, o.view
            image_HWC = np.zeros((side, side, width), np.uint8)
            if present["image"]:
                image_HWC = resized(self._channels(record), side)
                if self.stage:
                    image_HWC = augmented(image_HWC, rng, v.rotate, v.scale, v.flip)
            arrays["image"] = image_HWC
        if "rna" in names:
            arrays["rna"] = self._genes(record, rng) if present["rna"] else np.zeros(self.n_genes, np.float16)
        return Sample(arrays, present)

    def _genes(self, record: Record, rng: np.random.Generator) -> np.ndarray:
        genes_G = record.read("rna")
        if bad := int((~np.isfinite(genes_G)).sum()):
            raise MethodError([f"sample {record.key}: {bad} gene values are not finite; fill them when packing"])
        if not self.stage or not self.options.genes.drop:
            return genes_G
        dropped_G = rng.random(self.n_genes, np.float32) < self.options.genes.drop
        return np.where(dropped_G, self.gene_mean, genes_G).astype(genes_G.dtype)

    def _channels(self, record: Record) -> np.ndarray:
        """The channels asked for, uint8 [H, W, 1 or 3]."""
        image_HWC = eight_bit(record.read("image"))
        stored = image_HWC.shape[2]
        if self.options.view.channels == "flair":
            return np.ascontiguousarray(image_HWC[..., FLAIR : FLAIR + 1] if stored >= 3 else image_HWC[..., :1])
        if stored < 3:
            raise MethodError(
                [f"sample {record.key}: method.view.channels=all3, but its image has {stored}; use flair"]
            )
        return np.ascontiguousarray(image_HWC[..., :3])

    # -------------------------------------------------------------------------------------------------------- forward

    def forward(self, batch: Batch) -> Output:
        o = self.options
        image_BD, gene_BE = self._pooled_image(self._image_tokens(batch)), self.genes(self._expression(batch))
        weight_B = batch.weight_B * batch.present["image"] * batch.present["rna"]
        scale = self.temperature()
        pairs = all_pairs(
            self.image_proj(image_BD), self.gene_proj(gene_BE), scale, weight_B, batch["patient"], o.same_patient
        )
        loss = symmetric(pairs) if o.loss == "symmetric" else joint(pairs)
        features = {"image": image_BD.detach(), "gene": gene_BE.detach()}
        return Output({"contrastive": loss}, loss, self._diagnostics(pairs, scale), features)

    def _diagnostics(self, pairs: Pairs, scale: Tensor) -> dict[str, Tensor]:
        found, tau = retrieval(pairs), 1 / scale.detach()[0]
        diagnostics = {
            "image_to_gene": found["top1_a_to_b"],
            "gene_to_image": found["top1_b_to_a"],
            "cosine_positive": found["positive"] * tau,
            "cosine_negative": found["negative"] * tau,
            "temperature": tau,
            "contrastive_chance": chance(pairs, self.options.loss == "joint"),
        }
        if self.options.loss == "joint":
            diagnostics["contrastive_floor"] = pairs.rows.sum().clamp_min(1).float().log()
        return diagnostics

    def image_encoder(self) -> ViT:
        return self.image

    def pixels(self, batch: Batch) -> Tensor:
        """What the image encoder takes, [B, 3, H, W]."""
        return zscored(batch["image"]).expand(-1, 3, -1, -1).to(self.dtype)

    def image_view(self) -> ImageView:
        o, a = self.options, self.image_pool.share()
        pools: dict[float, Pool] = {0.0: "avg", 0.5: "avgmax", 1.0: "max"}
        words = f"{a:.6g} x maximum + {1 - a:.6g} x mean of the patch tokens"
        channels: Literal["second", "rgb"] = "second" if o.view.channels == "flair" else "rgb"
        return ImageView(o.image.image_size, channels, "stretch", "bilinear", None, None, pools.get(a, ""), words)

    def _image_tokens(self, batch: Batch) -> Tensor:
        return self.image(self.pixels(batch))

    def _pooled_image(self, tokens_BLD: Tensor) -> Tensor:
        return self.image_pool(tokens_BLD[:, self.image.extra :])

    def _expression(self, batch: Batch) -> Tensor:
        """z-scores [B, G] of the genes that enter; a sample without genes is the mean genome."""
        z_BG = standardised(batch["rna"], self.gene_mean_G, self.gene_std_G, self.options.genes.clip)
        z_BG = torch.where(batch.present["rna"][:, None], z_BG, 0.0)
        if self.options.genes.drop_constant:
            z_BG = z_BG[:, self.kept_genes]
        return z_BG.to(self.dtype)

    # --------------------------------------------------------------------------------------------------------- encode

    def encode(self, batch: Batch) -> Encoded:
        """Image tokens; pooled is [image ; genes], or the image's alone where no genes are read. Absent halves are 0 (`genes.missing`)."""
        tokens_BLD, maps = self.image.tokens_and_maps(self.pixels(batch))
        seen_B = batch.present["image"]
        pooled = self._pooled_image(tokens_BLD) * seen_B[:, None]
        mask_BL = seen_B[:, None].expand(tokens_BLD.shape[:2])
        tokens = {"image": (tokens_BLD, mask_BL)}
        if "rna" in batch:
            known_B1 = self._known(batch)[:, None]
            # For a decoder that attends to genes (section 2.4), and pooled.
            gene_BLE = self.genes.tokens(self._expression(batch))
            tokens["genes"] = gene_BLE, known_B1.expand(gene_BLE.shape[:2])
            pooled = torch.cat([pooled, self.genes.pool(gene_BLE) * known_B1], 1)
        return Encoded(tokens_BLD, mask_BL, pooled, maps, tokens)

    def _known(self, batch: Batch) -> Tensor:
        """Whose genes count, [B]: those that are there, or everybody's, where the mean genome stands for absent ones."""
        present_B = batch.present["rna"]
        return torch.ones_like(present_B) if self.options.genes.missing == "mean" else present_B

    # ------------------------------------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """For TensorBoard: the slices as the encoder gets them, and the cosines of their vectors (rows) with the genes'."""
        few = first(batch)
        was, _ = self.training, self.eval()
        image_BC = self.image_proj(self._pooled_image(self._image_tokens(few)))
        gene_BC = self.gene_proj(self.genes(self._expression(few)))
        self.train(was)
        return {"slices": row_of_images(few["image"]), "similarity": matrices([[alike(image_BC, gene_BC)]])}


def _check_gene_order(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Refuses weights that were trained on genes in another order, where both orders are known."""
    assert isinstance(module, Mgi)
    own, other = module.gene_order, state.get(f"{prefix}gene_order")
    if other is None or not other.any() or not own.any() or torch.equal(own.cpu(), other.cpu().to(own.dtype)):
        return
    raise MethodError(
        [
            f"the weights were trained on other genes, or on these in another order, than those of {module.schema.source}; "
            "pack the data with the vocabulary of the training set"
        ]
    )


def _problems(o: MgiOptions, schema: Schema) -> Iterable[str]:
    """Everything in the options and the data that an Mgi cannot be built from."""
    for name in ("image", "rna"):
        if name not in schema.fields:
            yield schema.lacks(name, "mgi")
    if (field := schema.fields.get("rna")) is not None:
        if not field.shape or field.shape[-1] is None:
            yield f"field 'rna' of {schema.source} has no fixed width (shape {field.shape}); pack it with one vocabulary"
        if o.genes.drop_constant and field.std is None:
            yield f"method.genes.drop_constant needs statistics, which {schema.source} lacks; pack it again, or set it to false"
        elif o.genes.drop_constant and field.std is not None and not (np.asarray(field.std) > 0).any():
            yield f"method.genes.drop_constant would leave no gene of {schema.source}: all are constant; mend the table"
    yield from o.genes.clip_problems("method.genes", ("rna",), schema)
    if o.learn_alpha and not 0 < o.alpha < 1:
        yield f"method.alpha: {o.alpha} cannot be learned from; start between 0 and 1"
    if o.min_temperature > o.temperature:
        yield f"method.min_temperature: {o.min_temperature} is above method.temperature ({o.temperature})"
