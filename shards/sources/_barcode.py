"""What a TCGA barcode says of a tissue sample and of a slide.

Sample types: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/ ; slides are DX (diagnostic, formalin-fixed) or frozen sections:
TS, MS, BS (top, middle, bottom of the portion that was sequenced). A barcode is read with dashes, dots (R) or underscores, in any case;
`identity.barcode` is its case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from shards.errors import DataError, Problem, bad
from shards.tables.identity import barcode
from shards.tables.keyed import Row, Rows, keyed

# Between underscores a sample type needs its vial (01A): TCGA_02_0001_12 is tile 12 of a case.
_SAMPLE = r"TCGA(?P<sep>[-._])[A-Z0-9]{2}(?P=sep)[A-Z0-9]{4}(?P=sep)(?P<type>\d{2})(?:(?P<vial>[A-Z])(?![A-Z0-9])|(?<!_\d\d)(?![A-Z0-9]))"
SAMPLE = re.compile(_SAMPLE, re.IGNORECASE)
SECTION = re.compile(_SAMPLE + r"(?P=sep)\d{2}(?P=sep)(?P<kind>DX|TS|MS|BS)(?P<number>[0-9A-Z]*)", re.IGNORECASE)
# With what tells two scans of it apart: .UUID of a TCGA file, which tools may write with an underscore.
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
SLIDE = re.compile(SECTION.pattern + rf"(?:\.[0-9a-z-]+|_{_UUID})?", re.IGNORECASE)
TUMOURS = range(1, 10)  # 01-09; 10-19 are normal tissue, 20 and over controls
NORMAL = range(10, 20)


def sample_type(name: str) -> int | None:
    """01 of TCGA-05-4244-01Z-00-DX1; None where the name stops at the case."""
    found = SAMPLE.match(name)
    return int(found["type"]) if found else None


def no_tumour(name: str) -> str | None:
    """Why a sample does not stand for its patient's tumour: no barcode, or of another tissue."""
    if barcode(name) is None:
        return "not a TCGA barcode"
    kind = sample_type(name)
    if kind is None or kind in TUMOURS:
        return None
    return "normal tissue, not tumour" if kind in NORMAL else f"sample type {kind:02d}, not tumour"


def section(name: str) -> tuple[str, int] | None:
    """('DX', 1) of a first diagnostic slide; numbers that are none come last."""
    found = SECTION.match(name)
    if not found:
        return None
    return found["kind"].upper(), int(found["number"]) if found["number"].isdecimal() else 99


def slide_of(name: str) -> str:
    """The slide that a file's name begins with, in one spelling; what follows (_features, _20x) says something of the file."""
    found = SLIDE.match(name)
    return (found[0] if found else name).upper().replace("_", "-")


def no_diagnostic_slide(name: str) -> str | None:
    """Why a slide is not one of the patient's diagnostic ones of the tumour."""
    if why := no_tumour(name):
        return why
    kind = section(name)
    return (
        f"frozen section ({kind[0]}), not a diagnostic slide (--frozen takes them)"
        if kind and kind[0] != "DX"
        else None
    )


def sample_rank(name: str) -> tuple[int, str]:
    """Primary tumours before recurrences and metastases, vial A before B; a name that does not say it after these."""
    found = SAMPLE.match(name)
    return (int(found["type"]), (found["vial"] or "").upper()) if found else (99, "")


def slide_rank(name: str) -> tuple[int, int]:
    """Primary tumours before recurrences and metastases, DX1 before DX2 before frozen sections; what does not say it after these."""
    kind = section(name)
    return sample_type(name) or 99, 99 if kind is None else kind[1] + 100 * (kind[0] != "DX")


def first_of(
    by_case: Mapping[str, Sequence[str]],
    rank: Callable[[str], tuple[object, ...]],
    where: str,
    replicates: str,
    other: str = "",
) -> dict[str, str]:
    """The name of each case that stands before its others by `rank`.

    Args:
        replicates: `ask` refuses cases whose first ones are equal but for their name (two scans of a slide, two aliquots of a vial);
            `first` takes the first by name.
        other: a further way out, told beside these.

    Raises:
        DataError: such cases, all of them.
    """
    chosen, problems = {}, []
    for case, names in by_case.items():
        ranked = sorted(names, key=lambda n: (rank(n), n))
        chosen[case] = ranked[0]
        equal = [n for n in ranked if rank(n) == rank(ranked[0])]
        if len(equal) > 1 and replicates == "ask":
            what = f"nothing but their names tells which of '{case}' is meant: " + ", ".join(f"'{n}'" for n in equal)
            fix = f"leave one of them there, or --replicates first takes the first by name{other}"
            problems.append(Problem(what, where, fix))
    if problems:
        raise DataError(problems)
    return chosen


def by_case(rows: Rows, flag: str, unmatched: list[tuple[str, str]]) -> dict[str, Row]:
    """The line of each case of a table whose first column has barcodes; lines without one go to `unmatched`.

    Raises:
        DataError: a case on two lines, no header, or no barcode at all.
    """
    if barcode(rows.first) is not None:
        raise bad(
            f"its first line names a case ('{rows.first}'), no columns",
            f"{flag} {rows.path}",
            "put a header line above it",
        )
    found = keyed(rows, lambda row: barcode(row[rows.first]), "case")
    unmatched += [(row[rows.first], "not a TCGA barcode") for row in rows if barcode(row[rows.first]) is None]
    if not found:
        what = f"no TCGA barcode in its first column, '{rows.first}' (it has '{rows.rows[0][rows.first]}')"
        raise bad(what, f"{flag} {rows.path}", "write a column that names cases as TCGA-XX-XXXX first")
    return found
