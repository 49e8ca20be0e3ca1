"""Survival of TCGA's patients from a clinical table: a time whose unit is said, and whether it ended with the event.

cBioPortal   data_clinical_patient.txt   PATIENT_ID, OS_MONTHS, OS_STATUS (1:DECEASED)
Xena, CDR    sample, _PATIENT, OS, OS.time: 1 for the event; the table does not say the unit
GDC          clinical.tsv: vital_status, days_to_death, days_to_last_follow_up (also as demographic.vital_status, ...)
MCAT         case_id, survival_months, censorship: 1 for censored

Another table by `--survival-time` and `--survival-event`. The labels made of it are `os_days` (the unit is in the name) and `os_event`,
`event` or `censored`.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import DataError, Problem, bad, typed
from shards.pack.manifest import Entry
from shards.tables.cells import number
from shards.tables.identity import barcode, few
from shards.tables.joins import Side, partners
from shards.tables.keyed import Row, Rows, no_column, read_together, several
from shards.tables.sides import SURVIVAL, understood
from shards.tables.unknown import Words, words_of

ENDPOINTS = ("OS", "DSS", "PFI", "PFS", "DFI", "DFS")
CENTURY = {"days": 36525.0, "months": 1200.0, "years": 100.0}
IN_NAME = re.compile(r"(?:.*[^a-z])?(days|months|years)(?:[^a-z].*)?")
EVENT, CENSORED = "event", "censored"
VITAL, DEATH, FOLLOW = "vital_status", "days_to_death", "days_to_last_follow_up"
Unmatched = list[tuple[str, str]]


@dataclass(frozen=True)
class Form:
    """Which columns hold it. last: the time of those without the event stands in another column (GDC)."""

    time: str
    event: str
    last: str | None = None


@dataclass
class Survival:
    """{case: (time, whether with the event)}, the labels' names and what to tell."""

    of_case: dict[str, tuple[float, bool]] = field(default_factory=dict)
    time: str = ""
    event: str = ""
    notes: list[str] = field(default_factory=list)

    def put(self, entries: Sequence[Entry]) -> list[str]:
        """Gives each entry its labels; returns their names.

        Raises:
            DataError: an entry has a label of such a name already.
        """
        if there := sorted({self.time, self.event} & {label for e in entries for label in e.labels}):
            fix = "leave --survival out, or rename these columns of the table of labels"
            raise bad(f"{', '.join(there)}: a label of this name is there already", "--survival", fix)
        for entry in entries:
            if (known := self.of_case.get(entry.patient)) is not None:
                entry.labels |= {self.time: f"{known[0]:.10g}", self.event: EVENT if known[1] else CENSORED}
        return [self.time, self.event]


def options(parser: argparse.ArgumentParser) -> None:
    """The options that `survival_of` reads."""
    add = parser.add_argument
    add(
        "--survival",
        type=Path,
        nargs="+",
        help="clinical table of GDC, cBioPortal, Xena or MCAT (several of one form, such as one a cohort), or another with the two "
        "options below",
    )
    add("--endpoint", choices=ENDPOINTS, default="OS", help="of a table with several (default: OS)")
    add("--survival-time", metavar="COLUMN", help="the column of times")
    add("--survival-event", metavar="COLUMN", help="the column that says whether a time ended with the event")
    add("--survival-unit", choices=tuple(CENTURY), help="unit of the times, where their column's name does not say it")
    add("--event-value", metavar="WORD", help="the cell that says that the event happened, where words do not tell")


def put_survival(
    args: argparse.Namespace, entries: Sequence[Entry], unmatched: Unmatched, notes: list[str]
) -> list[str]:
    """Gives entries what `--survival` says of their patients and adds to `notes` what is to be told; returns the labels' names.

    Raises:
        DataError: as `survival_of` and `Survival.put`.
    """
    found = survival_of(args, list(dict.fromkeys(e.patient for e in entries)), unmatched)
    if found is None:
        return []
    notes += found.notes
    return found.put(entries)


def survival_of(args: argparse.Namespace, cases: Sequence[str], unmatched: Unmatched) -> Survival | None:
    """What `--survival` says of these cases; None where it is not given. Cases without it go to `unmatched` with the reason.

    Raises:
        DataError: no such columns or several, a unit or an event that is not said, cells that are no times, cases on lines that differ.
    """
    if args.survival is None:
        return None
    rows, alone = read_together(args.survival)
    case_of = _case_column(rows)
    form = _form(rows, args)
    unit, wrong = _unit(form.time, args)
    is_event, said = _events(rows, form, args, words_of(args))
    wrong += said[1]
    found = Survival(time=f"{args.endpoint.lower()}_{unit}", event=f"{args.endpoint.lower()}_event")
    lines: dict[str, list[tuple[float | str, bool | None, Row]]] = defaultdict(list)
    for row in rows:
        if (case := barcode(row[case_of])) is not None:
            event = is_event.get(row[form.event])
            lines[case].append((_time(row, form, event, words_of(args), unit, wrong), event, row))
    for case, told in lines.items():
        _settle(case, told, form, found, unmatched, wrong)
    if wrong:
        raise DataError(wrong)
    fix = "both must name cases by TCGA barcode (TCGA-XX-XXXX)"
    file = few([p.name for p in several(args.survival)])
    joined = alone + partners(f"--survival {file}", Side.of("the samples", cases), Side.of(file, list(lines)), fix)[1]
    known = [found.of_case[c][1] for c in cases if c in found.of_case]
    found.notes += [*joined, f"{found.time} by '{form.time}', {found.event} by '{form.event}' ({said[0]})"]
    found.notes.append(f"{args.endpoint}: known of {len(known)} of {len(cases)} cases, {sum(known)} with the event")
    return found


def _case_column(rows: Rows) -> str:
    """A column whose cells all name cases."""
    fits = [c for c in rows.columns if any(row[c] for row in rows) and all(barcode(row[c]) for row in rows if row[c])]
    if not fits:
        shown = ", ".join(f"'{c}' ('{rows.rows[0][c]}')" for c in rows.columns[:3])
        fix = "give one with a column of barcodes (GDC: case_submitter_id, cBioPortal: PATIENT_ID, Xena: sample)"
        raise bad(f"no column of TCGA barcodes; it begins {shown}", rows.path, fix)
    if odd := [r for r in rows if len({barcode(r[c]) for c in fits if r[c]}) > 1]:
        what = f"{', '.join(fits)} name different cases: " + ", ".join(f"'{odd[0][c]}'" for c in fits)
        raise bad(what, odd[0].where, "mend the lines in which they differ")
    return fits[0]


def _form(rows: Rows, args: argparse.Namespace) -> Form:
    """The columns that were named, or the only form that the table has."""
    path, end = rows.path, args.endpoint
    asked = args.survival_time, args.survival_event
    if all(asked):
        lacking = [
            (f, c) for f, c in zip(("--survival-time", "--survival-event"), asked, strict=True) if c not in rows.columns
        ]
        if lacking:
            raise DataError([no_column([c], f, path, rows.columns) for f, c in lacking])
        return Form(*asked)
    by_ending = {c.rpartition(".")[2]: c for c in rows.columns}
    known = [Form(f"{end}_MONTHS", f"{end}_STATUS"), Form(f"{end}.time", end)]
    if end == "OS":
        known += [Form("survival_months", "censorship")]
        known += (
            [Form(*(by_ending[c] for c in (DEATH, VITAL, FOLLOW)))] if {DEATH, VITAL, FOLLOW} <= set(by_ending) else []
        )
    there = [f for f in known if {f.time, f.event} <= set(rows.columns)]
    if len(there) != 1 or any(asked):
        forms = " and ".join(f"'{f.time}' with '{f.event}'" for f in there)
        what = f"several columns of {end}: {forms}" if len(there) > 1 else f"no columns of {end} that are known"
        what = "a column of times without one of events, or the other way round" if any(asked) else what
        fix = f"name them: --survival-time COLUMN --survival-event COLUMN; it has {few(rows.columns)}"
        raise bad(what, path, fix)
    return there[0]


def _unit(time: str, args: argparse.Namespace) -> tuple[str, list[Problem]]:
    """The unit that the column's name has, or that is said; both must agree."""
    named = IN_NAME.fullmatch(time.lower())
    said, where = args.survival_unit, f"{several(args.survival)[0]}, column '{time}'"
    if named and said not in (None, named[1]):
        fix = f"leave it out, or give --survival-unit {named[1]}"
        return named[1], [Problem(f"is said to be {said}, and its name says {named[1]}", where, fix)]
    if not named and said is None:
        fix = "say it: --survival-unit days (Xena's and the CDR's OS.time), months or years"
        return "days", [Problem("does not say its unit", where, fix)]
    return said or (named[1] if named else "days"), []


def _events(
    rows: Rows, form: Form, args: argparse.Namespace, unknown: Words
) -> tuple[dict[str, bool], tuple[str, list[Problem]]]:
    """{cell: whether it says that the event happened}, how that is known, and what is wrong with it."""
    words = sorted({row[form.event] for row in rows if not unknown(row[form.event])})
    where = f"{rows.path}, column '{form.event}'"
    if (asked := args.event_value) is not None:
        if asked in words:
            return {w: w == asked for w in words}, (f"'{asked}' is the event", [])
        fix = f"give --event-value one of its cells: {', '.join(map(typed, words[:9]))}"
        return {}, ("", [Problem(f"no cell '{asked}'", where, fix)])
    sides = understood(words, SURVIVAL) if words else None
    if sides is None:
        what = (
            f"nothing tells which of {few([repr(w) for w in words])} is the event" if words else "no cell says anything"
        )
        return {}, ("", [Problem(what, where, "say it: --event-value WORD, the cell of those who had the event")])
    censored = "censor" in form.event.lower()
    note = f"{few([repr(w) for w in (sides.no if censored else sides.yes)])} is the event"
    note += ", since the column is named for the censored" if censored else f", {sides.by}"
    return {w: (w in sides.yes) != censored for w in words}, (note, [])


def _time(row: Row, form: Form, event: bool | None, unknown: Words, unit: str, problems: list[Problem]) -> float | str:
    """The time of a line, or why there is none."""
    column = form.last if form.last is not None and event is False else form.time
    if unknown(row[column]):
        return f"no {column}"
    value = number(row[column])
    if value is None or value > CENTURY[unit]:
        what = f"{column} is '{row[column]}', " + ("no number" if value is None else f"over a century of {unit}")
        problems.append(Problem(what, row.where, "mend the cell, or its unit"))
        return "no time"
    return value if value >= 0 else f"a time before 0 ({column} {row[column]})"


def _settle(
    case: str,
    told: Sequence[tuple[float | str, bool | None, Row]],
    form: Form,
    found: Survival,
    unmatched: Unmatched,
    problems: list[Problem],
) -> None:
    """One time of a case from all of its lines. Of several last contacts (GDC's lines of diagnoses) the last one counts."""
    known = {(t, e) for t, e, _ in told if isinstance(t, float) and e is not None}
    if form.last is not None and {e for _, e in known} == {False}:
        known = {max(known)}
    if len(known) > 1:
        shown = "; ".join(f"{t:g} {EVENT if e else CENSORED} ({r.where})" for t, e, r in told if isinstance(t, float))
        problems.append(Problem(f"lines of '{case}' differ: {shown}", str(told[0][2].where), "keep one of them"))
    elif known:
        found.of_case[case] = known.pop()
    else:
        why = Counter(f"no {form.event}" if e is None or not isinstance(t, str) else t for t, e, _ in told).most_common(
            1
        )[0][0]
        unmatched.append((case, f"no survival: {why}"))
