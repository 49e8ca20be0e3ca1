"""What has to lie in a folder before the docs' blocks on data sets run there: miniatures of the sets that they name."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.__main__ import main
from tests.shards import test_cxr_published as published
from tests.shards import test_cxr_reports as reports
from tests.shards import test_cxr_studies as studies
from tests.shards import test_fundus_genotypes as fundus
from tests.shards import test_glioma, test_lgg_mri
from tests.shards.builders import dataset, jpeg, write_tar
from tests.shards.layout import cohorts
from tests.shards.layout.miniatures import MINIATURES, chexpert
from tests.shards.manifests import Sources, sources

Place = Callable[[Path], Any]
ROWS = 24


def several(*places: Place) -> Place:
    return lambda folder: [place(folder) for place in places]


def below(name: str, place: Place) -> Place:
    """The same in a folder of the place."""

    def made(folder: Path) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        place(folder / name)

    return made


def manifest(folder: Path) -> Sources:
    """Slides, genes, images and reports of 24 patients from four sites."""
    made = sources(folder, ROWS)
    for i, row in enumerate(made.rows):
        row |= {"label:tss": f"site{i % 4}", "label:label": row["label:subtype"]}
    made.write()
    return made


def lists(folder: Path) -> None:
    """Split lists over the manifest's samples."""
    names = [row["sample"] for row in manifest(folder).rows]
    for split, some in (("train", names[:16]), ("val", names[16:20]), ("test", names[20:])):
        (folder / f"{split}.txt").write_text("\n".join(some) + "\n")


def packed(name: str = "DIR") -> Place:
    """The manifest as a data set."""

    def made(folder: Path) -> None:
        manifest(folder)
        assert main(["pack", str(folder / "manifest.csv"), "--out", str(folder / name)]) == 0

    return made


def reference(folder: Path) -> None:
    """Names of known genes, for lint."""
    packed()(folder)
    (folder / "known_genes.txt").write_text("\n".join(f"GENE{i}" for i in range(30)))


def z_scores(path: Path, cases: Sequence[str]) -> None:
    """Expression as it is often passed on: a line a case, z-scores."""
    values = np.random.default_rng(0).normal(size=(len(cases), 5)).round(4)
    cohorts.packed(
        path, ["case_id", *(f"GENE{g}" for g in range(5))], [[c, *v] for c, v in zip(cases, values, strict=True)]
    )


def tcga(folder: Path) -> None:
    """Slides, expression and clinical tables of twelve cases, under the names that a user types and those that GDC gives."""
    cohorts.lung(folder)
    z_scores(folder / "z/rnaseq.csv.gz", cohorts.LUNG)
    (folder / "survival_LUAD.txt").write_text(
        "sample\t_PATIENT\tPFI\tPFI.time\n"
        + "".join(f"{c}-01\t{c}\t{i % 2}\t{300 + i}\n" for i, c in enumerate(cohorts.LUNG))
    )


TCGA = {
    "FEATURES": "20x_256px_0px_overlap/features_conch_v15", "TABLE": "z/rnaseq.csv.gz", "LABELS": "data_clinical_sample.txt", "DIR": ".",
}  # fmt: skip


def kaggle(folder: Path) -> None:
    test_lgg_mri.kaggle(folder / "kaggle_3m")
    shutil.move(folder / "kaggle_3m/fpkm.tsv", folder / "fpkm.tsv")
    z_scores(folder / "rna.csv.gz", test_lgg_mri.CASES[:-1])
    cohorts.kaggle(folder / "DIR")


def notes(folder: Path) -> None:
    """A table of films and notes with two columns of labels."""
    path = reports.notes(folder)
    rows = list(csv.DictReader(path.open()))
    reports.table(path, [row | {"finding": ("effusion", "none")[i % 2]} for i, row in enumerate(rows)])


def mimic(folder: Path) -> None:
    """MIMIC's tables beside the folders of films and reports."""
    root = published.mimic(folder / "mimic-cxr-jpg")
    for table in root.glob("mimic-cxr-2.0.0-*.csv.gz"):
        shutil.move(table, folder / table.name)
    for report in sorted((root / "files").rglob("s*.txt")):
        there = folder / "mimic-cxr" / report.relative_to(root)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(report, there)


def examinations(folder: Path) -> None:
    """Notes of examinations with several films, whose columns have names of their own."""
    rows = [
        {("exam" if k == "study" else "position" if k == "view" else k): v for k, v in row.items()}
        for row in studies.LINES
    ]
    studies.notes(folder, rows)


def eyes(images: str) -> Place:
    """Photographs of twelve people, and their genotypes as PLINK's and as arrays, scores and burdens."""

    def made(folder: Path) -> None:
        rng, people = np.random.default_rng(0), [f"P{p}" for p in range(12)]
        for p in range(12):
            for eye in "LR":
                path = folder / f"img/P{p}_{eye}.png"
                path.parent.mkdir(exist_ok=True)
                reports.Image.fromarray(fundus.fundus(96, 128, 64, 48, 44, 90 + 5 * p, seed=p)).save(path)
        table = [{"patient": f"P{p}", "eye": eye, "image": f"img/P{p}_{eye}.png"} for p in range(12) for eye in "LR"]
        reports.table(folder / images, table)
        codes, ids = rng.integers(-1, 3, (12, 220)), [f"rs{i}" for i in range(220)]
        fundus.plink(folder / "chip.bed", codes, people, ["1"] * 220, ids)
        np.savez(
            folder / "snps.npz", genotype=np.where(codes < 0, 3, codes), sample_id=[f"G{p}" for p in range(12)], rsid=ids,
            chrom=["1"] * 220, pos=np.arange(220),
        )  # fmt: skip
        for name, columns in (("pgs", ("height", "bmi")), ("burden", ("LDLR", "PCSK9"))):
            cohorts.packed(folder / f"{name}.csv", ["IID", *columns], [[w, *rng.integers(0, 2, 2)] for w in people])
        cohorts.packed(folder / "pairs.csv", ["patient", "person"], [[w, f"G{p}"] for p, w in enumerate(people)])

    return made


def glioma(folder: Path) -> None:
    made = test_glioma.written(folder)
    shutil.move(made["tiles"], folder / "roi_tiles")
    shutil.move(made["features"], folder / "hipt_regions.npz")
    rows = list(csv.reader(made["omics"].open()))
    for name, columns in (("rnaseq.csv.gz", (0, 2, 3)), ("labels.csv", (0, 1, 4, 5, 6))):
        cohorts.packed(folder / name, [rows[0][k] for k in columns], [[r[k] for k in columns] for r in rows[1:]])


def adoptable(folder: Path) -> None:
    """Tars whose members mean themselves, img2dataset's, and parts whose samples have no patients."""
    for name, first in (
        ("DIR/000000.tar", 0),
        ("OTHER/000000.tar", 10),
        ("PARTS/part-000.tar", 20),
        ("PARTS/part-001.tar", 30),
    ):
        place = folder / name
        place.parent.mkdir(exist_ok=True)
        members = []
        for i in range(first, first + 10):
            about = {"patient": f"p{i}"} if first == 0 else {"subject_id": f"p{i}", "age": 40 + i}
            image, meta = ("jpg", "json") if first == 10 else ("image.jpg", "meta.json")
            members.append((f"k{i}.{image}", jpeg(i)))
            members += [(f"k{i}.txt", b"clear lungs")] if first == 10 else []
            members += [(f"k{i}.{meta}", json.dumps(about).encode())] if first < 20 else []
        write_tar(place, members)


def old(folder: Path) -> None:
    """A manifest, and a data set of which nothing is known yet."""
    manifest(folder)
    dataset(folder / "data/old")


MINE = """\
about: films of our clinic
licence: internal
commercial: no
citation: none
tables:
  films: {file: films.csv, columns: [film, person]}
rows: [films]
sample: "{film}"
patient: "{person}"
fields:
  image: {path: ["images/{film}.png"], every: ["images/*.png"]}
labels: []
"""


def downloads(folder: Path) -> None:
    """Two published sets and a layout of one's own."""
    below("downloads/rsna", MINIATURES["rsna_pneumonia"])(folder)
    chexpert(folder / "downloads")
    (folder / "mine.yaml").write_text(MINE)
    rows = [[f"f{i}", f"p{i // 2}"] for i in range(10)]
    cohorts.packed(folder / "films/films.csv", ["film", "person"], rows)
    for i, (film, _) in enumerate(rows):
        cohorts.grey(folder / f"films/images/{film}.png", i)
