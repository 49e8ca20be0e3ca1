"""What is a feature of a table, and what stands beside it: one rule for expression, scores and burden, in every reader."""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shards.__main__ import main
from shards.pack.feature_tables import MAX_OPEN, FeatureTables
from shards.pack.options import PackOptions
from shards.pack.pack import pack
from shards.read.dataset import Dataset
from shards.tables.feature_names import known_kind, without_version
from shards.tables.features import FeatureRule, choose, feature_rule

CASES = [f"TCGA-{5 + i % 3:02d}-{4000 + i}" for i in range(12)]
GENES = [f"GENE{k}" for k in range(8)]
IDS = [f"ENSG{k:011d}.{2 + k}" for k in range(8)]
NO_GENES = [
    *("__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"),
    *("Unassigned_Unmapped", "survival_months", "censorship", "OS", "OS.time", "OS_MONTHS", "PFI.time", "DSS", "vital_status", "event"),
    *("days_to_death", "Overall Survival (Months)", "age", "Age_at_diagnosis", "sex", "is_female", "gender", "tumor_grade", "train"),
    *("split", "fold", "case_id", "slide_id", "IID", "#FID", "eid", "sampleset", "ALLELE_CT", "DENOM", "NAMED_ALLELE_DOSAGE_SUM"),
    *("Unnamed: 0", "oncotree_code", "gene_name", "Entrez_Gene_Id", "patient"),
]  # fmt: skip
MAY_BE = [
    *(
        "TP53",
        "SET",
        "REST",
        "AGER",
        "CAT",
        "EFS",
        "T",
        "KIT",
        "OS9",
        "STAG2",
        "HLA-A",
        "ENSG00000141510.18",
        "C1orf112",
        "tAKR",
    ),
    *("PGS000018", "rs12", "?|100130426", "MUT", "CNV"),
]


@pytest.mark.parametrize("name", NO_GENES)
def test_names_that_are_surely_no_features(name):
    assert known_kind(name)
    chosen = choose([*GENES, name], FeatureRule(), "t")
    assert (chosen.names, chosen.problems) == (GENES, [])
    assert [n for n, _ in chosen.left_out] == [name]
    assert name in chosen.notes[0]
    assert choose([*GENES, name], FeatureRule(keep=(name,)), "t").names == [*GENES, name]


@pytest.mark.parametrize("name", MAY_BE)
def test_genes_and_scores_are_features(name):
    assert known_kind(name) is None
    assert choose([*GENES, name], FeatureRule(), "t").problems == []


@pytest.mark.parametrize(
    "name", ["purity", "Tumor_Purity", "treatment_arm", "PFS_at_last_followup", "PC1", "stage_2021", "ERCC-00002"]
)
def test_what_may_be_no_feature_is_refused_by_name(name):
    (problem,) = choose([*GENES, name], FeatureRule(), "t.csv").problems
    assert f"1 of 9 columns may be no features: {name}" in problem.what
    assert f"--not-features '{name}' leaves them out, --keep-features '{name}' keeps them" in problem.fix
    left = choose([*GENES, name], FeatureRule(not_features=(name,)), "t.csv")
    assert (left.names, left.problems, left.left_out) == (GENES, [], [(name, "--not-features")])
    kept = choose([*GENES, name], FeatureRule(keep=(name,)), "t.csv")
    assert (kept.names, kept.problems) == ([*GENES, name], [])


def test_what_is_unlike_nearly_all_others():
    assert "ALBUMIN" in choose([*IDS, "ALBUMIN"], FeatureRule(), "t").problems[0].what
    assert choose([*GENES, IDS[0]], FeatureRule(), "t").problems == []
    assert "height" in choose(["PGS000001", "PGS000002_hmPOS_GRCh38", "height"], FeatureRule(), "t").problems[0].what
    assert choose(["height", "bmi", "age_at_menarche_score"][:2], FeatureRule(), "t").problems == []


def test_modalities_under_one_table():
    names = ["A_rnaseq", "B_rnaseq", "A_cnv", "A_mut"]
    (problem,) = choose(names, FeatureRule(), "t").problems
    assert "2 end in _rnaseq (expression), 1 end in _cnv (copy number), 1 end in _mut (mutation)" in problem.what
    assert "--not-features '*_cnv,*_mut'" in problem.fix
    chosen = choose(names, FeatureRule(not_features=("*_cnv", "*_mut")), "t")
    assert (chosen.names, chosen.problems) == (["A_rnaseq", "B_rnaseq"], [])
    (problem,) = choose(["A_rnaseq", "B_rnaseq", "C"], FeatureRule(), "t").problems
    assert "1 of 3 columns may be no features: C" in problem.what


def test_versions_go_and_copies_on_y_stay():
    assert without_version("ENSG00000002586.20_PAR_Y") == "ENSG00000002586_PAR_Y"
    assert without_version("ENSG00000002586.20") == "ENSG00000002586"
    assert without_version("RP11-34P13.7") == "RP11-34P13.7"
    names = ["ENSG00000002586.20", "ENSG00000002586.20_PAR_Y", "ENSG00000000003.15"]
    chosen = choose(names, FeatureRule(), "t", strip=True)
    assert (chosen.names, chosen.problems) == (["ENSG00000002586", "ENSG00000002586_PAR_Y", "ENSG00000000003"], [])
    chosen = choose(names, FeatureRule(par_y="drop"), "t", strip=True)
    assert chosen.names == ["ENSG00000002586", "ENSG00000000003"]
    assert chosen.left_out == [(names[1], "the Y copy of a pseudo-autosomal gene (--par-y drop)")]
    assert choose(["ENSG00000002586.1", "ENSG00000002586.2"], FeatureRule(), "t", strip=True).problems


@pytest.mark.parametrize(
    ("how", "names", "values"),
    [
        ("first", ["A", "B", "C"], [1, 2, 5]),
        ("mean", ["A", "B", "C"], [3, 2, 5]),
        ("max", ["A", "B", "C"], [5, 2, 5]),
        ("drop", ["B", "C"], [2, 5]),
    ],
)
def test_doubles_by_rule(how, names, values):
    given = ["A", "B", "A", "", "C", "A", "NA"]
    x = np.array([1, 2, 5, 7, 5, np.nan, 8], np.float32)
    chosen = choose(given, FeatureRule(duplicates=how), "t", axis="row")
    assert chosen.names == names
    np.testing.assert_array_equal(chosen.of(x), np.array(values, np.float32))
    left = dict(chosen.left_out)
    assert left["row 4"] == left["NA"] == "a row without a name"
    assert len(left) > 2
    (problem,) = choose(given, FeatureRule(), "t", axis="row").problems
    assert "1 names stand twice: A (rows 1, 3, 6)" in problem.what


def test_the_options(tmp_path):
    given = argparse.Namespace(not_features=["A,B", "*_cnv"], keep_features=None, duplicates="mean", par_y="drop")
    assert feature_rule(given) == FeatureRule(("A", "B", "*_cnv"), (), "mean", "drop")
    assert feature_rule(argparse.Namespace()) == FeatureRule()
    path = tmp_path / "t"
    path.write_text("case,A,B\nx,1,2\n")
    tables = FeatureTables(FeatureRule(("A", "Tp53"), ("*_x",)))
    assert tables.vector(path, "x", False).tolist() == [2.0]
    assert [p.where for p in tables.unused()] == ["--not-features", "--keep-features"]


def test_tables_of_a_sample_each_do_not_stay_open(tmp_path):
    names = "\n".join(f"G{k}\tword\t{k}" for k in range(5))
    paths = [tmp_path / f"t{i}" for i in range(3 * MAX_OPEN)]
    for path in paths:
        path.write_text(f"gene\tgene_name\tv\n{names}\n")
    tables = FeatureTables()
    for _ in range(2):
        for path in paths:
            assert tables.vector(path, "v", True).tolist() == [0, 1, 2, 3, 4]
    assert len(tables._tables) <= MAX_OPEN
    assert len({id(tables.vocab(p, True)) for p in paths}) == 1
    tables.close()


# ------------------------------------------------------------------------------------------------------------- readers


def matrix(path: Path, names: list[str], samples: list[str], sign: str = "\t", corner: str = "gene") -> np.ndarray:
    """Features as rows; the values [features, samples] that were written."""
    x = np.random.default_rng(0).uniform(0, 12, (len(names), len(samples))).round(3)
    lines = [sign.join([corner, *samples])] + [sign.join([n, *map(str, row)]) for n, row in zip(names, x, strict=True)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return x


@pytest.fixture
def lung(tmp_path: Path) -> Path:
    (tmp_path / "h5").mkdir()
    for i, case in enumerate(CASES):
        with h5py.File(tmp_path / "h5" / f"{case}-01Z-00-DX1.h5", "w") as f:
            f["features"], f["coords"] = np.full((3, 4), i, np.float32), np.zeros((3, 2), np.int32)
    lines = [f"{c},{('LUAD', 'LUSC')[i % 2]}" for i, c in enumerate(CASES)]
    (tmp_path / "labels.csv").write_text("\n".join(["case,subtype", *lines]) + "\n")
    return tmp_path


def of_lung(folder: Path, table: str, *more: str) -> int:
    flags = [
        "--features",
        str(folder / "h5"),
        "--expression",
        str(folder / table),
        "--labels",
        str(folder / "labels.csv"),
    ]
    return main(["source", "tcga_nsclc", *flags, "--out", str(folder / "out"), "--overwrite", *more])


def genes(folder: Path) -> tuple[list[str], np.ndarray]:
    """Names, and the values [cases, genes] of all samples."""
    with Dataset.open(folder / "out") as data:
        of = {r.patient: r.read("rna") for r in data}
        return list(data.vocabulary("rna")), np.stack([of[c] for c in CASES]).astype(np.float32)


@pytest.mark.parametrize("name", ["HiSeqV2", "HiSeqV2.gz", "data_mrna_seq_v2_rsem.txt", "t.csv", "t.tsv.gz"])
@pytest.mark.parametrize("dots", [False, True])
def test_an_expression_table_whatever_its_name(lung, name, dots):
    samples = [f"{c}-01" for c in CASES]
    x = matrix(lung / name, GENES, [s.replace("-", ".") for s in samples] if dots else samples, corner="sample")
    assert of_lung(lung, name, "--dtype", "rna=float32") == 0
    names, found = genes(lung)
    assert names == GENES
    np.testing.assert_allclose(found, x.T, rtol=1e-6)


def test_rs_short_header_and_parquet_with_its_index_last(lung):
    x = matrix(lung / "t", GENES, [f"{c}-01" for c in CASES])
    lines = (lung / "t").read_text().splitlines()
    (lung / "r").write_text("\n".join([lines[0].split("\t", 1)[1], *lines[1:]]) + "\n")
    assert of_lung(lung, "r", "--dtype", "rna=float32") == 0
    np.testing.assert_allclose(genes(lung)[1], x.T, rtol=1e-6)
    pq.write_table(pa.table({**{g: x[k] for k, g in enumerate(GENES)}, "case_id": CASES}), lung / "last")
    assert of_lung(lung, "last", "--dtype", "rna=float32") == 0
    names, found = genes(lung)
    assert names == GENES
    np.testing.assert_allclose(found, x.T, rtol=1e-6)


def test_rows_that_count_reads_are_left_out_and_listed(lung, capsys):
    tail = ["__no_feature", "__ambiguous", "N_unmapped"]
    x = matrix(lung / "counts.tsv.gz", [*IDS, *tail, f"{IDS[0]}_PAR_Y"], [f"{c}-01A" for c in CASES])
    assert of_lung(lung, "counts.tsv.gz", "--dtype", "rna=float32") == 0
    assert "3 x counts of reads" in capsys.readouterr().out
    names, found = genes(lung)
    assert names == [*(i.split(".")[0] for i in IDS), f"{IDS[0].split('.')[0]}_PAR_Y"]
    np.testing.assert_allclose(found, np.delete(x, [8, 9, 10], 0).T, rtol=1e-6)
    assert 'N_unmapped,"counts of reads' in (lung / "out" / "unmatched.csv").read_text()


def test_clinical_columns_before_the_genes(lung, capsys):
    head = ["case_id", "age", "is_female", "survival_months", "censorship", "train", *(f"{g}_rnaseq" for g in GENES)]
    rows = [
        ",".join([c, "61", "1", f"{i}.5", "0", "1", *(f"{i + k / 8}" for k in range(8))]) for i, c in enumerate(CASES)
    ]
    (lung / "all_clean.csv").write_text("\n".join([",".join(head), *rows]) + "\n")
    assert of_lung(lung, "all_clean.csv") == 0
    assert genes(lung)[0] == [f"{g}_rnaseq" for g in GENES]
    assert "2 x survival, no feature: survival_months, censorship" in capsys.readouterr().out
    mixed = [",".join([*head, "GENE0_cnv"]), *(f"{r},1" for r in rows)]
    (lung / "all_clean.csv").write_text("\n".join(mixed) + "\n")
    assert of_lung(lung, "all_clean.csv") == 2
    assert "--not-features '*_cnv'" in capsys.readouterr().err
    assert of_lung(lung, "all_clean.csv", "--not-features", "*_cnv") == 0
    assert len(genes(lung)[0]) == 8
    assert of_lung(lung, "all_clean.csv", "--not-features", "*_cnv,*_snv") == 2
    assert "no table has '*_snv'" in capsys.readouterr().err


def test_cbioportal_with_doubles_and_nameless_genes(lung, capsys):
    symbols = ["GENE0", "GENE1", "", "GENE1"]
    samples = [f"{c}-01" for c in CASES]
    x = matrix(lung / "t", symbols, samples)
    lines = [line.split("\t", 1) for line in (lung / "t").read_text().splitlines()]
    text = ["#meta", "\t".join(["Hugo_Symbol", "Entrez_Gene_Id", *samples])]
    text += ["\t".join([name, str(100 + i), rest]) for i, (name, rest) in enumerate(lines[1:])]
    (lung / "data_mrna.txt").write_text("\n".join(text) + "\n")
    assert of_lung(lung, "data_mrna.txt") == 2
    assert (
        "1 names stand twice: GENE1 (rows 2, 4). Fix: --duplicates first, mean, max or drop" in capsys.readouterr().err
    )
    assert of_lung(lung, "data_mrna.txt", "--duplicates", "mean", "--dtype", "rna=float32") == 0
    names, found = genes(lung)
    assert names == ["GENE0", "GENE1"]
    np.testing.assert_allclose(found, np.stack([x[0], (x[1] + x[3]) / 2], 1), rtol=1e-6)
    assert "expression: 4 names x 12 cases, cases are columns; beside them Entrez_Gene_Id" in capsys.readouterr().out
    listed = (lung / "out" / "unmatched.csv").read_text()
    assert "row 3,a row without a name" in listed
    assert "GENE1,2 rows became their mean (--duplicates)" in listed


def one_sample(path: Path, seed: int) -> list[float]:
    x = np.random.default_rng(seed).uniform(0, 9, len(IDS)).round(3)
    lines = ["# gene-model: GENCODE v36", "gene_id\tgene_name\tgene_type\tunstranded\ttpm_unstranded"]
    lines += [f"{n}\t\t\t1000\t" for n in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")]
    lines += [f"{i}\tG{k}\tprotein_coding\t7\t{v}" for k, (i, v) in enumerate(zip(IDS, x, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return x.tolist()


def test_gdcs_file_of_one_sample(lung, capsys):
    x = [one_sample(lung / f"f{i}.tsv", i) for i in range(10)]
    rows = [f"s{i},p{i},f{i}.tsv#column:tpm_unstranded" for i in range(10)]
    (lung / "m.csv").write_text("\n".join(["sample,patient,field:rna", *rows]) + "\n")
    assert main(["pack", str(lung / "m.csv"), "--out", str(lung / "out"), "--dtype", "rna=float32"]) == 0
    with Dataset.open(lung / "out") as data:
        assert list(data.vocabulary("rna")) == IDS
        np.testing.assert_allclose(data[3].read("rna"), x[3], rtol=1e-6)
    assert of_lung(lung, "f0.tsv") == 2
    assert "f0.tsv#column:tpm_unstranded" in capsys.readouterr().err
    (lung / "m.csv").write_text("sample,patient,field:rna\ns0,p0,f0.tsv#column:tpm_strand\n")
    assert main(["pack", str(lung / "m.csv"), "--out", str(lung / "out2")]) == 2
    assert "no column 'tpm_strand'. Fix: did you mean 'tpm_unstranded'?" in capsys.readouterr().err


def test_entrez_numbers_as_the_index_of_a_data_frame(tmp_path):
    pd = pytest.importorskip("pandas")
    x = np.random.default_rng(0).gamma(2, 2, (4, 5)).round(3)
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(5)], index=pd.Index([7157, 672, 675, 1956], name="entrez"))
    frame.to_parquet(tmp_path / "genes.parquet")
    lines = [f"s{i},p{i},genes.parquet#column:c{i}" for i in range(5)]
    (tmp_path / "m.csv").write_text("\n".join(["sample,patient,field:rna", *lines]) + "\n")
    pack(
        tmp_path / "m.csv",
        tmp_path / "out",
        PackOptions(fractions={"train": 0.8, "test": 0.2}, dtypes={"rna": "float32"}),
    )
    with Dataset.open(tmp_path / "out") as data:
        assert list(data.vocabulary("rna")) == ["7157", "672", "675", "1956"]
        np.testing.assert_allclose(data[2].read("rna"), x[:, 2], rtol=1e-6)


def test_scores_beside_ids_and_labels(tmp_path, capsys):
    (tmp_path / "img").mkdir()
    for i in range(12):
        Image.fromarray(np.full((12, 12, 3), 9 * i, np.uint8)).save(tmp_path / "img" / f"e{i}.png")
    rows = [f"img/e{i}.png,P{i}" for i in range(12)]
    (tmp_path / "img.csv").write_text("\n".join(["image,patient", *rows]) + "\n")
    rows = [f"P{i}\t0\t{i % 2}\t{900 + i}\t{i}.5\t{i}.25" for i in range(12)]
    (tmp_path / "scores").write_text("\n".join(["IID\tPHENO\tsex\tALLELE_CT\tPGS000018\tPGS000019", *rows]) + "\n")
    flags = ["--images", str(tmp_path / "img.csv"), "--pgs", str(tmp_path / "scores"), "--quality", "none"]
    assert main(["source", "fundus_genotypes", *flags, "--out", str(tmp_path / "out")]) == 0
    with Dataset.open(tmp_path / "out") as data:
        assert list(data.vocabulary("pgs")) == ["PGS000018", "PGS000019"]
        assert data[4].read("pgs").tolist() == [4.5, 4.25]
    assert "ALLELE_CT" in capsys.readouterr().out


def test_glioma_takes_no_labels_for_genes(tmp_path, capsys):
    np.savez(
        tmp_path / "bags.npz",
        features=np.ones((24, 4), np.float32),
        offsets=np.arange(0, 25, 2),
        slide=[f"{c}-01Z-00-DX1" for c in CASES],
    )
    head = "case_id,OS,OS.time,train,A_rnaseq,B_rnaseq,A_cnv"
    rows = [f"{c},{i % 2},{i}.5,1,{i}.25,{i},{i / 4 - 1}" for i, c in enumerate(CASES)]
    (tmp_path / "omics.csv").write_text("\n".join([head, *rows]) + "\n")
    flags = [
        "--features",
        str(tmp_path / "bags.npz"),
        "--omics",
        str(tmp_path / "omics.csv"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["source", "glioma", *flags]) == 0
    assert "2 x survival, no feature: OS, OS.time" in capsys.readouterr().out
    with Dataset.open(tmp_path / "out") as data:
        assert (list(data.vocabulary("rna")), list(data.vocabulary("cnv"))) == (["A", "B"], ["A"])
        assert data[1].read("cnv").tolist() == [CASES.index(data[1].patient) / 4 - 1], "fractions of a copy number stay"
    (tmp_path / "omics.csv").write_text("\n".join([f"{head},KI67", *(f"{r},3" for r in rows)]) + "\n")
    assert main(["source", "glioma", *flags, "--overwrite"]) == 2
    assert "may be no features: KI67" in capsys.readouterr().err
    assert main(["source", "glioma", *flags, "--overwrite", "--keep-features", "KI67"]) == 0


def test_a_word_in_a_row_that_nobody_asks_for_does_no_harm(tmp_path):
    (tmp_path / "t.csv").write_text("case,A,B\nx,1,2\ny,3,n.d.\nz,5,6\n")
    tables = FeatureTables()
    assert tables.vector(tmp_path / "t.csv", "x", False).tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"t.csv line 3 \('y'\), column 'B': 'n.d.' is not a finite number"):
        tables.vector(tmp_path / "t.csv", "y", False)


@pytest.mark.parametrize("cell", ["3_3", "1e5_0", "١٢", "inf", "0x10", "1e39", "2,5"])
def test_cells_that_are_no_numbers(tmp_path, cell):
    (tmp_path / "t.tsv").write_text(f"case\tA\tB\tC\nx\t1\t{cell}\t2\ny\t1\t2\t3\nz\t1\t2\t3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a finite number" if cell != "2,5" else "holds a comma"):
        FeatureTables().vector(tmp_path / "t.tsv", "x", False)


def test_a_column_of_words_is_no_feature(tmp_path):
    (tmp_path / "t.csv").write_text("case,A,arm\nx,1,left\ny,3,right\n")
    with pytest.raises(ValueError, match=r"1 columns hold words, no numbers: 'arm' \('left'\).*--not-features 'arm'"):
        FeatureTables().vector(tmp_path / "t.csv", "x", False)


def test_a_row_that_stands_twice_is_refused_where_it_is_asked_for(tmp_path):
    (tmp_path / "t.csv").write_text("case,A\nx,1\ny,3\nx,5\n")
    assert FeatureTables().vector(tmp_path / "t.csv", "y", False).tolist() == [3]
    with pytest.raises(ValueError, match=r"row 'x' stands twice: t.csv line 2, t.csv line 4"):
        FeatureTables().vector(tmp_path / "t.csv", "x", False)


def test_a_feature_that_is_a_label_under_another_name(tmp_path, capsys):
    rows = [f"s{i},p{i},{i}.25,{i % 2},t.csv#p{i}" for i in range(12)]
    (tmp_path / "m.csv").write_text("\n".join(["sample,patient,label:months,label:event,field:rna", *rows]) + "\n")
    lines = [f"p{i},{i}.25,{i % 2},{i / 3}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["case,FOLLOW,MUT,C", *lines]) + "\n")
    flags = ["pack", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out"), "--transform", "rna=log2p1"]
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert "feature 'FOLLOW' equals the label 'months' in all 12 samples that have both" in said
    assert "MUT" not in said, "a label of two values may be a mutation"
    assert main([*flags, "--keep-features", "FOLLOW"]) == 0
    assert main([*flags, "--not-features", "FOLLOW", "--overwrite"]) == 0
    with Dataset.open(tmp_path / "out") as data:
        assert list(data.vocabulary("rna")) == ["MUT", "C"]


def test_lint_tells_of_sets_that_were_packed_before(tmp_path, capsys):
    rows = [f"s{i},p{i},{('NA', 'LUAD', 'LUSC')[i % 3]},{('None', 'Mild')[i % 2]},t.csv#p{i}" for i in range(12)]
    (tmp_path / "m.csv").write_text("\n".join(["sample,patient,label:kind,label:grade,field:rna", *rows]) + "\n")
    lines = [f"p{i},{i % 7},{i % 5},{i}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["case,A,survival_months,N_unmapped", *lines]) + "\n")
    keep = ("--keep-features", "survival_months,N_unmapped", "--known", "NA")
    assert main(["pack", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out"), *keep]) == 0
    assert main(["lint", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 features of 'rna' seem to be none: survival_months (survival, no feature), N_unmapped" in said
    assert "label 'kind' has the class 'NA', a word for 'not known'" in said
    assert "label 'grade' has the class" not in said


def test_a_table_without_a_feature(tmp_path):
    (tmp_path / "t.csv").write_text("case,age,sex\nx,61,1\ny,62,0\n")
    with pytest.raises(ValueError, match="no feature is left: 2 columns are no features"):
        FeatureTables().vector(tmp_path / "t.csv", "x", False)
    (tmp_path / "u.csv").write_text("case\nx\ny\n")
    with pytest.raises(ValueError, match="no column beside the first"):
        FeatureTables().vector(tmp_path / "u.csv", "x", False)


def test_decimal_commas_in_a_table_of_features(tmp_path):
    (tmp_path / "t.csv").write_text("case;A;B\nx;0,5;1\ny;0,25;2\n")
    with pytest.raises(ValueError, match=r"'A' \('0,5'\) holds a comma where a number has its point"):
        FeatureTables().vector(tmp_path / "t.csv", "x", False)
