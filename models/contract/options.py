"""Options of a method, parsed strictly: every unknown key and wrong value at once, with the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class MethodError(ValueError):
    """Options or data that a method cannot be built from; every problem is listed."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Options(BaseModel):
    """Base of a method's options: frozen, documented, unknown keys refused with the nearest one named."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str = "method") -> Any:
        """Options from plain data.

        Raises:
            MethodError: all unknown keys and wrong values at once, as `where.KEY: what (did you mean ...)`.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as e:
            raise MethodError([explain(cls, p, where) for p in e.errors()]) from e


def explain(model: type[BaseModel], problem: Mapping[str, Any], where: str) -> str:
    """One pydantic problem as a sentence; an unknown key gets its nearest neighbour in the (nested) model it stands in."""
    path = [str(p) for p in problem["loc"]]
    name = ".".join([where, *path]) if where else ".".join(path)
    if problem["type"] != "extra_forbidden":
        return f"{name}: {problem['msg']} (got {problem.get('input')!r})"
    owner: Any = model
    for part in path[:-1]:
        annotation = owner.model_fields[part].annotation if part in getattr(owner, "model_fields", {}) else None
        owner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else owner
    known = list(owner.model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
    return f"{name}: unknown key; {hint}"
