"""Options of a method, parsed strictly: every unknown key and wrong value at once, with the nearest name.

Options nest: a module that has options brings a group of them (`ViTOptions`, with `build()`), and a method holds it under one key
(`image`), so that the same thing is spelled alike in every method: `method.image.patch=8`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator

from models.contract.errors import MethodError
from models.contract.explain import KIND, explain, groups_of, kind_of, several
from models.contract.limits import within_limits
from models.contract.renames import Words, copied, filled, moved, reworded

__all__ = ["MethodError", "Options", "Typed", "explain", "laid", "moved", "several"]


class Typed(BaseModel):
    """What every typed configuration does with a value before its own rules: one word for a list of one, limits of sense."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        return several(cls, given) if isinstance(given, Mapping) else given

    @field_validator("*")
    @classmethod
    def _sensible(cls, value: object, info: ValidationInfo) -> object:
        return within_limits(info.field_name, value)


class Options(Typed):
    """Base of a method's options and of their groups: frozen, documented, unknown keys refused with the nearest one named.

    A group that is given in part takes the rest from the field's default: `image: ViTOptions = ViTOptions(patch=8)` stays at patches of
    8 where only `image.dim` is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of stored runs that are called otherwise today: `{"img_size": "image.image_size"}`, both with dots where they are nested."""
    reworded: ClassVar[Mapping[str, Words]] = {}
    """Values that are said otherwise today, by today's key: `{"image.init": {"imagenet": "file"}}`."""
    unsaid: ClassVar[Mapping[str, Any]] = {}
    """Keys that runs with `renamed` names did not have, and what held then: `{"image.kind": "vit"}`."""

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        whole = dict(given)
        for name, info in cls.model_fields.items():
            if isinstance(info.default, Options) and isinstance(given.get(name), Mapping):
                whole[name] = laid(info.default.model_dump(), given[name])
        return whole

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str = "method") -> Self:
        """Options from plain data.

        Raises:
            MethodError: all unknown keys and wrong values at once, as `where.KEY: what (did you mean ...)`; else all `problems`.
        """
        try:
            options = cls.model_validate(dict(given))
        except ValidationError as e:
            raise MethodError([explain(cls, p, where) for p in e.errors()]) from e
        if problems := list(options.problems(where)):
            raise MethodError(problems)
        return options

    def problems(self, where: str) -> Iterable[str]:
        """Values that are right by themselves and wrong together; `where` is what leads to a key. Groups are asked each for their own."""
        for name in type(self).model_fields:
            group = getattr(self, name)
            if isinstance(group, Options):
                yield from group.problems(f"{where}.{name}")

    @classmethod
    def over(cls, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """`given` (words, a task) over the options `base` (a recipe, a run), group by group.

        A group of another `kind` keeps of the one before what both have (the image size), but not its first weights.
        """
        out = dict(base)
        for key, value in given.items():
            below, groups = out.get(key), [g for g in groups_of(cls, key) if issubclass(g, Options)]
            if not groups or not isinstance(below, Mapping) or not isinstance(value, Mapping):
                out[key] = value
                continue
            was = below.get(KIND, kind_of(type(cls.model_fields[key].default)) if len(groups) > 1 else "")
            now = value.get(KIND, was)
            group = next((g for g in groups if kind_of(g) == now), groups[0])
            if was != now:
                kept = set(group.model_fields) - {KIND, "init", "init_file"}
                below = {k: v for k, v in below.items() if k in kept}
            out[key] = group.over(below, value)
        return out

    @classmethod
    def todays(cls, given: Mapping[str, Any], where: str = "method") -> dict[str, Any]:
        """What a person wrote, under today's names and in today's words.

        Raises:
            MethodError: a key that stands under its old and its new name at once.
        """
        return reworded(moved(given, cls.renamed, where), cls.reworded)

    @classmethod
    def stored(cls, given: Mapping[str, Any], where: str = "method") -> dict[str, Any]:
        """What an earlier run wrote as its options, for `parse`: `todays`, and what was not said then where names of then are used.

        Raises:
            MethodError: a key that stands under its old and its new name at once.
        """
        values = cls.todays(given, where)
        return values if values == copied(given) else filled(values, cls.unsaid)


def laid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, group by group; a group of another kind takes nothing of the one before."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            out[key] = laid(below, value)
        else:
            out[key] = value
    return out if base.get(KIND) == out.get(KIND) or KIND not in base else dict(over)
