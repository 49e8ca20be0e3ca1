"""Options of a method, parsed strictly: every unknown key and wrong value at once, with the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

from models.contract.limits import within_limits


class MethodError(ValueError):
    """Options or data that a method cannot be built from; every problem is listed."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Options(BaseModel):
    """Base of a method's options: frozen, documented, unknown keys refused with the nearest one named."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return several(cls, given)

    @field_validator("*")
    @classmethod
    def _sensible(cls, value: Any, info: ValidationInfo) -> Any:
        return within_limits(info.field_name, value)

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


def several(model: type[BaseModel], given: Any) -> Any:
    """`given` with `a,b` and single values as lists, for the keys of `model` that take several: `seeds=0,1`, `genetics=snp`.

    A key that takes one word or several (`label`) is split at commas alone; a name with a comma in it is written ["a, b"].
    """
    if not isinstance(given, Mapping):
        return given
    changed = {}
    for name, info in model.model_fields.items():
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        kinds = _alternatives(info.annotation)
        items = [get_args(k) for k in kinds if get_origin(k) in (tuple, list)]
        if not items or (str in kinds and not (isinstance(value, str) and "," in value and str in items[0])):
            continue
        changed[name] = [v.strip() for v in value.split(",")] if isinstance(value, str) else [value]
    return {**given, **changed} if changed else given


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


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
