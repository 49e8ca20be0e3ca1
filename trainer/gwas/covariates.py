"""The table of covariates: numbers and classes of people, made a basis of which no digit is lost whatever their units.

Shape letters: N people, C columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem
from shards.tables.cells import COMMA, COMMA_FIX, has_comma, number
from shards.tables.identity import few
from shards.tables.joins import Side, partners
from shards.tables.keyed import Row, Rows, keyed, read_rows
from shards.tables.unknown import is_unknown

FLAG = "--covariates"
MOST_CLASSES = 20
FLAT, DEPENDENT = 1e-12, 1e-9
"""Spread of a column relative to its size, and of what the others leave of a standardised column, that is rounding alone."""
PLINK_MISSING = "-9"
NAMES = ("iid", "#iid", "fid", "#fid")


@dataclass(frozen=True)
class Covariates:
    """value_NC float64, NaN where not known, of people in the order asked for; a class of k words is k - 1 columns of 0 and 1."""

    names: tuple[str, ...]
    value_NC: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Basis:
    """q_NC: orthonormal, its first column the intercept's. z_NC: the covariates, centred, of unit variance."""

    q_NC: np.ndarray
    z_NC: np.ndarray


def read_covariates(path: Path, people: Sequence[str], id_column: str | None, leave_out: Sequence[str]) -> Covariates:
    """Covariates of some people, joined by name.

    Raises:
        DataError: no such column, a person on two lines, nobody joins, cells that are neither numbers nor classes: all at once.
    """
    rows = read_rows(path, [c for c in (id_column, *leave_out) if c])
    key = id_column or next((c for c in rows.columns if c.lower().lstrip("#") == "iid"), None) or rows.first
    by_id = keyed(rows, key, "person")
    fix = "the table is of other people; name the column of people by --id-column, or bring the right table"
    there = Side.of(f"column '{key}'", {name: row.where for name, row in by_id.items()})
    pairs, _ = partners(f"{FLAG} {path}", Side.of("people", people), there, fix)
    skipped = {key, *leave_out, *(c for c in rows.columns if c.lower() in NAMES)}
    columns = [c for c in rows.columns if c not in skipped]
    if not columns:
        raise DataError(Problem("holds people and no covariate", str(path), "give a table with a column a covariate"))
    joined = [by_id.get(pairs.get(name, "")) for name in people]
    names, values, notes, problems = list[str](), list[np.ndarray](), list[str](), list[Problem]()
    for column in columns:
        try:
            made = _column(column, joined, rows)
        except DataError as e:
            problems += e.problems
            continue
        names += [n for n, _ in made]
        values += [v for _, v in made]
        # Of a single class there is one column, of ones, and it is refused as constant.
        if made[0][0] != column and np.nanmin(made[0][1]) == 0:
            notes.append(f"covariate '{column}': {len(made) + 1} classes")
    if problems:
        raise DataError(problems)
    return Covariates((*names,), np.stack(values, 1), (*notes,))


def _column(name: str, rows: Sequence[Row | None], table: Rows) -> list[tuple[str, np.ndarray]]:
    """A column of numbers, or of indicators of its classes."""
    cells = ["" if row is None or is_unknown(row[name]) else row[name] for row in rows]
    value_N = np.array([np.nan if (v := number(c)) is None else v for c in cells])
    words = [(c, row) for c, v, row in zip(cells, value_N, rows, strict=True) if c and np.isnan(v) and row is not None]
    where, known = f"{table.path}, column '{name}'", int((~np.isnan(value_N)).sum())
    if commas := [c for c, _ in words if has_comma(c)]:
        raise DataError(Problem(f"{len(commas)} cells: '{commas[0]}' {COMMA}", where, COMMA_FIX))
    if words and known:
        shown = few([f"'{c}' on {row.where}" for c, row in words])
        what = f"{len(words)} cells are no numbers ({shown}), {known} are"
        raise DataError(
            Problem(what, where, "write numbers alone, or words alone for classes, and NA where it is not known")
        )
    if not words:
        _refuse_codes(cells, value_N, where)
        return [(name, value_N)]
    classes = Counter(cells)
    classes.pop("", None)
    if len(classes) > MOST_CLASSES:
        what = f"{len(classes)} different words ('{words[0][0]}', ...); a covariate is a number, or a class of at most {MOST_CLASSES}"
        raise DataError(Problem(what, where, "leave the column out by --leave-out, or write it as a number"))
    # Whichever class is the one without a column, the columns span the same space: no estimate of a variant depends on it.
    first, *others = sorted(classes)
    found = [(f"{name}={c}", np.array([float(v == c) if v else np.nan for v in cells])) for c in others]
    return found or [(f"{name}={first}", np.array([1.0 if v else np.nan for v in cells]))]


def _refuse_codes(cells: Sequence[str], value_N: np.ndarray, where: str) -> None:
    """-9 is PLINK's word for a missing value, in columns of numbers too; below it, or beside other negative values, it is a number."""
    codes = sum(c == PLINK_MISSING for c in cells)
    others = value_N[~np.isnan(value_N) & (value_N != float(PLINK_MISSING))]
    if codes and len(others) and others.min() >= 0:
        what = f"{codes} cells are -9, with which PLINK marks a missing value, all others {others.min():g} or more"
        raise DataError(Problem(what, where, "write NA where it is not known"))


def basis_of(names: Sequence[str], value_NC: np.ndarray, where: Path) -> Basis:
    """Intercept and covariates of people who have all of them, as an orthonormal basis. Centred and scaled first: units do not matter.

    Raises:
        DataError: columns that are constant, or that others tell; each is named.
    """
    mean_C, std_C = value_NC.mean(0), value_NC.std(0)
    fix = "leave them out by --leave-out, or bring others: they say nothing among these people"
    flat = [n for n, m, s in zip(names, mean_C, std_C, strict=True) if s <= FLAT * max(abs(m), 1e-300)]
    if flat:
        what = f"{len(flat)} covariates are constant among the {len(value_NC)} people who are tested ({_quoted(flat)})"
        raise DataError(Problem(what, f"{FLAG} {where}", fix))
    z_NC = (value_NC - mean_C) / std_C
    intercept = np.ones((len(z_NC), 1))
    if told := dependent(names, z_NC):
        what = f"{len(told)} covariates are told by the others, exactly ({_quoted([*told])}; {_relation(told)})"
        raise DataError(Problem(what, f"{FLAG} {where}", fix))
    q_NC, _ = np.linalg.qr(np.concatenate([intercept, z_NC], 1))
    return Basis(q_NC, z_NC)


def dependent(names: Sequence[str], z_NC: np.ndarray) -> dict[str, str]:
    """Columns that are linear combinations of those before them, and the earlier column that each is most like."""
    found, q_NK = {}, np.empty((len(z_NC), 0))
    for c, name in enumerate(names):
        left_N = z_NC[:, c]
        for _ in range(2):
            left_N = left_N - q_NK @ (q_NK.T @ left_N)
        size = np.linalg.norm(left_N)
        if size <= DEPENDENT * np.sqrt(len(z_NC)):
            found[name] = names[int(np.abs(z_NC[:, :c].T @ z_NC[:, c]).argmax())] if c else name
        else:
            q_NK = np.concatenate([q_NK, (left_N / size)[:, None]], 1)
    return found


def _quoted(names: Sequence[str]) -> str:
    return few([f"'{n}'" for n in names])


def _relation(told: Mapping[str, str]) -> str:
    name, like = next(iter(told.items()))
    return f"'{name}' is most like '{like}'"
