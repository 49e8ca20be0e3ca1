"""Copies of tensors in host memory, taken between two steps: what a thread writes while training changes the tensors themselves."""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
ALIGNED = 64  # bytes, as torch's own allocations are


class HostCopies:
    """The copies of one save, in memory that the next save uses again.

    Memory is copied by storage, once: tensors that share it share the copy. A file of copies has so the bytes of a file of the tensors
    themselves, in which shared memory stands once too. To touch new memory takes many times as long as to copy into memory that was
    used before, so it is kept from one save to the next, and that of the first can be made ready ahead (`reserve`).
    """

    def __init__(self) -> None:
        self._ready, self._used = _new(0), 0
        self._kept: list[torch.UntypedStorage] = []
        self._free: dict[int, list[torch.UntypedStorage]] = defaultdict(list)
        # With the memory copied, so that it is not given to another tensor while a copy of it is looked for here.
        self._copied: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all copies."""
        return sum(s.nbytes() for s in self._kept)

    def reserve(self, size: int) -> None:
        """Touches memory for so many bytes of copies; what they do not fit into is made when they are. Nobody may read copies now."""
        self._kept, self._used = [], 0
        if size <= self._ready.nbytes():
            return
        self._ready = _new(0)  # not both at once
        # Where there is not so much memory the save says so, if it is still so then.
        with contextlib.suppress(RuntimeError, MemoryError):
            ready = _new(size)
            _bytes(ready).fill_(0)
            self._ready = ready

    def begin(self) -> None:
        """Nobody reads the copies of the last save any more: their memory is free for those of this one."""
        self._free = defaultdict(list)
        for storage in self._kept:
            self._free[storage.nbytes()].append(storage)
        self._kept, self._copied = [], {}

    def end(self) -> None:
        """All is copied: memory that this save had no use for is given back."""
        self._free, self._copied = defaultdict(list), {}
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # copies out of a device's memory are under way until here

    def of(self, tree: T) -> T:
        """`tree` (mappings, lists, tuples of tensors and plain data) as it is now."""
        copies: dict[int, object] = {id(t): self._copy(t) for t in _tensors(tree)}
        # Whatever is no tensor is copied by Python, which takes for each tensor what stands under its number here.
        return copy.deepcopy(tree, copies)

    def _copy(self, t: Tensor) -> Tensor:
        held = self._storage(t.untyped_storage())
        new = torch.empty(0, dtype=t.dtype).set_(held, t.storage_offset(), t.size(), t.stride())
        new = torch.nn.Parameter(new) if isinstance(t, torch.nn.Parameter) else new
        # DeepSpeed gives tensors numbers of their own, which are written too.
        new.__dict__.update(copy.deepcopy(t.__dict__))
        return new.requires_grad_(t.requires_grad)

    def _storage(self, source: torch.UntypedStorage) -> torch.UntypedStorage:
        if source._cdata not in self._copied:
            spare = self._free[source.nbytes()]
            held = spare.pop() if spare else self._cut(source.nbytes())
            _bytes(held).copy_(_bytes(source), non_blocking=True)
            self._kept.append(held)
            self._copied[source._cdata] = (source, held)
        return self._copied[source._cdata][1]

    def _cut(self, size: int) -> torch.UntypedStorage:
        """A storage of its own, in memory that is ready where there is enough: only its own bytes are written to a file."""
        begin = -(-self._used // ALIGNED) * ALIGNED
        if size == 0 or begin + size > self._ready.nbytes():
            return _wanted(size)
        self._used = begin + size
        memory = _bytes(self._ready).numpy()
        return torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=begin).untyped_storage()


def _new(size: int) -> torch.UntypedStorage:
    # Pinned where there is a device: only then does a copy run at the speed of the bus.
    return torch.empty(size, dtype=torch.uint8, pin_memory=torch.cuda.is_available()).untyped_storage()


def _wanted(size: int) -> torch.UntypedStorage:
    try:
        return _new(size)
    except RuntimeError as e:
        raise MemoryError(
            f"no host memory for a copy of {size / 1e6:.0f} MB; checkpoint.write=wait copies nothing"
        ) from e


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _tensors(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
        return
    inner: Iterable[object] = ()
    if isinstance(tree, Mapping):
        inner = tree.values()
    elif isinstance(tree, list | tuple):
        inner = tree
    for value in inner:
        yield from _tensors(value)
