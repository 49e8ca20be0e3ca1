"""What decides the bytes of a data set's shards, as digests: a killed `pack` goes on only where all of them are the same again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from isal import isal_zlib

from shards.pack.manifest import Entry
from shards.pack.survey import PackOptions, PackPlan

FORM = "1"
"""Counts up with what packing makes of the same files."""


def digests(entries: Iterable[Entry], options: PackOptions, plan: PackPlan) -> dict[str, str]:
    """What decides the bytes of shards: manifest, files, options; by name, so that it can be said what has changed.

    Of files below `options.scratch`, which each command makes anew, the content counts and not the time.
    """
    return {
        "version": FORM,
        "manifest": _digest(_line(e) for e in entries),
        "files": _digest(_stamp(path, found, options.scratch) for path, found in plan.files.items()),
        "options": _digest(_settings(options, plan)),
    }


def _digest(parts: Iterable[object]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


def _line(entry: Entry) -> list[object]:
    refs = {n: [r.text, str(r.path), r.member, r.rows, len(r.more), r.regions] for n, r in entry.fields.items()}
    return [entry.sample, entry.patient, entry.labels, refs, entry.texts]


def _stamp(path: Path, found: tuple[int, int], scratch: Path | None) -> list[object]:
    size, changed = found
    made = scratch is not None and path.is_relative_to(scratch)
    return [str(path), size, isal_zlib.crc32(path.read_bytes()) if made else changed]


def _settings(options: PackOptions, plan: PackPlan) -> Iterator[object]:
    """Everything but what dataset.json alone depends on."""
    yield options.shard_bytes, options.shard_samples, options.keep_orientation, repr(options.pictures)
    yield options.transforms, plan.meanings, plan.dtypes, plan.vocab
    yield {n: hashlib.sha256(fill.tobytes()).hexdigest() for n, fill in plan.fills.items()}
