"""Expression tables of TCGA: which row or column is which patient's tumour.

Barcode fields: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

from __future__ import annotations

import re
from pathlib import Path

from shards.cells import text_of
from shards.errors import bad
from shards.reference import COLUMN, Reference
from shards.table_file import open_table

CASE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")
PRIMARY = range(1, 10)  # sample types 01-09 are tumours, 10-19 normal tissue


def expression_of(path: Path, unmatched: list[tuple[str, str]]) -> tuple[dict[str, Reference], list[str], bool]:
    """Reference of each case; notes on orientation; whether features are Ensembl ids with a version.

    A table has cases as rows or as columns, which its barcodes tell. Of several samples of a patient the first tumour by
    name is taken; what is not taken goes to `unmatched` with its reason.

    Raises:
        DataError: no such file, or no barcode in it.
    """
    table = open_table(path)
    table.first_column()
    header = table.header
    names = [text_of(cells[0]).strip() for _, cells in table]
    across, down = sum(bool(CASE.match(c)) for c in header[1:]), sum(bool(CASE.match(n)) for n in names)
    if not across and not down:
        raise bad(
            "no TCGA barcode in the first column or in the header",
            path,
            "one of them must name cases as TCGA-XX-XXXX...",
        )
    by_column = across > down
    cases, features = (header[1:], names) if by_column else (names, header[1:])
    note = f"expression: {len(features)} features x {len(cases)} cases, cases are {'columns' if by_column else 'rows'}"
    best: dict[str, str] = {}
    for name in sorted(cases):
        why = _unfit(name)
        if why is None and name[:12] in best:
            why = f"another expression sample of the patient was taken ({best[name[:12]]})"
        if why:
            unmatched.append((name, why))
        else:
            best[name[:12]] = name
    references = {c: _cell(path, n, by_column) for c, n in best.items()}
    versioned = sum(bool(re.match(r"ENSG\d+\.\d+", f)) for f in features)
    notes = [note] + ([f"expression: {versioned} Ensembl ids, their version is dropped"] if versioned else [])
    return references, notes, versioned > 0


def _cell(path: Path, name: str, by_column: bool) -> Reference:
    member = COLUMN + name if by_column else name
    return Reference(f"{path.name}#{member}", path, member)


def _unfit(name: str) -> str | None:
    """Why an expression sample is not used: no barcode, or not of a tumour."""
    if not CASE.match(name):
        return "not a TCGA barcode"
    code = re.match(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}-(\d{2})", name)
    return "normal tissue, not tumour" if code and int(code[1]) not in PRIMARY else None
