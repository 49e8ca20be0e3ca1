"""Settings that a pre-training run and a task have alike, since one engine carries both out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from pydantic import ConfigDict, Field

from models.contract.options import Typed

Precision = Literal["fp32", "bf16", "fp16"]
Matmul = Literal["torch", "auto"]
Compile = Literal["off", "auto"]
OptimKind = Literal["adamw", "adam", "sgd", "lars", "radam_lookahead"]
WHOLE = {
    "lars": "its rates need the norm of each weight, and sharding cuts weights into flat pieces",
    "radam_lookahead": "its slow weights are kept beside whole float32 weights",
}
"""Optimisers that run on whole float32 weights alone, and why."""


def sharding_problem(kind: str, stage: int, precision: Precision, where: str) -> list[str]:
    """Why an optimiser does not run under a ZeRO stage or in a precision."""
    if kind not in WHOLE or (stage == 0 and precision == "fp32"):
        return []
    given = f"zero.stage={stage}" if stage > 0 else f"precision={precision}"
    return [f"{where}={kind} with {given}: {WHOLE[kind]}; set zero.stage=0 and precision=fp32, or {where}=adamw"]


def precision_problem(precision: Precision, stage: int) -> list[str]:
    """Why a precision does not run under a ZeRO stage."""
    if precision == "fp32" or stage > 0:
        return []
    return [
        f"precision={precision} with zero.stage=0: DeepSpeed starts Adam's counter off by one there; set zero.stage=1"
    ]


def compile_problems(compile: Compile, stage: int, recompute: bool) -> list[str]:
    """What blocks cannot be compiled together with."""
    out = []
    if compile == "auto" and stage == 3:
        out.append(
            "compile=auto with zero.stage=3: weights of a compiled block would have to be gathered in the middle of it; set zero.stage=2 "
            "or less, or compile=off"
        )
    if compile == "auto" and recompute:
        out.append(
            "compile=auto with activation_checkpointing=true: a compiled block keeps what its own backward pass needs, and dropout would "
            "not be drawn alike when it is recomputed; set activation_checkpointing=false, or compile=off"
        )
    return out


class Section(Typed):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Zero(Section):
    stage: Literal[0, 1, 2, 3] = 1
    """What DeepSpeed shards: 0 nothing, 1 optimizer state, 2 and gradients, 3 and weights."""
    offload_optimizer: Literal["none", "cpu"] = "none"
    """Keep optimizer state in host memory (stages 1 to 3)."""
    offload_params: Literal["none", "cpu"] = "none"
    """Keep sharded weights in host memory (stage 3)."""
    bucket: int | None = Field(None, gt=0)
    """Elements in a communication bucket; by default an eighth of the trainable parameters, within 1e6 and 5e7."""


BACKGROUND = 10_000_000
"""Parameters from which on a checkpoint takes so long to write that its copies are worth their memory."""


class Checkpoint(Section):
    every: int | None = Field(None, ge=1)
    """Steps between checkpoints; by default once an epoch."""
    keep: int = Field(2, ge=1)
    """How many of the newest are kept."""
    keep_every: int | None = Field(None, ge=1)
    """Also keep every checkpoint whose step is a multiple of this."""
    write: Literal["auto", "background", "wait"] = "auto"
    """background: a thread of each rank writes copies in host memory while training goes on; wait: training waits for the disk; auto:
    background from 10 million parameters on."""

    def background(self, parameters: int) -> bool:
        """Whether training goes on while a checkpoint of so many parameters is written."""
        return self.write == "background" or (self.write == "auto" and parameters >= BACKGROUND)


class Rollback(Section):
    times: int = Field(0, ge=0, le=100)
    """Times that a run goes back to a checkpoint before a spike and leaves its samples out; 0 never does."""
    steps: int = Field(3, ge=1)
    """Bad steps in a row that make a spike: not finite, or with a loss far above those before."""
    spike: float = Field(10.0, gt=1)
    """Far above: more than so many spreads over the median of the last losses."""
    over: int = Field(64, ge=8, le=10_000)
    """Losses that a new one is compared with; before there are so many none is far above."""
    before: int = Field(1, ge=0)
    """Steps before a spike that are left out as well: the update that did harm came before the loss that shows it."""


class Health(Section):
    max_bad_steps: int = Field(10, ge=0)
    """Non-finite steps of a run that are skipped before it ends with an error."""
    rollback: Rollback = Rollback()
    """Going back before a spike of the loss; off unless `rollback.times` is given."""
    monitor_every: int = Field(10, ge=1)
    """Steps between collapse readings (feature standard deviation, effective rank)."""
    notice: float = Field(30.0, gt=0)
    """Seconds after which a step (of five median ones, too) or a wait for data is said to be slow, with who or what is waited for."""
    hang_factor: float = Field(20.0, ge=0)
    """A step that takes longer than so many median steps (and than the floor) ends the run as a hang; 0 never does."""
    hang_floor: float = Field(600.0, gt=0)
    """Seconds that any step may take."""
    hang_pause: float = Field(3600.0, gt=0)
    """Seconds that start-up, waiting for data, an evaluation, a save or the finish may take."""


class Log(Section):
    every: int = Field(10, ge=1)
    """Steps between lines on the terminal; metrics.jsonl gets every step."""
    tensorboard: bool = True


class Resume(Section):
    accept_data: bool = False
    """Go on although the data set's fingerprint differs from the checkpoint's."""
    accept_config: bool = False
    """Go on although the configuration differs from the run's."""
    accept_code: bool = False
    """Fine-tunes: take results and go on with trainings that other versions of the code began; the result names them."""


class RunSettings(Protocol):
    """What `Config` and `Task` both hold under the same keys; a task hands its own on to the engine (`settings_of`)."""

    @property
    def precision(self) -> Precision: ...
    @property
    def matmul(self) -> Matmul: ...
    @property
    def compile(self) -> Compile: ...
    @property
    def activation_checkpointing(self) -> bool: ...
    @property
    def zero(self) -> Zero: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def health(self) -> Health: ...
    @property
    def log(self) -> Log: ...
    @property
    def resume(self) -> Resume: ...
    @property
    def deepspeed(self) -> Mapping[str, Any]: ...


SHARED = tuple(name for name, member in vars(RunSettings).items() if isinstance(member, property))


def settings_of(settings: RunSettings) -> dict[str, Any]:
    """The shared settings by key, as they stand."""
    return {name: getattr(settings, name) for name in SHARED}
