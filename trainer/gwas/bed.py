"""A PLINK 1 file set as the association reads it: autosomal variants in order of position, in blocks, whatever the order of the .bim.

Shape letters: N people of the file set, M variants of a block or a chromosome.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.sources._genotypes import AUTOSOMES, chromosome_names
from shards.sources._plink import Variants, read_bim, read_codes, read_pedigree
from shards.tables.identity import few


@dataclass(frozen=True)
class FileSet:
    """.bed, .bim and .fam, of which the first two lists are read. `by_chromosome`: columns of the .bed in order of position."""

    path: Path
    people: list[str]
    founders_N: np.ndarray
    variants: Variants
    by_chromosome: dict[str, np.ndarray]
    notes: list[str]

    @property
    def size(self) -> int:
        """Number of autosomal variants."""
        return sum(map(len, self.by_chromosome.values()))

    def counts(self, columns: np.ndarray) -> np.ndarray:
        """Copies of the .bim's first allele [M, N] int8, -127 for a missing call.

        Raises:
            DataError: a .bed of other people or variants than .fam and .bim.
        """
        return read_codes(self.path, len(self.people), len(self.variants.ids), columns).T

    def describe(self, columns: np.ndarray) -> list[str]:
        return self.variants.ids[columns].tolist()


def open_file_set(path: Path) -> FileSet:
    """Reads .bim and .fam beside a .bed.

    Raises:
        DataError: files missing, lines of another form, one id for two variants, no variant on an autosome.
    """
    lacking = [p.name for p in (path, path.with_suffix(".bim"), path.with_suffix(".fam")) if not p.is_file()]
    if path.suffix != ".bed" or lacking:
        what = f"no {', '.join(lacking)}" if path.suffix == ".bed" else "not a .bed"
        raise bad(what, path, "PLINK 1 writes .bed, .bim and .fam together; give the .bed, the others beside it")
    variants = read_bim(path.with_suffix(".bim"))
    people, founders_N, notes = read_pedigree(path.with_suffix(".fam"))
    names, placed = chromosome_names(variants.chromosomes), variants.positions >= 0
    found, left = {}, Counter(f"chromosome {n}" for n in names[placed].tolist() if n not in AUTOSOMES)
    left["negative positions"] = int((~placed).sum())
    for name in sorted(AUTOSOMES & set(names[placed].tolist()), key=int):
        columns = np.flatnonzero((names == name) & placed)
        found[name] = columns[np.argsort(variants.positions[columns], kind="stable")]
    where = ", ".join(f"{n} on {k}" for k, n in left.most_common() if n)
    if not found:
        raise bad(
            f"no variant of an autosome ({where or 'none at all'})",
            path.with_suffix(".bim"),
            "give one with chromosomes 1 to 22",
        )
    if where:
        notes = [*notes, f"{path.name}: variants that take no part: {where} (autosomes alone are tested)"]
    if not founders_N.any():
        founders_N = np.ones_like(founders_N)
        notes = [
            *notes,
            f"{path.name}: nobody is a founder (without parents in .fam): allele frequencies and r2 are of all people",
        ]
    _refuse_twice(variants, found, path)
    return FileSet(path, people, founders_N, variants, found, notes)


def _refuse_twice(variants: Variants, found: dict[str, np.ndarray], path: Path) -> None:
    ids = Counter(variants.ids[np.concatenate([*found.values()])].tolist())
    if twice := [i for i, n in ids.items() if n > 1]:
        what = f"{len(twice)} ids name more than one variant ({few([repr(i) for i in twice])})"
        fix = "name each variant once, such as CHROMOSOME:POSITION:ALLELE:ALLELE in the second column"
        raise DataError(Problem(what, str(path.with_suffix(".bim")), fix))


def allele_tested(count_MN: np.ndarray, founders_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the .bim's first allele is the one that is tested, [M] bool, and the tested allele's frequency among founders, [M].

    The major allele among the founders of the file set is left out, as plink2 does; of two equally frequent ones, as a rule, the second.
    """
    founders_MN = count_MN if founders_N.all() else count_MN[:, founders_N]
    known_M = (founders_MN >= 0).sum(1, dtype=np.int64)
    first_M = np.where(founders_MN < 0, 0, founders_MN).sum(1, dtype=np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of equally frequent alleles the first is tested; with some numbers of people (491, 498) plink2's product with a reciprocal is just
        # below 1/2 and it tests the second. The same product, so that signs agree; unequal counts are far enough from 1/2.
        is_first_M = ~((2 * known_M - first_M) * (1 / (2 * known_M)) < 0.5)
        share_M = first_M / (2 * known_M)
    return is_first_M, np.where(is_first_M, share_M, 1 - share_M)
