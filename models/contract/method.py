"""What a method is: its stages, its parameter groups, and the verbs that the trainer and the fine-tune runner call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import options as _options
from models.contract.batch import Batch, Encoded, Output, Record, Sample
from models.contract.head import Head, TargetSpec
from models.contract.image_encoder import ImageEncoder
from models.contract.schema import Schema
from models.contract.stacking import stack

IMAGE_SIDE = ("image", "slide")
"""The modalities that a picture is made of; the others say something of the same patient."""


@dataclass(frozen=True)
class Stage:
    """One part of pre-training. The trainer runs a method's stages in order, each with an optimiser of its own.

    `fields` is what `sample` reads in this stage; a data set has them all, though not every sample does. `optional` are fields that it
    reads too where a data set has them (the second and third image of a study): `sample` says by `present` what a sample has.
    `order` names the loader's strategy (shuffle, patient_unique, class_balanced by `order_label`). `compares` says that a loss compares
    samples, so that accumulation would change it and is refused. `select` is (metric on the validation split, "max" or "min"): the best
    weights go on, else the last. `epochs` is the recommended length; recipes override it.
    """

    name: str
    fields: tuple[str, ...]
    order: Literal["shuffle", "patient_unique", "class_balanced"] = "shuffle"
    order_label: str | None = None
    compares: bool = False
    select: tuple[str, Literal["max", "min"]] | None = None
    epochs: int = 100
    optional: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """All fields that `sample` may ask for."""
        return (*self.fields, *self.optional)


@dataclass
class Group:
    """Parameters that share a learning-rate and a weight-decay multiplier."""

    name: str
    params: list[nn.Parameter]
    lr_scale: float = 1.0
    decay_scale: float = 1.0


class Method(nn.Module):
    """Base of every method. A subclass sets `Options`, builds its modules in `__init__(options, schema)` and fills in
    `stages`, `sample`, `forward` and `encode`; the rest has defaults.

    Parameters are created fully in `__init__`. Forward casts its inputs to `self.dtype` (the engine may hold bf16 weights)
    and does delicate sums in float32.
    """

    Options: ClassVar[type[_options.Options]] = _options.Options
    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    pairs: ClassVar[str] = ""
    """What it learns from, in a few words: "slide bag + RNA-seq"."""
    outline: ClassVar[Mapping[str, str]] = {}
    """{stage of pre-training: the fields it reads, in words}, for people who have no data at hand: {"pretrain": "image, rna"}. `stages`
    decides."""
    # What `sample` reads while no stage is entered (encode, fine-tuning, export); a task narrows it to what it may use.
    inputs: tuple[str, ...] = ()
    modalities: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "image": ("image",),
        "slide": ("patches", "coords"),
        "genes": ("rna",),
    }
    """{modality: its fields, whether a task reads them or not}. A method that reads other fields says so. (`present` of a sample and of a
    batch goes by field: `patches`, `rna`.)"""
    # Modalities without which `encode` has no answer, by name; none where it does with what is there.
    needs: ClassVar[tuple[str, ...]] = ()
    draws_masks: ClassVar[bool] = False
    """Whether `task_head` draws the masks of a segmentation from `Encoded["maps"]`, in place of a task's decoder (`output.decoder`)."""

    def __init__(self, options: _options.Options, schema: Schema):
        super().__init__()
        self.options = options
        self.schema = schema
        self.stage = ""
        self.queues: dict[
            str, tuple[int, int]
        ] = {}  # of each queue its places, and rows that a sample gives, by `add_queue`

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def stages(self) -> tuple[Stage, ...]:
        """Stages of pre-training, in order; none for a system that learns from a task's labels alone."""
        return ()

    @classmethod
    def unlearned(cls, options: _options.Options) -> str:
        """Why runs with these options leave `encode` untrained, and what they are for; nothing where it is trained."""
        return ""

    def enter(self, stage: str) -> None:
        """Makes `stage` the current one: sets `requires_grad` and what `sample` and `forward` do."""
        self.stage = stage

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        """Arrays of one sample for the current stage, or of `inputs` while no stage is entered; all randomness comes from `rng`.

        Every sample has all arrays in one shape each, zeros in place of a field that is missing. Runs in a worker thread.
        """
        raise NotImplementedError

    def untold(self, record: Record) -> str:
        """Of a sample whose fields are there, but without anything to learn from: what is missing, and what to change; else ""."""
        return ""

    def made_of(self) -> Mapping[str, Iterable[str]]:
        """{option: keys of the samples that its file was made of}: training samples, none of which may be held back now."""
        return {}

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stacks samples (what the loader has stacked already is taken as it is); override it when arrays are ragged.

        Raises:
            MethodError: samples that hold other arrays than the others, or an array in several shapes.
        """
        return stack(samples)

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError

    def encode(self, batch: Batch) -> Encoded:
        """Tokens and pooled vector of the deployed encoder; no masking, no randomness in eval mode."""
        raise NotImplementedError

    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        """{map: share of each patch of a slide in the pooled vector [B, N]}, float32, for a system that weighs patches itself.

        Called in eval mode, without gradient. Shares sum to 1 over a slide's real patches; padding, and a slide without patches, have 0.
        A system whose head weighs the patches says it there (`Head.attention_maps`); one that has no such weights leaves this out.
        """
        return {}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        """The modules whose output [..., N, K] are the patches' scores, of which the shares of `attention_maps` are the softmax.

        Of a class token: the module that gives a number of each patch, 0, which all layers add to its scores, and by which it counts in
        the means of landmarks. Empty where there are no maps, or their shares are no softmax over patches of what a module gives.
        """
        return ()

    def image_encoder(self) -> ImageEncoder | None:
        """The module that sees images, for layer decay, dense tasks and export; None without one. Where there is one, `encode` gives its
        `maps`. A method that is exported to timm says what happens to an image before and after it: `ShowsView`."""
        return None

    def task_head(self, target: TargetSpec, pooled: int, tokens: int) -> Head | None:
        """The head that this system has for a task, given the widths of its pooled vector and of its tokens; None: any will do.

        It is what a task's `output.head: auto` means, so that a system is not measured without a part of its own.
        """
        return None

    def fields_of(self, *modalities: str) -> tuple[str, ...]:
        """The fields of these modalities among `inputs`, in their order."""
        names = {f for m in modalities for f in self.modalities.get(m, ())}
        return tuple(f for f in self.inputs if f in names)

    def parts(self, modality: str) -> tuple[str, ...]:
        """Beginnings of the names of the parameters that read this modality alone, which a task may freeze; none without such a part."""
        own = f"{modality}."
        return (own,) if any(n.startswith(own) for n, _ in self.named_parameters()) else ()

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

    def at(self, done: float) -> None:
        """Called before each step and evaluation: `done`, 0 to 1, is the share of the stage's updates that are made, also after a resume.

        Sets plain numbers that `forward` reads (temperatures, warm-ups); never `requires_grad`, which belongs to `enter`.
        """

    def teachers(self, done: float) -> dict[str, tuple[str, float]]:
        """{prefix of an EMA copy: (prefix it follows, momentum)}, `done` as in `at`; the trainer updates the copies after a real step.

        Parameters alone are averaged: a teacher's batch norms keep their own running numbers. `enter` freezes the copies.
        """
        return {}

    def add_queue(self, name: str, size: int, width: int, rows: int = 1) -> None:
        """A ring of `size` rows that outlives a step: buffers queue_NAME [size, width], queue_NAME_valid [size], queue_NAME_at.

        `forward` reads them, and gives what is to enter as `Output(enqueue={NAME: (rows_BC, weight_B)})`: the trainer writes it after
        a real step, of all ranks in the order of the global batch, without the rows of weight 0. `rows`: how many a sample gives, as
        [B, rows, width]; of all samples the first enter first.
        """
        self.register_buffer(f"queue_{name}", torch.zeros(size, width))
        self.register_buffer(f"queue_{name}_valid", torch.zeros(size, dtype=torch.bool))
        self.register_buffer(f"queue_{name}_at", torch.zeros((), dtype=torch.int64))
        self.queues = {**self.queues, name: (size, rows)}
