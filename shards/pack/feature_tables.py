"""Vectors from tables: which row or column, which of its values are features (`shards.tables.features`), a few tables open at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import DataError, Problem
from shards.format.describe import HeaderError
from shards.pack.numeric_table import Table
from shards.tables.features import Chosen, FeatureRule, choose, unused
from shards.tables.identity import few
from shards.tables.unknown import Words

MAX_OPEN = 16  # each holds a temporary file, and a cohort may have a table a patient


class FeatureTables:
    """Tables by path, and what was chosen of each: from its columns where rows are asked for, from its rows where columns are.

    strip: tables whose Ensembl ids lose their version. asked: of tables that are asked for columns alone, which these are.
    """

    def __init__(self, rule: FeatureRule | None = None, unknown: Words | None = None):
        self.rule, self.unknown = rule or FeatureRule(), unknown or Words()
        self.strip: set[Path] = set()
        self.asked: dict[Path, set[str]] = {}
        self._tables: dict[Path, Table | DataError] = {}
        self._chosen: dict[tuple[Path, bool], Chosen] = {}
        self._last: tuple[list[str], tuple[Any, ...], Chosen] | None = None
        self._aligned: dict[int, tuple[Chosen, Chosen]] = {}  # by the number of what was chosen, which is held with it

    def close(self) -> None:
        for table in self._tables.values():
            if isinstance(table, Table):
                table.close()
        self._tables.clear()

    def table(self, path: Path) -> Table:
        """The table at `path`; read again only where many others were asked for in between.

        Raises:
            DataError: not readable as a table; the same error at every call.
        """
        found = self._tables.pop(path, None)
        if found is None:
            found = self._read(path)
        self._tables[path] = found
        held = [p for p, t in self._tables.items() if isinstance(t, Table)]
        for other in held[: len(held) - MAX_OPEN]:
            table = self._tables.pop(other)
            assert isinstance(table, Table)
            table.close()
        if isinstance(found, DataError):
            raise found
        return found

    def _read(self, path: Path) -> Table | DataError:
        try:
            table = Table(path, self.unknown, self.asked.get(path, ()))
        except DataError as e:
            return e
        if not table.problems:
            return table
        table.close()
        return DataError(table.problems)

    def chosen(self, path: Path, by_column: bool) -> Chosen:
        """The features of a table: its rows if columns are asked for, else its columns.

        Raises:
            DataError: unreadable, or it cannot be told what is a feature.
        """
        if (path, by_column) not in self._chosen:
            self._chosen[path, by_column] = self._choose(self.table(path), by_column)
        found = self._chosen[path, by_column]
        if found.problems:
            raise DataError(found.problems)
        return found

    def _choose(self, table: Table, by_column: bool) -> Chosen:
        names = table.rows if by_column else table.columns
        words = {} if by_column else table.worded()
        asked = (by_column, tuple(words.items()), table.path in self.strip)
        # Tables of one sample each have the same genes: what was chosen of the last is shared, and held once.
        if self._last is not None and self._last[1] == asked and self._last[0] == names and not self._last[2].problems:
            return self._last[2]
        axis = "row" if by_column else "column"
        chosen = choose(
            names,
            self.rule,
            str(table.path),
            axis=axis,
            words=words,
            unknown=self.unknown,
            strip=table.path in self.strip,
        )
        self._last = names, asked, chosen
        return chosen

    def vocab(self, path: Path, by_column: bool) -> list[str]:
        """Names of the features."""
        return self.chosen(path, by_column).names

    def align(self, path: Path, by_column: bool, names: list[str]) -> bool:
        """Takes the features of a table in the order of `names` from here on; False, and nothing, where they are not the same ones."""
        chosen = self.chosen(path, by_column)
        if len(chosen.names) != len(names) or {*chosen.names} != {*names}:
            return False
        if id(chosen) not in self._aligned:
            at = {name: i for i, name in enumerate(names)}
            order = np.array([at[name] for name in chosen.names], np.int64)
            place = np.where(chosen.place >= 0, order[chosen.place], -1)
            self._aligned[id(chosen)] = chosen, replace(chosen, names=names, place=place)
        self._chosen[path, by_column] = self._aligned[id(chosen)][1]
        return True

    def vector(self, path: Path, name: str, by_column: bool) -> np.ndarray:
        """The float32 features [D] of a row or a column.

        Raises:
            HeaderError: the table has no such row or column, or two of them.
            DataError: unreadable, unclear features, or cells that are no numbers.
        """
        chosen, table = self.chosen(path, by_column), self.table(path)
        at = _found(table, name, by_column)
        if table.has_odd_cells:
            used = set(np.flatnonzero(chosen.place >= 0).tolist())
            if odd := table.odd_cells(used, {at}) if by_column else table.odd_cells({at}, used):
                raise DataError(odd)
        return chosen.of(table.line(at, by_column))

    def notes(self) -> list[str]:
        """What was left out of the tables, by reason."""
        return [note for chosen in self._each() for note in chosen.notes]

    def left_out(self) -> list[tuple[str, str]]:
        """(name, reason) of every row and column that is no feature."""
        return list(dict.fromkeys(pair for chosen in self._each() for pair in chosen.left_out))

    def unused(self) -> list[Problem]:
        """Names that the user gave and no table has."""
        return unused(self.rule, self._each())

    def _each(self) -> list[Chosen]:
        return list({id(c): c for c in self._chosen.values()}.values())


def _found(table: Table, name: str, by_column: bool) -> int:
    axis = "column" if by_column else "row"
    try:
        return table.find(name, by_column)
    except KeyError:
        raise HeaderError(f"the table has no {axis} '{name}'", _nearest(table, name, by_column)) from None
    except LookupError as e:
        raise HeaderError(f"{axis} {e}", f"keep one {axis} of this name: which of them counts cannot be told") from None


def _nearest(table: Table, name: str, by_column: bool) -> str:
    import difflib

    names = table.columns if by_column else table.rows
    near = difflib.get_close_matches(name, names[:2000], n=1, cutoff=0.7)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}it has {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"


def differs(first: list[str], words: list[str], version: str) -> HeaderError:
    """What is to be said of a table that lacks features of its field's first one; `version` stands for what its names had behind them."""
    lacking, more = (sorted(f"{n}{version}" for n in a) for a in ({*first} - {*words}, {*words} - {*first}))
    here = [f"{len(lacking)} are not here ({few(lacking)})"] if lacking else []
    here += [f"{len(more)} are here alone ({few(more)})"] if more else []
    what = f"this table's features are not those of the field's first table: {' and '.join(here)}"
    fix = "bring tables of one release, or leave out what is not in all of them: --not-features 'NAME,NAME'"
    return HeaderError(what, fix)
