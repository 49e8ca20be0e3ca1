"""Upper limits of numbers that a person may give: beyond them is a slip of the keyboard, which would end in a crash or a dead machine.

Far above anything that was ever trained. What is merely too large for one machine is found when a method's size is known (trainer/plan.py).
"""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic_core import PydanticCustomError

T = TypeVar("T")
# By the name of a key, the first that fits.
LIMITS: tuple[tuple[str, int], ...] = (
    (r"(.*_)?(seed|seeds|draw)", 2**63 - 1),
    (
        r"(.*_)?(dim|hidden|width|inner|project|states|patch|chunk|fragment|groups|queries|landmarks|report_length)",
        65_536,
    ),
    (r"(.*_)?depth", 1_000),
    (r"(.*_)?(heads|conv|conv_kernel|expand|pinv_iterations|workers|prefetch)", 4_096),
    (r"(.*_)?(image_size|img_size|size)", 16_384),
    (r"(.*_)?(mlp_ratio|super_resolution|lr|grades|betas|eps)", 1_000),
    (r"(.*_)?(draws|evaluations|neighbours|epochs|keep|weight_decay|weight_decays|nodes|mem_gb)", 1_000_000),
    (r"(gpus|processes|cpus)_per_.*", 10_000),
    (r"(.*_)?(batch|window)", 10_000_000),
    (r"(.*_)?(steps|every|shots|warning|max_.*)", 1_000_000_000),
)
ANY = 10**12


def limit_of(name: str) -> int:
    return next((limit for pattern, limit in LIMITS if re.fullmatch(pattern, name)), ANY)


def within_limits(name: str | None, value: T) -> T:
    """`value`, unless it is a number (or holds one) that is not finite or beyond the limit of its name.

    Raises:
        PydanticCustomError: which it is.
    """
    limit = limit_of(name or "")
    for number in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(number, (int, float)) and not isinstance(number, bool) and not -limit <= number <= limit:
            raise PydanticCustomError("limit", "more than any use could want; at most {limit}", {"limit": f"{limit:,}"})
    return value
