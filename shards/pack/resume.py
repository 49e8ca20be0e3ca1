"""What decides the bytes of a data set's shards, as digests: a killed `pack` goes on only where all of them are the same again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

from shards.pack.options import PackOptions
from shards.pack.plan import PackPlan

FORM = "2"
"""Counts up with what packing makes of the same files."""


def digests(options: PackOptions, plan: PackPlan) -> dict[str, str]:
    """What decides the bytes of shards: manifest, files, options; by name, so that it can be said what has changed."""
    return {
        "version": FORM,
        "manifest": plan.manifest,
        "files": plan.files.digest(),
        "options": _digest(_settings(options, plan)),
    }


def _digest(parts: Iterable[object]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    return sha.hexdigest()


def _settings(options: PackOptions, plan: PackPlan) -> Iterator[object]:
    """Everything but what dataset.json alone depends on."""
    yield options.shard_bytes, options.shard_samples, options.keep_orientation, repr(options.pictures)
    yield options.transforms, plan.meanings, plan.dtypes, plan.vocab
    yield {n: hashlib.sha256(fill.tobytes()).hexdigest() for n, fill in plan.fills.items()}
