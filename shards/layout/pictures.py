"""Files of a field as references: what a shard holds as it is, and what becomes a PNG first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from shards.errors import Problem
from shards.layout.dicom import padding_of
from shards.layout.drawn import STORED, Drawing, as_png
from shards.pack.files import begins_as_film
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
        self.there = False
        """Whether what would be drawn lies there already, from a command that was killed."""
        self.made: list[Path] = []
        self.refused: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.of_films: set[str] = set()
        """Fields that have DICOM films."""

    def reference(self, name: str, key: str, file: Path, shown: str) -> Reference | None:
        """The file itself, or a PNG of it."""
        if not is_converted(file):
            return Reference(shown, file)
        film = file.suffix.lower() in DICOM or begins_as_film(file)
        try:
            path = self.drawn(name, f"{key}.png", lambda p: self.develop(file, p, shown) if film else as_png(file, p))
        except Drawing as e:
            self.refused[name, str(e)].append(shown)
            return None
        self.of_films |= {name} if film else set()
        return Reference(shown, path)

    def drawn(self, name: str, file: str, draw: Callable[[Path], object]) -> Path:
        """A file of a field, drawn unless it is there.

        Raises:
            Drawing: what `draw` raises.
        """
        path = self.work / name / file
        if not self.there:
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(path)
            self.made += [p for p in (path, padding_of(path)) if p.is_file()]
        return path

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
