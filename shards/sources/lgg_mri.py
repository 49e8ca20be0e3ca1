"""Lower-grade glioma MRI with tumour masks (Buda et al. 2019) and gene expression: the layout of Kaggle's `kaggle_3m`.

kaggle_3m: a folder a patient (`TCGA_CS_4941_19960909`), in it slices `TCGA_CS_4941_19960909_N.tif` (channels pre-contrast,
FLAIR, post-contrast) each with `..._N_mask.tif`, beside them `data.csv` with genomic clusters. Or a table `slices.csv` with
`case_id,slice,image,mask`, beside it `clinical.csv` and `rnaseq.csv.gz`. Expression: a table with cases as rows or as columns.

Slices are stored round by round over the patients, so that batches read in stored order hold as many patients as they can.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins
from shards.format.image_tally import ImageTally
from shards.format.meaning import parse_meanings
from shards.layout.begun import lacks_room
from shards.pack.entry_checks import entry_problems
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Entry, Manifest
from shards.pack.reference import Reference
from shards.sources import Found, register
from shards.sources._barcode import by_case
from shards.sources._expression import Expression, expression_of
from shards.sources._expression import options as expression_options
from shards.sources._masks import mask_of
from shards.sources._survival import options as survival_options
from shards.sources._survival import put_survival
from shards.tables.cells import number
from shards.tables.identity import barcode
from shards.tables.joins import Side, partners
from shards.tables.keyed import read_rows, several

if TYPE_CHECKING:
    from PIL import Image

SLICE = re.compile(r"(TCGA_[A-Z0-9]{2}_[A-Z0-9]{4}_.+)_(\d+)")
# Numbers that measure something; all other columns hold codes.
SUFFIXES = (".tif", ".tiff", ".png")
MEASURED = ("age", "age_at_initial_pathologic", "survival_months", "tumour_pixels")
SKIPPED = ("case_id", "patient", "site")
FIX_MASKS = "check how they were saved, or say from which value on it is tumour: --object N"
KAGGLE = "give --images the kaggle_3m folder, or one with slices.csv"
LEAKS = (
    "--split-unit slice: every slice counts as a patient. Neighbouring slices and one person's genes stand in several splits: what "
    "is measured on them is no measure of other patients"
)


@dataclass(frozen=True)
class Slice:
    name: str
    case: str
    number: int
    image: Path
    mask: Path


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, help="the kaggle_3m folder, or one with slices.csv")
    expression_options(parser, required=False, default=" (default: rnaseq.csv.gz beside the images)")
    parser.add_argument("--labels", type=Path, help="patients' labels (default: data.csv or clinical.csv in --images)")
    survival_options(parser)
    parser.add_argument("--slices", choices=("all", "positive"), default="all", help="all slices, or those with tumour")
    parser.add_argument(
        "--split-unit",
        choices=("patient", "slice"),
        default="patient",
        help="slice: each slice counts as a patient of its own, so that splits LEAK (only to imitate published tables)",
    )
    parser.add_argument(
        "--unpaired",
        choices=("drop", "keep"),
        default="drop",
        help="patients without expression: left out and listed, or kept with the modality missing",
    )
    parser.add_argument(
        "--object", type=int, metavar="N", help="tumour is where a mask is at least N (default: above 0)"
    )
    parser.add_argument("--work", type=Path, help="folder for converted images while packing (default: OUT-work)")


@register("lgg_mri", options)
def find(args: argparse.Namespace) -> Found:
    """TCGA-LGG MRI slices with tumour masks + expression, joined by patient (kaggle_3m layout)."""
    table = args.images / "slices.csv"
    slices = _listed(table) if table.is_file() else _kaggle(args.images)
    unmatched: list[tuple[str, str]] = []
    genes = _genes(args, unmatched)
    expression, notes = genes.of_case, genes.notes
    labels, kinds = _labels(args, unmatched)
    notes += _joins(args, slices, expression, labels)
    entries_of, more = _packed(args, slices, expression, labels, unmatched)
    notes += more
    entries = _rounds(entries_of)
    if not entries:
        raise bad(f"none of {len(slices)} slices is left", "lgg_mri", "no tumour is in them: give --slices all")
    cases = {s.case for s in slices}
    if args.unpaired == "drop":
        unmatched += [(c, "no expression of this patient") for c in sorted(cases - set(expression))]
    unmatched += [(c, "no slices of this patient") for c in sorted(set(expression) - cases)]
    survival = put_survival(args, entries, unmatched, notes)
    notes.append(f"{len(entries_of)} patients, {len(entries)} of {len(slices)} slices packed")
    by_slice = args.split_unit == "slice"
    if by_slice:
        notes.append(LEAKS)
        entries = [replace(e, patient=e.sample, labels={**e.labels, "case": e.patient}) for e in entries]
    notes += [f"  {n} x {reason}" for reason, n in Counter(r for _, r in unmatched).most_common()]
    settled = settle(entries, [*kinds, *survival], label_rule(args), kinds=kinds)
    kinds = settled.kinds | {"tumour": "class", "tumour_pixels": "number", "tss": "class"}
    kinds |= {"case": "class"} if by_slice else {}
    chosen: dict[str, Any] = {
        "transforms": {"rna": args.expression_transform or "none"},
        "strip_version": ["rna"] if genes.versioned else [],
        "meanings": {"rna": genes.meaning},
    }
    return Found(
        Manifest(entries, kinds, settled.problems + entry_problems(entries), settled.notes), notes, unmatched, chosen
    )


def _packed(
    args: argparse.Namespace,
    slices: Sequence[Slice],
    expression: Mapping[str, Reference],
    labels: Mapping[str, dict[str, str]],
    unmatched: list[tuple[str, str]],
) -> tuple[dict[str, list[Entry]], list[str]]:
    """The samples of each case in the order of its slices, and lines on its masks; slices that are not wanted go to `unmatched`.

    Raises:
        DataError: every slice or mask that cannot be read, or whose mask says nothing of tumour.
    """
    if "object" in parse_meanings(getattr(args, "meaning", None)).get("mask", {}):
        raise bad("mask.object: this source packs masks of 0 and 1", "--meaning", "give --object N instead")
    problems: list[Problem] = []
    taken = [s for s in slices if args.unpaired == "keep" or s.case in expression]
    least, notes = _least(taken, args.object, problems)
    work = args.work or Path(f"{args.out}-work")
    entries_of: dict[str, list[Entry]] = defaultdict(list)
    for s in sorted(taken, key=lambda s: (s.case, s.number)):
        entry = _entry(s, work, labels.get(s.case, {}), expression.get(s.case), problems, least)
        if entry is None:
            continue
        if args.slices == "positive" and entry.labels["tumour"] == "no":
            unmatched.append((s.name, "no tumour in the slice (--slices positive)"))
        else:
            entries_of[s.case].append(entry)
    if problems:
        raise DataError(problems)
    return entries_of, notes


def _least(slices: list[Slice], asked: int | None, problems: list[Problem]) -> tuple[int, list[str]]:
    """From which value on a mask says tumour, and a line on it. Masks of 0 and 1 are as usual as those of 0 and 255; others must say."""
    tally = ImageTally({"mask": {"object": str(asked)}} if asked else {})
    for s in slices:
        try:
            values = mask_of(s.mask)
            tally.add_values(
                s.name, "mask", values if asked is None else np.where(values >= asked, np.uint8(255), np.uint8(0))
            )
        except DataError as e:
            problems += e.problems
    settled = tally.settle()
    said = settled.meanings.get("mask", {}).get("values", "")
    if not settled.problems and len(said.split()) > 2:
        what = f"masks hold the values {said}: which of them are tumour cannot be told"
        problems.append(Problem(what, "lgg_mri", "say from which value on it is: --object N"))
    problems += [Problem(p.what, "masks", FIX_MASKS) for p in settled.problems]
    notes = [f"masks: from {asked} on it is tumour" if asked else f"masks: values {said}, tumour is what is above 0"]
    return asked or 1, notes + [f"warning: {w.what}" for w in settled.warnings]


def _kaggle(folder: Path) -> list[Slice]:
    """All slices under `folder` that have a mask; every slice without one, and every mask without a slice, is told."""
    if not folder.is_dir():
        raise bad("no such folder", folder, KAGGLE)
    files: dict[str, Path] = {}
    slices, problems = list[Slice](), list[Problem]()
    for path in no_twins(p for p in folder.glob("*/*") if p.suffix.lower() in SUFFIXES):
        if (other := files.setdefault(path.stem, path)) is not path:
            what = f"'{path.stem}' is here and in {other.relative_to(folder)}"
            problems.append(Problem(what, str(path), "keep one file of each slice"))
    for stem, path in files.items():
        if stem.endswith("_mask"):
            if stem.removesuffix("_mask") not in files:
                problems.append(Problem("a mask without its slice", str(path), "bring the slice, or remove the mask"))
            continue
        named, case, mask = SLICE.fullmatch(stem), barcode(stem), files.get(f"{stem}_mask")
        if not named or not case:
            problems.append(Problem("not named TCGA_XX_XXXX_DATE_N", str(path), "rename it, or move it elsewhere"))
        elif mask is None:
            problems.append(Problem("a slice without its mask", str(path), f"bring {stem}_mask.tif, or remove it"))
        else:
            slices.append(Slice(stem, case, int(named[2]), path, mask))
    if problems:
        raise DataError(problems)
    if not slices:
        raise bad("no slices TCGA_*/TCGA_*_N.tif", folder, KAGGLE)
    return slices


def _listed(table: Path) -> list[Slice]:
    """The slices of a table `case_id,slice,image,mask`; paths are relative to it."""
    slices, problems = [], []
    for row in read_rows(table, ("case_id", "slice", "image", "mask")):
        image, mask, case = table.parent / row["image"], table.parent / row["mask"], barcode(row["case_id"])
        for path in (image, mask):
            if not path.is_file():
                problems.append(Problem(f"no file {path}", row.where, "bring it, or drop the line"))
        n = number(row["slice"])
        if case is None or n is None:
            what = f"case '{row['case_id']}', slice '{row['slice']}'"
            problems.append(Problem(what, row.where, "give a TCGA case and a slice number"))
        else:
            slices.append(Slice(image.stem, case, int(n), image, mask))
    if problems:
        raise DataError(problems)
    return slices


def _genes(args: argparse.Namespace, unmatched: list[tuple[str, str]]) -> Expression:
    paths = several(args.expression or args.images / "rnaseq.csv.gz")
    if lacking := [p for p in paths if not p.exists()]:
        raise bad("no expression table", lacking[0], "give one with --expression (CSV, TSV or Parquet)")
    return expression_of(paths, args, unmatched)


def _joins(
    args: argparse.Namespace,
    slices: Sequence[Slice],
    expression: Mapping[str, Reference],
    labels: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """What the slices, the expression and the labels came to together; an option that joins nobody is refused."""
    here, fix = Side.of("--images", [s.case for s in slices]), "all must name patients as TCGA_XX_XXXX or TCGA-XX-XXXX"
    notes = partners("--expression", here, Side.of("the expression table", expression), fix)[1]
    return notes + (partners("--labels", here, Side.of("the label table", labels), fix)[1] if labels else [])


def _labels(
    args: argparse.Namespace, unmatched: list[tuple[str, str]]
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Cells of each patient's labels, and their kinds: codes are classes; copy numbers stay out."""
    usual = [args.images / n for n in ("data.csv", "clinical.csv")]
    there = [p for p in usual if p.is_file()]
    if args.labels is None and len(there) > 1:
        raise bad(
            f"which holds the labels, {' or '.join(p.name for p in there)}?", args.images, "say it with --labels FILE"
        )
    path = args.labels or next(iter(there), None)
    if path is None:
        return {}, {}
    rows = read_rows(path)
    kept = [c for c in rows.columns if c != rows.first and c.lower() not in SKIPPED and not c.endswith("_cnv")]
    kinds = {c: "number" if c in MEASURED else "class" for c in kept}
    of_case = by_case(rows, "--labels", unmatched)
    return {case: {c: _code(row[c]) for c in kept} for case, row in of_case.items()}, kinds


def _code(text: str) -> str:
    """'2.0000' and '2' are one class."""
    value = number(text)
    return text if value is None else f"{value:.15g}"


def _entry(
    s: Slice, work: Path, labels: dict[str, str], genes: Reference | None, problems: list[Problem], least: int
) -> Entry | None:
    """One slice, its mask as class numbers 0 and 1; what does not fit goes to `problems`."""
    from PIL import Image

    try:
        tumour_HW = mask_of(s.mask) >= least
        with Image.open(s.image) as image:
            shapes = image.size, tumour_HW.shape[::-1]
            stored = _as_png(image, s, work)
    except DataError:
        return None  # told by `_least`
    except (OSError, ValueError, Image.DecompressionBombError) as e:
        if lacks_room(e):
            raise
        problems.append(Problem(f"cannot be read ({e})", str(s.image), "bring the slice and its mask again"))
        return None
    if shapes[0] != shapes[1]:
        what = f"the slice has {shapes[0]} pixels, its mask {shapes[1]}"
        problems.append(Problem(what, str(s.mask), "bring the mask of this slice"))
        return None
    pixels = int(tumour_HW.sum())
    given = {**labels, "tumour": "yes" if pixels else "no", "tumour_pixels": float(pixels), "tss": s.case[5:7]}
    entry = Entry(f"slice {s.name}", re.sub(r"[^A-Za-z0-9_-]", "_", s.name), s.case, labels=given)
    entry.fields = {"image": stored, "mask": _class_png(tumour_HW, s, work)}
    if genes is not None:
        entry.fields["rna"] = genes
    return entry


def _as_png(image: Image.Image, s: Slice, work: Path) -> Reference:
    """The slice itself where it is a PNG, else a lossless copy of it."""
    if s.image.suffix.lower() == ".png":
        return Reference(s.image.name, s.image)
    frames = getattr(image, "n_frames", 1)
    if image.mode not in ("L", "RGB", "I;16", "LA", "RGBA") or frames > 1:
        what = f"mode {image.mode}" if frames == 1 else f"{frames} pictures in one file"
        raise ValueError(f"{what}, not one picture in grey (8 or 16 bits) or RGB")
    path = work / "images" / f"{s.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return Reference(s.image.name, path)


def _class_png(tumour_HW: np.ndarray, s: Slice, work: Path) -> Reference:
    from PIL import Image

    path = work / "masks" / f"{s.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(tumour_HW.astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 220, 0])
    picture.save(path)
    return Reference(s.mask.name, path)


def _rounds(entries_of: dict[str, list[Entry]]) -> list[Entry]:
    """The first slice of every patient, then the second of every patient that has one, and so on."""
    longest = max((len(v) for v in entries_of.values()), default=0)
    return [v[k] for k in range(longest) for _, v in sorted(entries_of.items()) if k < len(v)]
