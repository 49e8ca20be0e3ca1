"""TCGA lung cancer (LUAD, LUSC): slide features, gene expression and labels, joined by TCGA barcode.

Slide features: bags of TRIDENT, CLAM, STAMP or HIPT (`_bags.py`). Expression: a table with cases as rows or as columns, or GDC's
folder of STAR counts (`_expression.py`). Labels: a table whose first column is the case. Barcode fields: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.errors import DataError, bad
from shards.pack.entry_checks import entry_problems
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Entry, Manifest
from shards.pack.reference import Reference
from shards.sources import Found, left_out, register
from shards.sources._bags import Bag, find_bags, together
from shards.sources._bags import options as bag_options
from shards.sources._barcode import by_case, first_of, no_diagnostic_slide, no_tumour, sample_type, slide_rank
from shards.sources._expression import Expression, expression_of
from shards.sources._expression import options as expression_options
from shards.sources._survival import options as survival_options
from shards.sources._survival import put_survival
from shards.tables.identity import barcode, few
from shards.tables.joins import Side, partners
from shards.tables.keyed import Row, no_column, read_together, several

CLASS_COLUMNS = ("label", "subtype", "oncotree_code", "project_id")
SLIDE, AND = "slide ", " and "  # how a sample's slides are named in messages
SITE = "tss"  # tissue source site: the second field of a barcode


def options(parser: argparse.ArgumentParser) -> None:
    bag_options(parser, required=True)
    expression_options(parser, required=True)
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        help="label table, first column the case (not needed with --survival); several of one form, such as one a cohort, are one",
    )
    survival_options(parser)
    parser.add_argument("--label-columns", help="columns of the label table to keep, comma-separated (default: all)")
    parser.add_argument(
        "--slides", choices=("dx1", "all"), default="dx1", help="first diagnostic slide of a patient, or all"
    )
    parser.add_argument(
        "--per",
        choices=("slide", "patient"),
        default="slide",
        help="of several slides: each is a sample (default), or all of a patient are one bag",
    )
    parser.add_argument(
        "--work", type=Path, help="with --per patient, folder for lists while packing (default: OUT-work)"
    )
    parser.add_argument(
        "--replicates",
        choices=("ask", "first"),
        default="ask",
        help="of slides or expression samples of a patient that differ in their names alone: refuse, or the first by name",
    )


@register("tcga_nsclc", options)
def find(args: argparse.Namespace) -> Found:
    """TCGA LUAD/LUSC: slide features + expression + labels, joined by barcode."""
    bags = find_bags(
        args.features, args.member, no_tumour if args.frozen else no_diagnostic_slide, args.coords, args.regions
    )
    slides, unmatched = bags.bags, bags.unmatched
    found = expression_of(args.expression, args, unmatched, args.replicates)
    expression, notes = found.of_case, found.notes
    labels, columns = _labels(args, unmatched, notes)
    slides_of: dict[str, list[Bag]] = defaultdict(list)
    for slide in sorted(slides, key=lambda s: (slide_rank(s.name), s.name)):
        slides_of[barcode(slide.name) or ""].append(slide)
    if args.slides == "dx1":
        slides_of = _one_each(slides_of, args.replicates, str(args.features), unmatched)
    here, fix = Side.of("--features", slides_of), "all three must name cases by TCGA barcode (TCGA-XX-XXXX)"
    given = {"expression": (args.expression, expression)} | ({"labels": (args.labels, labels)} if args.labels else {})
    for name, (paths, cases) in given.items():
        file = few([p.name for p in several(paths)])
        notes += partners(f"--{name} {file}", here, Side.of(file, cases), fix)[1]
    joined: dict[str, Mapping[str, object]] = {"slide": slides_of} | {n: of for n, (_, of) in given.items()}
    entries: list[Entry] = []
    for case in sorted({c for of in joined.values() for c in of}):
        if lacking := [what for what, have in joined.items() if case not in have]:
            unmatched.append((case, f"no {' and no '.join(lacking)}"))
        else:
            entries += _entries(slides_of[case], case, labels.get(case, {}), expression[case], args)
    if not entries:
        what = f"nothing joined: {len(slides)} slides, " + ", ".join(
            f"{len(of)} with {n}" for n, (_, of) in given.items()
        )
        raise bad(what, "tcga_nsclc", fix)
    patients = list(dict.fromkeys(e.patient for e in entries))
    columns += put_survival(args, entries, unmatched, notes)
    notes.append(
        f"{len(patients)} patients joined ({_slides(entries)} slides); {len(unmatched)} slides or cases left out"
    )
    notes += left_out(unmatched) + _other_samples(entries, found.samples)
    settled = settle(entries, columns, label_rule(args), asked=columns if args.label_columns else ())
    kinds = settled.kinds | {SITE: "class"}
    manifest = Manifest(entries, kinds, settled.problems + entry_problems(entries), settled.notes)
    pack = _pack_options(kinds, args.expression_transform, found) | {"meanings": bags.meanings | {"rna": found.meaning}}
    return Found(manifest, bags.notes + notes, unmatched, pack)


def _slides(entries: Sequence[Entry]) -> int:
    return sum(len(e.fields["patches"].parts) for e in entries)


def _pack_options(kinds: dict[str, str], transform: str | None, expression: Expression) -> dict[str, Any]:
    strip = ["rna"] if expression.versioned else []
    chosen: dict[str, Any] = {"transforms": {"rna": transform or "none"}, "strip_version": strip}
    first = next((c for c in CLASS_COLUMNS if kinds.get(c) == "class"), None)
    return chosen | ({"stratify": first} if first else {})


def _one_each(
    slides_of: dict[str, list[Bag]], replicates: str, where: str, unmatched: list[tuple[str, str]]
) -> dict[str, list[Bag]]:
    named = {c: [s.name for s in slides] for c, slides in slides_of.items()}
    best = first_of(named, slide_rank, where, replicates, ", or --slides all takes every one")
    unmatched += [
        (s.name, f"another slide of the patient was taken ({best[c]}; --slides all takes every one)")
        for c, slides in slides_of.items()
        for s in slides
        if s.name != best[c]
    ]
    return defaultdict(list, {c: [s for s in slides if s.name == best[c]] for c, slides in slides_of.items()})


def _other_samples(entries: list[Entry], samples: dict[str, str]) -> list[str]:
    """A line on patients whose slides and expression are of different tumours, such as a primary and its metastasis."""
    differ = []
    for e in entries:
        rna = sample_type(samples[e.patient])
        slides = {sample_type(name) for name in e.where.removeprefix(SLIDE).split(AND)}
        if odd := sorted(s for s in slides if s and rna and s != rna):
            differ.append(f"{e.patient} (slide {', '.join(f'{s:02d}' for s in odd)}, expression {rna:02d})")
    shown = ", ".join(differ[:5]) + (", ..." if len(differ) > 5 else "")
    what = f"{len(differ)} samples pair a slide with the expression of another tumour of the patient: {shown}"
    return [what] * bool(differ)


def _entries(
    slides: Sequence[Bag], case: str, labels: dict[str, str], expression: Reference, args: argparse.Namespace
) -> list[Entry]:
    """The samples of a patient: one for each slide, whose key is the slide where there are several, or one of them all."""
    named = labels | {SITE: case[5:7]}
    if args.per == "patient":
        name = SLIDE + AND.join(s.name for s in slides)
        work = (args.work or Path(f"{args.out}-work")) / "slides"
        return [Entry(name, case, case, labels=dict(named), fields=together(slides, case, work) | {"rna": expression})]
    entries = []
    for slide in slides:
        key = re.sub(r"[^A-Za-z0-9_-]", "_", slide.name) if len(slides) > 1 else case
        fields = {"patches": slide.features, "rna": expression} | ({"coords": slide.coords} if slide.coords else {})
        entries.append(Entry(SLIDE + slide.name, key, case, labels=dict(named), fields=fields))
    return entries


def _labels(
    args: argparse.Namespace, unmatched: list[tuple[str, str]], notes: list[str]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Cells of each case, and the columns that are labels."""
    paths, columns = args.labels, args.label_columns
    if paths is None:
        if args.survival is None or columns:
            raise bad(
                "no table of labels", "tcga_nsclc", "give one by --labels FILE, or survival alone by --survival FILE"
            )
        return {}, []
    rows, alone = read_together(paths)
    notes += alone
    keep = columns.split(",") if columns else [c for c in rows.columns[1:] if c not in ("slide", "case_id", SITE)]
    if unknown := sorted(set(keep) - set(rows.columns)):
        raise DataError(no_column(unknown, "--label-columns", rows.path, rows.columns))
    of_case = by_case(rows, "--labels", unmatched)
    if not columns and (names := [c for c in keep if _names_cases(c, of_case)]):
        notes.append(f"{few(names)}: names of samples, so no label")
        keep = [c for c in keep if c not in names]
    return {case: {c: row[c] for c in keep} for case, row in of_case.items()}, keep


def _names_cases(column: str, of_case: Mapping[str, Row]) -> bool:
    """Whether each cell of a column is a barcode of its row's case, such as cBioPortal's SAMPLE_ID."""
    return bool(of_case) and all(barcode(row[column]) == case for case, row in of_case.items())
