"""Files of a field as references: what a shard holds as it is, and what becomes a PNG first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from shards.errors import Problem
from shards.layout.drawn import STORED, Drawing, as_png
from shards.pack.reference import Reference
from shards.pack.volumes import is_volume
from shards.tables.identity import few

DICOM = (".dcm", ".dicom")
Developer = Callable[[Path, Path, str], None]
"""Writes a film (its file, the PNG, its name below the root)."""


class Pictures:
    """Makes references; what cannot be read is gathered by the reason."""

    def __init__(self, work: Path, develop: Developer):
        self.work, self.develop = work, develop
        self.refused: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.of_films: set[str] = set()
        """Fields that have DICOM films."""

    def reference(self, name: str, key: str, file: Path, shown: str) -> Reference | None:
        """The file itself, or a PNG of it."""
        suffix = file.suffix.lower()
        if not is_converted(file):
            return Reference(shown, file)
        path = self.work / name / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if suffix in DICOM or _begins_as_film(file):
                self.develop(file, path, shown)
                self.of_films.add(name)
            else:
                as_png(file, path)
        except Drawing as e:
            self.refused[name, str(e)].append(shown)
            return None
        return Reference(shown, path)

    def merge(self, later: Pictures) -> None:
        """Takes in what another process made, of files that come after these."""
        for why, files in later.refused.items():
            self.refused[why] += files
        self.of_films |= later.of_films

    def problems(self, root: Path) -> Iterator[Problem]:
        for (name, why), files in self.refused.items():
            what = f"{len(files)} files of '{name}' cannot be taken: {why} ({few(files)})"
            yield Problem(what, str(root), "bring these files again, or take their rows out of the table")


def is_converted(file: Path) -> bool:
    """Whether a shard holds another form of the file."""
    return file.suffix.lower() not in (*STORED, ".txt") and not is_volume(file)


def _begins_as_film(file: Path) -> bool:
    """DICOM files often have no ending."""
    with open(file, "rb") as f:
        return f.read(132)[128:] == b"DICM"
