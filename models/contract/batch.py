"""What a method sees and gives: a record that is not read yet, arrays of a sample, tensors of a batch, losses, tokens.

Shape letters: B samples in this rank's micro batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from models.contract.bags import Bags

FieldValue: TypeAlias = Any
"""A decoded field: an array, or the text of one whose kind in the schema is `text`. A method has asked the schema before it reads."""


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

    def read(self, name: str) -> FieldValue:
        """The decoded field: arrays as stored, images uint8 [H, W, 1 or 3], masks their values [H, W, 1], text str."""
        ...

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start..stop of an array field; only their bytes are read."""
        ...


@dataclass
class Sample:
    """Arrays of one sample, made in a worker thread. `present` says of each field that may be missing whether this sample really has it."""

    arrays: dict[str, np.ndarray]
    present: dict[str, bool] = field(default_factory=dict)


class Batch(dict[str, Tensor]):
    """name -> tensor, stacked along B; a dict so that DeepSpeed's ZeRO-3 hooks can walk it.

    `present` maps a field that may be missing (`patches`, `rna`) to a bool tensor [B]. `weight_B` is 1 for a sample that counts and
    0 for the padding that makes an evaluation batch full: every loss and diagnostic is a mean weighted by it. `keys` and `patients`
    are for people.
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


class Output(dict[str, Any]):
    """What `forward` returns; a dict (of dicts) of tensors so that ZeRO-3 can hook them.

    losses       {term: scalar}: the value over the global micro batch (see models/parallel.py), gradient attached
    total        scalar: what is minimised
    diagnostics  {name: scalar without gradient}: means over the samples that count
    features     {name: [B, D] without gradient}: pooled vectors for the collapse monitors
    counts       {loss or diagnostic: scalar of this rank}: over how many a value is the mean, where that is not the number of samples
                 (a missing modality, hidden words): an evaluation weighs its batches by it
    enqueue      {queue: (rows [B, C] or [B, V, C], weights [B])} without gradient: what enters `Method.add_queue`'s after a real step
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        total: Tensor,
        diagnostics: Mapping[str, Tensor] | None = None,
        features: Mapping[str, Tensor] | None = None,
        counts: Mapping[str, Tensor] | None = None,
        enqueue: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ):
        super().__init__(
            losses=dict(losses),
            total=total,
            diagnostics=dict(diagnostics or {}),
            features=dict(features or {}),
            counts=dict(counts or {}),
            enqueue={n: (rows_B.detach(), weight_B) for n, (rows_B, weight_B) in (enqueue or {}).items()},
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

    @property
    def enqueue(self) -> dict[str, tuple[Tensor, Tensor]]:
        return self["enqueue"]


class Encoded(dict[str, Any]):
    """What `encode` returns: tokens_BLD, mask_BL (True where a token is real), pooled_BD; and, where there are any:

    maps      [B, C, H, W] each, finest first, of a method with an image encoder, for decoders of masks
    tokens    {modality: (tokens [B, L, E], which are real [B, L])}, each as wide as it is, for heads that attend to one of them
    diagnostics  {name: [B]}: numbers of each sample worth watching (gates), as `HeadOutput` has them; no part of any loss

    Tokens of bags of different lengths are kept without padding (`of_bags`). `tokens_BLD` is then filled up when it is asked for; a
    head that takes `bags` does without.
    """

    lengths: tuple[int, ...] | None = None

    def __init__(
        self,
        tokens_BLD: Tensor,
        mask_BL: Tensor,
        pooled_BD: Tensor,
        maps: tuple[Tensor, ...] = (),
        tokens: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        diagnostics: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(tokens_BLD=tokens_BLD, mask_BL=mask_BL, pooled_BD=pooled_BD)
        if maps:
            self["maps"] = maps
        if tokens:
            self["tokens"] = dict(tokens)
        if diagnostics:
            self["diagnostics"] = {n: value_B.detach() for n, value_B in diagnostics.items()}

    @classmethod
    def of_bags(
        cls,
        bags: Bags,
        pooled_BD: Tensor,
        tokens: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        diagnostics: Mapping[str, Tensor] | None = None,
        behind: tuple[Tensor, Tensor] | None = None,
    ) -> Encoded:
        """Tokens as rows of bags; a bag without rows is a sample without a real token.

        Args:
            behind: tokens of which all samples have as many, [B, M, D], and which are real [B, M]; they stand behind those of the bags.
        """
        mask_BL = bags.mask() if behind is None else torch.cat([bags.mask(), behind[1]], 1)
        encoded = cls(bags.rows_PD, mask_BL, pooled_BD, tokens=tokens, diagnostics=diagnostics)
        # The rows stand in the dictionary, where ZeRO-3 looks for tensors.
        encoded["rows_PD"] = encoded.pop("tokens_BLD")
        if behind is not None:
            encoded["behind"] = behind
        encoded.lengths = bags.lengths
        return encoded

    def bags(self) -> Bags:
        """The real tokens of each sample, without padding."""
        if self.lengths is None:
            return Bags.where(self["tokens_BLD"], self["mask_BL"])
        rows = Bags(self["rows_PD"], self.lengths)
        return rows.and_then(Bags.where(*self["behind"])) if "behind" in self else rows

    def __missing__(self, key: str) -> Tensor:
        if key != "tokens_BLD" or self.lengths is None:
            raise KeyError(key)
        filled_BND = Bags(self["rows_PD"], self.lengths).padded()
        return torch.cat([filled_BND, self["behind"][0]], 1) if "behind" in self else filled_BND

    def tokens_of(self, modality: str) -> tuple[Tensor, Tensor] | None:
        """Tokens of a modality [B, L, E] and which are real [B, L]; None where the method gives none, or did not read it."""
        return self.get("tokens", {}).get(modality)
