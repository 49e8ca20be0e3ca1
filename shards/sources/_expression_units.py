"""What lies beside a public expression table and says what its values are: Xena's JSON, cBioPortal's meta file, and names that these use.

Xena        HiSeqV2.gz with HiSeqV2.json ({"unit": "log2(norm_count+1)"}); TCGA-LUAD.star_tpm.tsv.gz, logarithms all of them
cBioPortal  data_mrna_seq_v2_rsem.txt with meta_mrna_seq_v2_rsem.txt (datatype: CONTINUOUS, LOG2-VALUE, Z-SCORE)

What none of them says is not known: nothing is taken from the values.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from shards.errors import DataError
from shards.format.canonical import canonical
from shards.tables.table_file import read_text

UNITS = {
    "tpm": "TPM", "fpkm": "FPKM", "fpkm-uq": "FPKM-UQ", "fpkm_uq": "FPKM-UQ", "rpkm": "RPKM", "cpm": "CPM", "rsem": "RSEM",
    "count": "counts", "counts": "counts", "norm_count": "normalised counts", "expected_count": "expected counts",
}  # fmt: skip
LOGARITHM = re.compile(r"log2\s*\(\s*([a-z_-]+)\s*\+\s*1(?:\.0)?\s*\)")
# Xena's GDC hub: https://xenabrowser.net/datapages/?hub=https://gdc.xenahubs.net says log2(x + 1) of every one of these.
XENA_GDC = re.compile(r"[A-Za-z0-9_.-]+\.(?:star|htseq)_(counts|tpm|fpkm|fpkm[-_]uq)\.tsv(?:\.gz)?")
TYPES = {"LOG2-VALUE": "log2", "Z-SCORE": "z"}  # of cBioPortal's datatype; CONTINUOUS says nothing of a logarithm
WORDS = re.compile(r"\b(tpm|fpkm-uq|fpkm|rpkm|cpm|rsem)\b")


def told_of(path: Path) -> tuple[dict[str, str], str]:
    """(unit and transform as far as they are said, what says so); both empty where nothing does."""
    for told in (_xena, _cbioportal, _by_name):
        meaning, by = told(path)
        if meaning:
            return meaning, by
    return {}, ""


def _xena(path: Path) -> tuple[dict[str, str], str]:
    for name in (f"{path.name}.json", f"{path.name.removesuffix('.gz')}.json"):
        if unit := _unit_in(path.with_name(name)):
            return _of_unit(unit), name
    return {}, ""


def _unit_in(path: Path) -> str:
    """What a JSON object calls its unit; empty where there is none."""
    try:
        found = json.loads(read_text(path)) if path.is_file() else {}
    except (DataError, ValueError, RecursionError):
        return ""
    unit = found.get("unit") if isinstance(found, dict) else None
    return unit.strip() if isinstance(unit, str) else ""


def _of_unit(text: str) -> dict[str, str]:
    """log2(tpm+1) -> TPM, log2p1; what is neither a logarithm of x + 1 nor a unit stands as the transform that it describes."""
    plain = " ".join(text.lower().split())
    if found := LOGARITHM.fullmatch(plain):
        return {"unit": UNITS.get(found[1], found[1]), "transform": "log2p1"}
    return {"unit": UNITS[plain]} if plain in UNITS else {"transform": canonical("transform", text)}


def _cbioportal(path: Path) -> tuple[dict[str, str], str]:
    if not path.name.startswith("data_"):
        return {}, ""
    for meta in sorted(path.parent.glob("meta_*.txt")):
        about = _keys(meta)
        if about.get("data_filename") == path.name:
            words = {*WORDS.findall(f"{about.get('profile_name', '')} {about.get('profile_description', '')}".lower())}
            found = {"unit": UNITS[words.pop()]} if len(words) == 1 else {}
            kind = TYPES.get(about.get("datatype", "").upper())
            return found | ({"transform": kind} if kind else {}), meta.name
    return {}, ""


def _keys(path: Path) -> dict[str, str]:
    try:
        lines = read_text(path).splitlines()
    except DataError:
        return {}
    return {k.strip(): v.strip() for k, mark, v in (line.partition(":") for line in lines) if mark}


def _by_name(path: Path) -> tuple[dict[str, str], str]:
    if found := XENA_GDC.fullmatch(path.name):
        return {"unit": UNITS[found[1]], "transform": "log2p1"}, "its name, one of Xena's GDC hub"
    if path.name.startswith("data_") and "zscores" in path.name.lower():
        return {"transform": "z"}, "its name, one of cBioPortal"
    return {}, ""
