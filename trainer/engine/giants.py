"""Refuses a method that this machine cannot hold, before it is allocated: else the system ends the process without a word."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import psutil
import torch
from torch.overrides import TorchFunctionMode

from models.contract import Method, Options, Schema
from trainer.errors import UserError

MOST_TOKENS = 1_000_000
"""Patches of an image; attention over more has never been tried, and tables of their positions alone take gigabytes."""

SMALL = 4_000_000
"""Numbers (16 MB) up to which a method is built as it is to be counted."""
ENLARGING = ("new_empty", "new_full", "new_ones", "new_zeros", "pad", "repeat", "repeat_interleave", "resize_", "tile")
"""What gives more numbers than it takes, by sizes that it is told."""
OUTER = ("cartesian_prod", "cdist", "einsum", "ger", "kron", "meshgrid", "outer")
"""What gives a number for each tuple of numbers."""


def refuse_giants(cls: type[Method], options: Options, schema: Schema) -> None:
    """Raises a UserError where the float32 weights alone are more than this machine's memory, or an image has too many patches."""
    for name, group in _groups(options, "method"):
        side, patch = getattr(group, "image_size", None), getattr(group, "patch", None)
        if side and patch and (tokens := (side // patch) ** 2) > MOST_TOKENS:
            raise UserError(
                f"{name}: images of {side} in patches of {patch} are {tokens:,} tokens, at most {MOST_TOKENS:,}: "
                "use smaller images or larger patches"
            )
    parameters, memory = _parameters(cls, options, schema), psutil.virtual_memory().total
    if 4 * parameters > memory:
        raise UserError(
            f"method: {parameters:,} parameters take {4 * parameters / 1e9:,.0f} GB in float32, this machine has {memory / 1e9:,.0f} GB: "
            "give smaller widths (method.*dim) or depths"
        )


def _groups(options: Options, name: str) -> Iterator[tuple[str, Options]]:
    """The options, then every group in them, with their dotted names."""
    yield name, options
    for key in type(options).model_fields:
        if isinstance(group := getattr(options, key), Options):
            yield from _groups(group, f"{name}.{key}")


def _parameters(cls: type[Method], options: Options, schema: Schema) -> int:
    """How many; 0 where the method cannot be built so (then it is built, and says why).

    Counted on tensors without memory, unless it is small: what those compute loads torch's compiler, two seconds of every process.
    """
    for place in (_Small(), torch.device("meta")):
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), place:
            warnings.simplefilter("ignore")
            with contextlib.suppress(Exception):
                return sum(p.numel() for p in cls(options, schema).parameters())
    return 0


class _Small(TorchFunctionMode):
    """Ends whatever is built in it before it holds more than `SMALL` numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        given = [*args, *kwargs.values()]
        if self.held + _at_most(func, given) > SMALL:
            raise MemoryError(f"more than {SMALL:,} numbers")
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and not any(isinstance(a, torch.Tensor) for a in given):
            self.held += result.numel()
        return result


def _at_most(func: Callable[..., object], given: Sequence[object]) -> int:
    """As many numbers as a call with these arguments can give, or more."""
    tensors, sizes = [a for a in given if isinstance(a, torch.Tensor)], _product(given)
    if not tensors:
        return sizes**2 if func is torch.eye else sizes
    numel = math.prod(max(1, t.numel()) for t in tensors)
    if getattr(func, "__name__", "") in ENLARGING:
        return sizes * numel
    if getattr(func, "__name__", "") in OUTER:
        return numel
    # At most what they are broadcast to; a matrix product has no more.
    backwards = [t.shape[::-1] for t in tensors]
    return math.prod(max(1, *side) for side in itertools.zip_longest(*backwards, fillvalue=1))


def _product(given: Sequence[object]) -> int:
    """Of all integers, in lists too, as if each were a size."""
    factors = (
        _product(a) if isinstance(a, (list, tuple)) else max(1, abs(a)) if isinstance(a, int) else 1 for a in given
    )
    return math.prod(factors)
