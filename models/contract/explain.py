"""What pydantic says of wrong values, as sentences that name the key as it is typed, and the nearest one where there is no such key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

KIND = "kind"
"""The key that tells groups of one place apart: `image.kind: vit | resnet`."""
NO_GROUP = ("model_type", "model_attributes_type", "dict_type")


def several(model: type[BaseModel], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """`given` with `a,b` and single values as lists, for the keys of `model` that take several: `seeds=0,1`, `genetics=snp`.

    A key that takes one word or several (`label`) is split at commas alone; a name with a comma in it is written ["a, b"].
    """
    changed: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        kinds = alternatives(info.annotation)
        items = [get_args(k) for k in kinds if get_origin(k) in (tuple, list)]
        if not items or (str in kinds and not (isinstance(value, str) and "," in value and str in items[0])):
            continue
        changed[name] = [v.strip() for v in value.split(",")] if isinstance(value, str) else [value]
    return {**given, **changed} if changed else given


def alternatives(annotation: object) -> tuple[object, ...]:
    """The members of a union, or the one type."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def groups_of(model: type[BaseModel], name: str) -> tuple[type[BaseModel], ...]:
    """The groups of keys that may stand at a key: none where it takes a value, several where `kind` tells them apart."""
    if name not in model.model_fields:
        return ()
    kinds = alternatives(model.model_fields[name].annotation)
    return tuple(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))


def kind_of(group: type[BaseModel]) -> str:
    """The word of a group's `kind`; "" without one."""
    return str(group.model_fields[KIND].get_default()) if KIND in group.model_fields else ""


def dotted(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a model, those of its groups with dots; each once."""
    for name in model.model_fields:
        groups = groups_of(model, name)
        if not groups:
            yield prefix + name
        yield from dict.fromkeys(key for group in groups for key in dotted(group, f"{prefix}{name}."))


class _Place(NamedTuple):
    """Where a problem lies: `path` as typed, `owner` of its last key, and the groups that could stand in the owner's place."""

    path: list[str]
    owner: type[BaseModel]
    beside: tuple[type[BaseModel], ...]


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> _Place:
    """pydantic puts the kind that was chosen among the keys; nobody types it there."""
    owner: type[BaseModel] = model
    beside: tuple[type[BaseModel], ...] = (model,)
    path: list[str] = []
    parts = [str(p) for p in loc]
    while parts:
        path.append(parts.pop(0))
        groups = groups_of(owner, path[-1])
        chosen = [g for g in groups if len(groups) > 1 and parts and kind_of(g) == parts[0]]
        if chosen:
            parts.pop(0)
        if parts and (chosen or len(groups) == 1):
            owner, beside = (chosen or groups)[0], groups
        elif not groups or parts:
            return _Place([*path, *parts], owner, beside)
    return _Place(path, owner, beside)


def explain(model: type[BaseModel], problem: Mapping[str, Any], where: str) -> str:
    """One pydantic problem as a sentence; an unknown key gets its nearest neighbour, wherever that is nested."""
    place = _place(model, problem["loc"])
    name = ".".join([*([where] if where else []), *place.path])
    kind, got = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"{name}: unknown key; {_hint(model, place, name, where)}"
    if kind == "union_tag_invalid":
        known = [kind_of(g) for g in groups_of(place.owner, place.path[-1])]
        near = difflib.get_close_matches(str(problem["ctx"]["tag"]), known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else "take one of them"
        return f"{name}.{KIND}: '{problem['ctx']['tag']}' is none of {', '.join(known)}; {hint}"
    if kind in NO_GROUP and place.path and groups_of(place.owner, place.path[-1]):
        return f"{name}: is a section with keys of its own, this is {got!r}; write {name}.KEY=value, or a mapping"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')} (got {got!r}){_otherwise(place, where, got)}"


def _otherwise(place: _Place, where: str, got: object) -> str:
    """What to type where it may be the writing alone that is wrong: several values, none, an empty word."""
    at = next((i for i, part in enumerate(place.path) if part in place.owner.model_fields), None)
    if at is None:
        return ""
    key, info = ".".join(filter(None, [where, *place.path[: at + 1]])), place.owner.model_fields[place.path[at]]
    named = get_args(info.annotation)[-1] if get_origin(info.annotation) is dict else None
    if isinstance(named, type) and issubclass(named, BaseModel):  # a group for each name: `stages.NAME.steps`
        return _otherwise(_Place(place.path[at + 2 :], named, ()), ".".join([key, *place.path[at + 1 : at + 2]]), got)
    kinds = alternatives(info.annotation)
    if isinstance(got, str) and got.lower() == "none" and type(None) in kinds:
        return f"; write {key}=null for none"
    text = got[0] if isinstance(got, list) and len(got) == 1 else got
    parted = text is None or (isinstance(text, str) and any(c in " ;()" for c in text))
    if parted and any(get_origin(k) in (tuple, list) for k in kinds):
        single = [str(v) for v in _listed(info.default) if isinstance(v, str | int | float)]
        none = f", or {key}=[] for none" if info.default == () else ""
        return f"; write commas between values, such as {key}={','.join(single) or 'A,B'}{none}"
    return f"; write {key}=\"''\" for an empty word" if got is None and str in kinds else ""


def _listed(default: object) -> tuple[object, ...]:
    """The values of a key that has some by itself."""
    return tuple(default) if isinstance(default, tuple | list) else ()


def _hint(model: type[BaseModel], place: _Place, name: str, where: str) -> str:
    """What was meant by an unknown key."""
    key, own = place.path[-1], list(place.owner.model_fields)
    other = [g for g in place.beside if g is not place.owner and key in g.model_fields]
    if other:
        at, kind, this = name.rpartition(".")[0], kind_of(other[0]), kind_of(place.owner)
        return f"it is a key of {at}.{KIND}={kind}, and this is {this}; take it out, or write {at}.{KIND}={kind}"
    below = [k for k in dotted(place.owner) if "." in k]
    if same := [k for k in below if k.rpartition(".")[2] == key]:
        return f"did you mean {_either(same)}?"
    lead = f"{where}." if where else ""
    if same := [f"{lead}{k}" for k in dotted(model) if k.rpartition(".")[2] == key]:
        return f"did you mean {_either(same)}?"
    near = difflib.get_close_matches(key, own, n=1, cutoff=0.5)
    if not near:
        last = {k.rpartition(".")[2]: k for k in below}
        near = [last[n] for n in difflib.get_close_matches(key, last, n=1, cutoff=0.7)]
    return f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(own)}"


def _either(names: list[str]) -> str:
    return " or ".join(f"'{n}'" for n in names)
