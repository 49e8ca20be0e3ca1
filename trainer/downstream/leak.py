"""Were test patients in pre-training? A number on patients whose data the encoder has seen is not the number it claims to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shards.identity import person
from trainer.card import Finished
from trainer.errors import UserError

SHOWN = 10


@dataclass(frozen=True)
class LeakReport:
    """checked: whether the patients of pre-training are known. ids: test patients that were learned from."""

    checked: bool
    ids: tuple[str, ...]
    selected_on: tuple[str, ...]
    note: str
    in_training: tuple[str, ...] = ()
    """Test patients that the task itself trains or chooses on: splits that leak."""
    in_choosing: tuple[str, ...] = ()
    """Validation patients that it trains on."""

    @property
    def first_line(self) -> str:
        """What a reader must see first; empty when there is nothing to warn of."""
        said = []
        if self.in_training:
            said.append(
                f"LEAK: {len(self.in_training)} test patients are also in training or validation ({shown(self.in_training)}): no number "
                "for new patients"
            )
        elif self.in_choosing:
            said.append(
                f"LEAK: {len(self.in_choosing)} validation patients are also in training: the choice is optimistic"
            )
        if self.ids:
            said.append(
                f"LEAK: {len(self.ids)} test patients were in pre-training ({shown(self.ids)}): no number for new patients"
            )
        elif not self.checked:
            said.append(f"NOT CHECKED for leaks: {self.note}")
        return "; ".join(said)

    def plain(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "shared": len(self.ids),
            "ids": list(self.ids),
            "selected_on": len(self.selected_on),
            "note": self.note,
            "in_training": len(self.in_training),
            "in_choosing": len(self.in_choosing),
        }


def shown(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")


def check_splits(
    train: Sequence[str], val: Sequence[str], test: Sequence[str], accept: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Test patients that are in training or validation too, and validation patients that are in training too.

    Raises:
        UserError: there are some, and `accept` is not set; they are counted and named.
    """
    learned, looked_at = {*map(person, train)}, {*map(person, val)}
    tested = sorted(p for p in set(test) if person(p) in learned | looked_at)
    chosen = sorted(p for p in set(val) if person(p) in learned)
    lines = (
        [f"{len(tested)} of {len(set(test))} test patients are in training or validation too: {shown(tested)}"]
        if tested
        else []
    )
    if chosen:
        lines.append(f"{len(chosen)} of {len(set(val))} validation patients are in training too: {shown(chosen)}")
    if lines and not accept:
        raise UserError(
            [
                *lines,
                "split the data set by patient (python -m shards split), or accept it with leak.accept=true; the result then says so in "
                "its first line",
            ]
        )
    return tuple(tested), tuple(chosen)


def check_leak(run: Finished | None, from_file: bool, test_patients: Sequence[str], accept: bool) -> LeakReport:
    """Compares the task's test patients with those of pre-training, before anything is trained.

    Raises:
        UserError: some are shared, and `accept` is not set; they are named.
    """
    if run is None:
        if from_file:
            return LeakReport(False, (), (), "the patients behind a weights file are not known")
        return LeakReport(True, (), (), "nothing was pre-trained")
    if not run.trained_on:
        return LeakReport(False, (), (), f"{run.path} has no list of its patients (patients.txt)")
    shared, selected = run.overlap(test_patients)
    if shared and not accept:
        raise UserError(
            [
                f"{len(shared)} of {len(set(test_patients))} test patients were in the pre-training of {run.path}: {shown(shared)}",
                "pre-train again without them (keep the task's test split out of data.split), test on other patients (data.test=...), "
                "or accept it with leak.accept=true; the result then says so in its first line",
            ]
        )
    note = f"{len(shared)} of {len(set(test_patients))} test patients are among the {run.patients} of pre-training"
    if selected:
        note += f"; {len(selected)} more were held back in it to choose its weights"
    if not run.by_form:
        note += "; its list (of an earlier version) holds names as they were written: other spellings may be missed"
    return LeakReport(True, tuple(shared), tuple(selected), note)
