"""Adopts tars that somebody else made: builds their indexes and the side files, and leaves the tars as they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format import index
from shards.format.archive import no_twins
from shards.format.describe import HEADER_BYTES, MEND_FILE, FieldTally, HeaderError, header_of
from shards.format.image_tally import ImageTally
from shards.format.info import KINDS, SPLITS, Adopted, DatasetInfo, ShardInfo, load_info, save_info, sha256_of
from shards.format.meaning import FLAG, Meaning, Meanings, stored_meanings
from shards.format.members import Rule, rule_of
from shards.format.seal import SampleRow, describe, label_infos, read_table, read_vocab, vocab_problems, write_rows
from shards.format.staging import disk_errors, locked, rewriting, settle
from shards.pack.adopt_rows import Sample, read_samples, rows_of
from shards.pack.labels import LabelRule
from shards.pack.split import leaks, one_name_each
from shards.pack.tars import packed_tars
from shards.read.stats import write_stats
from shards.tables.identity import merged_note, one_spelling

LONELY = 20
FIX_MEMBER = "store the member again from its source"


@dataclass
class _Adoption:
    """What was learned from the tars."""

    rule: Rule
    images: ImageTally
    samples: list[Sample] = field(default_factory=list)
    shards: list[ShardInfo] = field(default_factory=list)
    tally: FieldTally = field(default_factory=FieldTally)
    problems: list[Problem] = field(default_factory=list)
    indexes: list[tuple[Path, np.ndarray]] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    met: set[str] = field(default_factory=set)

    def notes(self) -> list[str]:
        return [f"passed over: {n} {what}" for what, n in sorted(self.passed.items())]


class Titles(NamedTuple):
    """What a data set is called, and where it comes from; None says nothing of it, and what was said before stays."""

    name: str | None = None
    source: str | None = None
    licence: str | None = None
    commercial: str | None = None
    citation: str | None = None


def adopt(
    folder: Path,
    *,
    how: Adopted | None = None,
    patient_from_key: bool = False,
    titles: Titles | None = None,
    meanings: Meanings | None = None,
    labels: LabelRule | None = None,
    keep_orientation: bool = False,
    notes: list[str] | None = None,
) -> DatasetInfo:
    """Makes a folder of tars a data set, or brings a changed one up to date.

    Patients and labels come from each sample's meta.json, or from where `how` says. `splits.csv` and `vocab/` are kept where they
    exist; without splits.csv all samples are for training. What dataset.json said of members and numbers stays, unless `how` and
    `meanings` say otherwise; what images mean (shards/format/images.py) is found out as when packing. Nothing is written if anything is
    wrong.

    Args:
        how: what the members are; None takes what dataset.json says, else KEY.FIELD.EXT.
        patient_from_key: short for `how` with nothing else.
        labels: words for "not known", kinds of labels.
        notes: gets what should be told: what was passed over and left out, and what the images are.

    Raises:
        DataError: all problems of all shards at once.
    """
    settle(folder := Path(folder))
    old, stored = _old(folder), _known(stored_meanings(folder), meanings or {})
    how = how or (Adopted(patient_from_key=True) if patient_from_key else old.adopted if old else Adopted())
    found = _Adoption(rule_of(how), ImageTally(stored, keep_orientation))
    vocab = _take(folder, found)
    said: list[str] = []
    rows, kinds, odd = rows_of(found.samples, labels or LabelRule(), _classes(old), said)
    said += merged_note(one_spelling(r.patient for r in rows))
    rows, torn = _split(folder, rows)
    images = found.images.settle()
    meaning, unknown = _meanings(found, stored, meanings or {})
    if wrong := [*found.problems, *odd, *torn, *images.problems, *unknown]:
        raise DataError(wrong)
    if notes is not None:
        notes += [*found.notes(), *said, *images.notes, *(f"warning: {w}" for w in images.warnings)]
    hashes = {n: sha256_of(folder / "vocab" / f"{n}.txt") for n in vocab}
    info = DatasetInfo(
        **_titles(folder, old, titles or Titles()),
        fields=found.tally.infos(hashes, {**meaning, **images.meanings}),
        labels=label_infos(rows, kinds),
        samples=len(rows),
        patients=0,
        shards=tuple(found.shards),
        adopted=how,
    )
    return _publish(folder, info, found.indexes, rows)


Indexes = Sequence[tuple[Path, np.ndarray]]


def _publish(folder: Path, info: DatasetInfo, indexes: Indexes, rows: Sequence[SampleRow]) -> DatasetInfo:
    if not (folder / "dataset.json").is_file():
        # The description comes last: until then this is no data set, and a killed command has changed none.
        with disk_errors(folder, "run the command again"), locked(Path(os.path.realpath(folder))):
            return _write(folder, info, indexes, rows)
    with rewriting(folder) as staging:
        return _write(staging, info, indexes, rows)


def _write(folder: Path, info: DatasetInfo, indexes: Indexes, rows: Sequence[SampleRow]) -> DatasetInfo:
    for tar, members in indexes:
        index.save(folder / tar.name, members)
    write_rows(folder, rows, info.labels)
    write_stats(folder, info, rows)
    return save_info(folder, describe(info, folder, rows))


def _tars(folder: Path, found: _Adoption) -> list[Path]:
    """The shards of a folder, in order; packed ones beside them would be missing from the data set and are refused."""
    every = list(folder.glob("*.tar"))
    tars = no_twins(every)
    if twins := len(every) - len(tars):
        found.passed["._*.tar twins of macOS"] += twins
    found.problems += packed_tars(folder)
    if not tars and not found.problems:
        below = sorted({t.parent.name for t in no_twins(folder.glob("*/*.tar"))})
        where = f" (there are in {', '.join(below[:5])}: a data set is one folder)" if below else ""
        raise bad(f"no *.tar{where}", folder, "give the folder that holds the shards")
    return tars


def _take(folder: Path, found: _Adoption) -> dict[str, list[str]]:
    """Reads all shards, and the vocabularies beside them, which it returns; what is wrong with them is among the problems then."""
    for tar in _tars(folder, found):
        _take_shard(tar, found)
    vocab = read_vocab(folder)
    found.problems += found.tally.problems(vocab) + [p for n, w in vocab.items() for p in vocab_problems(n, w)]
    found.problems += [*_unmet(found), *_lonely(found), *_double_keys(found)]
    return vocab


def _take_shard(tar: Path, found: _Adoption) -> None:
    scan = index.scan(tar, found.rule)
    found.passed += scan.passed
    found.met |= scan.met
    if scan.problems:
        found.problems += scan.problems
        return
    members = index.from_rows(scan.rows)
    found.indexes.append((tar, members))
    count = int(members["sample"].max()) + 1
    seal = index.seal_of(members)
    found.shards.append(
        ShardInfo(name=tar.name, samples=count, bytes=tar.stat().st_size, sha256=sha256_of(tar), index_sha256=seal)
    )
    meta: dict[str, bytes] = {}
    with open(tar, "rb") as f:
        for row in members:
            key, name, ext = (row[c].decode() for c in ("key", "field", "ext"))
            whole = KINDS[ext] == "image" or name == "meta"
            size = int(row["size"]) if whole else min(HEADER_BYTES, int(row["size"]))
            data = os.pread(f.fileno(), size, int(row["offset"]))
            try:
                found.tally.add(key, name, ext, header_of(name, ext, data, found.images.turned(name)))
                if KINDS[ext] == "image":
                    found.images.add(key, name, ext, data, skim=True)
            except HeaderError as e:
                where = f"{tar.name}: {key}.{name}.{ext}"
                found.problems.append(Problem(str(e), where, FIX_MEMBER if e.fix == MEND_FILE else e.fix))
            if name == "meta" and ext == "json":
                meta[key] = data
    found.samples += read_samples(scan, meta, found.rule, found.problems)


def _unmet(found: _Adoption) -> list[Problem]:
    """Members that were named and are in no tar: a slip of the pen that would leave a field out."""
    if found.problems:
        return []
    wanted = {*found.rule.targets, *found.rule.skip}
    have = ", ".join(sorted(found.met)[:12])
    return [
        Problem(f"no sample has a member '{m}'", "--member or --skip", f"members of these tars: {have}")
        for m in sorted(wanted - found.met)
    ]


def _lonely(found: _Adoption) -> list[Problem]:
    """Fields by the dozen that one sample each has: the names have a dot within their keys, and what follows it was taken for a field."""
    counts = Counter(f for _, members in found.indexes for f in members["field"].tolist())
    alone = [f.decode() for f, n in counts.items() if n == 1]
    if len(alone) < LONELY or len(alone) < len(found.samples) // 2:
        return []
    what = f"{len(alone)} fields stand in one sample alone: {', '.join(sorted(alone)[:4])}, ..."
    return [Problem(what, "the tars", "rename the files: a key ends at its first dot, so it must have none")]


def _double_keys(found: _Adoption) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for sample in found.samples:
        shard = first.setdefault(sample.key, sample.shard)
        if shard != sample.shard:
            what = f"key '{sample.key}' is also in {shard}"
            problems.append(
                Problem(
                    what,
                    sample.shard,
                    "give every sample a key of its own, or put its tar's name before it: --shard-in-key",
                )
            )
    return problems


def _split(folder: Path, rows: Sequence[SampleRow]) -> tuple[list[SampleRow], list[Problem]]:
    """Rows with the splits of splits.csv, if there is one."""
    path = folder / "splits.csv"
    if not path.is_file():
        return one_name_each(rows), []
    table = read_table(path)
    if table and not {"sample", "split"} <= set(table[0]):
        return list(rows), [Problem("no columns sample and split", str(path), "mend or remove the file")]
    of = {r["sample"]: r["split"] for r in table}
    lacking = [r.sample for r in rows if r.sample not in of]
    extra = sorted(set(of) - {r.sample for r in rows})
    twice = [k for k, n in Counter(r["sample"] for r in table).items() if n > 1]
    problems = [
        Problem(f"split '{s}'", str(path), f"one of {', '.join(SPLITS)}")
        for s in sorted(set(of.values()) - set(SPLITS))
    ]
    for names, what in (
        (lacking, "samples of the shards are not in it"),
        (extra, "of its samples are in no shard"),
        (twice, "samples stand twice in it"),
    ):
        if names:
            problems.append(
                Problem(f"{len(names)} {what}: {', '.join(names[:5])}", str(path), "mend or remove the file")
            )
    moved = one_name_each([r.moved(of.get(r.sample, "train")) for r in rows])
    return moved, problems + leaks(moved)


def _old(folder: Path) -> DatasetInfo | None:
    """The description that stood here before; an edited or foreign one counts as none, since all of it is made anew."""
    try:
        return load_info(folder)
    except DataError:
        return None


def _titles(folder: Path, old: DatasetInfo | None, new: Titles) -> dict[str, str]:
    known = {n: getattr(old, n) if old else "" for n in ("source", "licence", "commercial", "citation")}
    return {
        "name": new.name or (old.name if old else folder.resolve().name),
        "version": old.version if old else "1",
        **{n: word if (stated := getattr(new, n)) is None else stated for n, word in known.items()},
    }


def _classes(old: DatasetInfo | None) -> Mapping[str, tuple[str, ...]]:
    """Classes that the labels have by the description that stood here."""
    return {n: i.classes for n, i in old.labels.items()} if old else {}


def _known(stored: Meanings, stated: Meanings) -> dict[str, dict[str, str]]:
    """What is stored, with what is stated now in its place."""
    both = {n: {**stored.get(n, {}), **stated.get(n, {})} for n in {*stored, *stated}}
    return {n: {k: v for k, v in words.items() if v} for n, words in both.items()}


def _meanings(found: _Adoption, known: Meanings, stated: Meanings) -> tuple[dict[str, Meaning], list[Problem]]:
    """What is known of fields that are still there."""
    fields = found.tally.names
    odd = [
        Problem(f"no field '{n}'", FLAG, f"fields of these tars: {', '.join(sorted(fields - {'meta'}))}")
        for n in sorted(set(stated) - fields)
    ]
    return {n: m for n, m in known.items() if n in fields}, odd
