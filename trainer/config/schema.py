"""The configuration of a run: frozen, typed, every key documented, every problem reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from trainer.config.shared import (
    Checkpoint,
    Compile,
    Health,
    Log,
    Matmul,
    OptimKind,
    Precision,
    Resume,
    Section,
    Zero,
    compile_problems,
    precision_problem,
    sharding_problem,
)
from trainer.errors import UserError

Typed = TypeVar("Typed", bound=BaseModel)


class Optim(Section):
    kind: OptimKind = "adamw"
    """AdamW, Adam (weight decay as a gradient), SGD, whose momentum is the first of `betas`, LARS, which is SGD with a rate of its own
    for every tensor that decays (You et al. 2017), or RAdam inside Lookahead. The last two need `zero.stage=0`."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    lr_batch: int | None = Field(None, ge=1)
    """`lr` and `min_lr` are meant for so many samples an update and are scaled, lr x global_batch / lr_batch; None: as they are."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay; biases, norms and what a method names take none."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of a stage's updates over which the learning rate rises linearly."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """What follows the warm-up."""
    min_lr: float = Field(0.0, ge=0)
    """Where cosine and linear end."""
    clip: float = Field(1.0, ge=0)
    """Largest global gradient norm; 0 does not clip."""


class StageConfig(Section):
    epochs: int | None = Field(None, ge=0)
    """Length in epochs; 0 skips the stage."""
    steps: int | None = Field(None, ge=0)
    """Length in steps, instead of epochs."""
    optim: dict[str, Any] = Field(default_factory=dict)
    """Keys of `optim` that differ in this stage."""


class DataPart(Section):
    path: str
    weight: float = Field(1.0, gt=0)


class Data(Section):
    path: str | tuple[DataPart, ...] | None = None
    """A data set's folder or address, a list of them, or a list of {path, weight}; none means the built-in demo cohort."""
    split: str = "train"
    val_split: str | None = "val"
    """Split that stages are selected on and that the held-back losses come from; nothing (`data.val_split=`) for none."""
    workers: int = Field(2, ge=0)
    """Reader threads of a rank."""
    prefetch: int = Field(2, ge=1)
    """Steps read ahead."""
    max_bad_samples: int = Field(0, ge=0)
    """Unreadable samples of a rank that are replaced by rule before the run ends."""
    exact_decode: bool = False
    """Decode large JPEGs whole, also where a view is at most half as fine (docs/performance.md says what that changes). A run that comes
    back without this key goes on as it began: whole, if it began before the key was there."""
    cache: str | None = None
    """A folder on a local disk for whole shards: of addresses (s3://, gs://, https://) always, of folders if it is given."""
    cache_gb: float = Field(50.0, gt=0)
    """Most that the shards in it may take, in 1e9 bytes."""

    @model_validator(mode="before")
    @classmethod
    def _listed_paths(cls, value: object) -> object:
        if isinstance(value, Mapping) and isinstance(value.get("path"), list):
            value = {**value, "path": [{"path": p} if isinstance(p, str) else p for p in value["path"]]}
        return value

    @property
    def sources(self) -> tuple[DataPart, ...]:
        if self.path is None:
            return ()
        return (DataPart(path=self.path),) if isinstance(self.path, str) else self.path


class LiveProbe(Section):
    every: int = Field(0, ge=0)
    """Steps between measurements of what the encoder knows of held-back samples (docs/training.md); 0: none."""
    label: str | None = None
    """A label of classes that nearest neighbours are asked for; none: the effective rank alone."""
    samples: int = Field(256, ge=8)
    """Most samples of `data.val_split` that are looked at, the same ones each time."""
    share: float = Field(0.01, gt=0, le=1)
    """Most of the time that all of them together may take; one that would take more is put off."""


class Monitor(Section):
    probe: LiveProbe = LiveProbe()
    """Looks at the encoder while it trains; off unless `monitor.probe.every` is given."""


class Config(Section):
    method_name: str
    """The method, as in `--method`."""
    method: dict[str, Any] = Field(default_factory=dict)
    """The method's own options (docs/methods/)."""
    out: str = "runs/{method}"
    """The run's folder. The same command with the same folder goes on where the run stopped."""
    seed: int = Field(0, ge=0)
    title: str = Field("", max_length=60)
    """How reports name this system, where a recipe is more than its method's options: "CLAM-MB", "GLoRIA*"."""
    epochs: int | None = Field(None, ge=1)
    """Length of the last stage in epochs (the recipe's or the method's when neither this nor steps is given)."""
    steps: int | None = Field(None, ge=1)
    """Length of the last stage in steps."""
    stages: dict[str, StageConfig] = Field(default_factory=dict)
    """Lengths and optimiser settings by stage."""
    global_batch: int = Field(16, ge=1)
    """Samples of an update over all ranks; constant, whatever the world size."""
    micro_batch: int | None = Field(None, ge=1)
    """Samples a rank passes at once; by default global_batch / world size, so that nothing is accumulated."""
    precision: Precision = "fp32"
    matmul: Matmul = "torch"
    """float32 matrix products on a CPU: in PyTorch's own kernels, or auto, in oneDNN's where those are near enough to float64 (AMD with
    AVX-512). The last bits of results differ."""
    compile: Compile = "off"
    """auto: blocks of the network are compiled by torch.compile, where the machine can (a C++ compiler on a CPU, Triton on a GPU). The
    last bits of results differ."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    zero: Zero = Zero()
    optim: Optim = Optim()
    data: Data = Data()
    checkpoint: Checkpoint = Checkpoint()
    health: Health = Health()
    log: Log = Log()
    monitor: Monitor = Monitor()
    """What is watched of a training beside its losses; it decides nothing of it."""
    resume: Resume = Resume()
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Raw DeepSpeed configuration laid over ours."""

    @model_validator(mode="after")
    def _rules(self) -> Config:
        problems = address_problems([s.path for s in self.data.sources])
        if self.epochs and self.steps:
            problems.append("epochs, steps: give one of them, not both")
        for name, stage in self.stages.items():
            if stage.epochs is not None and stage.steps is not None:
                problems.append(f"stages.{name}: give epochs or steps, not both")
            problems += optim_problems(self.optim, stage.optim, f"stages.{name}.optim")
        kinds: dict[str, str] = {"optim.kind": self.optim.kind}
        kinds |= {f"stages.{n}.optim.kind": str(s.optim["kind"]) for n, s in self.stages.items() if "kind" in s.optim}
        for where, kind in kinds.items():
            problems += sharding_problem(kind, self.zero.stage, self.precision, where)
        problems += compile_problems(self.compile, self.zero.stage, self.activation_checkpointing)
        problems += precision_problem(self.precision, self.zero.stage)
        if self.zero.offload_params != "none" and self.zero.stage != 3:
            problems.append("zero.offload_params: only stage 3 shards weights; set zero.stage=3")
        if self.zero.offload_optimizer != "none" and self.zero.stage == 0:
            problems.append("zero.offload_optimizer: stage 0 shards no optimizer state; set zero.stage=1 or more")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def optim_of(self, stage: str) -> Optim:
        """`optim` with what `stages.STAGE.optim` changes, its rates those of this global batch."""
        given = self.stages.get(stage, StageConfig()).optim
        optim = Optim.model_validate({**self.optim.model_dump(), **given})
        scale = self.global_batch / optim.lr_batch if optim.lr_batch else 1.0
        return optim.model_copy(update={"lr": optim.lr * scale, "min_lr": optim.min_lr * scale, "lr_batch": None})


def address_problems(paths: Sequence[str]) -> list[str]:
    """Addresses that cannot be read; what may be a secret in them is not repeated."""
    from shards.errors import DataError
    from shards.read.remote import check_url, is_url

    problems = []
    for path in filter(is_url, paths):
        try:
            check_url(path)
        except DataError as e:
            problems += [f"data.path={p}" for p in e.problems]
    return problems


def optim_problems(base: Optim, changes: Mapping[str, Any], where: str) -> list[str]:
    try:
        Optim.model_validate({**base.model_dump(), **changes})
    except ValidationError as e:
        return explain_all(Optim, e, where)
    return []


def explain_all(model: type[BaseModel], error: ValidationError, where: str = "") -> list[str]:
    """All pydantic problems as sentences, unknown keys with their nearest neighbour."""
    from models.contract import explain

    lines: list[str] = []
    for p in error.errors():
        if p["type"] == "value_error" and not p["loc"]:
            lines += str(p["ctx"]["error"]).split("\n")
        else:
            lines.append(explain(model, p, where))
    return lines


def checked(model: type[Typed], values: object) -> Typed:
    """A `model` from plain data.

    Raises:
        UserError: every unknown key and wrong value at once.
    """
    try:
        return model.model_validate(values)
    except ValidationError as e:
        raise UserError(explain_all(model, e)) from e


def parse(values: Mapping[str, Any]) -> Config:
    """A Config from plain data; raises as `checked`."""
    return checked(Config, values)


def by_todays_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration, of a run or of a fine-tune, whose method options are called as they are today, and that says how
    images were decoded; nothing else is changed.

    Raises:
        MethodError: no such method any more, or an option under two names.
    """
    from models.registry import get_method

    found = dict(stored)
    # The section of a training; of a fine-tune as a whole there is the path alone.
    if "split" in (stored.get("data") or {}):
        found["data"] = {
            "exact_decode": True,
            **stored["data"],
        }  # how all images were decoded before there was a choice
    if "precision" in stored:
        found.setdefault("matmul", "torch")
        found.setdefault("compile", "off")
    if stored.get("method"):
        found["method"] = get_method(stored["method_name"]).Options.stored(stored["method"])
    about = stored.get("about")
    if isinstance(about, Mapping) and "options" in about:
        # A fine-tune: its encoder's options, whole, and what the task changed of them.
        options = get_method(about["method"]).Options
        whole = options.parse(options.stored(about["options"])).model_dump(mode="json")
        task = {**about["task"], "method": options.todays(about["task"].get("method", {}))}
        task |= _own_decoder(about["method"], task)
        found["about"] = {**about, "options": whole, "task": task}
    return found


def _own_decoder(method: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """`output` of a stored task of masks whose system drew them with its own decoder, whichever was written there."""
    from models.registry import get_method

    if task.get("kind") != "segmentation" or "output" not in task or not get_method(method).draws_masks:
        return {}
    return {"output": {**task["output"], "decoder": method}}


# Keys that say how, not what: they may change between two starts of one run.
FREE_KEYS = (
    "out", "title", "micro_batch", "data.workers", "data.prefetch", "data.path", "data.max_bad_samples", "data.cache",
    "checkpoint.", "health.", "log.", "monitor.", "resume.", "zero.bucket", "activation_checkpointing",
    "about.code_before",
    "data.set.",  # words on the data, terms among them, which may be stated later; what is read has a hash in every training and result
    "init.path",  # weights may move as data may: their hash stands beside it
)  # fmt: skip


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any], accepted: tuple[str, ...] = ()) -> list[str]:
    """`key: old -> new` for every key that decides a run's result. data.path may move: the fingerprint guards the data.

    `accepted`: beginnings of further keys that may differ.
    """
    a, b, free = flatten(old), flatten(new), FREE_KEYS + accepted
    changed = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and not k.startswith(free))
    return [f"{k}: {a.get(k, 'not set')} -> {b.get(k, 'not set')}" for k in changed]


def out_folder(config: Config) -> Path:
    return Path(config.out.format(method=config.method_name))
