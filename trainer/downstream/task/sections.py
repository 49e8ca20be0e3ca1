"""The sections of a task: data, augmentation, protocol, encoder, output and what stands beside the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.config.shared import OptimKind, Section

Head = Literal["auto", "linear", "mlp", "bag"]
Decoder = Literal["auto", "two_way", "upernet", "setr_pup", "linear"]


class TaskData(Section):
    path: str | None = None
    """The data set's folder or address; none means the built-in demo cohort."""
    train: str = "train"
    val: str = "val"
    test: str = "test"
    """Splits of the data set: learning, choosing, and the one evaluation at the end."""
    workers: int = Field(2, ge=0)
    prefetch: int = Field(2, ge=1)
    max_bad_samples: int = Field(0, ge=0)
    cache: str | None = None
    cache_gb: float = Field(50.0, gt=0)
    """As in pre-training: a local folder for whole shards, and most that they may take."""


class Augment(Section):
    rotate: float = Field(0.0, ge=0, le=180)
    """Degrees either way."""
    scale: float = Field(0.0, ge=0, lt=1)
    """Zoom either way, as a share."""
    shift: float = Field(0.0, ge=0, lt=1)
    """Translation either way, as a share of the side."""
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a mirrored image."""
    brightness: float = Field(0.0, ge=0, lt=1)
    """Grey values times 1 plus or minus this."""
    crop: float = Field(1.0, gt=0, le=1)
    """Least share of the area of a random crop, before anything else; 1 crops nothing (mrm_record: 0.08, sides within 3 : 4)."""


class Protocol(Section):
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each trains anew: order, augmentation, head and (from scratch) encoder."""
    epochs: int | None = Field(50, ge=1)
    steps: int | None = Field(None, ge=1)
    """Length in steps, instead of epochs."""
    min_steps: int = Field(0, ge=0)
    """Fewest steps, for small label fractions."""
    batch: int = Field(16, ge=1)
    """Samples of an update over all ranks; fewer where the labelled patients do not fill one."""
    micro_batch: int | None = Field(None, ge=1)
    eval_batch: int = Field(16, ge=1)
    """Samples of an evaluation batch of a rank, whatever the number of ranks."""
    lr: tuple[float, ...] = (1e-3,)
    """Peak learning rates to try; the best on the validation split is taken, for each seed."""
    encoder_lr_scale: float = Field(1.0, gt=0)
    """The encoder's learning rate, in parts of the head's."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor from one layer to the one below it."""
    optimizer: OptimKind = "adamw"
    """RAdam inside Lookahead (TransMIL) needs `zero.stage=0`. SGD's momentum is the first of `betas`. (mrm_record fine-tunes by SGD at 0.9,
    ContIG by Adam.)"""
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    clip: float = Field(1.0, ge=0)
    evaluations: int = Field(20, ge=1)
    """How often the validation split is looked at, evenly; never more than once a step."""
    freeze: Literal["none", "encoder", "genes"] = "none"
    """What stays as it was: nothing, the whole encoder, or its gene side."""
    freeze_epochs: int = Field(0, ge=0)
    """The whole encoder stays as it was for so many epochs; then it trains, and the optimiser starts anew (ContIG's PALM task: 10)."""
    thaw_lr: float = Field(1.0, gt=0)
    """Factor of all learning rates from then on (ContIG's PALM task: 0.1)."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the training patients whose labels are used; smaller shares lie within larger ones."""
    shots: int | None = Field(None, ge=1)
    """Patients of each class instead of a share."""
    draw: int | Literal["seed"] = 0
    """Which draw of these patients; `seed`: another one for each seed."""
    balance: bool = False
    """Batches with equally many of each class."""
    weight_classes: bool = False
    """Linear probes: each class weighs the same."""
    solver: Literal["auto", "converged", "epochs"] = "auto"
    """Linear probes: `converged` brings every weight decay to its optimum (no learning rate, no epochs), `epochs` trains by mini-batches
    and keeps the best epoch; `auto` takes the first up to 5,000 labelled training samples."""
    weight_decays: tuple[float, ...] | None = None
    """Linear probes: weight decays to try; by default seven from 1e-4 to 100 to their optimum, or 0, 1e-4 and 1e-2 by epochs."""
    neighbours: tuple[int, ...] = (1, 5, 10, 20, 50)
    """k-NN: numbers of neighbours to try."""


class Encoder(Section):
    """The image transformer of any method that has one, built otherwise than in pre-training. New weights start so that nothing changes."""

    relative_positions: bool = False
    """A learned bias of attention for every offset of two patches, in each block and head, 0 at first (BEiT; mrm_record's SIIM task)."""
    layer_scale: float | None = Field(None, gt=0)
    """First value of a learned factor on each channel of both branches of a block; 1.0 starts at the same function (mrm_record's SIIM
    task), any other does not. null: no such factor."""
    last_norm: bool = True
    """Keep the norm behind the last block; false leaves it out, as mrm_record's published fine-tuning does, whose head has a new one."""


class Output(Section):
    head: Head = "auto"
    """`auto`: the method's own (gimp: an MLP), else linear; `linear` or `mlp` on the pooled vector, `bag`: attention over the tokens."""
    norm: bool = True
    """A layer norm before a linear head."""
    attention: int = Field(0, ge=0)
    """Slides of the test split, drawn at random, whose attention over patches is written as tables and pictures beside the result
    (docs/evaluation.md); for systems that weigh patches."""
    gradients: int = Field(0, ge=0)
    """Cases of the test split, drawn at random, of which is written what each patch or each cell of the image adds to the answer
    (integrated gradients; docs/evaluation.md)."""
    hidden: int = Field(512, ge=1)
    """Width of the MLP's or of the bag's attention layer (not of a method's own head)."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Of the MLP or bag head."""
    decoder: Decoder = "auto"
    """Segmentation, `auto`: the method's own where it has one, else UPerNet (`upernet`); or by name: MGI's two-way decoder (with
    genes), UPerNet, SETR's progressive upsampling (patches of 2, 4, 8, 16, 32 ...), one linear layer on the last tokens."""
    width: int = Field(256, ge=8)
    """Width of the decoder (not of a method's own)."""
    auxiliary: float = Field(0.0, ge=0)
    """UPerNet, SETR-PUP: weight of the same loss on an FCN head on the tokens after two thirds of the blocks, in training only; 0 has none
    (mrm_record's SIIM task: 0.4)."""
    queries: int = Field(16, ge=1)
    """Two-way decoder: gene tokens are pooled to so many."""
    mask_token: bool = False
    """Two-way decoder: one more, learned query gives the mask."""
    ties: Literal["efron", "breslow"] = "efron"
    """Cox loss: how tied times count."""
    survival: Literal["cox", "intervals", "weibull", "log_logistic"] = "cox"
    """Survival: Cox's partial likelihood, whose risk sets are batches; or a likelihood of which batches are only means: of `intervals` of
    time (MCAT, PORPOISE), or of time itself, whose location and scale the head gives (accelerated failure time)."""
    intervals: int = Field(4, ge=2)
    """`survival=intervals`: so many, with equally many events of the training split in each."""
    alpha: float = Field(0.0, ge=0, lt=1)
    """`survival=intervals`: weight that is taken from the censored."""
    mask_loss: Literal["bce_dice", "focal_dice"] = "bce_dice"
    """Segmentation: cross-entropy and Dice, or focal loss and Dice with squares (mrm_record's SIIM task)."""
    mask_weights: tuple[float, float] | None = None
    """Weights of these two terms; 1 and 1, or 2 and 1 with focal loss, by default (ContIG's PALM task: 0.2 and 0.8)."""


class Reference(Section):
    system: str
    metric: str
    value: float
    data: str


class Bootstrap(Section):
    draws: int = Field(1000, ge=100)
    seed: int = 0
    level: float = Field(0.95, gt=0, lt=1)


class Leak(Section):
    accept: bool = False
    """Go on although test patients were in pre-training; the result says so in its first line."""
    near: bool | None = None
    """Look for films and bags of other patients that look alike (docs/evaluation.md); null: up to 20,000 films and 4 GB of bags."""
