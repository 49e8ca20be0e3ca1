"""Patients and labels of adopted samples: from meta.json, and from the members that a mapping names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from shards.errors import Problem, typed
from shards.format.index import Scan
from shards.format.members import Rule, loads, name_of, value_in
from shards.format.seal import SampleRow, cell
from shards.pack.labels import LabelRule, name_problem, settle
from shards.pack.manifest import Entry
from shards.tables.cells import unwritable
from shards.tables.identity import CUT, damage, person
from shards.tables.unknown import Words
from shards.untyped import Json

FIX_META = (
    'give every sample a KEY.meta.json with {"patient": ..., "labels": {...}}, name the value that says it (--member json.KEY=patient), '
    "or pass --patient-from-key if a key is a patient"
)
FIX_JSON = "store the member again from its source"
Value = str | float


@dataclass
class Sample:
    """A sample of a tar. Labels as they were written: texts, numbers, or None where it is not known; `kinds` were said by the mapping."""

    key: str
    shard: str
    patient: str = ""
    labels: dict[str, Value | None] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.shard}: {self.key}"


def read_samples(scan: Scan, meta: Mapping[str, bytes], rule: Rule, problems: list[Problem]) -> list[Sample]:
    """The samples of a shard that have a field, in tar order.

    Args:
        meta: the bytes of the meta.json of each sample that has one.
    """
    samples = {r[1]: Sample(r[1], scan.shard.name) for r in scan.rows}
    patients: dict[str, list[str]] = {key: [] for key in samples}
    for key, data in meta.items():
        _take_meta(samples[key], data, patients[key], problems)
    for key, member, where, data in scan.values:
        if key in samples:
            _take_values(samples[key], member, where, data, rule, patients[key], problems)
    for key, sample in samples.items():
        sample.patient = _patient(sample, scan.samples[key], patients[key], rule, problems)
    return list(samples.values())


def _take_meta(sample: Sample, data: bytes, patients: list[str], problems: list[Problem]) -> None:
    where = f"{sample.where}.meta.json"
    try:
        meta = loads(data)
    except ValueError as e:
        problems.append(Problem(f"is not JSON ({e})", where, FIX_JSON))
        patients.append("")  # not told again as a patient that is missing
        return
    if not isinstance(meta, dict) or not isinstance(meta.get("labels") or {}, dict):
        problems.append(Problem("is not an object with an object of labels", where, FIX_JSON))
        patients.append("")
        return
    _take_patient(meta.get("patient"), where, patients, problems)
    for name, value in (meta.get("labels") or {}).items():
        _take_label(sample, name, value, None, where, problems)


def _take_values(
    sample: Sample, member: str, where: str, data: bytes, rule: Rule, patients: list[str], problems: list[Problem]
) -> None:
    for target in rule.values_of(member):
        try:
            value = value_in(data, target)
        except ValueError as e:
            problems.append(Problem(f"cannot be read ({e})", where, FIX_JSON))
            patients.append("")
            return
        if target.role == "patient":
            _take_patient(value, where, patients, problems)
        else:
            _take_label(sample, target.name, value, target.kind, where, problems)


def _take_patient(value: Json, where: str, patients: list[str], problems: list[Problem]) -> None:
    if value is None or Words()(value):
        return
    name = name_of(value)
    if name is None:
        problems.append(Problem(f"the patient is {value!r}", where, "a patient's name is a text or a whole number"))
    elif damage(name) == CUT:
        problems.append(Problem(f"patient {name!r}: such names {CUT}", where, "bring the names as they were"))
    elif why := unwritable(name):
        problems.append(Problem(f"patient {name!r} {why}", where, "write the name on one line"))
    patients.append(name or "")  # what is told already is not told again as a patient that is missing


def _take_label(sample: Sample, name: str, value: Json, kind: str | None, where: str, problems: list[Problem]) -> None:
    if kind is not None:
        sample.kinds[name] = kind
    if value is None or (isinstance(value, float) and math.isnan(value)):
        sample.labels.setdefault(name, None)
        return
    if odd := name_problem(name):
        problems.append(Problem(odd.what, where, odd.fix))
        return
    if not isinstance(value, str | int | float) or (not isinstance(value, str) and not _finite(value)):
        problems.append(Problem(f"label '{name}' is {value!r}", where, "a label is a text, a number or null"))
        return
    new: Value = value if isinstance(value, str) else float(value)
    if sample.labels.get(name) not in (None, new):
        what = f"label '{name}' is both {sample.labels[name]!r} and {new!r}"
        problems.append(Problem(what, where, "map one member to a label"))
    sample.labels[name] = new


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _patient(sample: Sample, path: str, found: Sequence[str], rule: Rule, problems: list[Problem]) -> str:
    """The patient of a sample; what names several or none is a problem."""
    adopted, names = rule.adopted, list(found)
    if adopted and adopted.patient_pattern:
        hit = re.search(adopted.patient_pattern, path)
        if hit and hit[1]:
            names.append(hit[1])
        elif not names:
            problems.append(Problem(f"nothing in '{path}' fits the pattern", sample.where, "mend --patient-pattern"))
            return sample.key
    if len({person(n) for n in names}) > 1:
        what = f"sample '{sample.key}' has several patients: {', '.join(repr(n) for n in dict.fromkeys(names))}"
        problems.append(Problem(what, sample.where, "map one of them"))
    if names:
        return names[0]
    if not (adopted and adopted.patient_from_key):
        problems.append(Problem(f"sample '{sample.key}' has no patient", f"{sample.where}.meta.json", FIX_META))
    return sample.key


# -------------------------------------------------------------------------------------------------------------- labels


def rows_of(
    samples: Sequence[Sample],
    labels: LabelRule,
    classes: Mapping[str, Sequence[str]],
    notes: list[str],
) -> tuple[list[SampleRow], dict[str, str], list[Problem]]:
    """Rows of all samples, for training; the kind of each label; what is wrong with them.

    JSON tells texts and numbers apart: texts are classes and numbers numbers, unless the mapping or `--label-kind` says otherwise.

    Args:
        classes: those that stood in dataset.json: such a word means itself, whatever it would mean elsewhere.
    """
    entries = [Entry(s.where, s.key, s.patient) for s in samples]
    said = {n: k for s in samples for n, k in s.kinds.items()}
    names = sorted({n for s in samples for n in s.labels})
    kinds: dict[str, str] = {}
    problems = [
        Problem(f"no label '{n}'", "--label-kind", f"labels: {', '.join(names) or 'none'}")
        for n in labels.kinds
        if n not in names
    ]
    for name in names:
        words = labels.words
        if name in classes:
            words = replace(words, known=words.known | {c.lower() for c in classes[name]})
        kind, odd = _one(name, samples, entries, labels.kinds.get(name) or said.get(name), words, notes)
        problems += odd
        if kind is not None:
            kinds[name] = kind
    rows = [SampleRow(e.sample, e.patient, "train", dict(e.labels)) for e in entries]
    return rows, kinds, problems


def _one(
    name: str, samples: Sequence[Sample], entries: Sequence[Entry], declared: str | None, words: Words, notes: list[str]
) -> tuple[str | None, list[Problem]]:
    """Settles a label in the entries; its kind, None where all of its words mean that it is not known."""
    values = {i: v for i, s in enumerate(samples) if (v := s.labels.get(name)) is not None}
    texts = any(isinstance(v, str) and not words(v) for v in values.values())
    numbers = any(isinstance(v, float) for v in values.values())
    if declared is None and texts and numbers:
        fix = f"make all of them texts (classes) or all of them numbers, or say --label-kind {typed(f'{name}=class')}"
        return "class", [Problem(f"label '{name}' is a number in some samples and a text in others", "labels", fix)]
    kind = declared or ("class" if texts else "number")
    if not values:
        return kind, []
    for i, value in values.items():
        entries[i].labels[name] = cell(value)
    found = settle([entries[i] for i in values], [name], LabelRule(words), kinds={name: kind})
    notes += found.notes
    return found.kinds.get(name), found.problems
