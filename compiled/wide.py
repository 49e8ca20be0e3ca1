"""How many lanes compiled functions have (compiled/lanes.py), and whether this processor has registers for them; without numba."""

from __future__ import annotations

import os

from compiled.objects import processor

REGISTERS, WIDE = 4, 8
LANES = REGISTERS * WIDE
NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi2")
"""Of a processor, in LLVM's words; any other one would do each lane by itself."""


def is_wide() -> bool:
    """Whether the processor that code is compiled for has them, and numba is not told to leave them alone."""
    allowed = os.environ.get("NUMBA_ENABLE_AVX", "1") != "0"
    return allowed and {f"+{name}" for name in NEEDED} <= {*processor()[1].split(",")}
