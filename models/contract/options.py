"""Options of a method, parsed strictly: every unknown key and wrong value at once, with the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

from models.contract.limits import within_limits


class MethodError(ValueError):
    """Options or data that a method cannot be built from; every problem is listed."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Typed(BaseModel):
    """What every typed configuration does with a value before its own rules: one word for a list of one, limits of sense."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return several(cls, given)

    @field_validator("*")
    @classmethod
    def _sensible(cls, value: Any, info: ValidationInfo) -> Any:
        return within_limits(info.field_name, value)


class Options(Typed):
    """Base of a method's options: frozen, documented, unknown keys refused with the nearest one named."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of stored runs that are called otherwise today: `{"img_size": "image.image_size"}`, both with dots where they are nested."""

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

    @classmethod
    def stored(cls, given: Mapping[str, Any], where: str = "method") -> dict[str, Any]:
        """What an earlier run wrote as its options, for `parse`: every key of `renamed` has its new name.

        Raises:
            MethodError: a key that stands under its old and its new name at once.
        """
        return moved(given, cls.renamed, where)


def moved(given: Mapping[str, Any], renamed: Mapping[str, str], where: str = "method") -> dict[str, Any]:
    """A copy of nested `given` whose keys have their new names.

    Raises:
        MethodError: keys that stand under both.
    """
    values = _copied(given)
    both = []
    for old, new in renamed.items():
        place, key = _place(values, old)
        if place is None or key not in place:
            continue
        target, name = _place(values, new, make=True)
        if target is None or name in target:
            both.append(f"{where}.{old}: is called {where}.{new} today, which is given too; take one of them out")
        else:
            target[name] = place.pop(key)
            _drop_empty(values, old.rpartition(".")[0])
    if both:
        raise MethodError(both)
    return values


def _copied(given: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in given.items()}


def _drop_empty(values: dict[str, Any], path: str) -> None:
    """Takes out the mapping at a dotted path, and those around it, where nothing is left in them."""
    while path:
        place, key = _place(values, path)
        if place is None or place.get(key) != {}:
            return
        del place[key]
        path = path.rpartition(".")[0]


def _place(values: dict[str, Any], path: str, make: bool = False) -> tuple[dict[str, Any] | None, str]:
    """The mapping that a dotted key stands in (None where a value is in the way, or none is there), and its last part."""
    *sections, last = path.split(".")
    place: Any = values
    for section in sections:
        place = place.setdefault(section, {}) if make else place.get(section)
        if not isinstance(place, dict):
            return None, last
    return place, last


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
