"""Files below a folder by patterns with `*`, one at a time: a folder of half a million films is never held as paths."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.format.archive import is_twin

State = tuple[int, int]
"""A pattern, and how many of its parts led here."""
MAGIC = re.compile(r"[*?\[]")


class Walk:
    """Names below a root that one of several patterns finds, each once, without the twins of macOS.

    Patterns are those of `pathlib`: `*`, `?` and `[...]` within a name, `**` for any folders, in which links are not followed.
    """

    def __init__(self, root: Path, patterns: Sequence[str]):
        self.root, self.patterns = root, [[p for p in pattern.split("/") if p not in ("", ".")] for pattern in patterns]
        self.passed = 0
        """Names that were found and are no files, by `files`."""
        self._forms = {p: re.compile(fnmatch.translate(p)).match for parts in self.patterns for p in parts if _magic(p)}

    def files(self) -> Iterator[str]:
        """Files, in no order."""
        return self._below("", self._begin(), in_order=False, files=True)

    def names(self, in_order: bool = True) -> Iterator[str]:
        """Files and folders; in the order of sorted paths."""
        return self._below("", self._begin(), in_order=in_order, files=False)

    def _begin(self) -> frozenset[State]:
        return self._open({(i, 0) for i in range(len(self.patterns))})

    def _open(self, states: set[State]) -> frozenset[State]:
        """With those in which `**` stands for no folder."""
        found = set[State]()
        while states:
            i, at = state = states.pop()
            found.add(state)
            if at + 1 < len(self.patterns[i]) and self.patterns[i][at] == "**" and (i, at + 1) not in found:
                states.add((i, at + 1))
        return frozenset(found)

    def _below(self, prefix: str, states: frozenset[State], in_order: bool, files: bool) -> Iterator[str]:
        parts = {self.patterns[i][at] for i, at in states}
        plain = not any(_magic(p) for p in parts)
        for name, is_folder, is_file, is_link in self._entries(
            prefix, parts if plain else None, in_order, files, states
        ):
            whole, deeper = False, set[State]()
            for i, at in states:
                last = at + 1 == len(self.patterns[i])
                part = self.patterns[i][at]
                if part == "**":
                    if is_folder and not is_link:
                        deeper.add((i, at))
                        whole |= last
                elif part == name or (part in self._forms and self._forms[part](name)):
                    if last:
                        whole = True
                    elif is_folder:
                        deeper.add((i, at + 1))
                        whole |= self.patterns[i][at + 1 :] == ["**"]
            if whole and not is_twin(name):
                if is_file or not files:
                    yield prefix + name
                else:
                    self.passed += 1
            if deeper:
                yield from self._below(f"{prefix}{name}/", self._open(deeper), in_order, files)

    def _entries(
        self, prefix: str, plain: set[str] | None, in_order: bool, files: bool, states: frozenset[State]
    ) -> Iterator[tuple[str, bool, bool, bool]]:
        """(name, whether a folder, a file, a link) of what lies in a folder; of `plain` names without reading the folder."""
        folder = f"{self.root}/{prefix}"
        if plain is not None:
            for name in sorted(plain):
                path = folder + name
                if os.path.lexists(path) and os.path.exists(path):
                    yield name, os.path.isdir(path), os.path.isfile(path), os.path.islink(path)
            return
        ends = all(at + 1 == len(self.patterns[i]) and self.patterns[i][at] != "**" for i, at in states)
        try:
            with os.scandir(folder) as found:
                read = (
                    (e.name, not ends and _is_folder(e), files and _is_file(e), not ends and e.is_symlink())
                    for e in found
                )
                if not in_order:
                    yield from read
                    return
                folders, links, names = set[str](), set[str](), list[str]()
                for name, is_folder, _, is_link in read:
                    names.append(name)
                    folders |= {name} if is_folder else set()
                    links |= {name} if is_link else set()
        except (PermissionError, NotADirectoryError, FileNotFoundError):
            return
        names.sort()
        yield from ((n, n in folders, False, n in links) for n in names)


def _magic(part: str) -> bool:
    return bool(MAGIC.search(part))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
