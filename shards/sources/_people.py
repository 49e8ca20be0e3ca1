"""Whose image it is, where both a column and a folder say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from shards.errors import bad
from shards.tables.identity import person, written
from shards.tables.unknown import is_unknown

SHOWN = 3
BY_FOLDER = "drop the column and --patient-column to split by folder"


def reconciled(
    given: Sequence[str], folders: Sequence[str], chosen: str | None, places: Sequence[str], table: Path
) -> list[str]:
    """One patient a line: the folder's name where the column agrees or is empty, '' where neither says.

    A column that was chosen by name may hold names of its own, if they lead to the same people as the folders; its empty cells then get
    the name that it gives to the other images of the folder.

    Args:
        given: the column's cells; folders: the folders' patients, '' where a path has none; one a line, as are `places`.
        chosen: the column, where somebody asked for it.

    Raises:
        DataError: column and folder name different people, or a folder's images belong to several people of the column.
    """
    names = ["" if is_unknown(g) else written(g) for g in given]
    both = [(i, n, f) for i, (n, f) in enumerate(zip(names, folders, strict=True)) if n and f]
    differ = [(i, n, f) for i, n, f in both if person(n) != person(f)]
    if not differ:
        return [f or n for n, f in zip(names, folders, strict=True)]
    if chosen is None:
        shown = [f"{places[i]}: '{n}', folder '{f}'" for i, n, f in differ[:SHOWN]]
        what = f"{len(differ)} of {len(both)} lines name another patient than their image's folder ({'; '.join(shown)})"
        raise bad(
            what, table, "mend the column, or drop it; if it holds names of its own, say so with --patient-column"
        )
    return _renamed(names, folders, chosen, table)


def _renamed(names: list[str], folders: Sequence[str], chosen: str, table: Path) -> list[str]:
    """The column's own names, the folder's other images telling where it is empty."""
    of_folder: dict[str, dict[str, str]] = defaultdict(dict)
    for name, folder in zip(names, folders, strict=True):
        if name and folder:
            of_folder[person(folder)].setdefault(person(name), name)
    torn = [f"{' and '.join(n.values())} in folder of {f}" for f, n in of_folder.items() if len(n) > 1]
    if torn:
        what = f"{len(torn)} folders of one patient have images of several ({'; '.join(torn[:SHOWN])})"
        raise bad(what, f"{table}, column '{chosen}'", f"mend the column, or {BY_FOLDER}")
    lost = [f for n, f in zip(names, folders, strict=True) if not n and f and person(f) not in of_folder]
    if lost:
        what = (
            f"{len(lost)} lines without a patient, whose folder has no other image that names one (such as {lost[0]})"
        )
        raise bad(what, f"{table}, column '{chosen}'", f"fill the column, or {BY_FOLDER}")
    return [n or (next(iter(of_folder[person(f)].values())) if f else "") for n, f in zip(names, folders, strict=True)]
