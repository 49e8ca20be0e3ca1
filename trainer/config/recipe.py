"""From a recipe file and `section.key=value` words to a Config."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from models.registry import baseline_names, get_method, method_names
from shards.untyped import Json
from trainer.config import yaml_text
from trainer.config.files import CONFIGS, given_file, nearest
from trainer.config.schema import Config, parse
from trainer.errors import UserError

RECIPES = CONFIGS / "methods"


def find_recipe(method: str, name: str | None, demo: bool) -> Path:
    """The file of a recipe: a path, a name in configs/methods/METHOD, or `recommended` (`demo` without data).

    The names of before, METHOD and METHOD-NAME, are understood too; standard error says how they are called today.

    Raises:
        UserError: no such file, or another method's; the nearest name is given.
        MethodError: no such method.
    """
    if name and (given := given_file(name, "--recipe ")):
        return given
    own = _recipes(method)
    wanted = name or ("demo" if demo else "recommended")
    if wanted not in own and (today := _named_before(method, wanted)):
        _note(f"--recipe {wanted} is called --recipe {today} today")
        wanted = today
    if wanted not in own:
        raise UserError(f"no recipe '{wanted}' of {method} in {RECIPES / method}; {_near(method, wanted, list(own))}")
    return own[wanted]


def _recipes(method: str) -> dict[str, Path]:
    """A method's recipes by name."""
    if method not in (*method_names(), *baseline_names()):
        get_method(method)  # which says what is near
    return {p.stem: p for p in sorted((RECIPES / method).glob("*.yaml"))}


def _named_before(method: str, wanted: str) -> str | None:
    """Today's name of METHOD or METHOD-NAME.

    Raises:
        UserError: another method's.
    """
    for owner in method_names():
        today = "recommended" if wanted == owner else wanted.removeprefix(f"{owner}-")
        if today == wanted or today not in _recipes(owner):
            continue
        if owner != method:
            raise UserError(
                f"--recipe {wanted} is a recipe of {owner}, not of {method}: give --method {owner}, or another recipe"
            )
        return today
    return None


def _near(method: str, wanted: str, own: Sequence[str]) -> str:
    if not own:
        return f"write {RECIPES / method / 'recommended.yaml'}, or give --recipe FILE"
    return nearest(wanted.removeprefix(f"{method}-"), own)


@cache
def _note(text: str) -> None:
    """Once a process, by one rank, and not among what --print-config writes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr, flush=True)


def section(values: Mapping[str, Any], key: str, where: object) -> dict[str, Any]:
    """A section of a recipe; empty where it is not there.

    Raises:
        UserError: it is a value, not a mapping.
    """
    found = values.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise UserError(
            f"{where}: {key} is a section with keys of its own, this is {found!r}; write {key}.KEY=value, or a mapping"
        )
    return dict(found or {})


def override(values: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A copy of `values` with `section.key=value` words applied.

    Raises:
        UserError: all words without '=' or whose section is a value, at once.
    """
    values, problems = _copy(values), []
    for word in words:
        key, eq, text = word.partition("=")
        if not eq or not key:
            problems.append(f"'{word}': overrides are written section.key=value, for example optim.lr=3e-4")
            continue
        try:
            value = yaml_text.parse(text)
        except yaml.YAMLError:
            problems.append(f"{key}: the value is not YAML; quote it")  # not repeated: an address may hold a secret
            continue
        *sections, last = key.split(".")
        place = values
        for i, section in enumerate(sections):
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                problems.append(f"'{word}': {'.'.join(sections[: i + 1])} is a value, not a section")
                break
        else:
            place[last] = value
    if problems:
        raise UserError(problems)
    return values


def _copy(values: Json) -> Json:
    return {k: _copy(v) for k, v in values.items()} if isinstance(values, dict) else values


def todays_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a method as a person wrote them, under today's names; standard error says which are called otherwise today.

    Raises:
        MethodError: an option under two names.
    """
    options = get_method(method).Options
    for old, new in options.renamed.items():
        place: Any = given
        for part in old.split("."):
            place = place.get(part, given) if isinstance(place, Mapping) else given
        if place is not given:
            _note(f"method.{old} is called method.{new} today")
    return options.todays(given)


def build_config(method: str, recipe: str | None, words: Sequence[str]) -> tuple[Config, Path]:
    """The configuration of a command line, and the recipe file it came from.

    Without `data.path` (and without --recipe) the demo recipe is taken. A length given in the words replaces the recipe's.
    """
    given = override({}, words)
    path = find_recipe(method, recipe, section(given, "data", "command line").get("path") is None)
    values = yaml_text.read(path)
    stages = section(values, "stages", path)
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in given:
            values.pop(other, None)
        for name, stage in section(given, "stages", "command line").items():
            if isinstance(stage, dict) and one in stage and name in stages:
                section(stages, name, f"{path}: stages")
                stages[name].pop(other, None)
    values = _with_options(method, values, words, path)
    if values.get("method_name", method) != method:
        raise UserError(f"{path} is a recipe for --method {values['method_name']}, not {method}")
    return parse({**values, "method_name": method}), path


def _with_options(method: str, values: dict[str, Any], words: Sequence[str], path: Path) -> dict[str, Any]:
    """The recipe's `values` with the words; options of the method, of either, are called as they are today."""
    mine = [w for w in words if w.startswith("method.")]
    values = override(values, [w for w in words if w not in mine])
    given = section(override({}, mine), "method", "command line")
    options = todays_options(method, section(values, "method", path))
    if options or given or "method" in values:
        values["method"] = get_method(method).Options.over(options, todays_options(method, given))
    return values
