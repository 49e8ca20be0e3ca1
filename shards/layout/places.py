"""Which file a row means, and which files no row means."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.errors import Problem
from shards.format.archive import no_twins
from shards.layout.rows import Line, packed_fix
from shards.layout.schema import COLUMN, FieldOf
from shards.tables.identity import few

Hit = tuple[Path, str]  # a file, and its path below the root

MISSING = "no file"
PARTIAL = "--partial"


def leaves_root(name: str) -> bool:
    """Whether a path that cells of a table make lies elsewhere (`../../somebody`): what a layout reads lies below its root."""
    return name.startswith("/") or ".." in name.split("#")[0].split("/")


class Places:
    """Files of one field below a root."""

    def __init__(self, root: Path, name: str, field: FieldOf):
        self.root, self.name, self.field = root, name, field
        self._listed: dict[str, dict[tuple[str, ...], list[str]]] = {}
        self._missing: list[tuple[Line, str]] = []
        self._doubled: list[str] = []
        self._outside: list[str] = []
        self._used: set[str] = set()
        self._taken = Counter[str]()

    def __call__(self, line: Line) -> Hit | None:
        """The file of a row; what is missing is remembered."""
        for template in self.field.path:
            name = self._found(template, line)
            if name is None:
                continue
            self._used.add(name)
            self._taken[template] += 1
            return self.root / name, name
        if self.field.missing == "refuse":
            self._missing.append((line, self._expected(line)))
        return None

    def _expected(self, line: Line) -> str:
        filled = [line.fill(t) for t in self.field.path]
        return next((f for f in filled if f), self.field.path[0])

    def _found(self, template: str, line: Line) -> str | None:
        name = line.fill(template)
        if not name:
            return None
        if leaves_root(name):
            self._outside.append(f"'{name}' ({line.where})")
            return None
        if "*" not in template:
            return name if (self.root / name).is_file() else None
        hits = self._index(template).get(tuple(line.cells[c] for c in COLUMN.findall(template)), [])
        if len(hits) > 1:
            self._doubled.append(" and ".join(hits[:2]))
        return hits[0] if hits else None

    def _index(self, template: str) -> dict[tuple[str, ...], list[str]]:
        """Of a template with `*` all files by what stands in place of its columns: the folders are read once."""
        if template not in self._listed:
            found: dict[tuple[str, ...], list[str]] = defaultdict(list)
            columns = COLUMN.findall(template)
            parts = re.split(r"(\{[^{}]+\}|\*\*/|\*)", template)
            forms = {"*": r"[^/]*", "**/": r"(?:.*/)?"}
            pattern = re.compile(
                "".join(forms.get(p, r"([^/]+)" if COLUMN.fullmatch(p) else re.escape(p)) for p in parts)
            )
            for path in no_twins(self.root.glob(COLUMN.sub("*", template))):
                name = path.relative_to(self.root).as_posix()
                if (hit := pattern.fullmatch(name)) and path.is_file():
                    found[tuple(hit.groups()[: len(columns)])].append(name)
            self._listed[template] = found
        return self._listed[template]

    def notes(self) -> Iterator[str]:
        """How many files each template gave, where not all are of one: they may differ in how they were made."""
        if len(self._taken) > 1:
            each = ", ".join(f"{self._taken[t]} as {t}" for t in self.field.path if t in self._taken)
            yield f"files for '{self.name}' are not all of one name: {each}"

    def left_out(self, lines: Sequence[Line]) -> None:
        """Files of rows that the layout or `--views` leaves out are in the tables all the same."""
        for line in lines:
            self._used |= {name for template in self.field.path if (name := self._found(template, line))}

    def lacking(self) -> Sequence[tuple[Line, str]]:
        """Rows whose file is not there, with the name that was looked for."""
        return self._missing

    def problems(self, rows: int, partial: bool) -> Iterator[Problem]:
        where = str(self.root)
        if self._missing and (not partial or len(self._missing) == rows):
            some = few([f"'{n}'" for _, n in self._missing])
            what = f"{len(self._missing)} of {rows} rows have no file for '{self.name}' (such as {some})"
            go_on = "" if len(self._missing) == rows else f"; or leave these rows out: {PARTIAL}"
            fix = (
                packed_fix(self.root) or "finish the download, or give --root the folder that holds these paths"
            ) + go_on
            yield Problem(what, where, fix)
        if self._doubled:
            what = f"{len(self._doubled)} rows have two files for '{self.name}' ({few(self._doubled)})"
            yield Problem(what, where, "keep one of each")
        if self._outside:
            what = f"{len(self._outside)} rows name a file outside the root ({few(self._outside)})"
            yield Problem(what, where, "mend the table: paths begin in --root")

    def unused(self) -> list[tuple[str, str]]:
        """Files of this kind that no row uses, for the list of what was left out."""
        names = {p.relative_to(self.root).as_posix() for g in self.field.every for p in no_twins(self.root.glob(g))}
        return [(n, f"a file for '{self.name}' that the tables do not list") for n in sorted(names - self._used)]
