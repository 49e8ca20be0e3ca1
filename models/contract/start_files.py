"""Files of first weights among a method's options: which they are, and options without them or with another one.

A field of the type `StartFile` names such a file, in whatever group it stands; the key `init` beside it, if there is one, says whether it
is used (`scratch`, `file`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel

from models.contract.explain import KIND, groups_of, kind_of
from models.contract.renames import copied, place_of

_FIRST_WEIGHTS = "first weights"
StartFile = Annotated[str | None, _FIRST_WEIGHTS]


def start_keys(model: type[BaseModel], options: Mapping[str, Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Dotted names of the options that name files of first weights; of groups that `kind` tells apart those of the one in `options`."""
    given = options or {}
    for name, info in model.model_fields.items():
        if _FIRST_WEIGHTS in info.metadata:
            yield prefix + name
        if group := _group(model, name, given.get(name)):
            below = given.get(name)
            yield from start_keys(group, below if isinstance(below, Mapping) else None, f"{prefix}{name}.")


def _group(model: type[BaseModel], name: str, value: object) -> type[BaseModel] | None:
    """The group at a key: the one of the given kind, or else the default's."""
    groups = groups_of(model, name)
    kind = value.get(KIND) if isinstance(value, Mapping) else None
    default = type(model.model_fields[name].default)
    own = [g for g in groups if kind and kind_of(g) == kind] or [g for g in groups if g is default] or list(groups)
    return own[0] if own else None


def start_files(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, str]:
    """{dotted name: file} of those that are given and used."""
    values, found = copied(options), {}
    for key in start_keys(model, options):
        place, name = place_of(values, key)
        if place and place.get(name) and place.get("init", "file") != "scratch":
            found[key] = str(place[name])
    return found


def speaks_of_start(model: type[BaseModel], options: Mapping[str, Any]) -> bool:
    """Whether these (a task's changes, say) name such a file, or say whether one is used."""
    for key in start_keys(model, options):
        place, name = place_of(copied(options), key)
        if place is not None and (name in place or "init" in place):
            return True
    return False


def without_start_files(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options from scratch: trained weights follow, whether such a file is still there or not."""
    values = copied(options)
    for key in start_keys(model, options):
        place, name = place_of(values, key)
        if place is not None:
            place |= {n: v for n, v in ((name, None), ("init", "scratch")) if n in place}
    return values


def with_start_file(model: type[BaseModel], options: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The options with `path` as the file of the image encoder, which is the group that has `init` and such a file; None without one."""
    for key in start_keys(model, options):
        group, _, _ = key.rpartition(".")
        if group:
            values = copied(options)
            place, name = place_of(values, key, make=True)
            if place is None:
                return None
            place |= {name: path, "init": "file"}
            return values
    return None


def replaced(model: type[BaseModel], options: Mapping[str, Any], path: str, by: str) -> dict[str, Any]:
    """The options with `by` wherever `path` is named as a file of first weights."""
    values = copied(options)
    for key in start_keys(model, options):
        place, name = place_of(values, key)
        if place is not None and place.get(name) == path:
            place[name] = by
    return values
