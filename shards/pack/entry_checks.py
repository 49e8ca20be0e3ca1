"""What is wrong with the samples of a manifest, whoever made it: keys, patients, fields, splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shards.errors import Problem
from shards.format.info import KEY, SPLITS
from shards.pack.entries import Entry, bare, fieldless
from shards.tables.cells import unwritable
from shards.tables.identity import CUT, DATED, damage, person
from shards.tables.repeats import repeated, torn
from shards.tables.unknown import is_unknown


def entry_problems(entries: Sequence[Entry], fields: bool = True) -> list[Problem]:
    """Keys and patients that are missing or malformed, doubled samples, unknown splits, patients in two splits.

    Args:
        fields: samples without any field are told; not where no column for one exists, which is told already.
    """
    keys, splits = _Keys(entries), _Splits(entries)
    lacking = fieldless(entries) if fields else set()
    problems: list[Problem] = []
    for i, e in enumerate(bare(entries)):
        problems += keys.problems(e)
        problems += _of_patient(e)
        if i in lacking:
            problems.append(
                Problem(f"sample '{e.sample}' has no field at all", e.where, "fill a field or drop the line")
            )
        problems += splits.problems(e)
    return problems


class _Keys:
    """Where a key stood first. Only keys that repeat are remembered: a manifest may have millions of lines."""

    def __init__(self, entries: Sequence[Entry]):
        self._twice = repeated(e.sample for e in bare(entries))
        self._first: dict[str, str] = {}

    def problems(self, e: Entry) -> Iterator[Problem]:
        if not KEY.fullmatch(e.sample):
            fix = "a key has letters, digits, '_' and '-' only: a dot would end it in a tar, a slash leaves the folder"
            yield Problem(f"sample '{e.sample}' is not a key", e.where, fix)
        elif e.sample in self._first:
            what = f"sample '{e.sample}' stands twice (first in {self._first[e.sample]})"
            yield Problem(what, e.where, "give every sample a key of its own")
        if hash(e.sample) in self._twice:
            self._first.setdefault(e.sample, e.where)


def _of_patient(e: Entry) -> Iterator[Problem]:
    if is_unknown(e.patient) or damage(e.patient) in (CUT, DATED):
        what = f"sample '{e.sample}' has no patient{f': {e.patient!r} is none' if e.patient else ''}"
        yield Problem(what, e.where, "fill the patient column: splits are made by patient")
    elif why := unwritable(e.patient):
        yield Problem(f"patient {e.patient!r} {why}", e.where, "write the name on one line")


class _Splits:
    """The split in which a person stood first. Only people of several splits are remembered."""

    def __init__(self, entries: Sequence[Entry]):
        self._parted = torn((person(e.patient), e.split) for e in bare(entries) if e.split in SPLITS and e.patient)
        self._first: dict[str, tuple[str, str, str]] = {}

    def problems(self, e: Entry) -> Iterator[Problem]:
        if e.split is None:
            return
        if e.split not in SPLITS:
            yield Problem(f"split '{e.split}'", e.where, f"one of {', '.join(SPLITS)}")
        elif e.patient and hash(person(e.patient)) in self._parted:
            split, where, name = self._first.setdefault(person(e.patient), (e.split, e.where, e.patient))
            if split != e.split:
                known = "" if name == e.patient else f" as '{name}'"
                what = f"patient '{e.patient}' is in {e.split} here and in {split}{known} in {where}"
                yield Problem(what, e.where, "put all samples of a patient into one split")
