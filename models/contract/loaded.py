"""What a file of weights gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 12


@dataclass(frozen=True)
class Loaded:
    """What a file gave: names taken from it, and names in it that the module has no place for and was told to skip."""

    path: str
    taken: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {len(self.taken)} tensors loaded, {len(self.skipped)} skipped{listed(self.skipped, ': ')}"


def listed(names: Sequence[str], lead: str, sep: str = ", ") -> str:
    """`lead` and the first names, then how many more; nothing of none."""
    more = f"{sep}and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return lead + sep.join(names[:SHOWN]) + more if names else ""
