"""Reports of test samples whose words an encoder of images and reports has learned from, as another patient's report.

Many normal films have the same short report, so equal words are no proof of one patient under two names: nothing is refused for them.
They are counted and said, since retrieval among words that were learned is another question than among new ones.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.read.remote import is_url
from shards.tables.identity import person
from trainer.state.finished import Finished

FIELD = "report"


@dataclass(frozen=True)
class Texts:
    """keys: test samples of `compared` with a report whose words a report of another patient in pre-training has.

    unseen: why those of pre-training could not be read; empty where all of them were.
    """

    keys: tuple[str, ...] = ()
    compared: int = 0
    unseen: str = ""

    @property
    def note(self) -> str:
        """For a person; empty where there is nothing to compare."""
        if not self.compared:
            return ""
        if self.unseen:
            return f"equal reports NOT CHECKED: {self.unseen}"
        return (
            f"{len(self.keys)} of {self.compared} test reports have the words of another patient's report in pre-training: usual of "
            "short normal reports, and no new words to be found by"
        )


NO_TEXTS = Texts()


def plain(text: str) -> str:
    """A report's words, spaces and capitals aside."""
    return " ".join(text.lower().split())


def shared_texts(run: Finished, data: Dataset, test: np.ndarray) -> Texts:
    """Compares the reports of the test samples with all that the run learned from, where its data sets are where they were."""
    if FIELD not in data.info.fields or FIELD not in run.schema.fields:
        return Texts()
    asked = defaultdict[str, list[int]](list)
    for i in test.tolist():
        if data[i].has(FIELD) and (words := plain(str(data[i].read(FIELD)))):
            asked[words].append(i)
    patient = {i: person(p) for i, p in zip(test.tolist(), data.patients_of(test), strict=True)}
    hits, gone = set[int](), list[str]()
    for path, fingerprint in run.sources:
        found = _learned(run, path, fingerprint, asked)
        if found is None:
            gone.append(path)
            continue
        hits |= {i for words, people in found.items() for i in asked[words] if people - {patient[i]}}
    compared = sum(map(len, asked.values()))
    if gone or not run.sources:
        named = ", ".join(gone) or f"the data of {run.path}"
        return Texts((), compared, f"{named} cannot be read as pre-training read it (moved, changed or far away)")
    return Texts(tuple(sorted(data.keys_of(np.array(sorted(hits), np.int64)))) if hits else (), compared)


def _learned(run: Finished, path: str, fingerprint: str, asked: dict[str, list[int]]) -> dict[str, set[str]] | None:
    """{words: who has them} of the reports of one data set that were learned from, among those asked for; None: it is not there."""
    if is_url(path) or not Path(path).is_dir():
        return None
    found = defaultdict[str, set[str]](set)
    try:
        with Dataset.open(path) as theirs:
            if theirs.fingerprint != fingerprint:
                return None
            at = theirs.subset(run.config.data.split).indices
            for i, who in zip(at.tolist(), theirs.patients_of(at), strict=True):
                record = theirs[i]
                if record.has(FIELD) and (words := plain(str(record.read(FIELD)))) in asked:
                    found[words].add(person(who))
    except DataError:
        return None
    return found
