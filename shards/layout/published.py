"""Splits as a set was published with: a column, or lists of images; validation drawn from training's patients where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.layout.choice import LeftOut
from shards.layout.schema import Splits
from shards.pack.entries import Entry, bare, change, stored
from shards.pack.split import assign
from shards.tables.columns import Column, Marks
from shards.tables.identity import few, sample
from shards.tables.instead import AGAIN, LOOKED_AT, instead_of
from shards.tables.table_file import read_text

OTHER_SPLITS = "split by patient: --splits patient"


class Published:
    """The splits of a layout; fills `notes`, `unmatched` and `problems` of the engine."""

    def __init__(self, splits: Splits, root: Path, notes: list[str], unmatched: LeftOut, problems: list[Problem]):
        self.splits, self.root = splits, root
        self.notes, self.unmatched, self.problems = notes, unmatched, problems
        self._open_ends: dict[Path, str] = {}

    def __call__(self, entries: Sequence[Entry]) -> Sequence[Entry]:
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

    def _listed(self, entries: Sequence[Entry], lists: Mapping[str, str]) -> Sequence[Entry]:
        """The entries that the lists name; patients of two lists are told by `entry_problems`."""
        listed = self._read(lists)

        def named() -> Iterator[Entry]:
            for entry in entries:
                entry.split = listed.take(sample(entry.fields["image"].text))
                if entry.split:
                    yield entry
                else:
                    self.unmatched.append(entry.sample, "in no published list of splits")
                    self._cut(entry.fields["image"].text.rpartition("/")[2])

        kept = stored(named())
        if not kept and not self.problems:
            what = "the lists of splits name none of the images"
            self._wrong(what, self.root, f"bring those of this set, or {OTHER_SPLITS}")
        left, some = listed.left()
        self.notes += [f"the lists name {left} images more, such as {some}"] if left else []
        return kept

    def _cut(self, image: str) -> None:
        """Tells of lists that end within the name of an image which no list has."""
        for path in [p for p, last in self._open_ends.items() if image.startswith(last) and image != last]:
            last = self._open_ends.pop(path)
            self._wrong(f"its last line, '{last}', is the beginning of a name ('{image}')", path, AGAIN)

    def _read(self, lists: Mapping[str, str]) -> _Lists:
        listed = _Lists()
        for split, file in lists.items():
            path = self.root / file
            if not path.is_file():
                self._wrong(f"no list of splits {file}", self.root, f"bring it, or {OTHER_SPLITS}")
                continue
            try:
                lines = self._lines(path)
            except DataError as e:
                self.problems += e.problems
                continue
            names = (sample(n.split()[0]) for n in lines)
            if twice := listed.add(names, split):
                what = f"{len(twice)} images are in two lists, or twice in {file} ({few(twice)})"
                self._wrong(what, path, f"bring the lists as published, or {OTHER_SPLITS}")
        listed.settle()
        return listed

    def _lines(self, path: Path) -> list[str]:
        """The lines of a list that hold a name; the last is kept as one that may be cut, where it has no end.

        Raises:
            DataError: no list of names.
        """
        with open(path, "rb") as f:
            found = instead_of(head := f.read(LOOKED_AT))
        if found or b"\0" in head:
            raise bad(*((found[0], path, found[1]) if found else ("is no list (it has bytes of zero)", path, AGAIN)))
        text = read_text(path)
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            raise bad("the list of a split names nothing", path, AGAIN)
        if not text.endswith("\n"):
            self._open_ends[path] = lines[-1].split()[0]
        return lines

    def _wrong(self, what: str, where: Path, fix: str) -> None:
        self.problems.append(Problem(what, str(where), fix))


class _Lists:
    """The names of all lists; of one in two lists the last decides."""

    def __init__(self) -> None:
        self._names, self._splits, self._marks = Column(), Column(), Marks()
        self._taken = bytearray()

    def add(self, names: Iterator[str], split: str) -> list[str]:
        """Takes in a list; its names that are in another one."""
        twice, known = list[str](), self._marks.found()
        for name in names:
            if known(name) >= 0:
                twice.append(name)
            self._names.append(name)
            self._splits.append(split)
            self._marks.append(name)
        return twice

    def settle(self) -> None:
        """All lists are there."""
        self._found, first_N = self._marks.found(), self._marks.first()
        self._taken = bytearray(int(first) != at for at, first in enumerate(first_N))

    def take(self, name: str) -> str | None:
        if not (at := [*self._found.every(name)]):
            return None
        self._taken[at[0]] = True
        return self._splits[at[-1]]

    def left(self) -> tuple[int, str]:
        """How many were not taken, and the first of them."""
        return self._taken.count(False), self._names[at] if (at := self._taken.find(0)) >= 0 else ""


def _draw_validation(entries: Sequence[Entry], share: float) -> None:
    """Moves a share of training's patients to validation; the draw is the same on every machine."""
    of = assign((e.patient for e in bare(entries) if e.split == "train"), {"train": 1 - share, "val": share}, seed=0)
    drawn = {patient for patient, split in of.items() if split == "val"}

    def move(entry: Entry) -> None:
        if entry.split == "train" and entry.patient in drawn:
            entry.split = "val"

    change(entries, move)
