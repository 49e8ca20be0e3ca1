"""Fundus photographs with genotypes, polygenic scores and burden scores, as in MRM and ContIG on UK Biobank.

Images: a table with a column of paths and one of patients; every other column is a label. Genotypes: PLINK .bed/.bim/.fam or an
.npz (shards/sources/_genotypes.py). Scores: tables with people as rows, first column the person. A person who has no row in one
of them lacks that modality. Images are cropped to the retina and checked (shards/sources/_fundus_quality.py).
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format.describe import HeaderError
from shards.format.image_tally import ImageTally
from shards.format.images import Reading, read_image, reading_of
from shards.format.meaning import parse_meanings
from shards.pack.entry_checks import entry_problems
from shards.pack.labels import label_rule, settle
from shards.pack.manifest import Entry, Manifest
from shards.pack.reference import Reference
from shards.sources import Found, register
from shards.sources._fundus_quality import crop, find_circle, tails
from shards.sources._genotypes import Genotypes, impute_mode, read_genotypes
from shards.sources._scores import read_scores
from shards.tables.identity import few
from shards.tables.joins import REPAIR, Side, partners
from shards.tables.keyed import keyed, no_column, read_rows, several
from shards.tables.unknown import words_of

EYE = "eye"
SUFFIXES = (".jpg", ".jpeg", ".png")
HEAD = 1 << 17  # bytes of a JPEG in which its EXIF block lies


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="table of images; paths in it are relative to the table")
    add("--image-column", default="image", help="its column of paths (default: image)")
    add(
        "--patient-column",
        default="patient",
        help="its column of people, the unit of splits (default: patient; FID,IID for both)",
    )
    add(
        "--eye-column",
        help="its column of eyes: brightness tails are cut for each eye (default: eye, where there is one)",
    )
    what = "PLINK FILE.bed with .bim and .fam beside it (several files of the same people, such as one a chromosome), or an .npz"
    add("--genotypes", type=Path, nargs="+", help=what)
    add("--every", type=int, help="keep every n-th SNP of a chromosome (default: 100 of PLINK, all of an .npz)")
    add(
        "--count-allele",
        choices=("file", "sorted"),
        default="file",
        help="copies of which allele a genotype counts: the file's (PLINK's first), or the first of both by alphabet, which is the same "
        "in every file of the same DNA; either way SNPs are called by it, rs123_A(/G)",
    )
    add(
        "--missing-calls", choices=("mode", "keep"), default="mode", help="a SNP's mode, or -1 for the method to handle"
    )
    add("--pairing", type=Path, help="table from patients (first column) to people of the genetic files")
    add("--pairing-column", help="its column of people (default: the second of two; FID,IID for both)")
    for flag, what in (("--pgs", "polygenic"), ("--burden", "burden")):
        add(flag, type=Path, help=f"{what} scores, people as rows")
        add(f"{flag}-people", metavar="COLUMN", help="its column of people (default: the first; FID,IID for both)")
    add(
        REPAIR,
        action="store_true",
        help="read ids that a program has changed as what they were: 1000.0 (a data frame with gaps) and 1000_1000 (plink --double-id)",
    )
    add(
        "--quality", choices=("circle", "none"), default="circle", help="crop to the retina and drop images without one"
    )
    add(
        "--brightness-tails",
        type=float,
        default=0.005,
        help="share dropped as too dark and as too bright (default: .005)",
    )
    add("--work", type=Path, help="folder for cropped images and vectors while packing (default: OUT-work)")


@register("fundus_genotypes", options)
def find(args: argparse.Namespace) -> Found:
    """Fundus images + SNPs (PLINK or npz), PGS and burden tables, with circle crop and brightness check."""
    _check_options(args)
    work = args.work or Path(f"{args.out}-work")
    images, labels = _images(args)
    notes, unmatched = [f"images: {len(images)} in {args.images.name}"], list[tuple[str, str]]()
    person_of = _pairing(args, list(dict.fromkeys(i["patient"] for i in images)), notes)
    vectors, vocab, meanings = _vectors(args, work, person_of, notes)
    kept = _quality(images, args, work, unmatched, notes)
    for name, people in vectors.items():
        lacking = sorted({i["patient"] for i in images if person_of.get(i["patient"]) not in people})
        unmatched += [(p, f"no {name}: the modality is missing in the samples of this patient") for p in lacking]
    entries = []
    for image in images:
        if image["sample"] in kept:
            fields = {"image": Reference(str(image["path"].name), kept[image["sample"]])}
            person = person_of.get(image["patient"])
            fields |= {n: people[person] for n, people in vectors.items() if person in people}
            entries.append(
                Entry(image["where"], image["sample"], image["patient"], labels=image["labels"], fields=fields)
            )
    if not entries:
        what = f"no image is left of {len(images)}: a retina's circle was found in none"
        raise bad(what, args.images, "give photographs of the whole retina, or pack them uncropped: --quality none")
    shared = Counter(person_of.get(p) for p in {e.patient for e in entries})
    twice = sum(n > 1 for person, n in shared.items() if person is not None)
    notes += [f"{len(entries)} images of {len({e.patient for e in entries})} patients; working files in {work}"]
    notes += [f"  {n} x {reason}" for reason, n in Counter(r for _, r in unmatched).most_common()]
    if twice:
        notes.append(
            f"{twice} people of the genetic files are paired with several patients: splits do not keep those apart"
        )
    settled = settle(entries, labels, label_rule(args), of_numbers=_few_whole)
    kinds = settled.kinds
    stratify = next((c for c in kinds if kinds[c] == "class" and c != (args.eye_column or EYE)), None)
    pack: dict[str, Any] = {"vocab": vocab, "meanings": meanings} | ({"stratify": stratify} if stratify else {})
    return Found(
        Manifest(entries, kinds, settled.problems + entry_problems(entries), settled.notes), notes, unmatched, pack
    )


def _check_options(args: argparse.Namespace) -> None:
    problems = []
    if not 0 <= args.brightness_tails < 0.5:
        what, fix = "is no share of 0 or more and under one half", "give one such as --brightness-tails 0.005"
        problems.append(Problem(f"{args.brightness_tails:g} {what}", "--brightness-tails", fix))
    if args.every is not None and args.every < 1:
        problems.append(Problem(f"every {args.every}. SNP", "--every", "give 1 or more: --every 1 keeps all"))
    if problems:
        raise DataError(problems)


def _images(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """One dictionary an image, with the cells of its labels, and the columns that are labels."""
    named, unknown = args.patient_column.split(","), words_of(args)
    eye = [args.eye_column] if args.eye_column else []
    rows = read_rows(
        args.images,
        (args.image_column, *named, *eye),
        "name them with --image-column, --patient-column and --eye-column",
    )
    labels = [c for c in rows.columns if c not in (args.image_column, *named)]
    images = []
    for row in rows:
        path = args.images.parent / row[args.image_column]
        given = {c: row[c] for c in labels}
        key = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)
        patient = "" if any(unknown(row[c]) for c in named) else "_".join(row[c] for c in named)
        images.append({"where": row.where, "sample": key, "patient": patient, "path": path, "labels": given})
    problems = [n for n, k in Counter(i["sample"] for i in images).items() if k > 1]
    if problems:
        raise bad(f"file names stand twice: {', '.join(problems[:5])}", args.images, "name each image once, uniquely")
    return images, labels


def _few_whole(values: Sequence[float]) -> str:
    """Whole numbers of up to 20 different values are codes of classes."""
    return "class" if len(set(values)) <= 20 and all(v == int(v) for v in values) else "number"


def _reading(images: list[dict[str, Any]], args: argparse.Namespace, notes: list[str]) -> Reading:
    """How these photographs become pixels: the bits of 16-bit ones and the like are those of all of them.

    Raises:
        DataError: every file that is none, or cannot be understood.
    """
    tally = ImageTally(parse_meanings(getattr(args, "meaning", None)), getattr(args, "keep_orientation", False))
    problems: list[Problem] = []
    for image in images:
        path, ext = image["path"], _ext(image["path"])
        try:
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                raise bad("no such JPEG or PNG", path, f"mend the cell in {image['where']}")
            with open(path, "rb") as f:
                tally.add(image["sample"], "image", ext, f.read(HEAD if ext == "jpg" else -1), skim=True)
        except HeaderError as e:
            problems.append(Problem(str(e), str(path), e.fix))
        except DataError as e:
            problems += e.problems
    settled = tally.settle()
    if problems := problems + settled.problems:
        raise DataError(problems)
    notes += settled.notes if args.quality == "circle" else []  # else the packer says so
    return reading_of("image", settled.meanings.get("image", {}))


def _ext(path: Path) -> str:
    return path.suffix[1:].lower().replace("jpeg", "jpg")


def _quality(
    images: list[dict[str, Any]],
    args: argparse.Namespace,
    work: Path,
    unmatched: list[tuple[str, str]],
    notes: list[str],
) -> dict[str, Path]:
    """Path of the image to pack for each sample that passes; the others go to `unmatched` with their reason."""
    from PIL import Image

    reading = _reading(images, args, notes)
    folder, brightness, kept = work / "images", {}, {}
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for image in images:
        path, name = image["path"], image["sample"]
        try:
            pixels = _rgb(read_image(_ext(path), path.read_bytes(), reading, path))
        except DataError as e:
            problems += e.problems
            continue
        circle = find_circle(pixels) if args.quality == "circle" else None
        if args.quality == "circle" and circle is None:
            unmatched.append((name, "no circle found"))
            continue
        kept[name] = path
        if circle is not None:
            pixels, kept[name] = crop(pixels, circle), folder / f"{name}.png"
            Image.fromarray(pixels).save(kept[name], compress_level=3)
        brightness[name] = float(pixels.mean())
    if problems:
        raise DataError(problems)
    eye = {i["sample"]: str(i["labels"].get(args.eye_column or EYE, "")) for i in images}
    for name, why in tails(brightness, eye, args.brightness_tails if args.quality == "circle" else 0.0).items():
        unmatched.append((name, f"among the {why} {args.brightness_tails:.1%} of its eye"))
        del kept[name]
    return kept


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels


def _pairing(args: argparse.Namespace, patients: list[str], notes: list[str]) -> dict[str, str]:
    """Person of the genetic files for each patient: themselves, or as the pairing table says."""
    if args.pairing is None:
        return {p: p for p in patients if p}
    rows = read_rows(args.pairing)
    if args.pairing_column is None and len(rows.columns) != 2:
        what = f"{len(rows.columns)} columns, and --pairing-column does not say which names people"
        raise bad(what, args.pairing, f"give --pairing-column; columns: {', '.join(rows.columns)}")
    columns = (args.pairing_column or rows.columns[1]).split(",")
    if lacking := [c for c in columns if c not in rows.columns]:
        raise DataError(no_column(lacking, "--pairing-column", args.pairing, rows.columns))
    paired, unknown = keyed(rows, rows.first, "patient"), words_of(args)
    there = Side.of(args.pairing.name, {patient: row.where for patient, row in paired.items()})
    here = Side.of("--images", [p for p in patients if p])
    fix = "its first column must name the patients of --images"
    pairs, lines = partners(f"--pairing {args.pairing.name}", here, there, fix, repair=args.repair_ids)
    notes += lines
    known = {p: row for p, name in pairs.items() if not any(unknown((row := paired[name])[c]) for c in columns)}
    if not known:
        raise bad(
            f"column {', '.join(columns)} names nobody", args.pairing, "give --pairing-column the column of people"
        )
    return {p: "_".join(row[c] for c in columns) for p, row in known.items()}


def _vectors(
    args: argparse.Namespace, work: Path, person_of: dict[str, str], notes: list[str]
) -> tuple[dict[str, dict[str, Reference]], dict[str, Path], dict[str, dict[str, str]]]:
    """{field: {person: reference}}, the file of feature names of fields that come from no table, and what is known of fields' numbers.

    Raises:
        DataError: what was asked for joins nobody.
    """
    here = Side.of("--pairing" if args.pairing else "--images", list(person_of.values()))
    vectors: dict[str, dict[str, Reference]] = {}
    vocab: dict[str, Path] = {}
    meanings: dict[str, dict[str, str]] = {}

    def join(name: str, flag: str, file: str, people: Mapping[str, str], reference: Callable[[str], Reference]) -> None:
        fix = f"{file} must name people as {here.name} does, or bring a table of both with --pairing"
        pairs, lines = partners(f"{flag} {file}", here, Side.of(file, people), fix, repair=args.repair_ids)
        vectors[name] = {mine: reference(theirs) for mine, theirs in pairs.items()}
        notes.extend(lines)

    if args.genotypes is not None:
        found = read_genotypes(args.genotypes, args.every, args.count_allele)
        found = impute_mode(found) if args.missing_calls == "mode" else found
        notes += found.notes
        written, vocab["snp"] = write_vectors(found, work / "snp")
        meanings["snp"] = {"allele": "the one in the SNP's name"} if found.names_say_alleles else {}
        if not any(str(m).startswith("snp.build=") for m in args.meaning or ()):
            notes.append("genotypes: reference build not known; state it: --meaning snp.build=GRCh38")
        file = few([p.name for p in several(args.genotypes)])
        join("snp", "--genotypes", file, dict.fromkeys(written, file), written.__getitem__)
    for name in ("pgs", "burden"):
        if (path := getattr(args, name)) is not None:
            scores = read_scores(f"--{name}", path, getattr(args, f"{name}_people"), work)
            notes += scores.notes
            join(name, f"--{name}", path.name, scores.people, scores.reference)
    return vectors, vocab, meanings


def write_vectors(found: Genotypes, folder: Path) -> tuple[dict[str, Reference], Path]:
    """One small .npy a person and the SNPs' names, for the packer."""
    folder.mkdir(parents=True, exist_ok=True)
    references = {}
    for i, person in enumerate(found.people):
        path = folder / f"{i:06d}.npy"
        np.save(path, found.codes[i], allow_pickle=False)
        references[person] = Reference(f"{person} ({path.name})", path)
    names = folder / "snps.txt"
    names.write_text("\n".join(found.names) + "\n")
    return references, names
