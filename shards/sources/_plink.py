"""PLINK 1 file sets: what .bim and .fam say, line by line; .bed is read by bed-reader.

Formats: https://www.cog-genomics.org/plink/1.9/formats (bed, bim, fam). Both PLINKs take any blanks between cells.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem, bad

SHOWN = 3
HEAD = 3  # bytes of a .bed before its first SNP
# UK Biobank's ukb22418_c1_b0_v2.bed comes with ukb_snp_chr1_v2.bim and ukb22418_c1_b0_v2_s488131.fam; older
# releases call the .bed ukb_cal_chr1_v2.bed.
UKB_CHROMOSOME = re.compile(r"ukb.*_c(?:hr)?([0-9]{1,2}|XY|X|Y|MT)_")


@dataclass
class Variants:
    """Lines of a .bim: chromosome, id, position, first allele (the one that is counted), second allele."""

    chromosomes: np.ndarray
    ids: np.ndarray
    positions: np.ndarray
    counted: np.ndarray
    other: np.ndarray


def beside(bed: Path) -> tuple[Path, Path]:
    """The .bim and the .fam of a .bed: of the same name, or as UK Biobank calls them.

    Raises:
        DataError: one of the three is not there.
    """
    bim, fam = bed.with_suffix(".bim"), bed.with_suffix(".fam")
    if not bim.is_file() and (found := UKB_CHROMOSOME.match(bed.name)):
        named = sorted(bed.parent.glob(f"ukb_snp_chr{found[1]}_v*.bim"))
        bim = named[0] if len(named) == 1 else bim
    if not fam.is_file():
        named = sorted(bed.parent.glob(f"{bed.stem}_s*.fam"))
        fam = named[0] if len(named) == 1 else fam
    if lacking := [p.name for p in (bed, bim, fam) if not p.is_file()]:
        raise bad(f"no {', '.join(lacking)}", bed, "PLINK 1 writes .bed, .bim and .fam together; give all three")
    return bim, fam


def read_bim(path: Path) -> Variants:
    """A .bim of six columns, or of five without centimorgans.

    Raises:
        DataError: lines of another form, all at once, with their numbers.
    """
    rows, wrong = [], []
    for line, cells in _lines(path):
        if len(cells) not in (5, 6) or not _whole(cells[-3]):
            wrong.append(
                f"line {line} has {len(cells)} cells"
                if len(cells) not in (5, 6)
                else f"line {line}: position '{cells[-3]}'"
            )
            continue
        rows.append((cells[0], cells[1], int(cells[-3]), cells[-2], cells[-1]))
    _refuse(path, wrong, "a line is: chromosome, id, centimorgans, position (a whole number), allele 1, allele 2")
    columns = [*zip(*rows, strict=True)] if rows else [()] * 5
    words = [np.array(columns[i], object) for i in (0, 1, 3, 4)]
    return Variants(words[0], words[1], np.array(columns[2], np.int64), words[2], words[3])


def read_fam(path: Path) -> tuple[list[str], list[str]]:
    """People of a .fam by IID; by FID_IID, all of them, where two families share an IID. And a note where it is so.

    Raises:
        DataError: lines of another form, or FID and IID together on two lines, with both.
    """
    names, _, notes = read_pedigree(path)
    return names, notes


def read_pedigree(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """`read_fam` with who is a founder: both parents are 0 or not told.

    Raises:
        DataError: as `read_fam`.
    """
    rows, wrong, founders = [], [], []
    for line, cells in _lines(path):
        if len(cells) < 2:
            wrong.append(f"line {line} has {len(cells)} cells")
        else:
            rows.append((line, cells[0], cells[1]))
            founders.append(all(parent == "0" for parent in cells[2:4]))
    _refuse(path, wrong, "a line is: family, person, father, mother, sex, phenotype")
    names, notes = together([r[1] for r in rows], [r[2] for r in rows], [f"line {r[0]}" for r in rows], path)
    return names, np.array(founders, bool), notes


def together(
    families: Sequence[str], people: Sequence[str], places: Sequence[str], where: Path
) -> tuple[list[str], list[str]]:
    """Names of people: the second id alone where it is unique, else both, as `FID_IID`; and a note where it is so.

    Raises:
        DataError: both together stand twice; the places are named.
    """
    if len(set(people)) == len(people):
        return list(people), []
    often = Counter(people)
    name = next(p for p in people if often[p] > 1)
    of = [f for f, p in zip(families, people, strict=True) if p == name]
    names = [f"{f}_{p}" for f, p in zip(families, people, strict=True)]
    first: dict[str, str] = {}
    twice = [
        f"'{n}' in {first[n]} and {at}" for n, at in zip(names, places, strict=True) if first.setdefault(n, at) != at
    ]
    if twice:
        what = f"{len(twice)} people stand twice, family and person together: {', '.join(twice[:SHOWN])}"
        raise bad(what, where, "keep one of each, such as by plink --keep")
    note = (
        f"{where.name}: '{name}' is a person of {len(of)} families ({', '.join(of[:SHOWN])}): people are called FID_IID"
    )
    return names, [note]


def read_codes(path: Path, people: int, snps: int, columns: np.ndarray) -> np.ndarray:
    """Copies of the first allele [people, columns] int8, -127 where missing.

    Raises:
        DataError: not a .bed, or one of other people and SNPs than the files beside it.
    """
    from bed_reader import open_bed

    size, wanted = path.stat().st_size, HEAD + snps * -(-people // 4)
    if size != wanted:
        what = f"has {size} bytes; {people} people of the .fam and {snps} SNPs of the .bim need {wanted}"
        raise bad(what, path, "bring .bed, .bim and .fam of one file set")
    nothing = dict.fromkeys(
        (
            "fid",
            "iid",
            "father",
            "mother",
            "sex",
            "pheno",
            "chromosome",
            "sid",
            "cm_position",
            "bp_position",
            "allele_1",
            "allele_2",
        )
    )
    try:
        with open_bed(path, people, snps, properties=nothing, count_A1=True, num_threads=1) as bed:
            return bed.read(index=np.s_[:, columns], dtype="int8")
    except (ValueError, OSError) as e:
        raise bad(f"cannot be read as PLINK ({e})", path, "make it again with plink --make-bed") from e


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig") as f:
            yield from ((n, cells) for n, line in enumerate(f, 1) if (cells := line.split()))
    except (OSError, UnicodeDecodeError) as e:
        raise bad(f"cannot be read ({e})", path, "give the text file that PLINK wrote") from e


def _whole(cell: str) -> bool:
    return cell.isascii() and cell.removeprefix("-").isdecimal() and len(cell) <= 18  # what 64 bits hold


def _refuse(path: Path, wrong: Sequence[str], form: str) -> None:
    if wrong:
        more = ", ..." if len(wrong) > SHOWN else ""
        raise DataError(Problem(f"{len(wrong)} lines are not read: {', '.join(wrong[:SHOWN])}{more}", str(path), form))
