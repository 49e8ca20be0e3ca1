"""All scenarios, by importing the files that hold them."""

from __future__ import annotations

from tests.remedies import adopting, mending, packing
from tests.remedies.scenario import ALL

__all__ = ["SCENARIOS", "adopting", "mending", "packing"]
SCENARIOS = tuple(ALL)
