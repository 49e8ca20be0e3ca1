"""Test samples whose image or bag was learned from under another name: within the task's data set, and in pre-training.

What counts as a witness, and what does not, is said in shards/check/witness.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.check.witness import FIX_NAMES, Contents, across, contents_of, is_witness, sha256_in, telling
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.read.remote import is_url
from trainer.state.finished import Seen

SHOWN = 10
REMEDY = f"{FIX_NAMES}, or accept it with leak.accept=true; the result then says so in its first line"


@dataclass(frozen=True)
class Within:
    """Keys of test samples that share a content with training or validation samples of other patients, and of validation samples
    that share one with training samples; each with its twin."""

    tested: Mapping[str, str]
    chosen: Mapping[str, str]

    @property
    def problems(self) -> list[str]:
        """A line for each, naming samples and patients; empty where nothing is shared."""
        lines = []
        for found, what, where in (
            (self.tested, "test", "training or validation"),
            (self.chosen, "validation", "training"),
        ):
            if found:
                named = ", ".join(f"{k} = {other}" for k, other in list(found.items())[:SHOWN])
                more = ", ..." if len(found) > SHOWN else ""
                lines.append(
                    f"{len(found)} {what} samples hold the same image or bag as a sample of another patient in {where}: {named}{more}"
                )
        return lines


def within(data: Dataset, found: Contents, splits: Mapping[str, np.ndarray], train: str, val: str, test: str) -> Within:
    """Compares the task's three splits byte for byte, where size and CRC-32 agree."""
    group_N = np.full(len(data), -1, np.int64)
    for number, which in enumerate((train, val, test)):
        group_N[splits[which]] = number
    tested, chosen = dict[str, str](), dict[str, str]()
    for twins in across(data, found, group_N):
        of = {k: [i for i in twins.samples if group_N[i] == k] for k in range(3)}
        for mine, others, out in ((of[2], of[0] + of[1], tested), (of[1], of[0], chosen)):
            for i in mine:
                patient = data.patients_of(np.array([i]))[0]
                other = next((j for j in others if data.patients_of(np.array([j]))[0] != patient), None)
                if other is not None:
                    out[data.keys_of(np.array([i]))[0]] = f"{data.keys_of(np.array([other]))[0]}"
    return Within(dict(sorted(tested.items())), dict(sorted(chosen.items())))


@dataclass(frozen=True)
class Learned:
    """Keys of test samples whose image or bag pre-training learned from, and of those that it chose by; None where it kept no record.

    confirmed: whether the bytes were compared, not size and CRC-32 alone.
    """

    keys: tuple[str, ...] | None
    selected: int = 0
    compared: int = 0
    confirmed: bool = True


def learned(run: Seen, data: Dataset, found: Contents, test: np.ndarray, known: Collection[str]) -> Learned:
    """Compares the test samples with what pre-training saw; samples of `known` patients, who are shared by name, are left out."""
    record = run.contents()
    if record is None:
        return Learned(None)
    at = np.isin(found.sample_M, test)
    mine = found.keep(at)
    compared = len(np.unique(mine.sample_M))
    if known:
        shared = np.isin(np.array(data.patients_of(mine.sample_M), object), list(known))
        mine = mine.keep(~shared)
    hits = telling(data, mine.keep(np.isin(mine.code_M, record["train"])))
    hits, confirmed = _confirmed(run, data, hits)
    chosen = telling(data, mine.keep(np.isin(mine.code_M, record["val"])))
    keys = sorted(data.keys_of(np.unique(hits.sample_M))) if len(hits.sample_M) else []
    return Learned(tuple(keys), len(np.unique(chosen.sample_M)), compared, confirmed)


def _confirmed(run: Seen, data: Dataset, hits: Contents) -> tuple[Contents, bool]:
    """Those of the contents whose bytes are those of pre-training, and whether all could be compared.

    A content that is not found in a data set of the run (moved, changed, or far away) counts by size and CRC-32.
    """
    wanted = np.unique(hits.code_M)
    if not len(wanted):
        return hits, True
    theirs: dict[int, set[str]] = defaultdict(set)
    for code, sha in _their_bytes(run, wanted):
        theirs[code].add(sha)
    keep = [
        int(code) not in theirs or sha256_in(data, int(sample), hits.fields[field]) in theirs[int(code)]
        for code, sample, field in zip(hits.code_M, hits.sample_M, hits.field_M, strict=True)
    ]
    return hits.keep(np.array(keep, bool)), all(int(c) in theirs for c in wanted)


def _their_bytes(run: Seen, wanted: np.ndarray) -> Iterator[tuple[int, str]]:
    """(code, SHA-256) of the wanted contents in the data sets of the run, as far as they are where they were."""
    for path, fingerprint in run.sources:
        if is_url(path) or not Path(path).is_dir():
            continue
        try:
            with Dataset.open(path) as theirs:
                if theirs.fingerprint != fingerprint:
                    continue
                found = contents_of(theirs)
                found = found.keep(np.isin(found.code_M, wanted))
                for code, sample, field in zip(found.code_M, found.sample_M, found.field_M, strict=True):
                    yield int(code), sha256_in(theirs, int(sample), found.fields[field])
        except DataError:
            continue  # changed since: nothing can be compared with it


def comparable(data: Dataset) -> bool:
    """Whether the data set holds anything that could be compared."""
    return any(is_witness(n, f) for n, f in data.info.fields.items())
