"""From a recipe file and `section.key=value` words to a Config."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer.config import Config, parse
from trainer.errors import UserError

RECIPES = Path(__file__).resolve().parent.parent / "configs" / "pretrain"


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


def read_recipe(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as e:
        raise UserError(f"{path}: not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, this is a {type(values).__name__}")
    return values


def parse_value(text: str) -> Any:
    """A value from the shell: YAML, but 1e-4 is a number (YAML 1.1 wants 1.0e-4)."""
    value = yaml.safe_load(text)
    # A quoted "12" is meant as text.
    if isinstance(value, str) and value == text.strip():
        try:
            return float(value)
        except ValueError:
            return value
    return value


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
            value = parse_value(text)
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


def numbers(values: Any) -> Any:
    """Strings such as '1e-4', which YAML 1.1 reads as text, as numbers."""
    if isinstance(values, dict):
        return {k: numbers(v) for k, v in values.items()}
    if isinstance(values, list):
        return [numbers(v) for v in values]
    if isinstance(values, str) and values[:1] in "0123456789.-+" and "e" in values.lower():
        try:
            return float(values)
        except ValueError:
            return values
    return values


def build_config(method: str, recipe: str | None, words: Sequence[str]) -> tuple[Config, Path]:
    """The configuration of a command line, and the recipe file it came from.

    Without `data.path` (and without --recipe) the demo recipe is taken. A length given in the words replaces the recipe's.
    """
    given = override({}, words)
    demo = given.get("data", {}).get("path") is None if isinstance(given.get("data", {}), dict) else False
    path = find_recipe(method, recipe, demo)
    values = numbers(read_recipe(path))
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in given:
            values.pop(other, None)
        for name, stage in (given.get("stages") or {}).items():
            if isinstance(stage, dict) and one in stage:
                (values.get("stages") or {}).get(name, {}).pop(other, None)
    values = override(values, words)
    if values.get("method_name", method) != method:
        raise UserError(f"{path} is a recipe for --method {values['method_name']}, not {method}")
    return parse({**values, "method_name": method}), path
