"""Findings of chest films as labels: present, absent, uncertain, or no label where a cell is blank. Nothing is decided here.

CheXpert's and MIMIC-CXR-JPG's labellers write 1, 0, -1 and blank (not mentioned); ChestX-ray14 names what is there, joined by `|`. What an
uncertain answer and a blank count for is a choice of the task (docs/tasks.md), so all four stay apart in a data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from shards.errors import Problem
from shards.sources._cxr_layouts import columns_named
from shards.tables.cells import number, plain
from shards.tables.keyed import Row

WORDS = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
# Irvin et al., AAAI 2019, Table 1; MIMIC-CXR-JPG has the same.
CHEXPERT = (
    "no_finding", "enlarged_cardiomediastinum", "cardiomegaly", "lung_opacity", "lung_lesion", "edema", "consolidation", "pneumonia",
    "atelectasis", "pneumothorax", "pleural_effusion", "pleural_other", "fracture", "support_devices",
    "airspace_opacity",  # lung opacity in MIMIC-CXR-JPG's first release
)  # fmt: skip
# Wang et al., CVPR 2017, as Data_Entry_2017.csv spells them.
NIH = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax", "consolidation", "edema",
    "emphysema", "fibrosis", "pleural_thickening", "hernia",
)  # fmt: skip
NONE = "no_finding"
JOINED = "finding_labels"
Labels = dict[str, str]


def finding_columns(header: Sequence[str]) -> list[str]:
    """The columns that hold CheXpert's findings."""
    return list(columns_named(header, CHEXPERT))


def joined_column(header: Sequence[str]) -> str | None:
    """ChestX-ray14's column of findings joined by `|`."""
    return next(columns_named(header, [JOINED]), None)


def answers(row: Row, columns: Iterable[str], unknown: Callable[[str], bool], problems: list[Problem]) -> Labels:
    """What a row says of each finding. A blank cell becomes no label; anything else than 1, 0 and -1 is a problem."""
    found = {}
    for column in columns:
        cell = row[column]
        if unknown(cell):
            continue
        value = number(cell)
        word = WORDS.get(value) if value is not None else cell.lower() if cell.lower() in WORDS.values() else None
        if word is None:
            fix = "a finding is 1 (present), 0 (absent), -1 (uncertain) or blank"
            problems.append(Problem(f"'{column}' is '{cell}'", row.where, fix))
        else:
            found[plain(column)] = word
    return found


def joined(row: Row, column: str, unknown: Callable[[str], bool], problems: list[Problem]) -> Labels:
    """A film's findings out of `Edema|Mass`: those that are named are present, the others of the fourteen absent."""
    cell = row[column]
    if unknown(cell):
        return {}
    named = [plain(n) for n in cell.split("|")]
    strange = [n for n in named if n not in (*NIH, NONE)]
    if strange:
        what = f"'{column}' names {', '.join(map(repr, strange))}"
        problems.append(Problem(what, row.where, f"known are {', '.join(NIH)} and {NONE}"))
    if NONE in named and len(named) > 1:
        problems.append(
            Problem(f"'{column}' is '{cell}': no finding, and findings", row.where, f"write the findings, or {NONE}")
        )
    return {n: "present" if n in named else "absent" for n in (*NIH, NONE)}


def counted(labels: Iterable[Mapping[str, str]], findings: Sequence[str]) -> str:
    """One line on all answers."""
    rows = list(labels)
    words = Counter(r.get(f, "blank") for r in rows for f in findings)
    said = ", ".join(f"{words[w]} {w}" for w in (*WORDS.values(), "blank"))
    return f"{len(findings)} findings of {len(rows)} images: {said}"
