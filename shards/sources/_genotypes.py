"""Genotypes of PLINK or an .npz as one vector a person: autosomes, every n-th SNP of a chromosome, missing calls imputed.

Shape letters: N people, S SNPs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem, bad

AUTOSOMES = {str(c) for c in range(1, 23)}
MISSING = -1
# SNPRelate's .gds and files made from it write 3 for a missing call, bed-reader -127.
MISSING_CODES = (-1, 3, -127)
CODES = (0, 1, 2)
NAMELESS = ("", ".", "---", "NA")


@dataclass
class Genotypes:
    """`codes` [N, S] int8 of 0, 1, 2 (copies of the counted allele) and -1; `people` and `snps` name rows and columns."""

    codes: np.ndarray
    people: list[str]
    snps: list[str]
    notes: list[str]


def read_genotypes(path: Path, every: int | None) -> Genotypes:
    """PLINK `.bed` (with .bim and .fam beside it) or an .npz with genotype [N, S], sample_id, rsid, chrom.

    Args:
        every: keep every n-th SNP of a chromosome, from its first, in the order of position; None: 100 for PLINK, all of
            an .npz.

    Raises:
        DataError: unreadable, other codes than 0, 1, 2 and missing, or a person who stands twice.
    """
    if path.suffix == ".npz":
        found = _npz(path, every or 1)
    elif path.suffix == ".bed":
        found = _plink(path, every or 100)
    else:
        raise bad("neither a PLINK .bed nor an .npz", path, "give --genotypes FILE.bed or FILE.npz")
    twice = [name for name, n in Counter(found.people).items() if n > 1]
    if twice:
        raise DataError([Problem(f"person '{n}' stands more than once", str(path), "keep one of them") for n in twice])
    return found


def thinned(chromosomes: np.ndarray, positions: np.ndarray, every: int) -> np.ndarray:
    """Columns to keep: every n-th SNP of each autosome, chromosomes in order, SNPs by position."""
    names = np.array([str(c).removeprefix("chr") for c in chromosomes])
    kept = []
    for chromosome in sorted(AUTOSOMES & set(names), key=int):
        columns = np.flatnonzero(names == chromosome)
        kept.append(columns[np.argsort(positions[columns], kind="stable")][::every])
    return np.concatenate(kept) if kept else np.empty(0, np.int64)


def checked_codes(code_NS: np.ndarray, people: list[str], snps: list[str], where: Path) -> np.ndarray:
    """The codes as int8 with -1 for missing.

    Raises:
        DataError: any other code; the first few places are named.
    """
    known = np.isin(code_NS, CODES)
    lost = np.isin(code_NS, MISSING_CODES) | ~np.isfinite(code_NS.astype(np.float64))
    if (wrong := ~(known | lost)).any():
        places = [f"{people[n]} at {snps[s]}: {code_NS[n, s]}" for n, s in np.argwhere(wrong)[:3]]
        what = f"{int(wrong.sum())} genotypes are none of 0, 1, 2 or missing ({', '.join(places)})"
        raise bad(what, where, "code copies of one allele as 0, 1, 2 and a missing call as -1")
    return np.where(known, code_NS, MISSING).astype(np.int8)


def _npz(path: Path, every: int) -> Genotypes:
    try:
        with np.load(path, allow_pickle=False) as packed:
            if lacking := {"genotype", "sample_id", "rsid", "chrom"} - set(packed.files):
                raise bad(
                    f"has no {', '.join(sorted(lacking))}", path, "it needs genotype [N, S], sample_id, rsid, chrom"
                )
            code, chromosomes = packed["genotype"], packed["chrom"]
            people, names = [str(p) for p in packed["sample_id"]], packed["rsid"]
            positions = packed["pos"] if "pos" in packed.files else np.arange(len(names))
    except (OSError, ValueError, EOFError) as e:
        if isinstance(e, DataError):
            raise
        raise bad(f"cannot be read ({e})", path, "give an .npz without pickled objects") from e
    if code.shape != (len(people), len(names)) or len(chromosomes) != len(names) or len(positions) != len(names):
        raise bad(f"genotype is {code.shape} for {len(people)} people and {len(names)} SNPs", path, "write it again")
    keep = thinned(chromosomes, positions, every)
    snps, notes = _named(names[keep], chromosomes[keep], positions[keep])
    notes = _thinning(len(names), keep, every) + notes
    return Genotypes(checked_codes(code[:, keep], people, snps, path), people, snps, notes)


def _plink(path: Path, every: int) -> Genotypes:
    from bed_reader import open_bed

    lacking = [p.name for p in (path, path.with_suffix(".bim"), path.with_suffix(".fam")) if not p.is_file()]
    if lacking:
        raise bad(f"no {', '.join(lacking)}", path, "PLINK 1 writes .bed, .bim and .fam together; give all three")
    try:
        with open_bed(path, num_threads=1) as bed:
            people, names = [str(p) for p in bed.iid], bed.sid
            keep = thinned(bed.chromosome, bed.bp_position, every)
            snps, notes = _named(names[keep], bed.chromosome[keep], bed.bp_position[keep])
            code = bed.read(index=np.s_[:, keep], dtype="int8")
    except (ValueError, OSError) as e:
        raise bad(f"cannot be read as PLINK ({e})", path, "make it again with plink --make-bed") from e
    notes = _thinning(len(names), keep, every) + notes
    return Genotypes(checked_codes(code, people, snps, path), people, snps, notes)


def _named(names: np.ndarray, chromosomes: np.ndarray, positions: np.ndarray) -> tuple[list[str], list[str]]:
    """A name for each SNP: its id, or chromosome:position where it has none or shares it (then also a number)."""
    given = [str(n).strip() for n in names]
    often = Counter(given)
    named, seen, renamed = [], Counter[str](), 0
    for name, chromosome, position in zip(given, chromosomes, positions, strict=True):
        if name in NAMELESS or often[name] > 1:
            name, renamed = f"{str(chromosome).removeprefix('chr')}:{int(position)}", renamed + 1
        seen[name] += 1
        named.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return named, [f"genotypes: {renamed} SNPs without an id of their own are called chromosome:position"] * (
        renamed > 0
    )


def _thinning(total: int, keep: np.ndarray, every: int) -> list[str]:
    return [f"genotypes: {len(keep)} of {total} SNPs kept (autosomes, every {every} of a chromosome by position)"]


def impute_mode(found: Genotypes) -> Genotypes:
    """Missing calls become the column's most frequent genotype (the smaller one of a tie).

    SNPs without a single call are dropped; SNPs that never vary are kept. Both are counted in the notes.
    """
    counts_3S = np.stack([(found.codes == c).sum(0) for c in CODES])
    called = counts_3S.sum(0) > 0
    code, mode_S = found.codes[:, called], counts_3S[:, called].argmax(0).astype(np.int8)
    missing = code == MISSING
    filled = np.where(missing, mode_S, code)
    constant = int(((counts_3S[:, called] > 0).sum(0) == 1).sum())
    share = missing.mean() if missing.size else 0.0
    notes = [f"genotypes: {int(missing.sum())} missing calls ({share:.2%}) became the mode of their SNP"]
    if dropped := int((~called).sum()):
        notes.append(f"genotypes: {dropped} SNPs without a single call dropped")
    if constant:
        notes.append(f"genotypes: {constant} SNPs never vary; they are kept and tell nothing")
    snps = [s for s, c in zip(found.snps, called, strict=True) if c]
    return Genotypes(filled, found.people, snps, found.notes + notes)
