"""Further people of the demo cohort's generator: nobody of the cohort, and their own genotypes in PLINK's order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bed_reader import open_bed

from shards.__main__ import main
from shards.demo import PATIENTS, SNPS, image, latent, snp
from shards.errors import DataError
from shards.read.dataset import Dataset
from trainer.gwas.bed import open_file_set

N = 50


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "p"
    assert main(["demo", str(folder), "--people", str(N)]) == 0
    return folder


def test_they_are_nobody_of_the_cohort(people: Path) -> None:
    with Dataset.open(people / "images") as data:
        names = data.patients_of(data.subset("test").indices)
        assert (len(names), len(data.subset("test"))) == (N, N)
        pixels = data[0].read("image")
    assert names[0] == f"demo-{PATIENTS:06d}", "the numbers go on where the cohort ends"
    assert np.array_equal(np.asarray(pixels).squeeze(), image(latent(PATIENTS), 0)[0])


def test_genotypes_are_theirs_whatever_the_order_of_the_file(people: Path) -> None:
    files = open_file_set(people / "chip.bed")
    with open_bed(people / "chip.bed") as bed:
        count_NM, at = bed.read(dtype="int8"), {s: j for j, s in enumerate(bed.sid)}
        place = list(zip(map(int, bed.chromosome), bed.bp_position, strict=True))
    assert place == sorted(place)
    assert sorted(at) == [f"demo_snp_{j:04d}" for j in range(SNPS)]
    assert sum(map(len, files.by_chromosome.values())) == SNPS
    for who in (0, N - 1):
        own_M = snp(latent(PATIENTS + who))
        read_M = count_NM[who, [at[f"demo_snp_{j:04d}"] for j in range(SNPS)]]
        assert np.array_equal(np.where(own_M < 0, -127, own_M), read_M)


def test_the_same_bytes_every_time(people: Path, tmp_path: Path) -> None:
    assert main(["demo", str(tmp_path / "again"), "--people", str(N)]) == 0
    files = [p.relative_to(people) for p in people.rglob("*") if p.is_file()]
    assert {"chip.bed", "chip.bim", "chip.fam", "covariates.csv"} < {str(f) for f in files}
    assert all((people / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


def test_few_people_and_used_folders_are_refused(people: Path, tmp_path: Path) -> None:
    from shards.chip import generate

    with pytest.raises(DataError, match=r"a study of so few finds nothing\. Fix: give --people 50 or more"):
        generate(tmp_path / "few", 49)
    assert not (tmp_path / "few").exists()
    with pytest.raises(DataError, match=r"is in use\. Fix: give another folder, or remove it"):
        generate(people, N)
