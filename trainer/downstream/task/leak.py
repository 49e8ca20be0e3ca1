"""Were test patients in pre-training? A number on patients whose data the encoder has seen is not the number it claims to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shards.check.witness import contents_of
from shards.read.dataset import Dataset
from shards.tables.identity import person
from trainer.downstream.task.schema import Task
from trainer.downstream.task.texts import NO_TEXTS, Texts, shared_texts
from trainer.downstream.task.twins import REMEDY, Learned, comparable, learned, within
from trainer.errors import UserError
from trainer.state.finished import Finished, Seen

SHOWN = 10
NOBODY = np.array([], np.int64)


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
    images: tuple[str, ...] = ()
    """Test samples of other patients whose image or bag pre-training learned from."""
    images_in_training: tuple[str, ...] = ()
    """Test samples whose image or bag stands in training or validation, under another patient."""
    images_in_choosing: tuple[str, ...] = ()
    texts: Texts = NO_TEXTS
    """Of a mode that reads reports or prompts: test samples whose report has the words of one of pre-training."""
    unseen: str = ""
    """Why images and bags could not be compared with those of pre-training."""

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
        if self.images_in_training:
            said.append(
                f"LEAK: {len(self.images_in_training)} test samples hold an image or bag of training or validation, under another "
                f"patient ({shown(self.images_in_training)}): no number for new patients"
            )
        elif self.images_in_choosing:
            said.append(
                f"LEAK: {len(self.images_in_choosing)} validation samples hold an image or bag of training: the choice is optimistic"
            )
        if self.ids:
            said.append(
                f"LEAK: {len(self.ids)} test patients were in pre-training ({shown(self.ids)}): no number for new patients"
            )
        elif not self.checked:
            said.append(f"NOT CHECKED for leaks: {self.note}")
        if self.images:
            said.append(
                f"LEAK: {len(self.images)} test samples hold an image or bag of pre-training, under another patient "
                f"({shown(self.images)}): no number for new patients"
            )
        elif self.unseen:
            said.append(f"NOT CHECKED for equal images: {self.unseen}")
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
            "images": len(self.images),
            "image_keys": list(self.images),
            "images_checked": self.checked and not self.unseen,
            "images_in_training": len(self.images_in_training),
            "images_in_choosing": len(self.images_in_choosing),
            "texts": len(self.texts.keys),
            "text_keys": list(self.texts.keys),
            "texts_compared": 0 if self.texts.unseen else self.texts.compared,
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


def check_task(
    task: Task, data: Dataset, splits: Mapping[str, np.ndarray], run: Finished | None, from_file: bool
) -> LeakReport:
    """The whole check of a task, before anything is trained: patients by name and images and bags by content, within the task and
    against pre-training (`run`, None where there was none of ours). A mode that learns nothing has the test split alone.

    Raises:
        UserError: anything is shared, and `leak.accept` is not set; all of it is counted and named.
    """
    names, accept, problems = task.data, task.leak.accept, list[str]()
    if not task.learns:
        splits = {names.train: NOBODY, names.val: NOBODY, names.test: splits[names.test]}
    test = data.patients_of(splits[names.test])
    train, val = (data.patients_of(splits[s] if task.learns else NOBODY) for s in (names.train, names.val))
    contents = contents_of(data)
    own: tuple[tuple[str, ...], tuple[str, ...]] = (), ()
    report = LeakReport(False, (), (), "")
    try:
        own = check_splits(train, val, test, accept)
    except UserError as e:
        problems += e.problems
    twins = within(data, contents, splits, names.train, names.val, names.test)
    problems += [*twins.problems, REMEDY] if twins.problems and not accept else []
    try:
        report = check_leak(run, from_file, test, accept)
    except UserError as e:
        problems += e.problems
    if run is not None:
        seen = learned(run, data, contents, splits[names.test], report.ids or run.overlap(test)[0])
        report, lines = _with_images(report, run, seen, comparable(data))
        problems += lines if not accept else []
    if problems:
        raise UserError(problems)
    if run is not None and not task.learns:
        report = replace(report, texts=shared_texts(run, data, splits[names.test]))
    tested, chosen = tuple(twins.tested), tuple(twins.chosen)
    return replace(report, in_training=own[0], in_choosing=own[1], images_in_training=tested, images_in_choosing=chosen)


def check_external(
    training: Seen, run: Finished | None, unchecked: str, data: Dataset, test: np.ndarray
) -> tuple[LeakReport, list[str]]:
    """The check of another data set's cases against what a fine-tune learned from or chose by, and its pre-training.

    Args:
        training: what the fine-tune learned from.
        run: its pre-training; None where there was none of ours, or it is not there: then `unchecked` says why, if anything is open.

    Returns:
        the report, and what is shared, as problems with counts.
    """
    patients, contents, problems = data.patients_of(test), contents_of(data), list[str]()
    shared = sorted({p for found in training.overlap(patients) for p in found})
    if shared:
        problems.append(
            f"{len(shared)} of {len(set(patients))} patients of {data.path} were in the training or validation of {training.path}: "
            f"{shown(shared)}"
        )
    seen = learned(training, data, contents, test, shared)
    assert seen.keys is not None
    if seen.keys:
        problems.append(
            f"{len(seen.keys)} of {seen.compared} samples of {data.path} hold an image or a bag of the training or validation of "
            f"{training.path}, under another patient: {shown(seen.keys)}"
        )
    report = LeakReport(not unchecked, (), (), unchecked or "nothing was pre-trained")
    if run is not None:
        report = check_leak(run, False, patients, accept=True)
        if report.ids:
            problems.append(
                f"{len(report.ids)} of {len(set(patients))} patients of {data.path} were in the pre-training of {run.path}: "
                f"{shown(report.ids)}"
            )
        found = learned(run, data, contents, test, report.ids)
        report, lines = _with_images(report, run, found, comparable(data))
        problems += lines[:1]
    if problems:
        problems.append(
            "leave them out (data.split=NAME looks at one split of a set), or accept it with leak.accept=true; the result then says so in "
            "its first line"
        )
    return replace(report, in_training=tuple(shared), images_in_training=seen.keys), problems


def _with_images(
    report: LeakReport, run: Finished, seen: Learned, any_to_compare: bool
) -> tuple[LeakReport, list[str]]:
    """The report with what the images and bags of pre-training say, and that as problems."""
    if seen.keys is None:
        why = f"{run.path} kept no record of its images (contents.npz): give its own command again, it finishes at once and writes it"
        return replace(report, unseen=why if any_to_compare else ""), []
    how = "" if seen.confirmed else ", by size and CRC-32 alone, as its data are not where they were"
    note = f"{report.note}; {len(seen.keys)} of {seen.compared} test samples hold an image or bag of it under another name{how}"
    if seen.selected:
        note += f"; {seen.selected} hold one that it chose its weights by"
    problems = []
    if seen.keys:
        problems = [
            f"{len(seen.keys)} of {seen.compared} test samples hold an image or a bag that the pre-training of {run.path} learned from, "
            f"under another patient{how}: {shown(seen.keys)}",
            REMEDY,
        ]
    return replace(report, images=seen.keys, note=note if any_to_compare and report.checked else report.note), problems


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
