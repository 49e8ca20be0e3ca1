"""A task as a typed claim: data, label, kind, metric, protocol. `configs/task/NAME.yaml`, or any file of a user's own (read.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from models.contract.masks import MaskField
from models.contract.options import several
from trainer.config.shared import Checkpoint, Compile, Health, Log, Matmul, Precision, Resume, Section, Zero
from trainer.downstream.task.other_data import OtherData
from trainer.downstream.task.rules import problems_of
from trainer.downstream.task.sections import Augment, Bootstrap, Encoder, Leak, Output, Protocol, Reference, TaskData

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "survival", "segmentation", "retrieval"]
Mode = Literal["finetune", "scratch", "linear", "knn", "zeroshot"]
Uncertain = Literal["ignore", "ones", "zeros", "class"]


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
    matmul: Matmul = "torch"
    compile: Compile = "off"
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
