"""What is a feature in a table of expression, scores or burden, and what only stands beside or below features: one rule for every reader.

- Left out and listed: clinical, survival, split and id columns; counts of reads that fell on no gene (HTSeq `__no_feature`, STAR
  `N_unmapped`, featureCounts `Unassigned_...`); bookkeeping of scores (`ALLELE_CT`, `DENOM`); annotation beside gene ids; rows and
  columns without a name.
- Refused by name, where it is not sure: columns of words; names that speak of survival, treatment or a sample's state; names that
  are no Ensembl id where most are; endings of several modalities (`_rnaseq`, `_cnv`, `_mut`) in one table. `--not-features` leaves
  out, `--keep-features` keeps.
- A name that stands twice is refused, unless `--duplicates` says which of its rows counts.
- `ENSG..._PAR_Y`, the Y copy of a pseudo-autosomal gene, is a feature of its own; `--par-y drop` leaves it out.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from shards.errors import Problem
from shards.tables.cells import COMMA, COMMA_FIX, has_comma
from shards.tables.feature_names import ENDINGS, PAR_Y, ending, known_kind, odd_ones, without_version
from shards.tables.unknown import Words

DUPLICATES = ("refuse", "first", "mean", "max", "drop")
SHOWN = 5


@dataclass(frozen=True)
class FeatureRule:
    """What the user says of features. Names may be patterns (`*_cnv`, `ERCC-*`); case counts.

    not_features: left out. keep: features, whatever they look like.
    duplicates: names that stand twice are refused, or their first row, mean or largest value counts, or all of them are dropped.
    par_y: the Y copies of pseudo-autosomal genes are kept under their own name, or dropped.
    """

    not_features: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    duplicates: str = "refuse"
    par_y: str = "keep"


@dataclass
class Chosen:
    """The features of a table: `names` [D], and of each row or column its place among them (`place` [W], -1: left out).

    Where `how` is 'mean' or 'max', several places may be equal; else each is met once.
    """

    names: list[str]
    place: np.ndarray
    how: str = "first"
    left_out: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """The user's names and patterns that met something here."""

    def of(self, x_W: np.ndarray) -> np.ndarray:
        """The features [D] of a whole row or column [W] of the table; of doubles the mean or the largest of what is known."""
        if len(self.names) == len(x_W) and np.array_equal(self.place, np.arange(len(x_W))):
            return x_W
        used = self.place >= 0
        place, x = self.place[used], x_W[used]
        if self.how not in ("mean", "max"):
            out = np.full(len(self.names), np.nan, x_W.dtype)
            out[place] = x
            return out
        known = ~np.isnan(x)
        place, x = place[known], x[known]
        count = np.bincount(place, minlength=len(self.names))
        if self.how == "mean":
            total = np.bincount(place, x.astype(np.float64), minlength=len(self.names))
        else:
            total = np.full(len(self.names), -np.inf)
            np.maximum.at(total, place, x)
            count = np.minimum(count, 1)
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0).astype(x_W.dtype)


def feature_rule(args: argparse.Namespace) -> FeatureRule:
    """What `--not-features`, `--keep-features`, `--duplicates` and `--par-y` say."""
    drop, keep = (
        tuple(n for text in getattr(args, flag, None) or () for n in text.split(",") if n)
        for flag in ("not_features", "keep_features")
    )
    return FeatureRule(
        drop, keep, getattr(args, "duplicates", None) or "refuse", getattr(args, "par_y", None) or "keep"
    )


def options(parser: argparse.ArgumentParser) -> None:
    """The options that `feature_rule` reads."""
    add = parser.add_argument
    add(
        "--not-features",
        action="append",
        metavar="NAMES",
        help="rows or columns of tables that are no features: A,B or patterns (*_cnv)",
    )
    add(
        "--keep-features",
        action="append",
        metavar="NAMES",
        help="names or patterns that are features, whatever they look like",
    )
    add(
        "--duplicates",
        choices=DUPLICATES,
        default="refuse",
        help="features that stand twice: refused (default), the first, mean or largest of them, or none of them",
    )
    add("--par-y", choices=("keep", "drop"), default="keep", help="Y copies of pseudo-autosomal genes (..._PAR_Y)")


def choose(
    names: Sequence[str],
    rule: FeatureRule,
    where: str,
    *,
    axis: str = "column",
    words: Mapping[int, str] | None = None,
    unknown: Words | None = None,
    strip: bool = False,
    endings: bool = True,
    strict: bool = True,
) -> Chosen:
    """Which names of a table are features.

    Args:
        names: row or column names [W] in order.
        where: the table, for messages.
        axis: what the names are, "row" or "column".
        words: of columns that hold words, a word by position.
        strip: versions of Ensembl ids are cut, before doubles are looked for.
        endings: endings of several modalities are refused (no where a reader parts them).
        strict: a table without a feature is refused (no where a reader has several).
    """
    left: dict[int, str] = {}
    sure: set[int] = set()
    unknown = unknown or Words()
    for i, name in enumerate(names):
        if matches(name, rule.keep):
            sure.add(i)
        elif why := _reason(name, rule, unknown, axis):
            left[i] = why
    open_ = [i for i in range(len(names)) if i not in left and i not in sure]
    problems = _doubtful(names, open_, words or {}, where, axis, endings)
    final = [without_version(n) if strip else n for n in names]
    chosen = _placed(names, final, left, rule, where, axis)
    chosen.problems = problems + chosen.problems
    if not chosen.names and not chosen.problems and strict:
        why = f"{len(names)} {axis}s are no features" if names else f"no {axis} beside the first"
        chosen.problems = [Problem(f"no feature is left: {why}", where, "--keep-features NAMES keeps what is one")]
    given = (*rule.not_features, *rule.keep)
    chosen.used = {p for p in given if any(matches(n, (p,)) for n in names)}
    chosen.notes = _notes(chosen.left_out, axis, where)
    return chosen


def unused(rule: FeatureRule, tables: Sequence[Chosen]) -> list[Problem]:
    """Names that the user gave and none of these tables has; nothing where there is no table."""
    used = {p for chosen in tables for p in chosen.used}
    flags = (("--not-features", rule.not_features), ("--keep-features", rule.keep))
    fix = "mend it: names are compared as they stand, capitals count; * and ? stand for others"
    return [
        Problem(f"no table has '{p}'", flag, fix) for flag, given in flags for p in given if tables and p not in used
    ]


def _reason(name: str, rule: FeatureRule, unknown: Words, axis: str) -> str | None:
    if matches(name, rule.not_features):
        return "--not-features"
    if unknown(name):
        return f"a {axis} without a name"
    if rule.par_y == "drop" and name.endswith(PAR_Y):
        return "the Y copy of a pseudo-autosomal gene (--par-y drop)"
    return known_kind(name)


def matches(name: str, patterns: Collection[str]) -> bool:
    """Whether a name is among these names and patterns."""
    return name in patterns or any(fnmatchcase(name, p) for p in patterns if "*" in p or "?" in p)


def _doubtful(
    names: Sequence[str], open_: Sequence[int], words: Mapping[int, str], where: str, axis: str, endings: bool
) -> list[Problem]:
    """What cannot be told: named, with the options that decide it."""
    found = []
    worded = [i for i in open_ if i in words]
    if worded:
        shown = ", ".join(f"'{names[i]}' ('{words[i]}')" for i in worded[:SHOWN])
        if any(has_comma(words[i]) for i in worded):
            found.append(Problem(f"{len(worded)} {axis}s: {shown} {COMMA}", where, COMMA_FIX))
        else:
            found.append(_undecided(names, worded, f"{len(worded)} {axis}s hold words, no numbers: {shown}", where))
    rest = [i for i in open_ if i not in words]
    ending_of = {i: e for i in rest if (e := ending(names[i])) in ENDINGS}
    ended = Counter(ending_of.values())
    if endings and len(ended) > 1:
        said = ", ".join(f"{n} end in _{e} ({ENDINGS[e]})" for e, n in ended.most_common())
        others = ",".join(f"*_{e}" for e, _ in ended.most_common()[1:])
        fix = f"keep one: --not-features '{others}' (the source glioma parts them)"
        found.append(Problem(f"several modalities under one table: of {len(rest)} {axis}s {said}", where, fix))
    odd = odd_ones(names, rest, ending_of)
    if odd:
        what = f"{len(odd)} of {len(rest)} {axis}s may be no features: {', '.join(names[i] for i in odd[:SHOWN])}"
        found.append(_undecided(names, odd, what + (", ..." if len(odd) > SHOWN else ""), where))
    return found


def _undecided(names: Sequence[str], odd: Sequence[int], what: str, where: str) -> Problem:
    shown = ",".join(names[i] for i in odd[:SHOWN]) + (",..." if len(odd) > SHOWN else "")
    return Problem(what, where, f"--not-features '{shown}' leaves them out, --keep-features '{shown}' keeps them")


def _placed(
    names: Sequence[str], final: Sequence[str], left: Mapping[int, str], rule: FeatureRule, where: str, axis: str
) -> Chosen:
    """Places of what is kept, doubles by the rule."""
    of: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(final):
        if i not in left:
            of[name].append(i)
    double = {n: places for n, places in of.items() if len(places) > 1}
    left_out = [(names[i] or f"{axis} {i + 1}", why) for i, why in left.items()]
    problems = []
    if double and rule.duplicates == "refuse":
        shown = ", ".join(
            f"{n} ({axis}s {', '.join(str(i + 1) for i in places[:SHOWN])})"
            for n, places in list(double.items())[:SHOWN]
        )
        what = f"{len(double)} names stand twice: {shown}" + (", ..." if len(double) > SHOWN else "")
        problems.append(Problem(what, where, "--duplicates first, mean, max or drop says what counts"))
    if rule.duplicates in ("first", "drop"):
        for name, places in double.items():
            gone = places[1:] if rule.duplicates == "first" else places
            left_out += [
                (f"{name} ({axis} {i + 1})", f"the name stands twice (--duplicates {rule.duplicates})") for i in gone
            ]
            of[name] = places[:1] if rule.duplicates == "first" else []
    elif rule.duplicates != "refuse":
        left_out += [(n, f"{len(p)} {axis}s became their {rule.duplicates} (--duplicates)") for n, p in double.items()]
    kept = [n for n, places in of.items() if places]
    place = np.full(len(names), -1, np.int64)
    for at, name in enumerate(kept):
        place[of[name]] = at
    return Chosen(kept, place, rule.duplicates, left_out, problems)


def _notes(left_out: Sequence[tuple[str, str]], axis: str, where: str) -> list[str]:
    """What was left out, a line for each reason."""
    by: dict[str, list[str]] = defaultdict(list)
    for name, why in left_out:
        by[why].append(name)
    name = where.rsplit("/", 1)[-1]
    return [
        f"{name}: {len(n)} x {why}: {', '.join(n[:SHOWN])}{', ...' if len(n) > SHOWN else ''}" for why, n in by.items()
    ]
