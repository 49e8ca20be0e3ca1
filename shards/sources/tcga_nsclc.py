"""TCGA lung cancer (LUAD, LUSC): slide features, gene expression and labels, joined by TCGA barcode.

Slide features: a folder of CLAM bags, one file a slide (`.h5` with `features` and `coords`, or `.pt`), or one `.npz` with `features`,
`offsets` and `slide` (bags one after the other). Expression: a table with cases as rows or as columns. Labels: a table whose first
column is the case. Barcode fields: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import bad
from shards.keyed import Row, keyed, read_rows
from shards.labels import label_rule, settle
from shards.manifest import Entry, Manifest, entry_problems
from shards.reference import Reference
from shards.sources import Found, register
from shards.sources._expression import CASE, expression_of

DIAGNOSTIC = re.compile(r"-DX(\d*)")
CLASS_COLUMNS = ("label", "subtype", "oncotree_code", "project_id")
SITE = "tss"  # tissue source site: the second field of a barcode


@dataclass(frozen=True)
class Slide:
    """One slide's bag: its barcode, where its features and coordinates are."""

    name: str
    features: Reference
    coords: Reference | None = None

    @property
    def case(self) -> str:
        return self.name[:12]

    @property
    def rank(self) -> tuple[int, str]:
        """DX1 before DX2; slides without a number (DX, frozen ones) after."""
        found = DIAGNOSTIC.search(self.name)
        return (int(found[1]) if found and found[1] else 99, self.name)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        type=Path,
        required=True,
        help="folder of CLAM .h5/.pt bags, or an .npz with features, offsets, slide",
    )
    parser.add_argument(
        "--expression",
        type=Path,
        required=True,
        help="expression table: cases as rows or as columns (found out by barcode)",
    )
    parser.add_argument("--labels", type=Path, required=True, help="label table, first column the case")
    parser.add_argument("--label-columns", help="columns of the label table to keep, comma-separated (default: all)")
    parser.add_argument(
        "--slides", choices=("dx1", "all"), default="dx1", help="first diagnostic slide of a patient, or all"
    )
    parser.add_argument(
        "--expression-transform", choices=("none", "log2p1"), default="none", help="log2p1 for FPKM, TPM or counts"
    )


@register("tcga_nsclc", options)
def find(args: argparse.Namespace) -> Found:
    """TCGA LUAD/LUSC: slide features + expression + labels, joined by barcode."""
    slides, unmatched = _slides(args.features)
    expression, notes, strip = expression_of(args.expression, unmatched)
    labels, columns = _labels(args.labels, args.label_columns, unmatched)
    by_case: dict[str, list[Slide]] = defaultdict(list)
    for slide in sorted(slides, key=lambda s: s.rank):
        by_case[slide.case].append(slide)
    if args.slides == "dx1":
        unmatched += [
            (s.name, "another slide of the patient was taken (--slides all takes every one)")
            for v in by_case.values()
            for s in v[1:]
        ]
        by_case = defaultdict(list, {c: v[:1] for c, v in by_case.items()})
    entries = []
    for case in sorted({*by_case, *expression, *labels}):
        lacking = [
            what
            for what, have in (("slide", by_case), ("expression", expression), ("labels", labels))
            if case not in have
        ]
        if lacking:
            unmatched.append((case, f"no {' and no '.join(lacking)}"))
        else:
            entries += [
                _entry(s, case, labels[case], expression[case], many=len(by_case[case]) > 1) for s in by_case[case]
            ]
    if not entries:
        fix = "check that all three name cases by TCGA barcode (TCGA-XX-XXXX)"
        raise bad(
            f"nothing joined: {len(slides)} slides, {len(expression)} cases with expression, {len(labels)} with labels",
            "tcga_nsclc",
            fix,
        )
    patients = {e.patient for e in entries}
    notes.append(f"{len(patients)} patients joined ({len(entries)} slides); {len(unmatched)} slides or cases left out")
    notes += [f"  {n} x {reason}" for reason, n in Counter(r for _, r in unmatched).most_common()]
    settled = settle(entries, columns, label_rule(args), asked=columns if args.label_columns else ())
    kinds = settled.kinds | {SITE: "class"}
    manifest = Manifest(entries, kinds, settled.problems + entry_problems(entries), settled.notes)
    return Found(manifest, notes, unmatched, _pack_options(kinds, args.expression_transform, strip))


def _pack_options(kinds: dict[str, str], transform: str, strip: bool) -> dict:
    chosen: dict = {"transforms": {"rna": transform}, "strip_version": ["rna"] if strip else []}
    first = next((c for c in CLASS_COLUMNS if kinds.get(c) == "class"), None)
    return chosen | ({"stratify": first} if first else {})


def _entry(slide: Slide, case: str, labels: dict[str, str], expression: Reference, many: bool) -> Entry:
    """One sample; its key is the case, or the slide where a case has several."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", slide.name) if many else case
    entry = Entry(
        f"slide {slide.name}", key, case, labels=dict(labels), fields={"patches": slide.features, "rna": expression}
    )
    if slide.coords:
        entry.fields["coords"] = slide.coords
    return entry


def _slides(path: Path) -> tuple[list[Slide], list[tuple[str, str]]]:
    """All slides with a barcode; files without one are reported."""
    if path.is_dir():
        return _folder(path)
    if path.suffix != ".npz" or not path.is_file():
        raise bad(
            "neither a folder of bags nor an .npz", path, "give --features a folder with .h5/.pt files, or an .npz"
        )
    with np.load(path, allow_pickle=False) as packed:
        lacking = {"features", "offsets", "slide"} - set(packed.files)
        if lacking:
            raise bad(
                f"has no {', '.join(sorted(lacking))}",
                path,
                "the .npz needs features [N, D], offsets [S + 1] and slide [S]",
            )
        names, offsets, coords = packed["slide"], packed["offsets"], "coords" in packed.files
    if len(offsets) != len(names) + 1 or (np.diff(offsets) <= 0).any():
        raise bad(
            f"{len(offsets)} offsets for {len(names)} slides, or an empty bag",
            path,
            "offsets must rise and have one more entry than slide",
        )

    def part(member: str, i: int) -> Reference:
        start, stop = int(offsets[i]), int(offsets[i + 1])
        return Reference(f"{path.name}#{member}[{start}:{stop}]", path, member, (start, stop))

    named = [(i, str(n)) for i, n in enumerate(names)]
    slides = [Slide(n, part("features", i), part("coords", i) if coords else None) for i, n in named if CASE.match(n)]
    return slides, [(n, "not a TCGA barcode") for _, n in named if not CASE.match(n)]


def _folder(path: Path) -> tuple[list[Slide], list[tuple[str, str]]]:
    slides, unmatched, seen = [], [], set()
    # CLAM writes h5_files/ and pt_files/ with the same stems; the .h5 has the coordinates too, so it comes first.
    for file in sorted(path.rglob("*.h5")) + sorted(path.rglob("*.pt")):
        if not CASE.match(file.stem):
            unmatched.append((file.name, "not a TCGA barcode"))
        elif file.stem not in seen:
            seen.add(file.stem)
            h5 = file.suffix == ".h5"
            features = Reference(f"{file.name}#features", file, "features") if h5 else Reference(file.name, file)
            slides.append(Slide(file.stem, features, Reference(f"{file.name}#coords", file, "coords") if h5 else None))
    if not slides:
        raise bad(
            "no .h5 or .pt file named by a TCGA barcode", path, "give the folder that holds CLAM's h5_files or pt_files"
        )
    return slides, unmatched


def _labels(
    path: Path, columns: str | None, unmatched: list[tuple[str, str]]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Cells of each case, and the columns that are labels; the site is added from the barcode."""
    rows = read_rows(path)
    keep = columns.split(",") if columns else [c for c in rows.columns[1:] if c not in ("slide", "case_id", SITE)]
    if unknown := sorted(set(keep) - set(rows.columns)):
        raise bad(f"no column {', '.join(unknown)}", path, f"columns: {', '.join(rows.columns)}")

    def case_of(row: Row) -> str | None:
        case = row[rows.first][:12]
        if not CASE.fullmatch(case):
            unmatched.append((row[rows.first], "not a TCGA barcode"))
            return None
        return case

    of_case = keyed(rows, case_of, "case")
    return {case: {c: row[c] for c in keep} | {SITE: case[5:7]} for case, row in of_case.items()}, keep
