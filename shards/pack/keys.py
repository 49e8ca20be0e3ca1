"""Keys of samples from names of files and of people."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

KEY_LENGTH = 64


def short_keys(names: Sequence[str], whole: Sequence[str]) -> list[str]:
    """Keys of names, or of whole names where those repeat."""
    return [short_key(n, w) for n, w in zip(names, whole, strict=True)]


def short_key(name: str, whole: str) -> str:
    """The key of a name. A long one is cut and ends in a hash of the whole name, because a tar's member names are short."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", name).strip("_-") or "image"
    if len(key) <= KEY_LENGTH:
        return key
    return f"{key[: KEY_LENGTH - 9]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
