"""When grey films are decoded by machine code of medpair's own (jpeg_grey.py) in place of the library: the same pixels, sooner.

It is loaded once a process has read so many bytes of them that it is worth it; before, where numba is missing or does not work, and
for every file of which it is not sure, the library decodes. No result depends on which of them did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiled.loading import Loading, why_not

if TYPE_CHECKING:
    import numpy as np

    from shards.format.jpeg_grey import Box

WORTH = 32 << 20
"""Bytes of grey JPEGs, some 0.3 s of decoding, from which on it is loaded (0.6 s with numba, compiled by an earlier process)."""
_MODULE = "shards.format.jpeg_grey"


def why_not_own() -> str:
    """Why films are decoded by the library alone here; empty where they are not."""
    return why_not(_MODULE)


class Own:
    """Decodes once it is worth it; one object for all threads of a process."""

    def __init__(self, worth: int = WORTH):
        self._loaded = Loading(_MODULE, worth, "grey JPEGs are decoded by the library alone")

    def decode(
        self, data: bytes, divisor: int, box: Box | None, home: np.ndarray | None = None
    ) -> tuple[np.ndarray, int, int] | None:
        """`jpeg_grey.decode`; None where the library has to be asked."""
        if not self._loaded(len(data)):
            return None
        from shards.format import jpeg_grey

        return jpeg_grey.decode(data, divisor, box, home)


own = Own()
