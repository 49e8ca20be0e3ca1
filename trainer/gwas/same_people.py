"""Are the genotypes those of the people in the images? Names alone cannot tell where two cohorts count their people from 1.

A data set packed with SNPs by name and allele (`rs123_A(/G)`) holds some of the same calls: they are compared, person by person.

Shape letters: N people, M variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from shards.read.dataset import Dataset
from shards.tables.alleles import NAMED
from shards.tables.identity import few
from trainer.errors import UserError
from trainer.gwas.bed import FileSet
from trainer.gwas.embeddings import HeldBack

T = TypeVar("T")
MOST_PEOPLE, MOST_VARIANTS, LEAST_VARIANTS = 500, 400, 30
LEAST_AGREEMENT = 0.85
"""Calls of two strangers agree in half of the variants or less; those of one person in nearly all, a few imputed ones apart."""


def check_people(data: Dataset, split: str, people: HeldBack, files: FileSet, pairs: Mapping[str, str]) -> list[str]:
    """Notes on what was compared; none where the data set holds no such field.

    Args:
        pairs: {person of the data set: person of the .fam}.

    Raises:
        UserError: people whose calls in the file set are not those they were packed with; each is counted, three are named.
    """
    for name, info in data.info.fields.items():
        if info.vocab is None:
            continue
        places = _shared(data.vocabulary(name), files)
        if len(places) >= LEAST_VARIANTS:
            return [_compared(data, split, people, files, pairs, name, _spread(places, MOST_VARIANTS))]
    return []


def _shared(vocabulary: Sequence[str], files: FileSet) -> list[tuple[int, int, bool]]:
    """(column of the field, column of the .bed, whether both count the same allele) of variants with the same id and alleles."""
    columns = np.concatenate([*files.by_chromosome.values()])
    v = files.variants
    column_of = dict(zip(v.ids[columns].tolist(), columns.tolist(), strict=True))
    found = []
    for i, text in enumerate(vocabulary):
        hit = NAMED.fullmatch(text)
        if hit is None or hit["other"] is None or (at := column_of.get(hit["snp"])) is None:
            continue
        if {hit["counted"], hit["other"]} == {v.counted[at], v.other[at]}:
            found.append((i, at, hit["counted"] == v.counted[at]))
    return found


def _compared(
    data: Dataset,
    split: str,
    people: HeldBack,
    files: FileSet,
    pairs: Mapping[str, str],
    field: str,
    places: Sequence[tuple[int, int, bool]],
) -> str:
    own, columns, same = (np.array(x) for x in zip(*places, strict=True))
    count_MN = files.counts(columns).astype(np.int16)
    count_MN = np.where(count_MN < 0, -1, np.where(same[:, None], count_MN, 2 - count_MN))
    row_of = {n: i for i, n in enumerate(files.people)}
    indices, first = data.subset(split).indices, np.unique(people.person_S, return_index=True)[1]
    joined = [i for i, n in enumerate(people.names_N) if n in pairs]
    strangers, compared = list[str](), 0
    for i in _spread(joined, MOST_PEOPLE):
        record, name = data[int(indices[first[i]])], people.names_N[i]
        if not record.has(field):
            continue
        packed_M = np.asarray(record.read(field)).reshape(-1)[own]
        theirs_M = count_MN[:, row_of[pairs[name]]]
        known_M = (packed_M >= 0) & (theirs_M >= 0)
        if known_M.sum() < LEAST_VARIANTS:
            continue
        compared += 1
        agreement = float((packed_M[known_M] == theirs_M[known_M]).mean())
        if agreement < LEAST_AGREEMENT:
            strangers.append(f"'{name}' ({agreement:.0%} of {int(known_M.sum())} calls equal)")
    if strangers:
        raise UserError(
            f"{files.path}: {len(strangers)} of {compared} people have other genotypes there than in field '{field}' of {data.path} "
            f"({few(strangers)}): they are other people of the same name; bring the file set that the data set was packed with, or mend "
            "the names in the .fam"
        )
    return (
        f"{compared} people have the genotypes that they were packed with ('{field}', {len(places)} variants compared)"
    )


def _spread(values: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, from all over."""
    if len(values) <= most:
        return values
    return [values[i] for i in np.linspace(0, len(values) - 1, most).astype(int)]
