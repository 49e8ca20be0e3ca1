"""The words that mean "not known" in a cell of any table, for every reader of labels, numbers, splits, ids and reports.

No reader has another list. `Words` is the list with what `--unknown` adds to it and `--known` takes from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass

# Lower case, without surrounding blanks: those of R, pandas, Stata and SAS (.), spreadsheets, GDC ('--, Not Reported), BCR biotabs
# ([Not Available]) and cBioPortal.
UNKNOWN = frozenset(
    (
        "",
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "#na",
        "#n/a n/a",
        "<na>",
        "nan",
        "-nan",
        "1.#qnan",
        "-1.#ind",
        "nat",
        "null",
        "#null!",
        "#value!",
        "#ref!",
        "#div/0!",
        "#num!",
        "#name?",
        "none",
        "'--",
        "--",
        "-",
        ".",
        "?",
        "todo",
        "missing",
        "unknown",
        "unk",
        "not known",
        "not reported",
        "not available",
        "not applicable",
        "not evaluated",
        "[not reported]",
        "[not available]",
        "[not applicable]",
        "[not evaluated]",
        "[unknown]",
        "[pending]",
        "[discrepancy]",
        "[completed]",
    )
)


def is_unknown(cell: object, extra: Collection[str] = ()) -> bool:
    """Whether a cell says that the value is not known. `extra`: further words, as given by `--unknown`."""
    word = "" if cell is None else str(cell).strip().lower()
    return word in UNKNOWN or word in {w.strip().lower() for w in extra}


@dataclass(frozen=True)
class Words:
    """The list with the user's changes: `unknown` are further words, `known` are words that do mean a value here. Case does not count."""

    unknown: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()

    def __call__(self, cell: object) -> bool:
        """Whether a cell says that the value is not known; an empty one always does."""
        word = "" if cell is None else str(cell).strip().lower()
        return word in self.unknown or (word in UNKNOWN and (not word or word not in self.known))


def words_of(args: argparse.Namespace) -> Words:
    """What `--unknown` and `--known` say."""
    given = (getattr(args, flag, None) or () for flag in ("unknown", "known"))
    return Words(*(frozenset(w.strip().lower() for w in words) for words in given))
