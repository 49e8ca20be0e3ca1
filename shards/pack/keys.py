"""Keys of samples from names of files and of people."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

KEY_LENGTH = 64


def short_keys(names: Sequence[str], whole: Sequence[str]) -> list[str]:
    """Keys of names, or of whole names where those repeat.

    Long ones are cut and end in a hash of the whole name, because a tar's member names are short.
    """
    keys = [re.sub(r"[^A-Za-z0-9_-]", "_", n).strip("_-") or "image" for n in names]
    hashes = (hashlib.sha256(w.encode()).hexdigest()[:8] for w in whole)
    return [k if len(k) <= KEY_LENGTH else f"{k[: KEY_LENGTH - 9]}-{h}" for k, h in zip(keys, hashes, strict=True)]
