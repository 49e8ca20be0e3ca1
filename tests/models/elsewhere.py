"""A device that this machine does not have: tensors on it are CPU tensors that say that they lie elsewhere.

Each operation is computed on the CPU, but, as on a GPU, refuses tensors of two devices unless one of them is a single number that
lies on the CPU, and gives no NumPy array. To PyTorch the device is `meta`, the one besides the CPU that every build knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE, HOST = torch.device("meta"), torch.device("cpu")
AUTOCAST = torch.autocast
MOVES = ("aten._to_copy", "aten.copy_", "aten.set_", "aten._local_scalar_dense")


class There(Tensor):
    """A tensor on the device; `here`: its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )

    def __init__(self, here: Tensor):
        self.here = here

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(func, args, dict(kwargs or {}))


class Elsewhere(TorchDispatchMode):
    """While it is entered tensors can be made on the device, and moved to it and back."""

    def __enter__(self) -> Elsewhere:
        self._words = _Words()
        self._words.__enter__()
        self._autocast, torch.autocast = torch.autocast, _autocast  # type: ignore[misc, assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.autocast = self._autocast  # type: ignore[misc]
        self._words.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return computed(func, args, dict(kwargs or {}))


class _Words(TorchFunctionMode):
    """What reads or writes values before an operation is dispatched."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device, leaf = kwargs.pop("device"), kwargs.pop("requires_grad", False)
            return func(*args, **kwargs).to(device).requires_grad_(leaf)
        if func is Tensor.new_tensor:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs).to(args[0].device)
        if func is Tensor.tolist:
            return here(args[0]).tolist()
        return func(*args, **kwargs)


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    return AUTOCAST("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there, moves = [t for t in tensors if isinstance(t, There)], str(func).startswith(MOVES)
    stray = [t for t in tensors if not isinstance(t, There) and t.dim()]
    if there and stray and not moves:
        raise RuntimeError(f"{func}: tensors of two devices, {[tuple(t.shape) for t in stray]} on the CPU")
    asked = kwargs.get("device")
    away = bool(there) if asked is None else torch.device(asked) == DEVICE
    if asked is not None:
        kwargs["device"] = HOST
    found = func(*tree_map(here, args), **tree_map(here, kwargs))
    if not away:
        return found
    known = {id(t.here): t for t in there}  # an operation in place gives what it was given
    return tree_map(lambda t: known.get(id(t), There(t)) if isinstance(t, Tensor) else t, found)


def here(value: Any) -> Any:
    return value.here if isinstance(value, There) else value
