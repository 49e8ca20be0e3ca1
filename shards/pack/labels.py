"""Labels from the cells of a table, for manifests and every source: what is unknown, what is a number, what is a class; one rule.

- Words of `shards.tables.unknown` mean that a label is not known; each word that was met is said, with how often. "None" is a class
  where the other classes are grades (Mild, Severe), "-" where another is "+", and that is said.
- A column of numbers alone is a number column (a source may take few whole numbers as codes of classes); one of words alone is classes.
- Numbers and words in one column are refused: the words may mean "not known" (`--unknown WORD`), or the column holds classes
  (`--label-kind NAME=class`, in a manifest `label:NAME:class`). So are decimal commas, and classes that differ in case or in how a
  number is spelt, unless the column is said to hold classes.
- A label without any known value is refused where it was asked for by name, else left out and said.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shards.errors import Problem, bad, typed
from shards.pack.entries import Entry, bare, change
from shards.tables.cells import COMMA, COMMA_FIX, has_comma, number, unwritable
from shards.tables.unknown import Words, words_of

KINDS = ("class", "number")
SHOWN, MAX_NOTES = 3, 12
# Words beside which "None" is the lowest grade.
GRADES = frozenset(
    (
        *(
            "trace",
            "minimal",
            "minor",
            "slight",
            "mild",
            "moderate",
            "marked",
            "major",
            "severe",
            "extreme",
            "low",
            "intermediate",
        ),
        *(
            "medium",
            "high",
            "few",
            "some",
            "several",
            "many",
            "little",
            "partial",
            "complete",
            "present",
            "focal",
            "diffuse",
            "patchy",
        ),
        *("weak", "strong", "light", "heavy", "occasional", "frequent", "early", "late", "grade", "stage"),
    )
)


@dataclass(slots=True)
class Cell:
    """A text of a column: where it stood first, and in how many samples."""

    where: str
    count: int = 0


Cells = Mapping[str, Cell]


@dataclass(frozen=True)
class LabelRule:
    """What the user says of labels: words for "not known", and the kind of columns by name."""

    words: Words = field(default_factory=Words)
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Settled:
    """The kind of each label, what is wrong, and what to tell."""

    kinds: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def label_rule(args: argparse.Namespace) -> LabelRule:
    """What `--unknown`, `--known` and `--label-kind` say.

    Raises:
        DataError: not NAME=class or NAME=number.
    """
    kinds = {}
    for text in getattr(args, "label_kind", None) or ():
        name, _, kind = text.rpartition("=")
        if not name or kind not in KINDS:
            raise bad(f"'{text}' is not NAME=class or NAME=number", "--label-kind", "such as --label-kind stage=class")
        kinds[name] = kind
    return LabelRule(words_of(args), kinds)


def numbers_are_numbers(values: Sequence[float]) -> str:
    """The kind of a column of numbers alone: always numbers."""
    return "number"


def settle(
    entries: Sequence[Entry],
    columns: Sequence[str],
    rule: LabelRule | None = None,
    *,
    kinds: Mapping[str, str] | None = None,
    asked: Collection[str] = (),
    of_numbers: Callable[[Sequence[float]], str] = numbers_are_numbers,
) -> Settled:
    """Turns the cells of `columns` in the entries' labels (texts as they stood) into classes and numbers, in place.

    Args:
        kinds: kinds that are settled (`label:NAME:class`); the rule's come first.
        asked: columns that were asked for by name.
        of_numbers: the kind of a column of numbers alone, from its values; their classes are called as whole numbers are ("2").
    """
    rule = rule or LabelRule()
    known = set(columns)
    found = Settled(
        problems=[
            Problem(f"no label '{n}'", "--label-kind", f"labels: {', '.join(columns) or 'none'}")
            for n in rule.kinds
            if n not in known
        ]
    )
    found.problems += [p for n in columns if (p := name_problem(n))]
    notes: list[str] = []
    cells, meant = _cells(entries, columns), dict[str, dict[str, str | float]]()
    for name in columns:
        declared = rule.kinds.get(name) or (kinds or {}).get(name)
        known_cells, meant[name] = _known(name, cells[name], rule.words, notes), {}
        if not known_cells:
            _empty(name, name in asked, found, notes)
            continue
        found.kinds[name], meant[name] = _settle_one(name, known_cells, declared, of_numbers, found.problems)

    def put(entry: Entry) -> None:
        for name in meant.keys() & entry.labels.keys():
            if (value := meant[name].get(str(entry.labels[name]).strip())) is None:
                del entry.labels[name]
            else:
                entry.labels[name] = value

    change(entries, put)
    found.notes += notes[:MAX_NOTES] + (
        [f"... and {len(notes) - MAX_NOTES} more such lines"] if len(notes) > MAX_NOTES else []
    )
    return found


def name_problem(name: str) -> Problem | None:
    """What is wrong with a label's name: it is a column of labels.csv, beside `sample`."""
    why = "is empty" if not name.strip() else "is the column of samples" if name == "sample" else unwritable(name)
    return Problem(f"a label's name, {name!r}, {why}", f"label {name!r}", "rename it") if why else None


def _cells(entries: Sequence[Entry], columns: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """By column its different texts, in the order in which they are met."""
    found: dict[str, dict[str, Cell]] = {name: {} for name in columns}
    for entry in bare(entries):
        for name, cells in found.items():
            if (value := entry.labels.get(name)) is not None:
                text = str(value).strip()
                if (cell := cells.get(text)) is None:
                    cell = cells[text] = Cell(entry.where)
                cell.count += 1
    return found


def _known(name: str, cells: Cells, words: Words, notes: list[str]) -> dict[str, Cell]:
    """The cells that hold a value."""
    classes = {t.lower() for t in cells if not words(t) and number(t) is None}
    meant = meant_beside(classes) - words.unknown
    kept, lost, held = dict[str, Cell](), Counter[str](), Counter[str]()
    for text, cell in cells.items():
        if words(text) and text.lower() not in meant:
            lost.update({text: cell.count} if text else {})
        else:
            kept[text] = cell
            held.update({text: cell.count} if text.lower() in meant else {})
    if lost:
        said = ", ".join(f"{n} x '{word}'" for word, n in lost.most_common())
        notes.append(f"label '{name}': {said} taken as unknown (--known WORD if it is a value)")
    beside = ", ".join(sorted(classes - meant)[:SHOWN])
    for word, n in held.most_common():
        notes.append(f"label '{name}': {n} x '{word}' kept as a class beside {beside} (--unknown {typed(word)} if not)")
    return kept


def meant_beside(classes: Iterable[str]) -> frozenset[str]:
    """Words for "not known" that are a value beside these classes: "None" beside grades (Mild, Severe), "-" beside "+"."""
    classes = list(classes)
    graded = any(GRADES & set(c.lower().replace("-", " ").replace("_", " ").split()) for c in classes)
    signed = any("+" in c and not c.strip("+-/ ()") for c in classes)
    return frozenset(("none",) * graded + ("-", "--") * signed)


def _empty(name: str, asked: bool, found: Settled, notes: list[str]) -> None:
    what = f"label '{name}' has no known value in any sample"
    if asked:
        found.problems.append(Problem(what, f"label '{name}'", "do not ask for it, or bring its values"))
    else:
        notes.append(f"{what}: left out")


def _settle_one(
    name: str, cells: Cells, declared: str | None, of_numbers: Callable[[Sequence[float]], str], problems: list[Problem]
) -> tuple[str, dict[str, str | float]]:
    """The kind of a label, and the value of each of its texts."""
    problems += [
        Problem(f"label '{name}' is {t!r}, which {why}", c.where, "write it on one line")
        for t, c in cells.items()
        if not t.isprintable() and (why := unwritable(t))
    ]
    values = {t: number(t) for t in cells}
    numbers = [v for v in values.values() if v is not None]
    words = {t: c for t, c in cells.items() if values[t] is None}
    kind = declared or ("number" if words and numbers else "class" if words else of_numbers(numbers))
    if kind == "number":
        problems += _words_among_numbers(
            name, words, sum(c.count for t, c in cells.items() if t not in words), declared
        )
        return kind, {t: t if v is None else v for t, v in values.items()}
    if declared is None:
        problems += _doubtful_classes(name, cells)
    return kind, {t: f"{v:.15g}" if declared is None and v is not None else t for t, v in values.items()}


def _words_among_numbers(name: str, words: Cells, numbers: int, declared: str | None) -> list[Problem]:
    """A problem for each of the first words that are no numbers, one for all others."""
    found = []
    for text, cell in list(words.items())[:SHOWN]:
        what = f"label '{name}' is '{text}', not a number" + (f" like the {numbers} others" if numbers else "")
        what += f" (in {cell.count} samples)" if cell.count > 1 else ""
        fix = f"mend the cell; --unknown '{text}' if it means that the value is not known"
        fix += (
            ""
            if declared
            else f"; 'label:{name}:class' in a manifest or --label-kind {typed(f'{name}=class')} if the column holds classes"
        )
        found.append(Problem(what, cell.where, COMMA_FIX if has_comma(text) else fix))
    if len(words) > SHOWN:
        what = f"label '{name}' has {len(words) - SHOWN} more words that are no numbers"
        found.append(Problem(what, f"label '{name}'", "mend those above first"))
    return found


def _doubtful_classes(name: str, cells: Cells) -> list[Problem]:
    """Classes that are numbers with a comma, or that differ from one another in spelling alone."""
    first = {text: cell.where for text, cell in cells.items()}
    if commas := [t for t in first if has_comma(t)]:
        what = f"label '{name}' is '{commas[0]}', which {COMMA}"
        return [
            Problem(
                what,
                first[commas[0]],
                f"{COMMA_FIX}; --label-kind {typed(f'{name}=class')} if it is the name of a class",
            )
        ]
    alike: dict[object, list[str]] = defaultdict(list)
    for text in first:
        value = number(text)
        alike[" ".join(text.lower().split()) if value is None else value].append(text)
    found = []
    for spelt in alike.values():
        # Two spellings of one number are one class, which takes its plain name.
        if len(spelt) > 1 and number(spelt[0]) is None:
            said = ", ".join(f"'{t}' ({first[t]})" for t in spelt[:SHOWN])
            fix = f"spell it alike everywhere; --label-kind {typed(f'{name}=class')} if they are different classes"
            found.append(
                Problem(
                    f"label '{name}' has classes that differ in case or blanks alone: {said}", f"label '{name}'", fix
                )
            )
    return [*found, *_lists(name, first)]


def _lists(name: str, first: Mapping[str, str]) -> list[Problem]:
    """Cells that list several classes (Edema|Mass), as ChestX-ray14 does: each combination would become a class of its own."""
    parts = {t: [p.strip() for p in t.split("|")] for t in first if "|" in t}
    uses = Counter(p for t in first for p in set(parts.get(t, [t])))
    listed = [t for t, ps in parts.items() if all(ps) and any(uses[p] > 1 for p in ps)]
    if not listed:
        return []
    said = ", ".join(f"'{t}' ({first[t]})" for t in listed[:SHOWN])
    fix = f"give each its own column of 0 and 1; --label-kind {typed(f'{name}=class')} if a combination is a class"
    return [Problem(f"label '{name}' lists several classes in a cell: {said}", f"label '{name}'", fix)]
