"""Each table of a report as files of its own beside the page: CSV for a spreadsheet, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainer.reporting.table import Table
from trainer.state.files import write_atomic

FOLDER = "tables"
KINDS = (("csv", "CSV"), ("tex", "LaTeX"))
OURS = re.compile(r"\d{2,}-[a-z0-9-]+\.(csv|tex)")
# A difference with what stands behind it, which a spreadsheet shows and does not compute.
SIGNED = re.compile(r"[+-][\d.]+(e[+-]?\d+)?(,? ?\(.*|, .*)?", re.DOTALL)
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "*": r"\textasteriskcentered{}", "–": "--",
})  # fmt: skip


@dataclass
class Exports:
    """Tables in the order of the page, each with the name of its files."""

    tables: dict[str, Table] = field(default_factory=dict)

    def add(self, section: str, t: Table) -> str:
        """Keeps a table; returns the name of its files without folder and ending."""
        said = re.sub(r"[^a-z0-9]+", "-", f"{section} {t.title}".lower() if section != t.title else section.lower())
        name = f"{len(self.tables) + 1:02d}-{said.strip('-')[:60].strip('-') or 'table'}"
        self.tables[name] = t
        return name

    def files(self) -> Iterator[tuple[str, str]]:
        for name, t in self.tables.items():
            yield f"{name}.csv", as_csv(t)
            yield f"{name}.tex", as_latex(t)

    def write(self, out: Path) -> Path:
        """Writes all of them into `out`/tables; those of an earlier report that this one lacks are removed.

        Raises:
            OSError: the folder cannot be written.
        """
        folder, texts = out / FOLDER, dict(self.files())
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            write_atomic(folder / name, text.encode())
            (folder / name).chmod(0o644)
        for path in folder.iterdir():
            if OURS.fullmatch(path.name) and path.name not in texts:
                path.unlink()
        return folder


def as_csv(t: Table) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([map(_harmless, row) for row in (t.head, *t.rows)])
    return out.getvalue()


def _harmless(cell: str) -> str:
    """A name that a spreadsheet would run as a formula gets an apostrophe, which makes it text there."""
    return f"'{cell}" if cell[:1] in tuple("=@+-\t\r") and not SIGNED.fullmatch(cell) else cell


def as_latex(t: Table) -> str:
    r"""A tabular for \input, with what stands out in bold and the note as comments."""
    lines = [
        f"% {line}" for line in (" ".join(t.title.split()), r"needs \usepackage{booktabs} and \usepackage[T1]{fontenc}")
    ]
    lines += [f"% {' '.join(t.note.split())}"] if t.note else []
    lines += [rf"\begin{{tabular}}{{{'l' * len(t.head)}}}", r"\toprule", _line(t.head), r"\midrule"]
    for i, row in enumerate(t.rows):
        cells = (_escaped(c) for c in row)
        lines.append(_joined([rf"\textbf{{{c}}}" if (i, j) in t.bold else c for j, c in enumerate(cells)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return _joined([_escaped(c) for c in cells])


def _joined(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(LATEX)
