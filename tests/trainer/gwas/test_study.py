"""The whole way from a run to clumps: a planted association is found, controls find none, the same command goes on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from launch.gwas import main
from tests.trainer.gwas.conftest import PLANTED, VARIANTS, Study, table

FILES = {"associations.tsv.gz", "clumps.tsv", "people.tsv", "manhattan.png", "qq.png", "gwas.json"}


def summary(out: Path) -> dict:
    return json.loads((out / "gwas.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.fixture(scope="module")
def out(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "gwas"
    assert main(study.words(out=folder)) == 0
    return folder


def test_the_planted_association_is_found_and_nothing_else(study: Study, out: Path) -> None:
    assert {p.name for p in out.iterdir()} >= FILES
    (only,) = rows(out / "clumps.tsv")
    assert only["SNP"] == f"rs{PLANTED}"
    assert only["CHR"] == "2"
    found = summary(out)
    assert (found["clumps"], found["regions_1mb"], found["people"], found["variants"]) == (
        1,
        1,
        len(study.people),
        VARIANTS,
    )
    assert all(0.3 < v < 3 for v in found["genomic_inflation"].values())
    assert found["covariates"] == ["age", "sex=M"]
    assert (out / "qq.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_holds_every_estimate(out: Path) -> None:
    found = rows(out / "associations.tsv.gz")
    assert len(found) == VARIANTS * 4
    best = min(found, key=lambda r: float(r["LOG10_P"] or 0))
    assert (best["ID"], best["PHENO"]) == (f"rs{PLANTED}", "PC2")
    assert float(best["P"]) == pytest.approx(10 ** float(best["LOG10_P"]))
    assert float(best["BETA"]) / float(best["SE"]) == pytest.approx(float(best["T_STAT"]))
    assert float(best["A1_FREQ"]) <= 0.5
    people = rows(out / "people.tsv")
    assert len(people) == summary(out)["people"]
    y = np.array([float(r["PC1"]) for r in people])
    assert abs(y.mean()) < 0.02


@pytest.mark.parametrize("control", [{"permute": 1}, {"random": 1}])
def test_controls_do_not_find_it(study: Study, tmp_path: Path, control: dict[str, int]) -> None:
    assert main(study.words(out=tmp_path, **control)) == 0
    assert summary(tmp_path)["control"] is not None
    assert not [r for r in rows(tmp_path / "clumps.tsv") if r["SNP"] == f"rs{PLANTED}"]


def test_the_same_command_keeps_what_is_done(study: Study, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {n: (out / n).read_bytes() for n in FILES}
    (out / "chromosomes" / "chr1.npz").write_bytes(b"cut short")
    assert main(study.words(out=out, workers=1)) == 0
    said = capsys.readouterr().out
    assert "chr1.npz is damaged" in said
    assert "chromosome 2: done before" in said
    # Equal to rounding where a block met other threads, and to the byte in what is told of it.
    assert {n: (out / n).read_bytes() for n in FILES - {"associations.tsv.gz"}} == {
        n: before[n] for n in FILES - {"associations.tsv.gz"}
    }


def test_a_folder_of_another_study_is_not_overwritten(study: Study, out: Path, tmp_path: Path, capsys) -> None:
    other = table(tmp_path / "c.csv", study.people, age=list(range(len(study.people))))
    assert main(study.words(out=out, covariates=other)) == 2
    said = capsys.readouterr().err
    assert "holds a study of other things (phenotypes, covariates differ): give another --out" in said


def test_a_stop_keeps_whole_chromosomes(study: Study, tmp_path: Path) -> None:
    from trainer.errors import Stopped
    from trainer.gwas.run import gwas
    from trainer.gwas.settings import Settings

    settings = Settings(study.run, str(study.data), study.folder / "g.bed", study.folder / "covariates.csv", tmp_path, components=4,
                        workers=1)  # fmt: skip
    kept = tmp_path / "chromosomes"
    with pytest.raises(Stopped, match="chromosomes that are done are kept"):
        gwas(settings, lambda: (kept / "chr1.npz").exists(), lambda _: None)
    assert [p.name for p in kept.iterdir()] == ["chr1.npz"]
    assert not (tmp_path / "gwas.json").exists()
    said: list[str] = []
    gwas(settings, lambda: False, said.append)
    assert any("chromosome 1: done before" in line for line in said)
    assert (tmp_path / "gwas.json").exists()
