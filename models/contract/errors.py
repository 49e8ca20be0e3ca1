"""The one error of a method: options, data or weights that it cannot be built from."""

from __future__ import annotations

from collections.abc import Sequence


class MethodError(ValueError):
    """Options or data that a method cannot be built from; every problem is listed."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
