"""The words that mean "not known" in a cell of any table, for every reader of labels, numbers, splits, ids and reports."""

from __future__ import annotations

from collections.abc import Collection

# Lower case, without surrounding blanks: those of R, pandas, spreadsheets, GDC ('--, Not Reported) and BCR biotabs ([Not Available]).
UNKNOWN = frozenset(
    (
        "",
        "na",
        "n/a",
        "#n/a",
        "<na>",
        "nan",
        "null",
        "none",
        "'--",
        "--",
        "not reported",
        "not available",
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
