"""How many lanes compiled functions have (compiled/lanes.py), and whether this processor has registers for them; without numba."""

from __future__ import annotations

from compiled.objects import processor

REGISTERS, WIDE = 4, 8
LANES = REGISTERS * WIDE
NEEDED = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi2")
"""Of a processor, in LLVM's words; any other one would do each lane by itself."""


def is_wide() -> bool:
    """Whether the processor that code is compiled for has them."""
    return {f"+{name}" for name in NEEDED} <= {*processor()[1].split(",")}
