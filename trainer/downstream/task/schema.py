"""A task as a typed claim: data, label, kind, metric, protocol. `configs/task/NAME.yaml`, or any file of a user's own.

Long because: a task is one table of keys, read from top to bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from models.contract.masks import MaskField
from models.contract.options import several
from trainer.config import yaml_text
from trainer.config.files import CONFIGS, named_file
from trainer.config.recipe import override, section
from trainer.config.schema import explain_all
from trainer.config.shared import Checkpoint, Health, Log, OptimKind, Precision, Resume, Section, Zero
from trainer.downstream.task.other_data import OtherData
from trainer.downstream.task.rules import problems_of
from trainer.errors import UserError

TASKS, PROTOCOLS = CONFIGS / "task", CONFIGS / "protocol"
Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "survival", "segmentation", "retrieval"]
Mode = Literal["finetune", "scratch", "linear", "knn", "zeroshot"]
Head = Literal["auto", "linear", "mlp", "bag"]
Uncertain = Literal["ignore", "ones", "zeros", "class"]
Decoder = Literal["auto", "two_way", "upernet", "setr_pup", "linear"]


class TaskData(Section):
    path: str | None = None
    """The data set's folder or address; none means the built-in demo cohort."""
    train: str = "train"
    val: str = "val"
    test: str = "test"
    """Splits of the data set: learning, choosing, and the one look at the end."""
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


class Task(Section):
    name: str
    kind: Kind
    recipe: str | None = None
    """A published protocol of configs/protocol, or a file. In a task file it lies below the task's own keys, as a word above them."""
    label: str | tuple[str, ...] | None = None
    """Label of the data set; several for multilabel and regression."""
    time: str | None = None
    event: str | None = None
    """Survival: follow-up time (a number) and whether the event was seen."""
    event_value: tuple[str, ...] = ()
    """Survival: the values of `event` that are the event, all others are censored. Needed unless its words say so themselves (dead and
    alive, deceased and living, event and censored, yes and no, true and false, 1 and 0)."""
    censored: bool = False
    """Survival: `event` says 1 (or yes, true) for censored, as some tables do."""
    mask: str | tuple[str, ...] = "mask"
    """Segmentation: the mask's field; several are as many structures, independent of each other (`mask_disc` is called disc)."""
    mask_values: tuple[int, ...] | dict[str, tuple[int, ...]] = ()
    """Segmentation: values that are the object ([0] where 0 is); by default the one value above 0 that the masks hold. {structure:
    [values]}: several structures in one mask field, or the values of each of several fields."""
    mask_missing: Literal["refuse", "leave_out", "empty"] = "refuse"
    """Several structures, of which a sample lacks some: it is refused, takes no part, or `empty`: an absent mask is one without
    any object, also where a sample has none (PALM). Otherwise a sample without any mask takes no part."""
    classes: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    """Class names in order (ordinal: from the lowest grade), or {class: [values]} to group values. By default the label's own."""
    leave_out: tuple[str, ...] = ()
    """Values of the label whose samples take no part."""
    positive: str | dict[str, str] | None = None
    """Binary: the class that scores speak of; multilabel: the value that says yes, for all labels or {label: value}. Needed unless the
    words say so themselves (yes and no, present and absent, 1 and 0, case and control, tumour and normal, X and non-X)."""
    uncertain: Uncertain | dict[str, Uncertain] | None = None
    """Multilabel: what an uncertain answer ('uncertain', -1) counts for, for all labels or {label: choice}: `ignore` is unknown, `ones`
    present, `zeros` absent, `class` a third answer in training, unknown when measured. Needed where there are such answers."""
    blank: Literal["unknown", "absent"] = "unknown"
    """Multilabel: what an empty cell counts for. `absent` holds for samples of which some finding is known; others stay unknown."""
    grades: int | None = Field(None, ge=2)
    """Ordinal with a number label: grades 0 to grades - 1."""
    impute: Literal["none", "mean", "median"] = "none"
    """Regression: unknown targets in training are left out, or filled by what the known training ones give."""
    standardise: Literal["train", "each_split"] = "train"
    """Regression: z-scores (and imputed values) from the labelled training samples, or, for comparison with ContIG alone, of each split
    from its own: test targets are then scaled and filled by what the test cases say. The result says so in its first line."""
    inputs: Literal["image", "multimodal"] = "image"
    """The image side alone, or all that the method's encoder reads."""
    pad: bool = False
    """Images that are no squares are filled with black, to the right or below, so that nothing is stretched or cut off (mrm_record's SIIM
    task). By default each method fits them as in pre-training, and a segmentation scales each side by itself."""
    controls: tuple[Literal["shuffled", "missing"], ...] = ()
    """Multimodal: test again with another patient's genes, or without."""
    mode: Mode = "finetune"
    prompts: str | None = None
    """Mode zeroshot: what is said of an image of each class, a file or a name of configs/prompts (docs/zeroshot.md)."""
    metric: str | None = None
    """What is chosen on and reported first; the kind's usual one by default."""
    metrics: tuple[str, ...] = ()
    """More of them; the kind's usual ones by default."""
    method: dict[str, Any] = Field(default_factory=dict)
    """Changes to the method's options that keep its weights' shape (drop path, ...), or its images' side (positions are interpolated)."""
    image_size: int | None = Field(None, ge=8)
    """Pixels of a side of the method's images, whatever its encoder is (`method.image.image_size`)."""
    vit: dict[str, Any] = Field(default_factory=dict)
    """Of a published protocol: changes to an image encoder that is a vision transformer, options (`drop_path`) and parts (`last_norm`)
    alike; they lie below `method.image` and `encoder`, and are left out, and said to be, where the encoder is of another kind."""
    resnet: dict[str, Any] = Field(default_factory=dict)
    """The same for one that is a convolutional network."""
    groups: tuple[str, ...] = ()
    """Labels of the data set (sex, site, age_band): the primary metric within each of their values, with the worst one and its gap."""
    site: str | None = None
    """Label of the data set that says which hospital a sample comes from: how well it is read from the features, and what is left of
    the score at a site never seen (docs/sites.md)."""
    hold_out: str | None = None
    """A value of `site` that nothing is learned from or chosen by; the test split's cases of it alone are tested."""
    calibration: Literal["none", "temperature"] = "none"
    """Probabilities also as one divisor of log odds, fitted on the validation split, makes them: both in the result."""
    out: str = "runs/{task}/{method}-{mode}-{fraction}"
    data: TaskData = TaskData()
    protocol: Protocol = Protocol()
    augment: Augment = Augment()
    encoder: Encoder = Encoder()
    output: Output = Output()
    bootstrap: Bootstrap = Bootstrap()
    leak: Leak = Leak()
    tests: dict[str, OtherData] = Field(default_factory=dict)
    """{name: folder}, or {name: {path, split, reads, ...}}: further data sets, looked at once, after the test split."""
    reference: tuple[Reference, ...] = ()
    precision: Precision = "fp32"
    activation_checkpointing: bool = False
    zero: Zero = Zero()
    checkpoint: Checkpoint = Checkpoint()
    health: Health = Health()
    log: Log = Log(every=50, tensorboard=False)
    resume: Resume = Resume()
    deepspeed: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _named_values(cls, values: object) -> object:
        """Values of masks and classes by name: a single one where several may stand, class values as words."""
        if not isinstance(values, Mapping):
            return values
        values = dict(several(cls, values))
        if isinstance(data := values.get("data"), Mapping) and isinstance(paths := data.get("path"), list | tuple):
            raise ValueError(_one_data_set([str(p) for p in paths]))
        if isinstance(by_name := values.get("mask_values"), Mapping):
            values["mask_values"] = {k: [v] if isinstance(v, int) else v for k, v in by_name.items()}
        for key in ("classes", "leave_out", "event_value"):
            values[key] = _words(values[key]) if key in values else None
            if values[key] is None:
                del values[key]
        if isinstance(tests := values.get("tests"), Mapping):
            values["tests"] = {str(k): {"path": v} if isinstance(v, str) else v for k, v in tests.items()}
        if isinstance(values.get("positive"), Mapping):
            values["positive"] = {str(k): _word(v) for k, v in values["positive"].items()}
        elif values.get("positive") is not None:
            values["positive"] = _word(values["positive"])
        return values

    @model_validator(mode="after")
    def _rules(self) -> Task:
        problems = list(problems_of(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def learns(self) -> bool:
        """Whether the mode learns from the task's labels, or chooses by them; else they measure alone."""
        return self.mode != "zeroshot"

    @property
    def masks(self) -> tuple[MaskField, ...]:
        """The structures of a segmentation, a channel each: `mask` and `mask_values` put together."""
        if isinstance(self.mask_values, dict) and len(self.mask_fields) == 1:
            return tuple(MaskField(n, self.mask_fields[0], v) for n, v in self.mask_values.items())
        values = self.mask_values if isinstance(self.mask_values, dict) else {}
        same = () if isinstance(self.mask_values, dict) else self.mask_values
        names = [f.removeprefix("mask_") for f in self.mask_fields]
        return tuple(MaskField(n, f, values.get(n, same)) for n, f in zip(names, self.mask_fields, strict=True))

    @property
    def mask_fields(self) -> tuple[str, ...]:
        return (self.mask,) if isinstance(self.mask, str) else self.mask

    def uncertain_of(self, label: str) -> Uncertain | None:
        """What an uncertain answer of this label counts for; None where the task does not say."""
        return self.uncertain.get(label) if isinstance(self.uncertain, dict) else self.uncertain

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that the target is made of."""
        if self.kind == "survival":
            return (self.time or "", self.event or "")
        if self.kind == "segmentation" or self.label is None:
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label


def _one_data_set(paths: Sequence[str]) -> str:
    """What to do instead of naming several: splits are made within one, so that no patient is in two."""
    first, second = (paths[0] if paths else "FOLDER"), (paths[1] if len(paths) > 1 else "FOLDER")
    return (
        f"data.path: a fine-tune learns from one data set, these are {len(paths)}: train on one and test on another with "
        f"data.path={first} tests.NAME={second}, or pack all of them as one with a label of the hospital (docs/sites.md)"
    )


def _words(value: object) -> object:
    """Class values as words: YAML reads 0 as a number and `true` as a truth value."""
    if isinstance(value, Mapping):
        return {str(k): [_word(x) for x in (v if isinstance(v, list | tuple) else [v])] for k, v in value.items()}
    return [_word(v) for v in value] if isinstance(value, list | tuple) else value


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def find_task(name: str) -> Path:
    """The file of a task: a path, or a name in configs/task.

    Raises:
        UserError: no such file; the nearest name is given.
    """
    return named_file(name, TASKS, "--task ", "task")


def find_protocol(name: str) -> Path:
    """The file of `recipe`: a path, or a name in configs/protocol; raises as `find_task`."""
    return named_file(name, PROTOCOLS, "recipe=", "recipe")


def parse_task(values: Mapping[str, Any]) -> Task:
    """A Task from plain data.

    Raises:
        UserError: every unknown key and wrong value at once.
    """
    try:
        return Task.model_validate(values)
    except ValidationError as e:
        raise UserError(explain_all(Task, e)) from e


def build_task(name: str, words: Sequence[str], mode: str | None = None) -> tuple[Task, Path]:
    """The task of a command line, and its file. A recipe named in the file lies below its keys, one in the words above them."""
    path = find_task(name)
    values, given = yaml_text.read(path, "a task"), override({}, words)
    values.setdefault("name", path.stem)
    if (wanted := given.get("recipe", values.get("recipe"))) is not None:
        protocol = yaml_text.read(find_protocol(str(wanted)), "a protocol")
        layers = (values, protocol) if "recipe" in given else (protocol, values)
        values = merged(_without_length(layers[0], layers[1]), layers[1])
    values = override(_without_length(values, given), words)
    if mode is not None:
        values["mode"] = mode
    if section(values, "protocol", f"task {path}").get("steps"):
        values["protocol"].setdefault("epochs", None)
    return parse_task(values), path


def _without_length(values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the length that `over` gives in the other unit."""
    theirs, mine = over.get("protocol"), values.get("protocol")
    if not isinstance(theirs, Mapping) or not isinstance(mine, Mapping):
        return values
    gone = {other for one, other in (("steps", "epochs"), ("epochs", "steps")) if one in theirs}
    return {**values, "protocol": {k: v for k, v in mine.items() if k not in gone}}


def merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, section by section."""
    out = dict(base)
    for k, v in over.items():
        below = out.get(k)
        out[k] = {**below, **v} if isinstance(below, Mapping) and isinstance(v, Mapping) else v
    return out
