"""Files below a folder by patterns with `*`, one at a time: a folder of half a million films is never held as paths."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from shards.errors import Problem, typed
from shards.format.archive import is_twin
from shards.tables.identity import few

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
        self.other_case: list[tuple[str, str]] = []
        """Names that differ from a pattern's in upper and lower case alone, each with the one that it would find."""
        magic = {p for parts in self.patterns for p in parts if _magic(p)}
        self._forms = {p: re.compile(fnmatch.translate(p)).match for p in magic}
        self._loose = {p: re.compile(fnmatch.translate(p), re.IGNORECASE).match for p in magic}

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
            whole, deeper = self._led(states, name, is_folder, is_link)
            if not whole and not is_twin(name):
                self._look_again(prefix, name, states)
            elif not is_twin(name):
                if is_file or not files:
                    yield prefix + name
                else:
                    self.passed += 1
            if deeper:
                yield from self._below(f"{prefix}{name}/", self._open(deeper), in_order, files)

    def _led(self, states: frozenset[State], name: str, is_folder: bool, is_link: bool) -> tuple[bool, set[State]]:
        """Whether a pattern ends with this name, and the states of what lies below it."""
        whole, deeper = False, set[State]()
        for i, at in states:
            part, rest = self.patterns[i][at], self.patterns[i][at + 1 :]
            if part == "**":
                if is_folder and not is_link:
                    deeper.add((i, at))
                    whole |= not rest
            elif part == name or (part in self._forms and self._forms[part](name)):
                if not rest:
                    whole = True
                elif is_folder:
                    deeper.add((i, at + 1))
                    whole |= rest == ["**"]
        return whole, deeper

    def _look_again(self, prefix: str, name: str, states: frozenset[State]) -> None:
        """Notes a name that no pattern finds because of its case."""
        for part in (self.patterns[i][at] for i, at in states if at + 1 == len(self.patterns[i])):
            if part in self._loose and self._loose[part](name) and (named := _in_case_of(part, name)) != name:
                self.other_case.append((prefix + name, prefix + named))
                return

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


def other_case(names: Sequence[tuple[str, str]], what: str, root: Path) -> Problem:
    """The problem of files that are not found because of the case of their names. `what`: of what, such as " for 'image'"."""
    some = few([f"'{n}'" for n, _ in names])
    what = f"{len(names)} files{what} are named in another case of letters than the layout says ({some})"
    (stem, old), (same, new) = (os.path.splitext(n) for n in names[0])
    base = root / os.path.commonpath([os.path.dirname(n) for n, _ in names])
    # A command that renames by the ending is given where it names no other file, such as those of another field.
    alike = all(os.path.splitext(n)[1] == old for n, _ in names)
    if stem != same or not alike or sum(1 for _ in base.rglob(f"*{old}")) != len(names):
        return Problem(what, str(root), f"rename these alone, such as {names[0][0]} to {names[0][1]}")
    command = f'find {typed(base)} -name {typed("*" + old)} -exec sh -c \'mv -n "$1" "${{1%{old}}}{new}"\' _ {{}} \\;'
    return Problem(what, str(root), command)


def misnamed(names: Iterable[tuple[str, str]], root: Path) -> list[tuple[str, str]]:
    """Those of (name, right name) whose right name is not there as a file of its own."""

    def is_there(name: str, right: str) -> bool:
        path = root / right
        # Where case makes no difference both are one file.
        return path.exists() and not path.samefile(root / name)

    return [(name, right) for name, right in names if not is_there(name, right)]


def _in_case_of(part: str, name: str) -> str:
    """The name with the letters before the first and after the last sign of a pattern that stands for others."""
    signs = [*MAGIC.finditer(part)]
    begin, end = part[: signs[0].start()], re.split(r"[*?\]]", part)[-1]
    return begin + name[len(begin) : len(name) - len(end)] + end


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
