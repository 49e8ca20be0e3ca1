"""More people of the demo cohort's generator, none of whom is in the cohort, with genotypes as a PLINK 1 file set.

The cohort's 96 test people are too few to find the planted variants at the usual threshold. A biobank's study has people enough of
whom an encoder saw nothing; so has this one: images of them as a data set of a single split, genotypes and covariates as files beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.demo import (
    CITATION,
    CLASSES,
    LICENCE,
    PATIENTS,
    SNPS,
    SOURCE,
    VERSION,
    Latent,
    _rng,
    image,
    latent,
    png_bytes,
    snp,
)
from shards.errors import bad
from shards.format.describe import FieldTally, header_of
from shards.format.seal import SampleRow
from shards.pack.options import PackOptions
from shards.pack.pack import finish
from shards.pack.sample import META, meta_bytes
from shards.pack.write import DatasetWriter, disk_errors

LEAST = 50
APART = 2_000_000
"""Base pairs between two variants of a chromosome: none is another's neighbour, so that every hit is a region of its own."""
CHROMOSOMES = 22
MISSING = -127
"""A missing call, as bed-reader writes it."""


def generate(folder: Path, people: int) -> Path:
    """Writes FOLDER/images (a data set, all of it split `test`), chip.bed with .bim and .fam, and covariates.csv; the same bytes
    every time.

    Raises:
        DataError: too few people, a folder that is in use or cannot be written.
    """
    if people < LEAST:
        raise bad("a study of so few finds nothing", f"--people {people}", f"give --people {LEAST} or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise bad("is in use", folder, "give another folder, or remove it")
    everyone = [latent(PATIENTS + i) for i in range(people)]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _images(folder / "images", everyone)
    with disk_errors(folder):
        _genotypes(folder / "chip.bed", everyone)
        rows = (f"{name(who)},{sex},{age:.1f}" for who in everyone for sex, age in (_covariates(who),))
        (folder / "covariates.csv").write_text("\n".join(["IID,sex,age", *rows]) + "\n")
    return folder


def name(who: Latent) -> str:
    return f"demo-{who.patient:06d}"


def _covariates(who: Latent) -> tuple[str, float]:
    """Sex and age, of which nothing in an image tells."""
    rng = _rng("covariates", who.patient)
    return "FM"[rng.integers(2)], rng.normal(56, 8)


def _images(folder: Path, everyone: list[Latent]) -> None:
    rows, tally = [], FieldTally()
    with DatasetWriter(folder, shard_samples=512) as writer:
        for who in everyone:
            labels: dict[str, str | float] = {"subtype": CLASSES[who.beta], "severity": round(who.severity, 4)}
            rows.append(SampleRow(name(who), name(who), "test", labels))
            members = {
                META: meta_bytes(name(who), labels, {"all": SOURCE}),
                ("image", "png"): png_bytes(image(who, 0)[0]),
            }
            for (field, ext), content in members.items():
                tally.add(name(who), field, ext, header_of(field, ext, content))
            writer.add(name(who), members)
        options = PackOptions(name="demo-people", version=VERSION, source=SOURCE, licence=LICENCE, commercial="yes",
                              citation=CITATION)  # fmt: skip
        finish(writer, tally, rows, {"subtype": "class", "severity": "number"}, {}, options)


def _genotypes(path: Path, everyone: list[Latent]) -> None:
    """Variants keep the names of the cohort's field `snp`: the first 40 lean with the class, the next 40 with severity."""
    from bed_reader import to_bed

    count_NM = np.stack([snp(who) for who in everyone])
    # A .bim is sorted: by chromosome, then by place.
    order_M = sorted(range(SNPS), key=lambda j: (j % CHROMOSOMES, j))
    names = [name(who) for who in everyone]
    properties = {
        "iid": names, "fid": names, "sid": [f"demo_snp_{j:04d}" for j in order_M],
        "chromosome": [str(1 + j % CHROMOSOMES) for j in order_M],
        "bp_position": [APART * (1 + j // CHROMOSOMES) for j in order_M],
        "allele_1": ["A"] * SNPS, "allele_2": ["G"] * SNPS,
    }  # fmt: skip
    to_bed(path, np.where(count_NM < 0, MISSING, count_NM)[:, order_M].astype(np.int8), properties=properties)
