"""What is wrong with people, genotypes, covariates and relatives is named, counted and refused, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launch.gwas import main
from shards.errors import DataError
from tests.trainer.gwas.conftest import Study, table
from tests.trainer.gwas.plink import file_set
from tests.trainer.gwas.test_linear import by_least_squares
from trainer.errors import UserError
from trainer.gwas.bed import allele_tested, open_file_set
from trainer.gwas.covariates import basis_of, read_covariates
from trainer.gwas.linear import associate
from trainer.gwas.phenotypes import principal_components
from trainer.gwas.scan import parts_of

N = 30
NAMES = tuple(f"p{i}" for i in range(N))
AGES = [40 + i for i in range(N)]


def refused(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    """What the command says in refusing; nothing is written."""
    assert main(study.words(out=tmp_path / "out", **changes)) == 2
    assert not (tmp_path / "out" / "gwas.json").exists()
    return capsys.readouterr().err


def test_genotypes_of_other_people(study: Study, tmp_path: Path, capsys) -> None:
    bed = file_set(tmp_path, np.ones((20, 4)), [f"stranger{i}" for i in range(20)])
    said = refused(study, tmp_path, capsys, bed=bed)
    assert f"joined nobody: none of {len(study.people)} of split 'test' is among the 20 of g.fam" in said
    assert "genotypes of other people than the images'" in said


def test_genotypes_of_some_people_are_counted(study: Study, tmp_path: Path, capsys) -> None:
    count = np.random.default_rng(0).integers(0, 3, (9, 4))
    bed = file_set(tmp_path, count, study.people[:9])
    said = refused(study, tmp_path, capsys, bed=bed, components=10)
    assert (
        f"9 of {len(study.people)} people of split 'test' can be tested, 2 covariates and 10 components need 11 or more"
        in said
    )
    assert f"{len(study.people) - 9} people are left out without genotypes" in said
    bed = file_set(tmp_path / "more", np.random.default_rng(0).integers(0, 3, (40, 4)), study.people[:40])
    assert main(study.words(bed=bed, out=tmp_path / "ok")) == 0
    said = capsys.readouterr().out
    assert f"40 of {len(study.people)} people of split 'test' are tested" in said
    assert "joined by name alone" in said


def test_people_of_pretraining_are_refused(study: Study, tmp_path: Path, capsys) -> None:
    said = refused(study, tmp_path, capsys, split="train")
    assert "288 of 288 people of split 'train' were in the pre-training of" in said


def test_all_problems_at_once(study: Study, tmp_path: Path, capsys) -> None:
    bed = file_set(tmp_path, np.ones((2, 2)), ["a", "b"])
    covariates = table(tmp_path / "c.csv", study.people, age=["old"] * 5 + [60] * (len(study.people) - 5))
    said = refused(study, tmp_path, capsys, bed=bed, covariates=covariates)
    assert "joined nobody" in said
    assert "5 cells are no numbers ('old' on c.csv line 2" in said


KINSHIP = "#FID1\tIID1\tFID2\tIID2\tKINSHIP\n"


def kinship(path: Path, *pairs: tuple[str, str, float]) -> Path:
    path.write_text(KINSHIP + "".join(f"0\t{a}\t0\t{b}\t{k}\n" for a, b, k in pairs))
    return path


def test_relatives_across_splits_are_refused_or_dropped(study: Study, tmp_path: Path, capsys) -> None:
    from shards.read.dataset import Dataset

    with Dataset.open(study.data) as data:
        learned = data.patients_of(data.subset("train").indices)
    a, b, c, d = study.people[:4]
    pairs = kinship(tmp_path / "k", (a, learned[0], 0.25), (learned[1], b, 0.01), (c, d, 0.06))
    said = refused(study, tmp_path, capsys, kinship=pairs)
    assert f"1 tested people have relatives in other splits or in pre-training ('{a}' and '{learned[0]}')" in said
    assert f"1 pairs of tested people are relatives of each other ('{c}' and '{d}')" in said
    assert main(study.words(kinship=pairs, relatives="drop", out=tmp_path / "ok")) == 0
    said = capsys.readouterr().out
    assert f"2 people are left out for their relatives ({a}, {d})" in said
    assert f"{len(study.people) - 2} of {len(study.people)} people of split 'test' are tested" in said


def test_a_kinship_table_of_others_proves_nothing(study: Study, tmp_path: Path, capsys) -> None:
    said = refused(study, tmp_path, capsys, kinship=kinship(tmp_path / "k", ("x", "y", 0.5)))
    assert "none of its people is known, such as 'x'" in said
    wrong = tmp_path / "w"
    wrong.write_text("a b c\n1 2 3\n")
    assert "no columns ID1, ID2 (or IID1, IID2) and KINSHIP" in refused(study, tmp_path, capsys, kinship=wrong)


def test_limits_of_clumps_and_controls(study: Study, tmp_path: Path, capsys) -> None:
    assert "members are listed below p2" in refused(study, tmp_path, capsys, p1=1e-3, p2=1e-4)
    assert "take one at a time" in refused(study, tmp_path, capsys, random=1, permute=1)
    for wrong in ({"p1": "0"}, {"components": "0"}, {"r2": "nan"}, {"kb": "x"}):
        with pytest.raises(SystemExit, match="2"):
            main(study.words(**wrong))
        assert "give a" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- covariates


def read(folder: Path, leave_out: tuple[str, ...] = (), **columns: list[object]):
    return read_covariates(table(folder / "c.csv", NAMES, **columns), NAMES, None, leave_out)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["61,5", *AGES[1:]], "decimal comma|another number of cells"),
        (['"61,5"', *AGES[1:]], "holds a comma where a number has its point"),
        ([-9, -9, *AGES[2:]], "2 cells are -9, with which PLINK marks a missing value"),
        (["old", *AGES[1:]], "1 cells are no numbers"),
        (list(map("w{}".format, range(N))), "30 different words"),
    ],
)
def test_cells_that_are_no_covariate(tmp_path: Path, values: list[object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, age=values)


def test_constant_and_dependent_covariates_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, age=AGES, site=["A"] * N, days=[365.25 * a for a in AGES], flat=[1e9] * N)
    with pytest.raises(
        DataError, match=r"2 covariates are constant among the 30 people who are tested \('site=A', 'flat'\)"
    ):
        basis_of(found.names, found.value_NC, Path("c.csv"))
    found = read(tmp_path, ("site", "flat"), age=AGES, site=["A"] * N, days=[365.25 * a for a in AGES], flat=[1e9] * N)
    with pytest.raises(
        DataError, match=r"1 covariates are told by the others, exactly \('days'; 'days' is most like 'age'\)"
    ):
        basis_of(found.names, found.value_NC, Path("c.csv"))


def test_words_are_classes_and_unknown_cells_are_missing(tmp_path: Path) -> None:
    found = read(tmp_path, age=["NA", *AGES[1:]], site=["A", "B", "C"] * 9 + ["unknown", "A", "B"])
    assert found.names == ("age", "site=B", "site=C")
    assert np.argwhere(np.isnan(found.value_NC)).tolist() == [[0, 0], [27, 1], [27, 2]]
    assert found.value_NC[:3, 1:].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert found.notes == ("covariate 'site': 3 classes",)
    assert read(tmp_path, age=AGES, site=["A"] * N).notes == ()


def test_negative_numbers_are_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, pc=[-9, -12, *range(N - 2)]).value_NC[0, 0] == -9


def test_people_are_joined_by_name_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text(
        "#FID\tIID\tage\n" + "".join(f"0\t{n}\t{a}\n" for n, a in reversed([*zip(NAMES, AGES, strict=True)]))
    )
    found = read_covariates(path, NAMES, None, ())
    assert found.names == ("age",)
    assert found.value_NC[:, 0].tolist() == AGES
    with pytest.raises(DataError, match="joined nobody"):
        read_covariates(path, ("other",), None, ())
    path.write_text(path.read_text() + "0\tp3\t7\n")
    with pytest.raises(DataError, match="'p3' on"):
        read_covariates(path, NAMES, None, ())


# ------------------------------------------------------------------------------------------------- phenotypes, genotypes


def _basis(value_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = basis_of([str(i) for i in range(value_NC.shape[1])], value_NC, Path("c.csv"))
    return found.q_NC, found.z_NC


def test_a_phenotype_of_ten_people() -> None:
    rng = np.random.default_rng(0)
    y_NP, covariates_NC = rng.normal(size=(N, 2)), rng.normal(size=(N, 8))
    y_NP[10:, 1] = np.nan
    with pytest.raises(UserError, match=r"phenotype 'b' is known of 10 people; 8 covariates need 11 or more"):
        parts_of(y_NP, ["a", "b"], np.arange(N), covariates_NC, _basis)
    parts = parts_of(y_NP, ["a", "b"], np.arange(N), covariates_NC[:, :2], _basis)
    assert [p.phenotypes.tolist() for p in parts] == [[0], [1]]
    g = rng.integers(0, 3, (3, N)).astype(np.int8)
    found = associate(parts[1].model, g[:, parts[1].rows_N])
    for m in range(3):
        beta, se, p, n = by_least_squares(g[m, :10].astype(float), covariates_NC[:10, :2], y_NP[:10, 1])
        np.testing.assert_allclose(
            (found.beta_PM[0, m], found.se_PM[0, m], 10 ** found.log10_p_PM[0, m]), (beta, se, p), rtol=1e-8
        )
        assert found.n_M[m] == n == 10


def test_an_encoder_that_has_collapsed() -> None:
    x_ND = np.ones((N, 12), np.float32) * 3 + np.random.default_rng(0).normal(0, 1e-8, (N, 12)).astype(np.float32)
    with pytest.raises(UserError, match="vary in 0 directions only, 3 components are asked for"):
        principal_components(x_ND, 3)


def test_variants_are_sorted_and_only_autosomes_are_tested(tmp_path: Path) -> None:
    bed = file_set(
        tmp_path, np.ones((4, 5)), NAMES[:4], chromosome=["2", "1", "X", "chr01", "1"], bp_position=[5, 9, 1, 2, -7]
    )
    files = open_file_set(bed)
    assert {n: files.describe(c) for n, c in files.by_chromosome.items()} == {"1": ["rs3", "rs1"], "2": ["rs0"]}
    assert any("1 on chromosome X, 1 on negative positions" in n for n in files.notes)
    with pytest.raises(DataError, match=r"1 ids name more than one variant \('rs1'\)"):
        open_file_set(file_set(tmp_path / "b", np.ones((4, 3)), NAMES[:4], sid=["rs1", "rs2", "rs1"]))
    with pytest.raises(DataError, match="no variant of an autosome"):
        open_file_set(file_set(tmp_path / "c", np.ones((4, 1)), NAMES[:4], chromosome=["Y"]))


def test_the_minor_allele_among_founders_is_tested(tmp_path: Path) -> None:
    count = np.array([[2, 0, 1], [2, 0, 1], [0, 2, 1], [0, 2, -127], [0, 2, 1]])
    files = open_file_set(file_set(tmp_path, count, NAMES[:5], father=["0", "0", "p0", "p0", "p0"], mother=["0"] * 5))
    assert files.founders_N.tolist() == [True, True, False, False, False]
    is_first, share = allele_tested(files.counts(np.arange(3)), files.founders_N)
    assert is_first.tolist() == [False, True, True]
    assert share.tolist() == [0, 0, 0.5]
    assert allele_tested(files.counts(np.arange(3)), np.ones(5, bool))[0].tolist() == [True, False, True]
    nobody = open_file_set(file_set(tmp_path / "b", count, NAMES[:5], father=["x"] * 5, mother=["y"] * 5))
    assert nobody.founders_N.all()
    assert any("nobody is a founder" in n for n in nobody.notes)


def test_equally_frequent_alleles_go_as_in_plink2() -> None:
    """Measured with plink2 on file sets of 500 people: 491 and 498 known calls test the second allele, these others the first."""
    for known, first in ((491, False), (498, False), (492, True), (493, True), (496, True), (497, True)):
        count = np.full((1, 500), -127, np.int8)
        count[0, :known] = 1
        assert allele_tested(count, np.ones(500, bool))[0].tolist() == [first]
    assert allele_tested(np.full((1, 5), -127, np.int8), np.ones(5, bool))[0].tolist() == [True]


def test_people_of_the_same_name_in_another_cohort_are_found(tmp_path: Path) -> None:
    """The packed calls count the other allele of every second variant, and one in twenty was imputed."""
    from shards.read.dataset import Dataset
    from trainer.gwas.embeddings import HeldBack
    from trainer.gwas.same_people import check_people

    rng = np.random.default_rng(0)
    count = rng.binomial(2, 0.4, (N, 40))
    packed = np.where(np.arange(40) % 2, 2 - count, count)
    packed[rng.random(packed.shape) < 0.05] = 1
    vocabulary = [f"rs{j}_{'G(/A)' if j % 2 else 'A(/G)'}" for j in range(40)]
    data = Dataset.open(_packed(tmp_path / "set", packed, vocabulary))
    people = HeldBack(NAMES, np.arange(N), frozenset(), ())
    pairs = dict(zip(NAMES, NAMES, strict=True))
    files = open_file_set(file_set(tmp_path, count, NAMES))
    (note,) = check_people(data, "test", people, files, pairs)
    assert note == "30 people have the genotypes that they were packed with ('snp', 40 variants compared)"
    strangers = count.copy()
    strangers[[4, 9]] = strangers[[9, 4]]
    with pytest.raises(
        UserError, match=r"2 of 30 people have other genotypes there than in field 'snp' .*'p4' \(\d\d% of 40 calls"
    ):
        check_people(data, "test", people, open_file_set(file_set(tmp_path / "b", strangers, NAMES)), pairs)
    unnamed = open_file_set(file_set(tmp_path / "c", strangers, NAMES, allele_2=["T"] * 40))
    assert check_people(data, "test", people, unnamed, pairs) == []


def _packed(folder: Path, count_NM: np.ndarray, vocabulary: list[str]) -> Path:
    """A data set of genotypes alone: people p0, p1, ... to test, and two to train on."""
    from shards.format.describe import FieldTally, header_of
    from shards.format.seal import SampleRow
    from shards.pack.options import PackOptions
    from shards.pack.pack import finish
    from shards.pack.sample import META, meta_bytes
    from shards.pack.write import DatasetWriter, npy_bytes

    rows, tally = [], FieldTally()
    with DatasetWriter(folder, shard_samples=64) as writer:
        for i, name in enumerate([*NAMES, "t0", "t1"]):
            members = {
                META: meta_bytes(name, {}, {}),
                ("snp", "npy"): npy_bytes(count_NM[i % len(count_NM)].astype(np.int8)),
            }
            for (field, ext), data in members.items():
                tally.add(name, field, ext, header_of(field, ext, data))
            writer.add(name, members)
            rows.append(SampleRow(name, name, "test" if i < N else "train", {}))
        options = PackOptions(name="few", version="1", source="made up", licence="CC0-1.0")
        finish(writer, tally, rows, {}, {"snp": vocabulary}, options)
    return folder
