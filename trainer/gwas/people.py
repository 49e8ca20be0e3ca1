"""Who is tested: people of a split with genotypes, covariates and no relatives, joined by name; who is left out is counted and named.

Shape letters: N people who are tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.tables.identity import few, person
from shards.tables.joins import Side, partners
from trainer.errors import UserError
from trainer.gwas.bed import FileSet, open_file_set
from trainer.gwas.covariates import Covariates, read_covariates
from trainer.gwas.embeddings import HeldBack, held_back
from trainer.gwas.kinship import read_relatives
from trainer.gwas.same_people import check_people
from trainer.gwas.settings import Settings
from trainer.state.finished import Finished, open_encoder

T = TypeVar("T")
UNCOMPARED = (
    "people are joined by name alone: the data set has no field of SNPs with which their genotypes could be compared"
)


@dataclass(frozen=True)
class Tested:
    """Who is tested: places among the people of the split, rows of the .bed, covariates; and what was said on the way."""

    at_N: np.ndarray
    rows_N: np.ndarray
    covariates: Covariates
    people: HeldBack
    notes: list[str]


def opened(settings: Settings, data: Dataset) -> tuple[Finished, FileSet, Tested]:
    """Opens and joins everything; nothing is computed yet.

    Raises:
        UserError: all that is wrong with run, data, genotypes, covariates and relatives.
    """
    problems: list[str] = []
    run = _try(problems, lambda: open_encoder(settings.run))
    files = _try(problems, lambda: open_file_set(settings.bed))
    people = covariates = joined = related = None
    same: list[str] | None = []
    if run is not None:
        people = _try(problems, lambda: held_back(data, settings.split, run, settings.random is not None))
    if people is not None:
        covariates = _try(problems, lambda: read_covariates(
            settings.covariates, people.names_N, settings.id_column, settings.leave_out))  # fmt: skip
    if run is not None and people is not None and files is not None:
        joined = _try(problems, lambda: _rows(people, files, settings))
        related = _try(problems, lambda: _related(settings, data, run, files, people))
        if joined:
            same = _try(problems, lambda: check_people(data, settings.split, people, files, joined) or [UNCOMPARED])
    # What `_try` did not give has left a problem.
    if problems or not (run and files and people and covariates and related) or joined is None or same is None:
        raise UserError(problems)
    return run, files, _tested(settings, people, files, covariates, joined, (related[0], [*related[1], *same]))


def _try(problems: list[str], make: Callable[[], T]) -> T | None:
    try:
        return make()
    except DataError as e:
        problems += map(str, e.problems)
    except UserError as e:
        problems += e.problems
    return None


def _rows(people: HeldBack, files: FileSet, settings: Settings) -> dict[str, str]:
    """{person: name in the .fam}."""
    fix = "these are genotypes of other people than the images'; bring theirs, or write the data set's names into the .fam"
    there = Side.of(settings.bed.with_suffix(".fam").name, files.people)
    return partners(f"--bed {settings.bed}", Side.of(f"split '{settings.split}'", people.names_N), there, fix)[0]


def _related(
    settings: Settings, data: Dataset, run: Finished, files: FileSet, people: HeldBack
) -> tuple[list[str], list[str]]:
    """Forms of people to leave out for their relatives, and notes.

    Raises:
        UserError: there are relatives, and nobody said to leave them out.
    """
    if settings.kinship is None:
        return [], ["relatives were not looked for (--kinship TABLE)"]
    tested = {person(n): n for n in people.names_N}
    known = {*map(person, files.people), *tested, *people.elsewhere}
    random = settings.random is not None

    def seen(name: str) -> bool:
        return person(name) in people.elsewhere or (not random and any(run.overlap([name])))

    found = read_relatives(settings.kinship, tested, known, seen, settings.cutoff)
    if (problems := found.problems(tested, settings.kinship)) and not settings.drop_relatives:
        raise UserError(problems)
    gone = found.dropped()
    return gone, [
        f"--kinship {settings.kinship}: {len(found.across)} pairs across splits, {len(found.within)} among the tested"
    ]


def _tested(
    settings: Settings,
    people: HeldBack,
    files: FileSet,
    covariates: Covariates,
    pairs: dict[str, str],
    related: tuple[list[str], list[str]],
) -> Tested:
    """Who is left when each who lacks something is left out, counted and named by what is lacking.

    Raises:
        UserError: fewer people than the covariates and components need.
    """
    gone, said = related
    unknown = {n for n, lacks in zip(people.names_N, np.isnan(covariates.value_NC).any(1), strict=True) if lacks}
    lacking = {
        "without genotypes": [n for n in people.names_N if n not in pairs],
        "without a covariate": [n for n in people.names_N if n in unknown],
        "for their relatives": [n for n in people.names_N if person(n) in set(gone)],
    }
    left_out = {n for names in lacking.values() for n in names}
    at_N = np.array([i for i, n in enumerate(people.names_N) if n not in left_out], np.int64)
    why = [f"{len(names)} people are left out {what} ({few(names)})" for what, names in lacking.items() if names]
    covariate, component = len(covariates.names), settings.components
    if len(at_N) < (least := max(covariate + 3, component + 1)):
        raise UserError(
            f"{len(at_N)} of {len(people.names_N)} people of split '{settings.split}' can be tested, {covariate} covariates and "
            f"{component} components need {least} or more{''.join(f'; {w}' for w in why)}: bring more people, or ask for fewer "
            "components (--components) or covariates (--leave-out)"
        )
    row_of = {n: i for i, n in enumerate(files.people)}
    rows_N = np.array([row_of[pairs[people.names_N[i]]] for i in at_N], np.int64)
    count = f"{len(at_N)} of {len(people.names_N)} people of split '{settings.split}' are tested"
    return Tested(
        at_N, rows_N, covariates, people, [*files.notes, *people.notes, *covariates.notes, *said, *why, count]
    )
