"""Genotypes of PLINK or an .npz as one vector a person: autosomes, every n-th SNP of a chromosome, missing calls imputed.

A code is the number of copies of one of a SNP's two alleles, and PLINK makes the rarer one the first anew in every cohort: the same DNA
can be 0 here and 2 there. So the counted allele is part of a SNP's name in a data set, `rs123_A(/G)` (PLINK's own form, of --recode A
include-alt), where the files tell it.

Shape letters: N people, S SNPs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format.npy import UNREADABLE_NPZ
from shards.sources._plink import beside, read_bim, read_codes, read_fam
from shards.tables.alleles import named
from shards.tables.identity import chromosome

AUTOSOMES = {str(c) for c in range(1, 23)}
MISSING = -1
# SNPRelate's .gds and files made from it write 3 for a missing call, bed-reader -127.
MISSING_CODES = (-1, 3, -127)
CODES = (0, 1, 2)
NAMELESS = ("", ".", "---", "NA")
UNKNOWN_ALLELE = ("", "0", ".", "NA", "?", "N")
DIGITS = {"1": "A", "2": "C", "3": "G", "4": "T"}  # plink --allele1234
PAIRED = ({"A", "T"}, {"C", "G"})
Count = Literal["sorted", "file"]


@dataclass
class Genotypes:
    """`codes` [N, S] int8 of 0, 1, 2 (copies of the counted allele) and -1; `people` and `snps` name rows and columns.

    counted, other: a SNP's alleles, "" where they are not known; empty where no SNP's are.
    """

    codes: np.ndarray
    people: list[str]
    snps: list[str]
    notes: list[str]
    counted: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """What a data set calls the SNPs: with the allele that is counted, `rs123_A(/G)`, where it is known."""
        if not self.counted:
            return self.snps
        pairs = zip(self.snps, self.counted, self.other, strict=True)
        return _numbered(named(re.sub(r"#\d+$", "", s), a, b) for s, a, b in pairs)

    @property
    def names_say_alleles(self) -> bool:
        return bool(self.counted) and all(self.counted)

    def kept(self, columns_S: np.ndarray) -> Genotypes:
        """Those of the SNPs, by a mask."""
        snps, counted, other = ([x for x, k in zip(v, columns_S, strict=True) if k] if v else v
                                for v in (self.snps, self.counted, self.other))  # fmt: skip
        return replace(self, codes=self.codes[:, columns_S], snps=snps, counted=counted, other=other)


def read_genotypes(given: Path | Sequence[Path], every: int | None, count: Count = "sorted") -> Genotypes:
    """PLINK `.bed` (with .bim and .fam beside it) or an .npz with genotype [N, S], sample_id, rsid, chrom, and maybe pos and allele.

    Several .bed files of the same people, such as one a chromosome, are read as the one that they would be if they were merged.

    Args:
        every: keep every n-th SNP of a chromosome, from its first, in the order of position; None: 100 for PLINK, all of
            an .npz.
        count: copies of which allele: `sorted` the first of both by alphabet, so that two files of the same DNA give the same codes;
            `file` the one that the file counts (PLINK's first).

    Raises:
        DataError: unreadable, other codes than 0, 1, 2 and missing, a person who stands twice, people of one file who are not in
            another, or no SNP left.
    """
    paths = [given] if isinstance(given, Path) else [*given]
    path, kinds = paths[0], {p.suffix for p in paths}
    if kinds == {".npz"} and len(paths) == 1:
        found = _npz(path, every or 1)
    elif kinds == {".bed"}:
        found = _plink(paths, every or 100)
    else:
        odd = next((p for p in paths if p.suffix != ".bed"), path)
        what = "neither a PLINK .bed nor an .npz" if len(paths) == 1 else "not a .bed, one of several files"
        raise bad(what, odd, "give --genotypes FILE.bed or FILE.npz, or several .bed files, such as one a chromosome")
    twice = [name for name, n in Counter(found.people).items() if n > 1]
    if twice:
        raise DataError([Problem(f"person '{n}' stands more than once", str(path), "keep one of them") for n in twice])
    return turned(found) if count == "sorted" else found


def turned(found: Genotypes) -> Genotypes:
    """Copies of the first of both alleles by alphabet, where both are known; says how many were the other way round."""
    turn_S = np.array([bool(b) and b < a for a, b in zip(found.counted, found.other, strict=True)], bool)
    if not turn_S.any():
        return found
    code = np.where(turn_S & (found.codes != MISSING), 2 - found.codes, found.codes).astype(np.int8)
    pairs = list(zip(found.counted, found.other, turn_S, strict=True))
    note = (
        f"genotypes: {int(turn_S.sum())} of {len(turn_S)} SNPs turned to count the first of their alleles by alphabet"
    )
    counted, other = [b if t else a for a, b, t in pairs], [a if t else b for a, b, t in pairs]
    return replace(found, codes=code, counted=counted, other=other, notes=[*found.notes, note])


def thinned(chromosomes: np.ndarray, positions: np.ndarray, every: int) -> np.ndarray:
    """Columns to keep: every n-th SNP of each autosome, chromosomes in order, SNPs by position; those of negative position are off."""
    names, on = chromosome_names(chromosomes), positions >= 0
    kept = []
    for name in sorted(AUTOSOMES & set(names.tolist()), key=int):
        columns = np.flatnonzero((names == name) & on)
        kept.append(columns[np.argsort(positions[columns], kind="stable")][::every])
    return np.concatenate(kept).astype(np.int64) if kept else np.empty(0, np.int64)


def chromosome_names(codes: np.ndarray) -> np.ndarray:
    """`identity.chromosome` of each."""
    given, of = np.unique(np.array([_text(c) for c in codes], object).astype(str), return_inverse=True)
    return np.array([chromosome(c) for c in given], object)[of] if len(given) else np.empty(0, object)


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


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _npz(path: Path, every: int) -> Genotypes:
    try:
        with np.load(path, allow_pickle=False) as packed:
            if lacking := {"genotype", "sample_id", "rsid", "chrom"} - set(packed.files):
                raise bad(
                    f"has no {', '.join(sorted(lacking))}", path, "it needs genotype [N, S], sample_id, rsid, chrom"
                )
            code, chromosomes = packed["genotype"], packed["chrom"]
            people, names = ([_text(v).strip() for v in packed[n]] for n in ("sample_id", "rsid"))
            positions = packed["pos"] if "pos" in packed.files else np.arange(len(names))
            pairs = [_text(v).strip() for v in packed["allele"]] if "allele" in packed.files else []
    except UNREADABLE_NPZ as e:
        if isinstance(e, DataError):
            raise
        raise bad(f"cannot be read ({e})", path, "give an .npz without pickled objects") from e
    if code.shape != (len(people), len(names)) or {len(chromosomes), len(positions), len(pairs or names)} != {
        len(names)
    }:
        what = f"genotype is {code.shape} for {len(people)} people and {len(names)} SNPs"
        raise bad(what, path, "write it again, every array of SNPs as long as rsid")
    if odd := [p for p in pairs if p.count("/") != 1]:
        raise bad(
            f"{len(odd)} alleles are not COUNTED/OTHER, such as '{odd[0]}'",
            path,
            "write them as A/G, the counted one first",
        )
    keep = _chosen(chromosomes, positions, every, path)
    counted, other = bases([p.partition("/")[0] for p in pairs], [p.partition("/")[2] for p in pairs])
    found = _kept(people, names, chromosomes, positions, counted, other, keep, every)
    return replace(found, codes=checked_codes(code[:, keep], people, found.snps, path))


def _plink(paths: Sequence[Path], every: int) -> Genotypes:
    of = [beside(path) for path in paths]
    bims, (people, said) = [read_bim(bim) for bim, _ in of], read_fam(of[0][1])
    rows = [_rows(people, read_fam(fam)[0], fam, of[0][1]) for _, fam in of]
    chromosomes, ids, positions, first, second = (
        np.concatenate([getattr(b, n) for b in bims]) for n in ("chromosomes", "ids", "positions", "counted", "other")
    )
    keep = _chosen(chromosomes, positions, every, paths[0])
    counted, other = bases(first.tolist(), second.tolist())
    found = _kept(people, ids.tolist(), chromosomes, positions, counted, other, keep, every)
    code, stops = np.empty((len(people), len(keep)), np.int8), np.cumsum([len(b.ids) for b in bims])
    for path, bim, row, stop in zip(paths, bims, rows, stops, strict=True):
        mine = np.flatnonzero((stop - len(bim.ids) <= keep) & (keep < stop))
        read = read_codes(path, len(people), len(bim.ids), keep[mine] - (stop - len(bim.ids)))
        code[:, mine] = checked_codes(read, people, [found.snps[i] for i in mine], path)[row]
    files = [f"genotypes: {len(paths)} files of the same people are read as one"] * (len(paths) > 1)
    return replace(found, codes=code, notes=said + files + found.notes)


def _rows(people: list[str], these: list[str], fam: Path, first: Path) -> np.ndarray:
    """The row of each person in another file.

    Raises:
        DataError: people of one of both alone.
    """
    at = {name: i for i, name in enumerate(these)}
    lacking, more = [p for p in people if p not in at], sorted(set(these) - set(people))
    if lacking or more:
        shown = ", ".join(f"'{p}'" for p in (lacking + more)[:3])
        what = f"other people than in {first.name}: {len(lacking)} of its people are not here, {len(more)} are here alone ({shown})"
        raise bad(what, fam, "bring files of the same people: plink --keep PEOPLE --make-bed on each of them")
    return np.array([at[p] for p in people], np.int64)


def _chosen(chromosomes: np.ndarray, positions: np.ndarray, every: int, path: Path) -> np.ndarray:
    """`thinned`, refused where nothing is left, with what stood in the way."""
    positions = np.asarray(positions)
    keep = thinned(chromosomes, positions, every)
    if not len(keep):
        reason = ", ".join(_left_out(chromosomes, positions)) or "it holds none"
        raise bad(
            f"no SNP is left of {len(positions)}: {reason}",
            path,
            "give genotypes of chromosomes 1 to 22 with their positions",
        )
    return keep


def _left_out(chromosomes: np.ndarray, positions: np.ndarray) -> list[str]:
    """What is not read at all, in words."""
    names, on = chromosome_names(chromosomes), np.asarray(positions) >= 0
    others = Counter(n or "none" for n, o in zip(names.tolist(), on, strict=True) if o and n not in AUTOSOMES)
    said = ["on other chromosomes: " + ", ".join(f"{k} on {n}" for n, k in others.most_common(5))] if others else []
    off = int((~on).sum())
    return said + ([f"{off} of negative position, which PLINK leaves out"] if off else [])


def bases(counted: Sequence[object], other: Sequence[object]) -> tuple[list[str], list[str]]:
    """Alleles in capitals, "" where a file does not tell them.

    1 to 4 are A, C, G, T (--allele1234); where a file has 1 and 2 alone, or A1 and A2, they are minor and major of that file: nothing
    is told by them.
    """
    pairs = [(_text(a).strip().upper(), _text(b).strip().upper()) for a, b in zip(counted, other, strict=True)]
    seen = {x for pair in pairs for x in pair} - set(UNKNOWN_ALLELE)
    if seen <= {"1", "2"} or seen <= {"A1", "A2"}:
        return [], []
    code = DIGITS if seen <= set(DIGITS) else {}
    clean = [tuple("" if x in UNKNOWN_ALLELE else code.get(x, x) for x in pair) for pair in pairs]
    return [a for a, _ in clean], [b for _, b in clean]


def _kept(
    people: list[str],
    names: list[str],
    chromosomes: np.ndarray,
    positions: np.ndarray,
    counted: list[str],
    other: list[str],
    keep: np.ndarray,
    every: int,
) -> Genotypes:
    """The chosen SNPs without their codes, and the notes on them."""
    snps, unnamed = _own_names(
        [names[k] for k in keep], chromosome_names(chromosomes[keep]), np.asarray(positions)[keep]
    )
    counted, other = ([v[k] for k in keep] if v else [] for v in (counted, other))
    notes = [f"genotypes: {len(keep)} of {len(names)} SNPs kept (autosomes, every {every} of a chromosome by position)"]
    notes += [f"genotypes: not read: {w}" for w in _left_out(chromosomes, positions)]
    return Genotypes(
        np.empty((0, 0), np.int8), people, snps, notes + unnamed + _alleles(counted, other), counted, other
    )


def _alleles(counted: Sequence[str], other: Sequence[str]) -> list[str]:
    """What the files tell of alleles, in words."""
    if not any(counted):
        return [
            "genotypes: WHICH ALLELE IS COUNTED IS NOT TOLD: no other file's codes of these SNPs can be compared with them"
        ]
    lost = sum(not a or not b for a, b in zip(counted, other, strict=True))
    same = sum({a, b} in PAIRED for a, b in zip(counted, other, strict=True))
    said = [f"genotypes: {lost} of {len(counted)} SNPs lack an allele (nobody has it)"] if lost else []
    return said + (
        [f"genotypes: {same} SNPs are A/T or C/G: files of the two strands cannot be told apart by them"]
        if same
        else []
    )


def _own_names(names: Sequence[str], chromosomes: np.ndarray, positions: np.ndarray) -> tuple[list[str], list[str]]:
    """A name for each SNP: its id, or chromosome:position where it has none or shares it (then also a number)."""
    often = Counter(names)
    own = [n not in NAMELESS and often[n] == 1 for n in names]
    called = [n if o else f"{c}:{int(p)}" for n, o, c, p in zip(names, own, chromosomes, positions, strict=True)]
    renamed = len(own) - sum(own)
    note = f"genotypes: {renamed} SNPs without an id of their own are called chromosome:position"
    return _numbered(called), [note] * (renamed > 0)


def _numbered(names: Iterable[str]) -> list[str]:
    """The names, with a number from the second of equal ones on."""
    seen, out = Counter[str](), []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out


def impute_mode(found: Genotypes) -> Genotypes:
    """Missing calls become the column's most frequent genotype (the smaller one of a tie).

    SNPs without a single call are dropped; SNPs that never vary are kept. Both are counted in the notes.

    Raises:
        DataError: no SNP has a call.
    """
    counts_3S = np.stack([(found.codes == c).sum(0) for c in CODES])
    called = counts_3S.sum(0) > 0
    if not called.any():
        raise bad(f"none of {len(called)} SNPs has a single call", "--genotypes", "bring genotypes that were called")
    left, mode_S = found.kept(called), counts_3S[:, called].argmax(0).astype(np.int8)
    missing = left.codes == MISSING
    constant = int(((counts_3S[:, called] > 0).sum(0) == 1).sum())
    notes = [f"genotypes: {int(missing.sum())} missing calls ({missing.mean():.2%}) became the mode of their SNP"]
    if dropped := int((~called).sum()):
        notes.append(f"genotypes: {dropped} SNPs without a single call dropped")
    if constant:
        notes.append(f"genotypes: {constant} SNPs never vary; they are kept and tell nothing")
    return replace(left, codes=np.where(missing, mode_S, left.codes), notes=found.notes + notes)
