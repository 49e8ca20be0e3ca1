"""Joins of two lists of ids: by the form that `identity` gives them, and never in silence.

What joins nobody, and ids that would lead to two lines, are refused; a join under half of either side is said loudly, with an id of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from shards.errors import DataError, Problem
from shards.tables.identity import damage, few, person, person_forms

REPAIR = "--repair-ids"


@dataclass(frozen=True)
class Side:
    """Ids as they are written, and what to call them and where each stands, in messages. `places` may lack any of them."""

    name: str
    ids: Collection[str]
    places: Mapping[str, str]

    @classmethod
    def of(cls, name: str, ids: Collection[str] | Mapping[str, str]) -> Side:
        """Ids, or ids with their places."""
        return cls(name, list(dict.fromkeys(ids)), ids if isinstance(ids, Mapping) else {})

    def place(self, name: str) -> str:
        return f"'{name}'" + (f" ({self.places[name]})" if name in self.places else "")


def partners(
    flag: str,
    here: Side,
    there: Side,
    fix: str,
    form: Callable[[str], str] = person,
    repair: bool | None = None,
) -> tuple[dict[str, str], list[str]]:
    """{an id of `here`: its partner of `there`}, and a line on what the join came to.

    Args:
        flag: the option that brought `there`, with its file, such as `--pgs scores.csv`.
        repair: for tables that follow people: whether ids that a program has changed (1000.0, 1000_1000) are read as what they were;
            None where the question does not arise.

    Raises:
        DataError: nobody joins; two ids of `there` are one person of `here`; ids that need repair.
    """
    theirs: dict[str, list[str]] = defaultdict(list)
    for name in there.ids:
        theirs[person_forms(name)[-1] if repair else form(name)].append(name)
    found = {name: theirs[key] for name in here.ids if (key := form(name)) in theirs}
    problems = [*_double(flag, found, there)]
    if repair is False:
        problems += _changed(flag, found, here)
    if not found:
        problems.append(_nobody(flag, here, there, fix, repair))
    if problems:
        raise DataError(problems)
    pairs = {mine: names[0] for mine, names in found.items()}
    return pairs, [_line(flag, here, there, pairs, form)]


def _double(flag: str, found: Mapping[str, list[str]], there: Side) -> list[Problem]:
    twice = [" and ".join(map(there.place, names)) for names in found.values() if len(names) > 1]
    if not twice:
        return []
    what = f"{len(twice)} people stand twice, in two spellings: {few(list(dict.fromkeys(twice)))}"
    return [
        Problem(
            what,
            flag,
            "keep one of each; people who are different need names that differ in more than blanks, case or zeros",
        )
    ]


def _changed(flag: str, found: Mapping[str, list[str]], here: Side) -> list[Problem]:
    known = set(here.ids)
    odd = [(mine, name) for mine, names in found.items() for name in names if damage(name) and name not in known]
    if not odd:
        return []
    mine, name = odd[0]
    what = f"{len(odd)} ids {damage(name)}: '{name}' here, '{mine}' in {here.name}"
    return [Problem(what, flag, f"write them as they were and look for people without an id, or give {REPAIR}")]


def _nobody(flag: str, here: Side, there: Side, fix: str, repair: bool | None) -> Problem:
    known = {person(n) for n in here.ids}
    doubled = [n for n in there.ids if len(forms := person_forms(n)) > 1 and forms[1] in known]
    some = f"{here.name} has {_first(here)}, {there.name} has {_first(there)}"
    what = (
        f"joined nobody: none of {len(here.ids)} of {here.name} is among the {len(there.ids)} of {there.name} ({some})"
    )
    if doubled and repair is False:
        fix = f"ids are doubled, as plink --double-id does: give {REPAIR}, or mend the file"
    return Problem(what, flag, fix)


def _first(side: Side) -> str:
    return f"'{next(iter(side.ids))}'" if side.ids else "nothing"


def _line(flag: str, here: Side, there: Side, pairs: Mapping[str, str], form: Callable[[str], str]) -> str:
    """How many joined; under half of either side, an id of each that did not."""
    used = set(pairs.values())
    line = (
        f"{flag}: {len(pairs)} of {len(here.ids)} of {here.name} joined {len(used)} of {len(there.ids)} of {there.name}"
    )
    if 2 * len(pairs) >= len(here.ids) and 2 * len(used) >= len(there.ids):
        return line
    left = [
        next((f"'{n}'" for n in side.ids if n not in joined), "nobody left")
        for side, joined in ((here, pairs), (there, used))
    ]
    return f"{line}. UNDER HALF: without a partner are {left[0]} of {here.name}, {left[1]} of {there.name}"
