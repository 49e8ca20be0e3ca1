"""Splits as a set was published with: a column, or lists of images; validation drawn from training's patients where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from shards.errors import Problem
from shards.layout.schema import Splits
from shards.pack.manifest import Entry
from shards.pack.split import assign
from shards.tables.identity import few, sample
from shards.tables.table_file import read_text

OTHER_SPLITS = "split by patient: --splits patient"


class Published:
    """The splits of a layout; fills `notes`, `unmatched` and `problems` of the engine."""

    def __init__(
        self, splits: Splits, root: Path, notes: list[str], unmatched: list[tuple[str, str]], problems: list[Problem]
    ):
        self.splits, self.root = splits, root
        self.notes, self.unmatched, self.problems = notes, unmatched, problems

    def __call__(self, entries: list[Entry]) -> list[Entry]:
        """The entries that have a split, each with it."""
        splits = self.splits
        if splits.lists:
            entries = self._listed(entries, splits.lists)
        if splits.validation and not self.problems:
            _draw_validation(entries, splits.validation)
            self.notes.append(
                f"no validation list was published: {splits.validation:g} of training's patients are drawn for it"
            )
        self.notes.append(
            f"splits: as published{f' ({splits.note})' if splits.note else ''}; --splits patient makes others"
        )
        return entries

    def _listed(self, entries: list[Entry], lists: Mapping[str, str]) -> list[Entry]:
        """The entries that the lists name; patients of two lists are told by `entry_problems`."""
        of: dict[str, str] = {}
        for split, file in lists.items():
            path = self.root / file
            if not path.is_file():
                self._wrong(f"no list of splits {file}", self.root, f"bring it, or {OTHER_SPLITS}")
                continue
            names = [sample(n.split()[0]) for n in read_text(path).splitlines() if n.strip()]
            if twice := [n for n in names if n in of]:
                what = f"{len(twice)} images are in two lists, or twice in {file} ({few(twice)})"
                self._wrong(what, path, f"bring the lists as published, or {OTHER_SPLITS}")
            of |= dict.fromkeys(names, split)
        kept = []
        for entry in entries:
            entry.split = of.pop(sample(entry.fields["image"].text), None)
            kept += [entry] if entry.split else []
            self.unmatched += [] if entry.split else [(entry.sample, "in no published list of splits")]
        if not kept and not self.problems:
            what = "the lists of splits name none of the images"
            self._wrong(what, self.root, f"bring those of this set, or {OTHER_SPLITS}")
        self.notes += [f"the lists name {len(of)} images more, such as {next(iter(of))}"] if of else []
        return kept

    def _wrong(self, what: str, where: Path, fix: str) -> None:
        self.problems.append(Problem(what, str(where), fix))


def _draw_validation(entries: Iterable[Entry], share: float) -> None:
    """Moves a share of training's patients to validation; the draw is the same on every machine."""
    training = [e for e in entries if e.split == "train"]
    of = assign([e.patient for e in training], {"train": 1 - share, "val": share}, seed=0)
    for entry in training:
        entry.split = of[entry.patient]
