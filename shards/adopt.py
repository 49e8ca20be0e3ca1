"""Adopts tars that somebody else made: builds their indexes and the side files, and leaves the tars as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards import index
from shards.describe import HEADER_BYTES, MEND_FILE, FieldTally, HeaderError, header_of
from shards.errors import DataError, Problem, bad
from shards.format import KINDS, SPLITS, DatasetInfo, ShardInfo, load_info, save_info, sha256_of
from shards.image_tally import ImageTally
from shards.meaning import FLAG, Meaning, Meanings, stored_meanings
from shards.seal import SampleRow, describe, label_infos, read_table, read_vocab, vocab_problems, write_rows
from shards.split import leaks, one_name_each
from shards.stats import write_stats
from shards.write import disk_errors

FIX_META = 'give every sample a KEY.meta.json with {"patient": ..., "labels": {...}}, or pass --patient-from-key if a key is a patient'
FIX_MEMBER = "store the member again from its source"


@dataclass
class _Adoption:
    """What was learned from the tars."""

    rows: list[SampleRow] = field(default_factory=list)
    shards: list[ShardInfo] = field(default_factory=list)
    tally: FieldTally = field(default_factory=FieldTally)
    images: ImageTally = field(default_factory=ImageTally)
    problems: list[Problem] = field(default_factory=list)
    indexes: list[tuple[Path, np.ndarray]] = field(default_factory=list)


def adopt(
    folder: Path,
    *,
    patient_from_key: bool = False,
    name: str | None = None,
    source: str | None = None,
    licence: str | None = None,
    meanings: Meanings | None = None,
    keep_orientation: bool = False,
    notes: list[str] | None = None,
) -> DatasetInfo:
    """Makes a folder of tars a data set, or brings a changed one up to date.

    Patients and labels come from each sample's meta.json. `splits.csv` and `vocab/` are kept where they exist; without splits.csv all
    samples are for training. What dataset.json said of the fields' numbers stays, unless `meanings` says otherwise; what images mean
    (shards/images.py) is found out here as it is when packing, and lines on it are added to `notes`. Nothing is written when anything
    is wrong.

    Raises:
        DataError: all problems of all shards at once.
    """
    folder = Path(folder)
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise bad("no *.tar", folder, "give the folder that holds the shards")
    old, known = _old(folder), _known(stored_meanings(folder), meanings or {})
    found, labels = _Adoption(images=ImageTally(known, keep_orientation)), dict[str, set[str]]()
    for tar in tars:
        _take_shard(tar, found, labels, patient_from_key)
    vocab = read_vocab(folder)
    found.problems += found.tally.problems(vocab) + [p for n, w in vocab.items() for p in vocab_problems(n, w)]
    found.problems += _double_keys(found)
    found.rows, problems = _split(folder, found.rows)
    kinds, mixed = _label_kinds(labels)
    settled = found.images.settle()
    meaning, odd = _meanings(found, known, meanings or {})
    if wrong := found.problems + problems + mixed + settled.problems + odd:
        raise DataError(wrong)
    if notes is not None:
        notes += [*settled.notes, *(f"warning: {w}" for w in settled.warnings)]
    hashes = {n: sha256_of(folder / "vocab" / f"{n}.txt") for n in vocab}
    info = DatasetInfo(
        name=name or (old.name if old else folder.resolve().name),
        version=old.version if old else "1",
        source=(old.source if old else "") if source is None else source,
        licence=(old.licence if old else "") if licence is None else licence,
        fields=found.tally.infos(hashes, {**meaning, **settled.meanings}),
        labels=label_infos(found.rows, kinds),
        samples=len(found.rows),
        patients=0,
        shards=tuple(found.shards),
    )
    with disk_errors(folder):
        for tar, rows in found.indexes:
            index.save(tar, rows)
        write_rows(folder, found.rows, info.labels)
        write_stats(folder, info, found.rows)
        return save_info(folder, describe(info, folder, found.rows))


def _take_shard(tar: Path, found: _Adoption, labels: dict[str, set[str]], patient_from_key: bool) -> None:
    try:
        members = index.build(tar)
    except DataError as e:
        found.problems += e.problems
        return
    found.indexes.append((tar, members))
    count = int(members["sample"].max()) + 1
    seal = index.seal_of(members)
    found.shards.append(
        ShardInfo(name=tar.name, samples=count, bytes=tar.stat().st_size, sha256=sha256_of(tar), index_sha256=seal)
    )
    meta: dict[str, dict[str, Any]] = {}
    keys: list[str] = []
    with open(tar, "rb") as f:
        for row in members:
            key, name, ext = (row[c].decode() for c in ("key", "field", "ext"))
            where = f"{tar.name}: {key}.{name}.{ext}"
            if not keys or keys[-1] != key:
                keys.append(key)
            whole = KINDS[ext] == "image" or name == "meta"
            data = os.pread(
                f.fileno(), int(row["size"]) if whole else min(HEADER_BYTES, int(row["size"])), int(row["offset"])
            )
            try:
                found.tally.add(key, name, ext, header_of(name, ext, data, found.images.turned(name)))
                if KINDS[ext] == "image":
                    found.images.add(key, name, ext, data, skim=True)
                if name == "meta" and ext == "json":
                    meta[key] = _meta(data)
            except HeaderError as e:
                found.problems.append(Problem(str(e), where, FIX_MEMBER if e.fix == MEND_FILE else e.fix))
    for key in keys:
        found.rows.append(_row(key, meta.get(key, {}), tar, found.problems, labels, patient_from_key))


def _meta(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as e:
        raise HeaderError(f"is not JSON ({e})") from e
    if not isinstance(value, dict) or not isinstance(value.get("labels", {}), dict):
        raise HeaderError("is not an object with an object of labels")
    return value


def _row(
    key: str,
    meta: Mapping[str, Any],
    tar: Path,
    problems: list[Problem],
    labels: dict[str, set[str]],
    patient_from_key: bool,
) -> SampleRow:
    patient = meta.get("patient") or (key if patient_from_key else None)
    if not isinstance(patient, str):
        problems.append(Problem(f"sample '{key}' has no patient", f"{tar.name}: {key}.meta.json", FIX_META))
        patient = key
    known: dict[str, str | float] = {}
    for name, value in meta.get("labels", {}).items():
        if value is None:
            labels.setdefault(name, set())
        elif isinstance(value, str | int | float) and value == value:
            known[name] = value if isinstance(value, str) else float(value)
            labels.setdefault(name, set()).add("class" if isinstance(value, str) else "number")
        else:
            problems.append(
                Problem(
                    f"label '{name}' is {value!r}",
                    f"{tar.name}: {key}.meta.json",
                    "a label is a text, a number or null",
                )
            )
    return SampleRow(key, patient, "train", known)


def _double_keys(found: _Adoption) -> list[Problem]:
    first: dict[str, str] = {}
    problems, keys = [], iter(r.sample for r in found.rows)
    for shard in found.shards:
        for _ in range(shard.samples):
            key = next(keys)
            if key in first and first[key] != shard.name:
                problems.append(
                    Problem(f"key '{key}' is also in {first[key]}", shard.name, "give every sample a key of its own")
                )
            first.setdefault(key, shard.name)
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
    problems = [
        Problem(f"split '{s}'", str(path), f"one of {', '.join(SPLITS)}")
        for s in sorted(set(of.values()) - set(SPLITS))
    ]
    for names, what in ((lacking, "samples of the shards are not in it"), (extra, "of its samples are in no shard")):
        if names:
            problems.append(
                Problem(f"{len(names)} {what}: {', '.join(names[:5])}", str(path), "mend or remove the file")
            )
    moved = one_name_each([r.moved(of.get(r.sample, "train")) for r in rows])
    return moved, problems + leaks(moved)


def _label_kinds(labels: Mapping[str, set[str]]) -> tuple[dict[str, str], list[Problem]]:
    mixed = [n for n, kinds in labels.items() if len(kinds) > 1]
    fix = "make all of them texts (classes) or all of them numbers"
    problems = [
        Problem(f"label '{n}' is a number in some samples and a text in others", "meta.json", fix) for n in mixed
    ]
    return {n: next(iter(kinds), "number") for n, kinds in sorted(labels.items())}, problems


def _old(folder: Path) -> DatasetInfo | None:
    """The description that stood here before; an edited or foreign one counts as none, since all of it is made anew."""
    try:
        return load_info(folder)
    except DataError:
        return None


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
