"""Data sets: packed once, read by offset, in an order that is a pure function of seed, epoch and position."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shards.load.stream import Stream
    from shards.load.stream import Stream as stream  # noqa: N813

__all__ = ["stream"]


def __getattr__(name: str) -> type[Stream]:
    """`shards.stream`, looked up when it is first asked for: it needs torch, which this package does without otherwise."""
    if name == "stream":
        from shards.load.stream import Stream

        return Stream
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
