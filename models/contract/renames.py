"""Options under the names of before: every key goes to where it stands today, whatever it was nested in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.contract.errors import MethodError

Word = str | bool | None
Words = Mapping[Word, Word | float]
"""What an option's value was called before -> what it is today."""


def moved(given: Mapping[str, Any], renamed: Mapping[str, str], where: str = "method") -> dict[str, Any]:
    """A copy of nested `given` whose keys have their new names.

    Raises:
        MethodError: keys that stand under both.
    """
    values = copied(given)
    both = []
    for old, new in renamed.items():
        place, key = place_of(values, old)
        if place is None or key not in place:
            continue
        value = place.pop(key)
        target, name = place_of(values, new, make=True)
        if target is None or name in target:
            both.append(f"{where}.{old}: is called {where}.{new} today, which is given too; take one of them out")
            continue
        target[name] = value
        _drop_empty(values, old.rpartition(".")[0])
    if both:
        raise MethodError(both)
    return values


def reworded(values: dict[str, Any], words: Mapping[str, Words]) -> dict[str, Any]:
    """`values` with today's words in the keys of `words`, which map what was said before to what is said now."""
    for path, said in words.items():
        place, key = place_of(values, path)
        if place is not None and key in place and isinstance(place[key], str | bool | None) and place[key] in said:
            place[key] = said[place[key]]
    return values


def filled(values: dict[str, Any], unsaid: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of `unsaid` whose keys are not there."""
    for path, value in unsaid.items():
        place, key = place_of(values, path, make=True)
        if place is not None:
            place.setdefault(key, value)
    return values


def copied(given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings, as dicts."""
    return {k: copied(v) if isinstance(v, Mapping) else v for k, v in given.items()}


def _drop_empty(values: dict[str, Any], path: str) -> None:
    """Takes out the mapping at a dotted path, and those around it, where nothing is left in them."""
    while path:
        place, key = place_of(values, path)
        if place is None or place.get(key) != {}:
            return
        del place[key]
        path = path.rpartition(".")[0]


def place_of(values: dict[str, Any], path: str, make: bool = False) -> tuple[dict[str, Any] | None, str]:
    """The mapping that a dotted key stands in (None where a value is in the way, or none is there), and its last part."""
    *sections, last = path.split(".")
    place: Any = values
    for section in sections:
        place = place.setdefault(section, {}) if make else place.get(section)
        if not isinstance(place, dict):
            return None, last
    return place, last
