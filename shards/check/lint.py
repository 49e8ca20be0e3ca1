"""Finds everything that is wrong with a data set, in one pass, and says all of it.

A problem makes a training run wrong or impossible; a warning is worth a look. Members are checked in shards/check/lint_members.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path

from shards.check.lint_counts import counts, forms, statistics
from shards.check.lint_members import MemberCheck
from shards.check.lint_shards import look_at_shards
from shards.check.lint_words import not_features, unknown_classes
from shards.errors import DataError, Problem, lines_of
from shards.format import index
from shards.format.archive import no_twins
from shards.format.info import SPLITS, DatasetInfo, LabelInfo, index_path, load_info, sha256_of
from shards.format.meaning import not_stored
from shards.format.members import Rule, rule_of
from shards.format.sample_rows import Cells, SampleRow, SampleRows
from shards.format.seal import table_rows, vocab_problems
from shards.jobs import usable
from shards.pack.split import leaks, respelling
from shards.tables.cells import number
from shards.tables.columns import Texts, Words
from shards.tables.identity import merged_note
from shards.tables.repeats import repeated
from shards.tables.table_file import read_text

FIX_SPLIT = "run `python -m shards split` on the folder"
FIX_INDEX = "run `python -m shards index` on the folder"
FIX_COPY = "copy it again from its source, or pack again"


@dataclass
class Report:
    """What lint found. As text: problems, then warnings, then one line of verdict."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    checked: str = ""

    def __str__(self) -> str:
        lines = [*_named("problem", self.problems), *_named("warning", self.warnings)]
        verdict = "clean" if not self.problems else f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        warned = f", {len(self.warnings)} warning{'s' * (len(self.warnings) > 1)}" if self.warnings else ""
        return "\n".join([*lines, f"{self.folder}: {verdict}{warned}{'; ' + self.checked if self.checked else ''}"])


def _named(word: str, problems: Sequence[Problem]) -> list[str]:
    """A line each, by kind; what continues a line keeps its indent."""
    return [line if line.startswith(" ") else f"{word}: {line}" for line in lines_of(problems)]


def lint(folder: Path, reference: Mapping[str, Path] | None = None, jobs: int | None = 1) -> Report:
    """Checks a data set; never raises for what it finds in it.

    Args:
        reference: text files of known feature names by field; names outside them are problems.
        jobs: processes that read and decode (None: one a core); the report is the same for any number.
    """
    folder = Path(folder)
    report = Report(folder)
    try:
        info = load_info(folder)
    except DataError as e:
        report.problems += e.problems
        report.problems += [p for tar in no_twins(folder.glob("*.tar")) for p in _build_problems(tar)]
        return report
    report.problems += _side_files(folder, info)
    report.problems += _vocabularies(folder, info, reference or {})
    rows, problems = _rows(folder, info)
    report.problems += problems
    report.problems += _splits(info, rows)
    report.warnings += [*_unused_splits(rows), *_respelled(rows), *_meanings(info)]
    report.problems += counts(info, rows, not problems) if rows else ()
    report.warnings += [*_unsealed(info), *not_features(folder, info), *unknown_classes(info)]
    check = MemberCheck(info, rows.by_sample())
    try:
        rule = rule_of(info.adopted)
    except DataError as e:
        rule, report.problems = Rule(), report.problems + e.problems
    report.problems += look_at_shards(folder, info, check, rule, usable(jobs, info.samples))
    report.problems += _strangers(folder, info) + check.finish(rows)
    report.problems += forms(info, check.tally)
    if rows and not problems and not check.unread:
        fitted = {n: m for n, m in check.moments.items() if n not in check.spoilt}
        report.problems += statistics(folder, info, fitted)
    report.problems = list(dict.fromkeys(report.problems))
    report.warnings += check.warnings
    report.checked = f"{info.samples} samples, {check.members} members, {check.bytes / 1e6:.1f} MB read"
    return report


def _build_problems(tar: Path) -> list[Problem]:
    try:
        index.build(tar)
    except DataError as e:
        return e.problems
    return []


def _side_files(folder: Path, info: DatasetInfo) -> Iterator[Problem]:
    for name, sha in info.files.items():
        path = folder / name
        if not path.is_file():
            yield Problem("missing", str(path), FIX_COPY)
        elif sha256_of(path) != sha:
            what, fix = (
                ("vocabulary " if name.startswith("vocab/") else ""),
                FIX_SPLIT if name.endswith(".csv") else FIX_COPY,
            )
            yield Problem(
                f"{what}hash mismatch: changed since the data set was sealed",
                str(path),
                f"restore it; if the change is meant: {fix}",
            )
    for name in ("splits.csv", "labels.csv"):
        if name not in info.files:
            yield Problem("not sealed in dataset.json", str(folder / name), FIX_INDEX)


def _vocabularies(folder: Path, info: DatasetInfo, reference: Mapping[str, Path]) -> Iterator[Problem]:
    for name, one in info.fields.items():
        path = folder / (one.vocab or f"vocab/{name}.txt")
        if one.vocab is None or not path.is_file():
            continue
        try:
            words = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            yield Problem("is not UTF-8", str(path), FIX_COPY)
            continue
        yield from vocab_problems(name, words)
        if one.shape and one.shape[-1] is not None and one.shape[-1] != len(words):
            yield Problem(
                f"{len(words)} names for {one.shape[-1]} columns of '{name}'",
                str(path),
                "the vocabulary must name every column, in order",
            )
        if sha256_of(path) != one.vocab_sha256:
            yield Problem(
                f"vocabulary hash mismatch: not the names that '{name}' was packed with",
                str(path),
                "restore the file, or pack again",
            )
        if name in reference:
            yield from _unknown(name, words, reference[name])
    for name in set(reference) - {n for n, one in info.fields.items() if one.vocab}:
        yield Problem(
            f"no field '{name}' with a vocabulary",
            "--reference",
            f"fields with one: {', '.join(n for n, o in info.fields.items() if o.vocab)}",
        )


def _unknown(name: str, words: Sequence[str], path: Path) -> Iterator[Problem]:
    try:
        known = set(read_text(path).split())
    except DataError as e:
        yield Problem(e.problems[0].what, f"--reference {name}={path}", "give a text file with one name a line")
        return
    unknown = [w for w in words if w not in known]
    if unknown:
        what = f"{len(unknown)} of {len(words)} names are unknown to {path.name}: {', '.join(unknown[:8])}"
        yield Problem(what, f"vocabulary of '{name}'", "rename or drop the columns, or give the right reference")


def _rows(folder: Path, info: DatasetInfo) -> tuple[SampleRows, list[Problem]]:
    """The rows of splits.csv with their labels, and what is wrong with both files."""
    problems: list[Problem] = []
    splits = _table(folder / "splits.csv", {"sample": False, "patient": False, "split": True}, problems)
    few = {n: one.kind != "number" for n, one in info.labels.items()}
    of = _table(folder / "labels.csv", {"sample": False, **few}, problems)
    place, alike = _places_of(of, splits), len(of) == len(splits)
    samples, (patients, names) = splits.first, splits.others
    assert isinstance(patients, Texts)
    assert isinstance(names, Words)
    del splits
    for at, sample in enumerate(samples):
        where = f"{folder / 'splits.csv'} line {at + 2}"
        if (name := names[at]) not in SPLITS:
            problems.append(Problem(f"split '{name}'", where, f"one of {', '.join(SPLITS)}"))
        if not patients[at]:
            problems.append(Problem(f"sample '{sample}' has no patient", where, "fill it"))
        alike = alike and of.first[at] == sample
    if alike:
        of.first = samples  # once
    rows = SampleRows.named(samples, patients, names, {n: one.kind == "number" for n, one in info.labels.items()})
    for at, sample in enumerate(samples):
        found = place(at, sample)
        cells = {} if found is None else dict(zip(info.labels, of[found][1:], strict=True))
        values, bad_cells = _labels(cells, info.labels, f"{folder / 'labels.csv'} sample '{sample}'")
        problems += bad_cells
        rows.label(values)
    if len(of) and not alike:
        problems.append(
            Problem("lists other samples than splits.csv, or in another order", str(folder / "labels.csv"), FIX_INDEX)
        )
    return rows, problems


def _table(path: Path, columns: Mapping[str, bool], problems: list[Problem]) -> Cells:
    """The cells of a side file; none where it cannot be read, which is told. `columns`: whether they have few words."""
    few = [*columns.values()][1:]
    cells, header = Cells(few), [*columns]
    try:
        for row in table_rows(path) if path.is_file() else ():
            header = header if len(cells) else list(row)
            if header == [*columns]:
                cells.append(row.values())
    except DataError as e:
        problems += e.problems
        return Cells(few)
    if header != [*columns]:
        problems.append(Problem(f"columns {header}, not {[*columns]}", str(path), FIX_INDEX))
    return cells


def _places_of(cells: Cells, like: Cells) -> Callable[[int, str], int | None]:
    """Of a sample at a line of `like`: its line of `cells`, the last if it stands twice."""
    if len(cells) == len(like) and not repeated(cells.first) and all(map(eq, cells.first, like.first)):
        return lambda at, sample: at
    by_name = {sample: at for at, sample in enumerate(cells.first)}
    return lambda at, sample: by_name.get(sample)


def _labels(
    cells: Mapping[str, str], infos: Mapping[str, LabelInfo], where: str
) -> tuple[dict[str, str | float], list[Problem]]:
    values: dict[str, str | float] = {}
    problems = []
    for name, info in infos.items():
        text = cells.get(name, "")
        value = text if info.kind == "class" else number(text)
        if not text:
            continue
        if value is None:
            problems.append(
                Problem(f"label '{name}' is '{text}', not a number", where, "mend it in the manifest and pack again")
            )
        elif info.kind == "class" and value not in info.classes:
            problems.append(
                Problem(
                    f"label '{name}' is '{text}', not one of its classes {', '.join(info.classes)}",
                    where,
                    "mend it in the manifest and pack again",
                )
            )
        else:
            values[name] = value
    return values, problems


def _splits(info: DatasetInfo, rows: Sequence[SampleRow]) -> Iterator[Problem]:
    yield from leaks(rows)
    counts = Counter(r.split for r in rows)
    for name in {"train", *info.splits} - {s for s, n in counts.items() if n}:
        yield Problem(f"split '{name}' is empty", "splits.csv", FIX_SPLIT)
    for name, count in info.splits.items():
        if counts[name] and counts[name] != count:
            yield Problem(
                f"split '{name}' has {counts[name]} samples, dataset.json says {count}", "splits.csv", FIX_SPLIT
            )


def _unsealed(info: DatasetInfo) -> Iterator[Problem]:
    """What a data set of an earlier version does not seal; lint has reckoned it anew."""
    unsealed = sum(s.index_sha256 is None for s in info.shards)
    what = [f"the indexes of {unsealed} shards"] * bool(unsealed)
    what += ["patients and splits in dataset.json"] * (info.seal < 2)
    if what:
        yield Problem(
            f"{' and '.join(what)} are not sealed (packed by an earlier version); here they were compared with the data",
            "dataset.json",
            "run `python -m shards seal` on the folder: the data stay as they are, the fingerprint changes",
        )


def _unused_splits(rows: Sequence[SampleRow]) -> Iterator[Problem]:
    lacking = [s for s in ("val", "test") if s not in {r.split for r in rows}]
    if rows and lacking:
        yield Problem(
            f"no {' and no '.join(lacking)} split", "splits.csv", f"nothing can be evaluated on it; {FIX_SPLIT}"
        )


def _meanings(info: DatasetInfo) -> Iterator[Problem]:
    """Fields whose numbers may mean several things, where dataset.json does not say which."""
    for name, keys in not_stored(info).items():
        fix = f"state it: python -m shards meaning DIR {name}.{keys[0]}=VALUE"
        what = f"{', '.join(keys)} not stored: data that mean something else cannot be told from these"
        yield Problem(what, f"field '{name}'", fix)


def _respelled(rows: Sequence[SampleRow]) -> list[Problem]:
    lines = merged_note(respelling(rows))
    return [Problem(line, "splits.csv", f"if they are one each, write them alike; {FIX_SPLIT}") for line in lines]


def _strangers(folder: Path, info: DatasetInfo) -> list[Problem]:
    known = {s.name for s in info.shards}
    tars = [p.name for p in no_twins(folder.glob("*.tar")) if p.name not in known]
    indexes = {index_path(folder / n).name for n in (*known, *tars)}
    found = [
        Problem("a shard that dataset.json does not list", str(folder / n), f"remove it, or {FIX_INDEX}") for n in tars
    ]
    orphans = [p for p in no_twins(folder.glob("*.idx.npy")) if p.name not in indexes]
    return found + [Problem("an index without its shard", str(p), "remove it, or restore the shard") for p in orphans]
