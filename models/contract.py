"""The contract between a method and everything around it.

A method is an `nn.Module` in one file, registered by name (models/registry.py). The trainer, the fine-tune runner and the
contract test know a method through this page alone.

Shape letters: B samples in this rank's micro batch, G samples in the global micro batch (all ranks), L tokens, D width.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from models.deployed import ImageView

# ---------------------------------------------------------------------------------------------------- what a method sees


class Record(Protocol):
    """One sample, not read yet: every call reads only what it names. Implemented by the shard reader."""

    @property
    def key(self) -> str: ...

    @property
    def patient(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str | float | None]:
        """Class names or numbers; None where missing."""
        ...

    def has(self, name: str) -> bool:
        """Whether this sample has the field (a modality may be missing)."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array field, from its header alone."""
        ...

    def read(self, name: str) -> Any:
        """The decoded field: arrays as stored, images uint8 [H, W, C], text str."""
        ...

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start..stop of an array field; only their bytes are read."""
        ...


@dataclass(frozen=True)
class Field:
    """What is known of a field before any sample is read. `shape` has None where samples differ."""

    name: str
    kind: Literal["image", "array", "text", "json"]
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    vocabulary: tuple[str, ...] | None = None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    meaning: Mapping[str, str] = field(default_factory=dict)  # what the numbers are, such as {"encoder": "conch_v15"}


@dataclass(frozen=True)
class Label:
    """A label column: `class` with its names in code order, or `number`."""

    name: str
    kind: Literal["class", "number"]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What a data set offers. Widths, counts and vocabularies come from here, never from an option."""

    fields: Mapping[str, Field]
    labels: Mapping[str, Label] = field(default_factory=dict)
    source: str = "the data set"

    def need(self, name: str) -> Field:
        if name not in self.fields:
            raise MethodError(
                [f"{self.source} has no field '{name}' (it has: {', '.join(sorted(self.fields)) or 'none'})"]
            )
        return self.fields[name]

    def need_label(self, name: str) -> Label:
        if name not in self.labels:
            raise MethodError(
                [f"{self.source} has no label '{name}' (it has: {', '.join(sorted(self.labels)) or 'none'})"]
            )
        return self.labels[name]


class MethodError(ValueError):
    """Options or data that a method cannot be built from; every problem is listed."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


# ---------------------------------------------------------------------------------------------------------------- options


class Options(BaseModel):
    """Base of a method's options: frozen, documented, unknown keys refused with the nearest one named."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str = "method") -> Any:
        """Options from plain data.

        Raises:
            MethodError: all unknown keys and wrong values at once, as `where.KEY: what (did you mean ...)`.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as e:
            raise MethodError([explain(cls, p, where) for p in e.errors()]) from e


def explain(model: type[BaseModel], problem: Mapping[str, Any], where: str) -> str:
    """One pydantic problem as a sentence; an unknown key gets its nearest neighbour in the (nested) model it stands in."""
    path = [str(p) for p in problem["loc"]]
    name = ".".join([where, *path]) if where else ".".join(path)
    if problem["type"] != "extra_forbidden":
        return f"{name}: {problem['msg']} (got {problem.get('input')!r})"
    owner: Any = model
    for part in path[:-1]:
        annotation = owner.model_fields[part].annotation if part in getattr(owner, "model_fields", {}) else None
        owner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else owner
    known = list(owner.model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
    return f"{name}: unknown key; {hint}"


# ---------------------------------------------------------------------------------------------------------- data in, out


@dataclass
class Sample:
    """Arrays of one sample, made in a worker thread. `present` says which modalities the sample really has."""

    arrays: dict[str, np.ndarray]
    present: dict[str, bool] = field(default_factory=dict)


class Batch(dict):
    """name -> tensor, stacked along B; a dict so that DeepSpeed's ZeRO-3 hooks can walk it.

    `present` maps a modality to a bool tensor [B]. `weight_B` is 1 for a sample that counts and 0 for the padding that makes
    an evaluation batch full: every loss and diagnostic is a mean weighted by it. `keys` and `patients` are for people.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        weight_B: Tensor | None = None,
        keys: Sequence[str] = (),
        patients: Sequence[str] = (),
    ):
        super().__init__(tensors)
        size = len(next(iter(tensors.values())))
        self.present = dict(present or {})
        self.weight_B = torch.ones(size) if weight_B is None else weight_B
        self.keys_B = tuple(keys)
        self.patients_B = tuple(patients)

    @property
    def size(self) -> int:
        return len(self.weight_B)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on a device; dtypes are untouched (methods cast on use)."""

        def move(t: Tensor) -> Tensor:
            return t.to(device, non_blocking=non_blocking)

        return Batch(
            {k: move(v) for k, v in self.items()},
            {k: move(v) for k, v in self.present.items()},
            move(self.weight_B),
            self.keys_B,
            self.patients_B,
        )

    def pin(self) -> Batch:
        """The same batch in pinned host memory, so that the copy to a GPU can overlap with compute."""
        pinned = Batch(
            {k: v.pin_memory() for k, v in self.items()}, {}, self.weight_B.pin_memory(), self.keys_B, self.patients_B
        )
        pinned.present = {k: v.pin_memory() for k, v in self.present.items()}
        return pinned


class Output(dict):
    """What `forward` returns; a dict (of dicts) of tensors so that ZeRO-3 can hook them.

    losses       {term: scalar}: the value over the global micro batch (see models/parallel.py), gradient attached
    total        scalar: what is minimised
    diagnostics  {name: scalar without gradient}: means over the samples that count
    features     {name: [B, D] without gradient}: pooled vectors for the collapse monitors
    counts       {loss or diagnostic: scalar of this rank}: over how many a value is the mean, where that is not the number of samples
                 (a missing modality, hidden words): an evaluation weighs its batches by it
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        total: Tensor,
        diagnostics: Mapping[str, Tensor] | None = None,
        features: Mapping[str, Tensor] | None = None,
        counts: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(
            losses=dict(losses),
            total=total,
            diagnostics=dict(diagnostics or {}),
            features=dict(features or {}),
            counts=dict(counts or {}),
        )

    @property
    def losses(self) -> dict[str, Tensor]:
        return self["losses"]

    @property
    def total(self) -> Tensor:
        return self["total"]

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        return self["diagnostics"]

    @property
    def features(self) -> dict[str, Tensor]:
        return self["features"]

    @property
    def counts(self) -> dict[str, Tensor]:
        return self["counts"]


class Encoded(dict):
    """What `encode` returns: tokens_BLD, mask_BL (True where a token is real), pooled_BD."""

    def __init__(self, tokens_BLD: Tensor, mask_BL: Tensor, pooled_BD: Tensor):
        super().__init__(tokens_BLD=tokens_BLD, mask_BL=mask_BL, pooled_BD=pooled_BD)


# ------------------------------------------------------------------------------------------------------ stages and groups


@dataclass(frozen=True)
class Stage:
    """One leg of pre-training. The trainer runs a method's stages in order, each with an optimiser of its own.

    `fields` is what `sample` reads in this stage. `order` names the loader's strategy (shuffle, patient_unique,
    class_balanced by `order_label`). `compares` says that a loss compares samples, so that accumulation would change it and
    is refused. `select` is (metric on the validation split, "max" or "min"): the best weights go on, else the last.
    `epochs` is the recommended length; recipes override it.
    """

    name: str
    fields: tuple[str, ...]
    order: Literal["shuffle", "patient_unique", "class_balanced"] = "shuffle"
    order_label: str | None = None
    compares: bool = False
    select: tuple[str, Literal["max", "min"]] | None = None
    epochs: int = 100


@dataclass
class Group:
    """Parameters that share a learning-rate and a weight-decay multiplier."""

    name: str
    params: list[nn.Parameter]
    lr_scale: float = 1.0
    decay_scale: float = 1.0


# --------------------------------------------------------------------------------------------------------------- a method


class Method(nn.Module):
    """Base of every method. A subclass sets `Options`, builds its modules in `__init__(options, schema)` and fills in
    `stages`, `sample`, `forward` and `encode`; the rest has defaults.

    Parameters are created fully in `__init__`. Forward casts its inputs to `self.dtype` (the engine may hold bf16 weights)
    and does delicate sums in float32.
    """

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    # What `sample` reads while no stage is entered (encode, fine-tuning, export); a task narrows it to what it may use.
    inputs: tuple[str, ...] = ()
    # How the image transformer starts from a file of ImageNet or MAE weights: the value of the option `init`, and the option that
    # names the file. None: the method has no such transformer.
    start_file: ClassVar[tuple[str, str] | None] = None

    def __init__(self, options: Any, schema: Schema):
        super().__init__()
        self.options = options
        self.schema = schema
        self.stage = ""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def stages(self) -> tuple[Stage, ...]:
        """Stages of pre-training, in order; none for a system that learns from a task's labels alone."""
        return ()

    def enter(self, stage: str) -> None:
        """Makes `stage` the current one: sets `requires_grad` and what `sample` and `forward` do."""
        self.stage = stage

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """Arrays of one sample for the current stage; all randomness comes from `rng`. Runs in a worker thread."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stacks samples (what the loader has stacked already is taken as it is); override it when arrays are ragged."""
        stacked = getattr(samples, "stacked", {})
        tensors = {
            n: torch.from_numpy(stacked[n] if n in stacked else np.stack([s.arrays[n] for s in samples]))
            for n in samples[0].arrays
        }
        present = {n: torch.tensor([s.present[n] for s in samples]) for n in samples[0].present}
        return Batch(tensors, present)

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError

    def encode(self, batch: Batch) -> Encoded:
        """Tokens and pooled vector of the deployed encoder; no masking, no randomness in eval mode."""
        raise NotImplementedError

    def tower(self) -> nn.Module | None:
        """The image encoder as a vision transformer (models/encoders/vit.py), for dense tasks and export; None without one."""
        return None

    def tower_input(self, batch: Batch) -> Tensor:
        """What `tower` takes, normalised [B, 3, H, W], from a batch of the deployed form (`enter("")`)."""
        raise NotImplementedError

    def image_view(self) -> ImageView | None:
        """What happens to an image before and after `tower`, for export; None without one."""
        return None

    def encode_genes(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Gene tokens [B, L, E] and which are real [B, L], for a decoder that attends to them; None without them."""
        return None

    def param_groups(self) -> list[Group]:
        """Trainable parameters; biases, norms and vectors get no weight decay."""
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        keep = self.no_weight_decay()
        # ds_shape is a parameter's true shape once ZeRO-3 has partitioned it.
        flat = {n for n, p in named if len(getattr(p, "ds_shape", p.shape)) <= 1 or n in keep}
        groups = [
            Group("decay", [p for n, p in named if n not in flat]),
            Group("no_decay", [p for n, p in named if n in flat], decay_scale=0.0),
        ]
        return [g for g in groups if g.params]

    def no_weight_decay(self) -> Iterable[str]:
        """Names of matrices that take no weight decay either (tokens, positions)."""
        return ()

    def chance(self, batch_size: int) -> dict[str, float]:
        """Value of each loss term at chance for a global micro batch of this size; terms without one are left out."""
        return {}

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """Pictures people would look at, {name: uint8 [H, W, 3]}: reconstructions, similarities. In eval mode, without gradient."""
        return {}

    def teachers(self) -> dict[str, tuple[str, float]]:
        """{prefix of an EMA copy: (prefix it follows, momentum)}; the trainer updates the copies after a real step."""
        return {}

    def queues(self) -> dict[str, Tensor]:
        """Buffers of negatives, saved and restored with the checkpoint."""
        return {}
