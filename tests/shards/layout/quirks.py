"""Which test holds which quirk of a set: docs/layouts.md tells quirks from the layouts, and each has a test here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from shards.layout.files import load

TESTED: dict[str, set[str]] = defaultdict(set)
Test = TypeVar("Test", bound=Callable[..., object])


def quirk(layout: str, *words: str) -> Callable[[Test], Test]:
    """Decorator: the test shows the quirks of a layout that hold one of `words`; all of them without words."""
    known = load(layout).quirks
    lost = [w for w in words if not any(w in q for q in known)]
    assert not lost, f"{layout} has the quirks {known}"
    TESTED[layout] |= {q for q in known if not words or any(w in q for w in words)}
    return lambda test: test
