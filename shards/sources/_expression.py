"""Expression tables of TCGA: which row or column is which patient's tumour.

Barcode fields: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from shards.errors import DataError, bad
from shards.pack.reference import COLUMN, Reference
from shards.sources._barcode import first_of, no_tumour, sample_rank
from shards.tables.cells import text_of
from shards.tables.feature_names import known_kind, without_version
from shards.tables.identity import barcode
from shards.tables.table_file import open_table

BESIDE = 8  # columns in which barcodes are looked for, to say where they are


def expression_of(
    path: Path, unmatched: list[tuple[str, str]], replicates: str = "ask"
) -> tuple[dict[str, Reference], list[str], bool]:
    """Reference of each case; notes on orientation; whether features are Ensembl ids with a version.

    A table has cases as rows or as columns, which its barcodes tell (with dashes, or with dots where R has been). Of several samples
    of a patient the first by sample type and vial is taken; what is not taken goes to `unmatched` with its reason.

    Raises:
        DataError: no such file, no barcode in it, or samples of one vial without `replicates="first"`.
    """
    table = open_table(path)
    table.first_column()
    header = table.header
    elsewhere: set[int] = set()
    names = []
    for _, cells in table:
        texts = [text_of(c).strip() for c in cells[:BESIDE]]
        names.append(texts[0])
        elsewhere |= {i for i, t in enumerate(texts) if i and barcode(t)}
    across, down = sum(bool(barcode(c)) for c in header[1:]), sum(bool(barcode(n)) for n in names)
    if not across and not down:
        raise _no_barcode(path, header, sorted(elsewhere))
    by_column = across > down
    cases, features = (header[1:], names) if by_column else (names, header[1:])
    beside = [c for c in cases if not barcode(c) and known_kind(c)] if by_column else []
    cases = [c for c in cases if c not in beside]
    note = f"expression: {len(features)} names x {len(cases)} cases, cases are {'columns' if by_column else 'rows'}"
    note += f"; beside them {', '.join(beside)}" if beside else ""
    by_case: dict[str, list[str]] = defaultdict(list)
    for name in cases:
        why, case = no_tumour(name), barcode(name)
        if why or case is None:
            unmatched.append((name, why or "not a TCGA barcode"))
        else:
            by_case[case].append(name)
    best = first_of(by_case, sample_rank, str(path), replicates)
    unmatched += [
        (n, f"another expression sample of the patient was taken ({best[c]})")
        for c, names in by_case.items()
        for n in sorted(names)
        if n != best[c]
    ]
    references = {c: _cell(path, n, by_column) for c, n in best.items()}
    versioned = sum(without_version(f) != f for f in features)
    notes = [note] + ([f"expression: {versioned} Ensembl ids, their version is dropped"] if versioned else [])
    return references, notes, versioned > 0


def _cell(path: Path, name: str, by_column: bool) -> Reference:
    member = COLUMN + name if by_column else name
    return Reference(f"{path.name}#{member}", path, member)


def _no_barcode(path: Path, header: list[str], elsewhere: list[int]) -> DataError:
    what = f"no TCGA barcode in the first column ('{header[0]}') or in the header"
    if elsewhere:
        what += f"; column '{header[elsewhere[0]]}' has some"
        return bad(what, path, "write that column first, without row numbers before it (pandas: index=False)")
    if {"gene_id", "tpm_unstranded"} & set(header):
        values = ", ".join(c for c in header[1:] if "stranded" in c)
        fix = f"name such files in a manifest, one line a patient, as {path.name}#column:tpm_unstranded (values: {values})"
        return bad(f"{what}: it is GDC's file of one sample", path, fix)
    return bad(what, path, "one of them must name samples as TCGA-XX-XXXX (or with dots)")
