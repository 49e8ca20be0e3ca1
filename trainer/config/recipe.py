"""From a recipe file and `section.key=value` words to a Config."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer.config import yaml_text
from trainer.config.schema import Config, parse
from trainer.errors import UserError

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "pretrain"


def find_recipe(method: str, name: str | None, demo: bool) -> Path:
    """The file of a recipe: a path, a name in configs/pretrain, or the method's own (its demo form without data).

    Raises:
        UserError: no such file; the nearest name is given.
    """
    if name and (name.endswith((".yaml", ".yml")) or "/" in name):
        if not Path(name).is_file():
            raise UserError(f"--recipe {name}: no such file")
        return Path(name)
    wanted = name or (f"{method}-demo" if demo else method)
    path = RECIPES / f"{wanted}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
        near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise UserError(f"no recipe '{wanted}' in {RECIPES}; {hint}")
    return path


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


def _copy(values: Any) -> Any:
    return {k: _copy(v) for k, v in values.items()} if isinstance(values, dict) else values


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
    values = override(values, words)
    if values.get("method_name", method) != method:
        raise UserError(f"{path} is a recipe for --method {values['method_name']}, not {method}")
    return parse({**values, "method_name": method}), path
