"""Names of SNPs that say which allele is counted: `rs123_A(/G)`, as `plink --recode A include-alt` writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

NAMED = re.compile(r"(?P<snp>.+?)_(?P<counted>[^_()#]+)(?:\(/(?P<other>[^()#]+)\))?(?:#\d+)?")
SHOWN = 3
REMEDY = "pack both with --count-allele sorted, which counts the same allele in every file of the same DNA"


def named(snp: str, counted: str, other: str) -> str:
    """`rs123_A(/G)`; the id alone where the counted allele is not known, `rs123_A` where the other is not."""
    return f"{snp}_{counted}(/{other})" if counted and other else f"{snp}_{counted}" if counted else snp


def other_alleles(mine: Sequence[str] | None, theirs: Sequence[str] | None) -> str | None:
    """What to say of two vocabularies that hold the same SNPs and count other alleles of some; None where it is not so."""
    if not mine or not theirs or len(mine) != len(theirs):
        return None
    differ = [(a, b) for a, b in zip(mine, theirs, strict=True) if a != b]
    if not differ or any(_snp(a) != _snp(b) for a, b in differ):
        return None
    shown = ", ".join(f"{a} and {b}" for a, b in differ[:SHOWN])
    return f"{len(differ)} of {len(mine)} SNPs count another allele ({shown}{', ...' if len(differ) > SHOWN else ''}): {REMEDY}"


def _snp(name: str) -> str:
    found = NAMED.fullmatch(name)
    return found["snp"] if found else name


def turned_alleles(lacking: Sequence[str], theirs: Sequence[str]) -> str | None:
    """What to say where SNPs that are lacking by name are there with another counted allele; None where it is not so."""
    there = {_snp(name): name for name in theirs if _snp(name) != name}
    found = [(name, there[_snp(name)]) for name in lacking if _snp(name) != name and _snp(name) in there]
    if not found:
        return None
    shown = ", ".join(f"{a} and {b}" for a, b in found[:SHOWN])
    return f"{len(found)} SNPs are there and count another allele ({shown}{', ...' if len(found) > SHOWN else ''}): {REMEDY}"
