"""Features of another origin under the names that the encoder was trained on: in its order, without others, and which are missing.

Shape letters: F features of the encoder, G those that are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from models.contract import Field, Schema
from shards.read.record import ShardRecord
from shards.tables.alleles import other_alleles, turned_alleles
from trainer.downstream.samples import Realigned
from trainer.errors import UserError

SHOWN = 5


@dataclass(frozen=True)
class Aligned:
    """How records of a data set are read. `schema` is the data set's, as if it had been packed with the encoder's vocabularies.

    columns  field -> place [F] of each feature among the stored ones, -1 for a missing one
    fill     field -> training mean [F], for those that are missing
    notes    what was done, for a person
    """

    schema: Schema
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    fill: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def view(self) -> Callable[[ShardRecord], Realigned] | None:
        if not self.columns:
            return None
        return lambda record: Realigned(record, self.columns, self.fill)


def aligned(mine: Schema, theirs: Schema, fields: tuple[str, ...], impute: bool) -> Aligned:
    """Finds each feature of the encoder by its name.

    Args:
        mine: what the encoder was trained on.
        impute: take the training mean where a feature is missing.

    Raises:
        UserError: features are missing and `impute` is not set, or no mean could stand for them; of all fields at once.
    """
    out, problems, notes = Aligned(theirs), list[str](), list[str]()
    known = dict(theirs.fields)
    for name in fields:
        a, b = mine.fields.get(name), theirs.fields.get(name)
        if a is None or b is None or not a.vocabulary or not b.vocabulary or a.vocabulary == b.vocabulary:
            continue
        if a.kind != b.kind or other_alleles(a.vocabulary, b.vocabulary):
            continue  # check_fields says it
        place = {word: i for i, word in enumerate(b.vocabulary)}
        at_F = np.array([place.get(word, -1) for word in a.vocabulary], np.int64)
        wrong = _missing_problem(name, a, b, at_F, theirs.source, impute)
        problems += wrong
        if not wrong:
            out.columns[name] = at_F
            if a.mean is not None:
                out.fill[name] = np.asarray(a.mean).reshape(-1)
            notes.append(_note(name, a, b, at_F, theirs.source))
            known[name] = replace(b, vocabulary=a.vocabulary, shape=(*(b.shape or ())[:-1], len(a.vocabulary)))
    if problems:
        raise UserError(problems)
    schema = Schema(known, theirs.labels, source=theirs.source)
    return replace(out, schema=schema, notes=tuple(notes))


def _names(words: list[str]) -> str:
    return ", ".join(words[:SHOWN]) + (", ..." if len(words) > SHOWN else "")


def _missing_problem(name: str, a: Field, b: Field, at_F: np.ndarray, source: str, impute: bool) -> list[str]:
    assert a.vocabulary is not None
    assert b.vocabulary is not None
    F = len(at_F)
    lacking = [word for word, i in zip(a.vocabulary, at_F, strict=True) if i < 0]
    if not lacking:
        return []
    what = f"field '{name}' of {source} lacks {len(lacking)} of the {F} features that the encoder was trained on ({_names(lacking)})"
    if len(lacking) == F:
        has = _names(list(b.vocabulary))
        return [f"{what}, all of them (it has {has}): are these other names for the same? Pack it under the run's own"]
    if turned := turned_alleles(lacking, b.vocabulary):
        return [f"{what}: {turned}"]
    if not impute:
        return [f"{what}: pack it with them, or take the training mean for each of them with --impute mean"]
    if a.mean is None or np.asarray(a.mean).size != F or not np.isfinite(np.asarray(a.mean)).all():
        return [f"{what}, and the run kept no training mean of them: pack it with them"]
    if np.dtype(b.dtype).kind != "f":
        return [f"{what}, and a mean is none of its whole numbers ({b.dtype}): pack it with them"]
    return []


def _note(name: str, a: Field, b: Field, at_F: np.ndarray, source: str) -> str:
    assert a.vocabulary is not None
    assert b.vocabulary is not None
    missing, more = int((at_F < 0).sum()), len(set(b.vocabulary) - set(a.vocabulary))
    said = [f"IMPUTED: {missing} of {len(at_F)} are missing and stand at their training mean"] if missing else []
    said += [f"{more} that the encoder does not know are left out"] if more else []
    return f"field '{name}' of {source}: features by name; " + ("; ".join(said) or "in the encoder's order")
