"""Expression of TCGA's patients: which row, column or file is whose tumour, and what its values are.

A table with cases as rows or as columns (Xena, cBioPortal, one's own), or GDC's folder of one file a sample (`_star.py`).
Barcode fields: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import DataError, bad
from shards.format.meaning import parse_meanings
from shards.pack.reference import COLUMN, Reference
from shards.sources._barcode import first_of, no_tumour, sample_rank
from shards.sources._expression_units import told_of
from shards.sources._star import UNITS, star_samples
from shards.tables.cells import text_of
from shards.tables.feature_names import known_kind, without_version
from shards.tables.identity import barcode, few
from shards.tables.keyed import several
from shards.tables.table_file import open_table

BESIDE = 8  # columns in which barcodes are looked for, to say where they are


@dataclass
class Expression:
    """{case: reference}, the sample of each case that was taken, and what is known of the values.

    versioned: features are Ensembl ids with a version. meaning: unit and transform, as far as they are said.
    """

    of_case: dict[str, Reference] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versioned: bool = False
    meaning: dict[str, str] = field(default_factory=dict)


def options(parser: argparse.ArgumentParser, required: bool, default: str = "") -> None:
    """The options that `expression_of` reads."""
    what = "expression table, cases as rows or as columns (found out by barcode), or GDC's folder of STAR counts"
    what += "; several tables with the same genes, such as one a cohort, are one"
    parser.add_argument("--expression", type=Path, nargs="+", required=required, help=what + default)
    parser.add_argument(
        "--expression-column", metavar="COLUMN", help=f"of STAR counts, which value of a gene: {', '.join(UNITS)}"
    )
    parser.add_argument(
        "--sample-sheet", type=Path, help="of STAR counts: GDC's sample sheet (default: the only one there)"
    )
    parser.add_argument(
        "--expression-transform", choices=("none", "log2p1"), help="log2p1 for FPKM, TPM or counts (default: none)"
    )


def expression_of(
    given: Path | Sequence[Path], args: argparse.Namespace, unmatched: list[tuple[str, str]], replicates: str = "ask"
) -> Expression:
    """Of several samples of a patient the first by sample type and vial is taken; what is not taken goes to `unmatched` with its reason.

    Raises:
        DataError: no such file, no barcode in it, samples of one vial without `replicates="first"`, logarithms that were to be
            taken again, a sample or another unit in a second table, or (of STAR counts) what `star_samples` refuses.
    """
    paths = several(given)
    path, star = paths[0], any(p.is_dir() for p in paths)
    if star and len(paths) > 1:
        fix = "say which is meant, or put GDC's files into one folder with one sample sheet: --expression FOLDER"
        raise bad(f"{few([p.name for p in paths])}: a folder of GDC beside other expression", path, fix)
    found = _star(path, args, unmatched) if star else _as_one([_table(p) for p in paths], paths)
    by_case: dict[str, list[str]] = defaultdict(list)
    for name in found.of_case:
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
    found.of_case, found.samples = {c: found.of_case[n] for c, n in best.items()}, best
    if not star:
        stated = parse_meanings(getattr(args, "meaning", None)).get("rna", {})
        _say_unit(paths, args.expression_transform or "none", found, "unit" in stated)
    return found


def _star(folder: Path, args: argparse.Namespace, unmatched: list[tuple[str, str]]) -> Expression:
    column = args.expression_column
    samples, notes = star_samples(folder, args.sample_sheet, column, args.expression_transform, unmatched)
    first = open_table(next(iter(samples.values())).path)
    versioned = any(without_version(n := text_of(cells[0])) != n for _, cells in first)
    return Expression(samples, notes=notes, versioned=versioned, meaning={"unit": UNITS[column]})


def _as_one(tables: Sequence[Expression], paths: Sequence[Path]) -> Expression:
    """Tables of different cohorts as one; that they have the same genes is seen when they are packed."""
    found = Expression(versioned=any(t.versioned for t in tables))
    for table, path in zip(tables, paths, strict=True):
        if twice := sorted({*found.of_case} & {*table.of_case}):
            what = f"{len(twice)} samples stand in another table too ({few(twice)})"
            raise bad(what, path, "give the table of each cohort once: --expression FILE FILE")
        found.of_case |= table.of_case
        found.notes += [f"{path.name}: {n}" if len(tables) > 1 else n for n in table.notes]
    return found


def _say_unit(paths: Sequence[Path], transform: str, found: Expression, stated: bool) -> None:
    """Takes what lies beside tables for what their values are; a logarithm is not taken twice."""
    path = paths[0]
    found.meaning, by = told_of(path)
    for other in paths[1:]:
        if (told := told_of(other)[0]) != found.meaning:
            here, there = (
                ", ".join(f"{k} {v}" for k, v in sorted(m.items())) or "nothing" for m in (told, found.meaning)
            )
            what = f"values are not said to be those of {path.name}: {here} here, {there} there"
            raise bad(what, other, "give tables of one unit and transform, each with the file beside it that says so")
    done = found.meaning.get("transform", "none")
    if transform != "none" and done != "none":
        what = f"values are {done} already ({by} says so)"
        raise bad(what, path, f"leave --expression-transform {transform} out, or bring the values before that")
    if by:
        said = ", ".join(f"{k} {v}" for k, v in sorted(found.meaning.items()))
        found.notes.append(f"expression: {said} ({by} says so)")
    if "unit" not in found.meaning and not stated:
        found.notes.append("expression: nothing says its unit; state it: --meaning rna.unit=TPM (FPKM, counts, ...)")


def _table(path: Path) -> Expression:
    """References of the samples of a table."""
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
    versioned = sum(without_version(f) != f for f in features)
    notes = [note] + ([f"expression: {versioned} Ensembl ids, their version is dropped"] if versioned else [])
    return Expression({n: _cell(path, n, by_column) for n in cases}, notes=notes, versioned=versioned > 0)


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
        one = f"{path.name}#column:tpm_unstranded (values: {values})"
        fix = f"give --expression the folder of such files, or name them in a manifest, one line a patient, as {one}"
        return bad(f"{what}: it is GDC's file of one sample", path, fix)
    return bad(what, path, "one of them must name samples as TCGA-XX-XXXX (or with dots)")
