"""Tensors in a file of torch.save, bare or in a dictionary, loaded without running code; what has no plain array is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.format.describe import Header, HeaderError
from shards.format.npy import NUMERIC

if TYPE_CHECKING:
    from torch import Tensor

BARE = ""  # the name of a tensor that is in no dictionary


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, mapped from disk where the format allows; a bare one is called `BARE`.

    Raises:
        HeaderError: not a tensor or a dictionary with tensors that loads without running code.
    """
    import torch

    try:
        value = _load(path)
    except Exception as e:  # the unpickler meets foreign bytes and raises whatever it stumbles over
        first = (str(e).splitlines() or [type(e).__name__])[0]
        fix = "save it anew as a tensor or a dictionary of tensors (torch.from_numpy of NumPy arrays)"
        raise HeaderError(f"is not a tensor that loads without running code ({first})", fix) from e
    if isinstance(value, torch.Tensor):
        return {BARE: value}
    if isinstance(value, Mapping):
        found = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
        if found:
            return found
    what = f"{type(value).__name__} without a tensor" if isinstance(value, Mapping) else type(value).__name__
    raise HeaderError(f"holds a {what}, not a tensor", "torch.save the tensor, or a dictionary of tensors")


def _load(path: Path) -> object:
    import torch

    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of before torch 1.6 cannot be mapped
        return torch.load(str(path), map_location="cpu", weights_only=True)


def tensor_header(path: Path, member: str | None) -> Header:
    """Form of a tensor; bfloat16 counts as the float32 that it becomes."""
    import torch

    tensor = _named(path, member)
    dtype = torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype
    return Header(str(dtype).removeprefix("torch."), tuple(tensor.shape))


def tensor_array(path: Path, member: str | None) -> np.ndarray:
    """The numbers of a tensor as an array of their own."""
    import torch

    tensor = _named(path, member).detach().resolve_conj().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()


def _named(path: Path, member: str | None) -> Tensor:
    found = tensors_of(path)
    if member is None and BARE not in found:
        names = ", ".join(list(found)[:8])
        raise HeaderError(f"holds a dictionary ({names})", f"name the tensor: {path.name}#{next(iter(found))}")
    if member is not None and member not in found:
        has = "it holds a bare tensor" if BARE in found else f"it has {', '.join(list(found)[:8])}"
        raise HeaderError(f"has no member '{member}'; {has}")
    tensor = found[member or BARE]
    if wrong := no_plain_array(tensor):
        raise HeaderError(*wrong)
    return tensor


def no_plain_array(tensor: Tensor) -> tuple[str, str] | None:
    """Why a tensor is no array of plain numbers, and the remedy; None where it is one."""
    import torch

    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else "sparse"
        return f"holds a {kind} tensor ({tensor.layout})", "store it dense: torch.save(x.to_dense(), ...)"
    if tensor.is_quantized:
        return f"holds a quantised tensor ({tensor.dtype})", "store its numbers: torch.save(x.dequantize(), ...)"
    if tensor.device.type == "meta":
        return "holds a tensor without numbers (device meta)", "save it again from the model or array that has them"
    if tensor.dtype.is_complex:
        return f"holds complex numbers ({tensor.dtype})", "store what you need of them, such as x.abs()"
    if tensor.dtype != torch.bfloat16 and not _in_numpy(str(tensor.dtype).removeprefix("torch.")):
        return f"holds numbers of {tensor.dtype}, which mean nothing without their scale", "store them as float16"
    return None


def _in_numpy(name: str) -> bool:
    try:
        return np.dtype(name).kind in NUMERIC
    except TypeError:
        return False
