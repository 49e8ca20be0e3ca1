"""Which file a row means, and which files no row means."""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar

from shards.errors import Problem
from shards.layout.lines import Line, Lines
from shards.layout.nearly import alike
from shards.layout.packed import packed_away, packed_fix
from shards.layout.pictures import is_converted
from shards.layout.schema import COLUMN, FieldOf
from shards.layout.walk import Walk, misnamed, other_case
from shards.pack.files import SLASHES
from shards.tables.columns import Column, Found, Marks
from shards.tables.identity import SHOWN, damage, few

Hit = tuple[Path, str]  # a file, and its path below the root

PARTIAL = "--partial"
NONE = -1


def leaves_root(name: str) -> bool:
    """Whether a path that cells of a table make lies elsewhere (`../../somebody`): what a layout reads lies below its root."""
    return name.startswith("/") or ".." in name.split("#")[0].split("/")


def pattern_of(template: str) -> str:
    """The pattern of all files that a template may name."""
    parts = COLUMN.sub("\0", template).split("/")
    return "/".join(p if p == "**" else re.sub(r"[\0*]+", "*", p) for p in parts)


class _Index:
    """Of a template with `*` all files, by what stands in place of its columns: the folders are read once. Some 30 bytes a file.

    Of a file's path is kept what `*` stands for; the rest of it is in the cells of its row.
    """

    FORMS: ClassVar = {"*": r"([^/]*)", "**/": r"((?:.*/)?)"}

    def __init__(self, root: Path, template: str):
        self.pattern = pattern_of(template)
        parts = re.split(r"(\{[^{}]+\}|\*\*/|\*)", template)
        whole = "".join(self.FORMS.get(p, r"([^/]+)" if COLUMN.fullmatch(p) else re.escape(p)) for p in parts)
        groups = [p for p in parts if p in self.FORMS or COLUMN.fullmatch(p)]
        self._form = "".join("%s" if p in groups else p.replace("%", "%%") for p in parts)
        self._of_cell = [None if p in self.FORMS else p[1:-1] for p in groups]
        self._columns = [p[1:-1] for p in groups if p not in self.FORMS]
        self._between, names, walk, others = Column(), Marks(), Walk(root, [self.pattern]), 0
        keys = [i for i, p in enumerate(groups) if p not in self.FORMS]
        stars = [i for i, p in enumerate(groups) if p in self.FORMS]
        self._match, self._keys = re.compile(whole).fullmatch, keys
        for name in walk.files():
            if not (hit := self._match(name)):
                others += 1
                continue
            texts = hit.groups()
            names.append(*[texts[i] for i in keys])
            self._between.append("\0".join([texts[i] for i in stars]))
        self._found: Found | None = names.found()
        self._asked = bytearray(len(names))
        self._whole, self.other_case = not others and not walk.passed, walk.other_case

    def files(self, line: Line) -> list[tuple[str, int]]:
        """The files of a row, by name and number, in order."""
        assert self._found is not None
        numbers = [*self._found.every(*self.key(line))]
        for number in numbers[:1]:
            self._asked[number] = True
        found = [(self.name(line, number), number) for number in numbers]
        return sorted(found, key=lambda one: one[0].split("/")) if len(found) > 1 else found

    def name(self, line: Line, number: int) -> str:
        stars = iter(self._between[number].split("\0"))
        return self._form % tuple([next(stars) if c is None else line.cells[c] for c in self._of_cell])

    def key(self, line: Line) -> list[str]:
        return [line.cells[c] for c in self._columns]

    def key_of(self, name: str) -> list[str] | None:
        """What stands in place of the columns in a file's name."""
        hit = self._match(name)
        return [hit.groups()[i] for i in self._keys] if hit else None

    def close(self) -> None:
        """No row is looked up any more."""
        self._found = None

    @property
    def all_asked(self) -> bool:
        """Whether each file that the pattern finds is a row's."""
        return self._whole and all(self._asked)


class Places:
    """Files of one field below a root."""

    def __init__(self, root: Path, name: str, field: FieldOf, lines: Lines):
        self.root, self.name, self.field, self._lines = root, name, field, lines
        self._indexes: dict[str, _Index] = {}
        self._rows, self._templates, self._numbers = array("I"), array("b"), array("i")
        self._doubled, self._outside = list[str](), list[str]()
        self._other_case: dict[str, str] = {}
        self._unused = list[str]()

    def add(self, row: int) -> None:
        """Looks for the file of a row."""
        line = self._lines[row]
        found = next((hit for i in range(len(self.field.path)) if (hit := self._found(i, line))), None)
        self._rows.append(row)
        self._templates.append(found[1] if found else NONE)
        self._numbers.append(found[2] if found else NONE)

    def hit(self, at: int) -> Hit | None:
        """The file of the row that was added as number `at`."""
        name = self._name(at)
        return None if name is None else (self.root / name, name)

    def are_converted(self) -> bool:
        """Whether a shard holds another form of any of the files."""
        for i in {i for i in self._templates if i != NONE}:
            ending = COLUMN.sub("*", self.field.path[i]).rsplit("*", 1)[-1]
            if "." in ending:
                if is_converted(Path(f"a{ending}")):
                    return True
            elif any(j == i and is_converted(Path(self._name(at) or "")) for at, j in enumerate(self._templates)):
                return True
        return False

    def _name(self, at: int) -> str | None:
        if (i := self._templates[at]) == NONE:
            return None
        template, line = self.field.path[i], self._lines[self._rows[at]]
        return self._indexes[template].name(line, self._numbers[at]) if "*" in template else line.fill(template)

    def _expected(self, line: Line) -> str:
        filled = [line.fill(t) for t in self.field.path]
        return next((f for f in filled if f), self.field.path[0])

    def _found(self, i: int, line: Line, told: bool = True) -> tuple[str, int, int] | None:
        """(name, number of the template, number of the file where the template has `*`); `told`: what is wrong is remembered."""
        template = self.field.path[i]
        name = line.fill(template)
        if not name:
            return None
        if leaves_root(name):
            self._outside += [f"'{name}' ({line.where})"] if told else []
            return None
        if "*" not in template:
            return (name, i, NONE) if os.path.isfile(f"{self.root}/{name}") else None
        if template not in self._indexes:
            self._indexes[template] = _Index(self.root, template)
            self._other_case |= self._indexes[template].other_case
        hits = self._indexes[template].files(line)
        if len(hits) > 1 and told:
            self._doubled.append(" and ".join(n for n, _ in hits[:2]))
        return (hits[0][0], i, hits[0][1]) if hits else None

    def notes(self) -> Iterator[str]:
        """How many files each template gave, where not all are of one: they may differ in how they were made."""
        taken = Counter(self._templates)
        taken.pop(NONE, None)
        if len(taken) > 1:
            each = ", ".join(f"{taken[i]} as {t}" for i, t in enumerate(self.field.path) if i in taken)
            yield f"files for '{self.name}' are not all of one name: {each}"

    def lacking(self) -> Iterator[int]:
        """Numbers of the rows whose file is not there and must be."""
        if self.field.missing == "refuse":
            yield from (at for at, i in enumerate(self._templates) if i == NONE)

    def lacks(self, at: int) -> str | None:
        """The name that was looked for, of such a row."""
        if self.field.missing != "refuse" or self._templates[at] != NONE:
            return None
        return self._expected(self._lines[self._rows[at]])

    def problems(self, partial: bool) -> Iterator[Problem]:
        """What is wrong with files that rows name; call `unused` before."""
        where, rows, lacking = str(self.root), len(self._rows), self._templates.count(NONE)
        if self.field.missing == "refuse" and lacking and (not partial or lacking == rows):
            some = few([f"'{self.lacks(at)}'" for at in islice(self.lacking(), SHOWN + 1)])
            what = f"{lacking} of {rows} rows have no file for '{self.name}' (such as {some})"
            go_on = "" if lacking == rows else f"; or leave these rows out: {PARTIAL}"
            fix = (
                packed_fix(self.root) or "finish the download, or give --root the folder that holds these paths"
            ) + go_on
            if all("\\" in (self.lacks(at) or "") for at in islice(self.lacking(), SHOWN + 1)):
                fix = f"{SLASHES}{go_on}"
            if (changed := self._changed()) or (changed := self._nearly()):
                what, fix = f"{what}; {changed}", "bring the table as it was published, with ids as they were"
            yield Problem(what, where, fix)
        elif self.field.missing == "absent" and lacking == rows:
            if packed := packed_away(self.root, map(pattern_of, self.field.path)):
                what = f"none of {rows} rows has a file for '{self.name}', of which some are packed"
                yield Problem(what, where, packed_fix(self.root, packed))
        if lacking and (others := self._wanted()):
            yield other_case(others, f" for '{self.name}'", self.root)
        if self._doubled:
            what = f"{len(self._doubled)} rows have two files for '{self.name}' ({few(self._doubled)})"
            yield Problem(what, where, "keep one of each")
        if self._outside:
            what = f"{len(self._outside)} rows name a file outside the root ({few(self._outside)})"
            yield Problem(what, where, "mend the table: paths begin in --root")

    def _changed(self) -> str:
        """What a program has done to the ids that the first lacking files are named by."""
        lines = [self._lines[self._rows[at]] for at in islice(self.lacking(), SHOWN + 1)]
        cells = (line.cells[c] for line in lines for t in self.field.path for c in COLUMN.findall(t))
        return next((f"ids such as '{cell}' {why}" for cell in cells if (why := damage(cell))), "")

    def _nearly(self) -> str:
        """How many lacking rows name a file that is there, but for the case of letters or zeros that lead."""
        lines = (self._lines[self._rows[at]] for at in self.lacking())
        wanted = ([name for t in self.field.path if (name := line.fill(t))] for line in lines)
        pairs = [*alike(self.root, self._unused, wanted)]
        if not pairs:
            return ""
        some = few([f"'{right}' for '{name}'" for right, name in pairs[: SHOWN + 1]])
        return f"of {len(pairs)} of them there is a file whose name differs in case or in zeros that lead ({some})"

    def _wanted(self) -> list[tuple[str, str]]:
        """Files that lacking rows name in another case, each with the right name."""
        if not self._other_case:
            return []
        wanted = Marks()
        for line in (self._lines[self._rows[at]] for at, i in enumerate(self._templates) if i == NONE):
            for template in self.field.path:
                index = self._indexes.get(template)
                wanted.append(template, *(index.key(line) if index else [line.fill(template)]))
        found = wanted.found()

        def is_wanted(name: str, template: str) -> bool:
            index = self._indexes.get(template)
            key = index.key_of(name) if index else [name]
            return key is not None and found(template, *key) >= 0

        pairs = (p for p in sorted(self._other_case.items()) if any(is_wanted(p[1], t) for t in self.field.path))
        return misnamed(pairs, self.root)

    def unused(self, left_out: Iterable[int]) -> list[str]:
        """Files of this kind that no row uses, for the list of what was left out.

        Args:
            left_out: rows that the layout or `--views` leaves out; their files are in the tables all the same.
        """
        if not self.field.every:
            return []
        used = Marks()
        for line in map(self._lines.__getitem__, left_out):
            for found in (self._found(i, line, told=False) for i in range(len(self.field.path))):
                if found:
                    used.append(found[0])
        whole = {index.pattern for index in self._indexes.values() if index.all_asked}
        for index in self._indexes.values():
            index.close()
        if not (patterns := [p for p in self.field.every if p not in whole]):
            return []
        for at in range(len(self._rows)):
            if (name := self._name(at)) is not None:
                used.append(name)
        known = used.found()
        walk = Walk(self.root, patterns)
        unused = sorted(n for n in walk.names(in_order=False) if known(n) < 0)
        self._other_case |= walk.other_case
        self._unused = unused
        return unused
