"""Glioma (TCGA GBM + LGG): pathology with omics, in both forms that the methods read.

Tiles: a folder of JPEG or PNG images named by TCGA barcode (`TCGA-XX-XXXX_*.jpg`), each a sample with `image`. Bags: as
`_bags.py` reads them, each slide a sample with `patches`. Omics: tables whose first column is the
case; a column `GENE_rnaseq` (or without an ending, where no other has one) goes to `rna`, `GENE_cnv` to `cnv`, `GENE_mut` to
`mutation`; what is no feature is told by `shards.tables.features`. Any table may hold any of them; a case may stand in several tables, with
the same value or with other columns.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import DataError, Problem, bad, typed
from shards.format.archive import no_twins
from shards.pack.entry_checks import entry_problems
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Entry, Manifest
from shards.pack.reference import Reference
from shards.sources import Found, left_out, register
from shards.sources._bags import Bags, find_bags
from shards.sources._bags import options as bag_options
from shards.sources._barcode import no_diagnostic_slide, no_tumour
from shards.sources._expression import Expression, expression_of
from shards.sources._expression import options as expression_options
from shards.sources._survival import options as survival_options
from shards.sources._survival import put_survival
from shards.tables.cells import number, text_of
from shards.tables.features import Chosen, FeatureRule, choose, feature_rule, unused
from shards.tables.identity import barcode
from shards.tables.joins import Side, partners
from shards.tables.keyed import column_problems, repeated, several
from shards.tables.table_file import open_table
from shards.tables.unknown import Words, words_of

SUFFIXES = (".jpg", ".jpeg", ".png")
ENDINGS = {"rnaseq": "rna", "cnv": "cnv", "mut": "mutation"}
CLINICAL = ("label", "oncotree_code", "age", "is_female", "survival_months", "censorship", "grade")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tiles", type=Path, help="folder of tiles named TCGA-XX-XXXX_*.jpg")
    bag_options(parser, required=False)
    parser.add_argument("--omics", type=Path, nargs="+", default=None, help="tables of omics, first column the case")
    expression_options(parser, required=False, default=" (as `rna`, where no table of omics has it)")
    parser.add_argument("--labels", type=Path, help="table of labels, first column the case (default: from --omics)")
    survival_options(parser)
    parser.add_argument(
        "--tiles-per-case", type=int, help="keep that many tiles of a case, spread evenly (default: all)"
    )
    parser.add_argument("--work", type=Path, help="folder for vectors while packing (default: OUT-work)")


@dataclass
class Omics:
    """{field: {feature: column}} in the order of the tables, and {case: {field: {feature: value}}}.

    patterns: what each field's columns are called.
    unread: columns of omics in the label table, which gives labels alone. cases: where each table has each case.
    """

    features: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    patterns: dict[str, set[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    cases: dict[Path, dict[str, str]] = field(default_factory=dict)
    rule: FeatureRule = field(default_factory=FeatureRule)
    chosen: list[Chosen] = field(default_factory=list)


@register("glioma", options)
def find(args: argparse.Namespace) -> Found:
    """TCGA GBM/LGG: pathology tiles and/or slide region features + RNA, CNV, mutations."""
    _check_given(args)
    omics = _omics(args)
    vectors, vocab, notes = _vectors(omics, args.work or Path(f"{args.out}-work"))
    notes = [n for c in omics.chosen for n in c.notes] + notes
    genes, unmatched_genes = _expression(args, omics, vectors)
    unfit = no_tumour if args.frozen else no_diagnostic_slide
    pictures, unmatched = _tiles(args.tiles, args.tiles_per_case, unfit) if args.tiles else ([], [])
    found = find_bags(args.features, args.member, unfit, args.coords, args.regions) if args.features else Bags()
    bags = [
        (b.name, barcode(b.name) or "", {"patches": b.features} | ({"coords": b.coords} if b.coords else {}))
        for b in found.bags
    ]
    unmatched += found.unmatched + unmatched_genes
    notes += genes.notes + _joins(args, {"--tiles": pictures, "--features": bags}, vectors, omics)
    entries = _entries(pictures + bags, vectors, omics, unmatched)
    notes += _unread(args, omics)
    have = {e.patient for e in entries}
    unmatched += [(c, "no tile and no slide of this case") for c in sorted(set(vectors) - have)]
    survival = put_survival(args, entries, unmatched, notes) if entries else []
    notes.append(f"{len(have)} patients: {len(pictures)} tiles and {len(bags)} slides found, {len(entries)} joined")
    notes = found.notes + notes + left_out(unmatched)
    unmatched += [pair for c in omics.chosen for pair in c.left_out]
    columns = dict.fromkeys(c for row in omics.labels.values() for c in row)
    settled = settle(entries, [*columns, *survival], label_rule(args))
    pack: dict[str, Any] = {"vocab": vocab, "meanings": found.meanings}
    if genes.of_case:
        pack["meanings"] = {**found.meanings, "rna": genes.meaning}
        pack["transforms"] = {"rna": args.expression_transform or "none"}
        pack["strip_version"] = ["rna"] if genes.versioned else []
    pack |= {"stratify": "label"} if settled.kinds.get("label") == "class" else {}
    problems = settled.problems + entry_problems(entries)
    return Found(Manifest(entries, settled.kinds | {"tss": "class"}, problems, settled.notes), notes, unmatched, pack)


def _check_given(args: argparse.Namespace) -> None:
    if args.tiles is None and args.features is None:
        fix = "give tiles by --tiles FOLDER, bags by --features FOLDER_OR_NPZ, or both"
        raise bad("neither --tiles nor --features", "glioma", fix)
    if not args.omics and args.expression is None:
        fix = "give tables of omics by --omics FILE, or --expression TABLE"
        raise bad("neither omics nor expression", "glioma", fix)


def _omics(args: argparse.Namespace) -> Omics:
    """All tables of omics, and the one of labels.

    Raises:
        DataError: every problem of them.
    """
    args.omics = args.omics or []
    omics = Omics(rule=feature_rule(args))
    for path in [*args.omics, *([args.labels] if args.labels and args.labels not in args.omics else [])]:
        _read(path, omics, path in args.omics, words_of(args))
    if problems := [*omics.problems, *unused(omics.rule, omics.chosen)]:
        raise DataError(problems)
    return omics


def _entries(
    found: Sequence[tuple[str, str, dict[str, Reference]]],
    vectors: Mapping[str, dict[str, Reference]],
    omics: Omics,
    unmatched: list[tuple[str, str]],
) -> list[Entry]:
    """A sample for each tile and slide of a case with omics; the others go to `unmatched`."""
    entries = []
    for name, case, fields in found:
        if case not in vectors:
            unmatched.append((name, "no omics of this case"))
            continue
        labels: dict[str, str | float] = {**omics.labels.get(case, {}), "tss": case[5:7]}
        key = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        entries.append(Entry(name, key, case, labels=labels, fields=fields | vectors[case]))
    return entries


def _unread(args: argparse.Namespace, omics: Omics) -> list[str]:
    if not omics.unread:
        return []
    what = f"{len(omics.unread)} columns of omics in {args.labels} are not read ({', '.join(omics.unread[:3])})"
    return [f"{what}: give it with --omics too for them"]


def _expression(
    args: argparse.Namespace, omics: Omics, vectors: dict[str, dict[str, Reference]]
) -> tuple[Expression, list[tuple[str, str]]]:
    """Adds the expression of `--expression` to the vectors of each case as `rna`; what of it is not taken is listed."""
    unmatched: list[tuple[str, str]] = []
    if args.expression is None:
        return Expression(), unmatched
    if "rna" in omics.features:
        fix = "leave --expression out, or bring tables of omics without expression"
        raise bad("the tables of omics and that of expression both hold 'rna'", several(args.expression)[0], fix)
    genes = expression_of(args.expression, args, unmatched)
    for case, reference in genes.of_case.items():
        vectors.setdefault(case, {})["rna"] = reference
    return genes, unmatched


def _joins(
    args: argparse.Namespace,
    pictures: Mapping[str, list[tuple[str, str, dict[str, Reference]]]],
    vectors: Mapping[str, Mapping[str, Reference]],
    omics: Omics,
) -> list[str]:
    """What tiles, bags and omics came to together.

    Raises:
        DataError: tiles, bags, labels or a modality that were asked for and are of no case of the others.
    """
    fix = "images, features and tables must name cases as TCGA-XX-XXXX"
    found = {f: [case for _, case, _ in of] for f, of in pictures.items() if getattr(args, f.strip("-")) is not None}
    given = "--omics" if args.omics else "--expression"
    there, notes = Side.of(given, vectors), list[str]()
    for flag, of in found.items():
        notes += partners(flag, there, Side.of(flag, of), fix)[1]
    here = Side.of(" and ".join(found), [c for of in found.values() for c in of])
    for path, of_table in omics.cases.items():
        flag = "--omics" if path in args.omics else "--labels"
        notes += partners(f"{flag} {path.name}", here, Side.of(path.name, of_table), fix)[1]
    cases = set(here.ids) & set(vectors)
    for modality in omics.features:
        if not any(modality in vectors[c] for c in cases):
            what = f"none of {len(cases)} cases has all {len(omics.features[modality])} features of '{modality}'"
            flag = f"--not-features {' '.join(typed(p) for p in sorted(omics.patterns[modality]))}"
            raise bad(what, "--omics", f"leave its columns out ({flag}), or bring cases that have all of them")
    return notes


def _read(path: Path, omics: Omics, features: bool, unknown: Words) -> None:
    """Adds a table: its omics columns (if `features`) and its clinical ones."""
    table = open_table(path)
    table.first_column()
    header = table.header
    omics.problems += [*column_problems(table), *_other_cases(header, path)]
    columns = _columns(omics, [c for c in header[1:] if c not in CLINICAL], path) if features else {}
    omics.unread += [] if features else [c for c in header[1:] if c.rpartition("_")[2] in ENDINGS]
    for column, (modality, feature) in columns.items():
        omics.patterns.setdefault(modality, set()).add(column if column == feature else f"*{column[len(feature) :]}")
        known = omics.features.setdefault(modality, [])
        if feature not in known:
            known.append(feature)
    first, twice = omics.cases.setdefault(path, {}), list[tuple[str, str, str]]()
    for line, cells in table:
        name, where = text_of(cells[0]).strip(), table.place(line)
        case = barcode(name)
        if case is None:
            omics.problems.append(
                Problem(
                    f"'{name}' is no TCGA case", f"{path}, {where}", "name the case as TCGA-XX-XXXX, or remove the line"
                )
            )
            continue
        of = dict(zip(header, (text_of(c).strip() for c in cells), strict=True))
        if first.setdefault(case, where) != where:
            twice.append((case, first[case], where))
        for column, (modality, feature) in columns.items():
            _put(omics, case, modality, feature, of[column], f"{path}, {where}, {column}")
        said = omics.labels.setdefault(case, {})
        for label in (c for c in CLINICAL if c in of and not unknown(of[c])):
            if said.setdefault(label, of[label]) != of[label]:
                what = f"{label} of {case} is '{of[label]}' here, '{said[label]}' in a table before"
                omics.problems.append(Problem(what, f"{path}, {where}", "keep one of the two"))
    omics.problems += table.problems + ([repeated(path, twice, "case")] if twice else [])


def _other_cases(header: Sequence[str], path: Path) -> list[Problem]:
    """Columns of labels in other letters: they would be left out as no features, and the set would lack its labels."""
    return [
        Problem(
            f"the column '{c}' is not '{c.lower()}', a label", str(path), "give it that name, or take the column out"
        )
        for c in header
        if c not in CLINICAL and c.lower() in CLINICAL and c.lower() not in header
    ]


def _columns(omics: Omics, names: list[str], path: Path) -> dict[str, tuple[str, str]]:
    """(field, feature) of each column that is a feature; of the others it is said why not."""
    chosen = choose(names, omics.rule, str(path), endings=False, strict=False)
    omics.problems += chosen.problems
    omics.chosen.append(chosen)
    return {c: _field_of(c) for c, place in zip(names, chosen.place, strict=True) if place >= 0}


def _field_of(column: str) -> tuple[str, str]:
    """(field, feature) of a column."""
    feature, _, ending = column.rpartition("_")
    return (ENDINGS[ending.lower()], feature) if ending.lower() in ENDINGS and feature else ("rna", column)


def _put(omics: Omics, case: str, modality: str, feature: str, cell: str, where: str) -> None:
    value = number(cell)
    if value is None:
        omics.problems.append(Problem(f"'{cell}' is no number", where, "leave the case out or impute the value"))
        return
    if modality == "mutation" and value not in (0, 1):
        omics.problems.append(Problem(f"mutation {value:g} is neither 0 nor 1", where, "code mutated genes as 1"))
    known = omics.values.setdefault(case, {}).setdefault(modality, {})
    if known.setdefault(feature, value) != value:
        omics.problems.append(Problem(f"{value:g} here, {known[feature]:g} before", where, "keep one of the two"))


def _vectors(omics: Omics, work: Path) -> tuple[dict[str, dict[str, Reference]], dict[str, Path], list[str]]:
    """{case: {field: reference}}; a case lacks a field unless it has all of its features."""
    folder, vocab, notes = work / "omics", {}, []
    folder.mkdir(parents=True, exist_ok=True)
    for modality, names in omics.features.items():
        vocab[modality] = folder / f"{modality}.txt"
        vocab[modality].write_text("\n".join(names) + "\n")
    vectors: dict[str, dict[str, Reference]] = {}
    for case, of in sorted(omics.values.items()):
        vectors[case] = {}
        for modality, names in omics.features.items():
            if all(n in of.get(modality, {}) for n in names):
                path = folder / f"{case}.{modality}.npy"
                np.save(path, np.array([of[modality][n] for n in names], np.float32), allow_pickle=False)
                vectors[case][modality] = Reference(f"{case} ({modality})", path)
    for modality, names in omics.features.items():
        n = sum(modality in v for v in vectors.values())
        notes.append(f"{modality}: {len(names)} features, {n} of {len(vectors)} cases have all of them")
    return vectors, vocab, notes


def _tiles(
    folder: Path, most: int | None, unfit: Callable[[str], str | None]
) -> tuple[list[tuple[str, str, dict[str, Reference]]], list[tuple[str, str]]]:
    """(name, case, fields) of each tile that is taken, and what is left out."""
    if not folder.is_dir():
        raise bad("no such folder", folder, "give --tiles a folder of images")
    of_case: dict[str, list[Path]] = {}
    unmatched = []
    for path in no_twins(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        if why := unfit(path.name):
            unmatched.append((path.name, why))
        else:
            of_case.setdefault(barcode(path.name) or "", []).append(path)
    kept = []
    for case, paths in of_case.items():
        chosen = (
            paths if most is None else [paths[i] for i in sorted({*np.linspace(0, len(paths) - 1, most).astype(int)})]
        )
        kept += [(p.stem, case, {"image": Reference(p.name, p)}) for p in chosen]
        unmatched += [(p.name, "another tile of the case (--tiles-per-case)") for p in sorted({*paths} - {*chosen})]
    return kept, unmatched
