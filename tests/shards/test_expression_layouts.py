"""Expression as GDC, Xena and cBioPortal give it: whose file it is, which of its values, and in which unit."""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.errors import DataError
from shards.format.info import load_info
from shards.pack.entries import Entry, Forms
from shards.pack.numeric_table import Table
from shards.pack.reference import Reference
from shards.read.dataset import Dataset
from shards.sources import Found, get_source
from tests.shards.test_bags import CASES, write

GENES = [f"ENSG0000000{g}.{g}" for g in range(1001, 1004)]
PAR_Y = "ENSG00000001002.2_PAR_Y"
VALUES = ("unstranded", "stranded_first", "stranded_second", "tpm_unstranded", "fpkm_unstranded", "fpkm_uq_unstranded")
OLD = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID", "Sample Type"]
NEW = [*OLD[:-1], "Tissue Type", "Tumor Descriptor", "Specimen Type", "Preservation Method"]


def file_of(i: int) -> str:
    return f"{i:08x}-aaaa.rna_seq.augmented_star_gene_counts.tsv"


def star(path: Path, i: int) -> None:
    """GDC's file of one sample: a comment, nine columns, four lines of reads that met no gene, the Y copy of a gene of X."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# gene-model: GENCODE v36", "\t".join(("gene_id", "gene_name", "gene_type", *VALUES))]
    lines += [f"{n}\t\t\t9\t9\t9\t\t\t" for n in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")]
    for k, gene in enumerate([*GENES, PAR_Y]):
        values = (100 * i + k, 50 * i + k, 51 * i + k, f"{i}.{k}5", f"{i}.{k}6", f"{i}.{k}7")
        lines.append("\t".join(map(str, (gene, f"G{k}", "protein_coding", *values))))
    path.write_text("\n".join(lines) + "\n")


def sheet(folder: Path, rows: list[list[str]], header: list[str]) -> Path:
    path = folder / "gdc_sample_sheet.2025-05-22.tsv"
    with open(path, "w", newline="") as f:
        csv.writer(f, delimiter="\t").writerows([header, *rows])
    return path


def row(i: int, sample: str, case: str | None = None, new: bool = False) -> list[str]:
    normal = sample[13:15] == "11"
    words = ["Normal" if normal else "Tumor", "Not Applicable" if normal else "Primary", "Solid Tissue", "Unknown"]
    what = ["Transcriptome Profiling", "Gene Expression Quantification", "TCGA-LUAD", case or sample[:12], sample]
    return [f"id{i}", file_of(i), *what, *(words if new else ["Solid Tissue Normal" if normal else "Primary Tumor"])]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Bags and labels of eight cases; seven have a file, one of them a normal one too, two have files that nobody lists."""
    write(tmp_path / "b")
    lines = [f"{c},{('LUAD', 'LUSC')[i % 2]}" for i, c in enumerate(CASES)]
    (tmp_path / "labels.csv").write_text("case,subtype\n" + "\n".join(lines) + "\n")
    rows = [row(i, f"{c}-01A") for i, c in enumerate(CASES[:7])] + [row(7, f"{CASES[0]}-11A")]
    for i in range(9):
        star(tmp_path / "rna" / f"id{i}" / file_of(i), i)
    (tmp_path / "rna" / "id0" / "logs").mkdir()
    (tmp_path / "rna" / "id0" / "logs" / f"{file_of(0)}.parcel").write_text("")
    (tmp_path / "rna" / "id0" / "annotations.txt").write_text("id\tsubmitter_id\n")
    rows.append([*row(30, CASES[1])[:1], "x.svs", *row(30, f"{CASES[1]}-01Z")[2:]])
    rows.append(row(31, f"{CASES[7]}-01A"))
    sheet(tmp_path, rows, OLD)
    return tmp_path


def words(folder: Path, expression: Path, *more: str) -> list[str]:
    return [f"--features={folder / 'b'}", f"--labels={folder / 'labels.csv'}", f"--expression={expression}", *more]


SAID = ("--expression-column=tpm_unstranded", "--expression-transform=none")


def find(folder: Path, expression: Path, *more: str) -> Found:
    parser = argparse.ArgumentParser()
    source = get_source("tcga_nsclc")
    source.options(parser)
    return source.find(parser.parse_args(words(folder, expression, *more)))


def refused(folder: Path, expression: Path, *more: str) -> str:
    with pytest.raises(DataError) as caught:
        find(folder, expression, *more)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- GDC's folder


def test_star_counts_by_their_sample_sheet(cohort: Path, capsys: pytest.CaptureFixture) -> None:
    more = ("--expression-column=tpm_unstranded", "--expression-transform=log2p1", f"--out={cohort / 'out'}")
    assert main(["source", "tcga_nsclc", *words(cohort, cohort / "rna", *more, "--dtype=rna=float32")]) == 0
    assert "8 files of samples by gdc_sample_sheet.2025-05-22.tsv, tpm_unstranded (TPM)" in capsys.readouterr().out
    assert load_info(cohort / "out").fields["rna"].meaning == {"unit": "TPM", "transform": "log2p1"}
    with Dataset.open(cohort / "out") as data:
        assert [r.key for r in data] == CASES[:7]
        plain = [g.split(".")[0] for g in GENES]
        assert data.vocabulary("rna") == (*plain, "ENSG00000001002_PAR_Y")
        expected = np.log2(np.array([5.05, 5.15, 5.25, 5.35]) + 1)
        np.testing.assert_allclose(data[5].read("rna"), expected, rtol=1e-6)
    left = dict(csv.reader((cohort / "out" / "unmatched.csv").read_text().splitlines()))
    assert left[f"{CASES[0]}-11A ({file_of(7)})"] == "normal tissue, not tumour"
    assert left[file_of(8)] == "not in gdc_sample_sheet.2025-05-22.tsv"
    assert left[file_of(31)] == "in gdc_sample_sheet.2025-05-22.tsv, but not in rna"
    assert left["x.svs"] == "no file of STAR counts"
    assert left[CASES[7]] == "no expression"


def test_each_column_has_its_unit(cohort: Path) -> None:
    units = {}
    for column in VALUES:
        found = find(cohort, cohort / "rna", f"--expression-column={column}", "--expression-transform=none")
        units[column] = found.pack["meanings"]["rna"]["unit"]
        assert found.manifest.entries[3].fields["rna"].member == f"column:{column}"
    assert list(units.values()) == ["counts", "counts", "counts", "TPM", "FPKM", "FPKM-UQ"]


def test_the_sheets_of_two_times_and_flat_packed_files(cohort: Path) -> None:
    """Since 2024 a sheet says Tissue Type in place of Sample Type; files may lie in one folder, and be packed."""
    flat = cohort / "flat"
    flat.mkdir()
    for i in range(8):
        text = (cohort / "rna" / f"id{i}" / file_of(i)).read_bytes()
        (flat / f"{file_of(i)}.gz").write_bytes(gzip.compress(text))
    rows = [row(i, f"{c}-01A", new=True) for i, c in enumerate(CASES[:7])] + [row(7, f"{CASES[0]}-11A", new=True)]
    found = find(cohort, flat, f"--sample-sheet={sheet(flat, rows, NEW)}", *SAID)
    assert [e.patient for e in found.manifest.entries] == CASES[:7]


def test_what_only_the_user_can_say_is_asked_at_once(cohort: Path) -> None:
    (cohort / "gdc_sample_sheet.2025-05-22.tsv").rename(cohort / "sheet.tsv")
    said = refused(cohort, cohort / "rna")
    assert "3 problems" in said
    assert "the files hold several values of a gene: unstranded (counts), " in said
    assert "tpm_unstranded (TPM), fpkm_unstranded (FPKM), fpkm_uq_unstranded (FPKM-UQ). Fix: say which" in said
    assert "nothing says whether values are packed as they are or as logarithms" in said
    assert "no sample sheet, which says whose files these are" in said
    assert "no column 'tpm': unstranded (counts)" in refused(cohort, cohort / "rna", "--expression-column=tpm")


def test_two_sheets_are_asked_about(cohort: Path) -> None:
    (cohort / "rna" / "gdc_sample_sheet.2024-01-01.tsv").write_text("")
    assert "2 sample sheets" in refused(cohort, cohort / "rna", *SAID)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (lambda: [*row(0, f"{CASES[0]}-01A")[:-1], "Solid Tissue Normal"], r"is of sample type 01, Sample Type 'Solid Tissue Normal'"),
        (lambda: [*row(0, f"{CASES[0]}-11A")[:-1], "Primary Tumor"], r"is of sample type 11, Sample Type 'Primary Tumor'"),
        (lambda: row(0, CASES[0]), r"does not say which tissue it is of"),
        (lambda: row(0, f"{CASES[0]}-01A", case=CASES[1]), rf"is not of Case ID '{CASES[1]}'"),
    ],
)  # fmt: skip
def test_a_sheet_that_contradicts_itself(cohort: Path, line, message: str) -> None:
    path = sheet(cohort, [line(), row(1, f"{CASES[1]}-01A")], OLD)
    said = refused(cohort, cohort / "rna", *SAID)
    assert f"{path.name} line 2" in said
    assert message in said


def test_samples_that_are_told_apart_by_their_type(cohort: Path) -> None:
    """A metastasis does not take a primary's place, whichever line comes first; two files of one sample are asked about."""
    rows = [row(2, f"{CASES[0]}-06A"), row(0, f"{CASES[0]}-01A"), *(row(i, f"{CASES[i]}-01A") for i in (1, 3))]
    sheet(cohort, rows, OLD)
    found = find(cohort, cohort / "rna", *SAID)
    assert found.manifest.entries[0].fields["rna"].path.name == file_of(0)
    assert any(why.startswith("another expression sample of the patient was taken") for _, why in found.unmatched)
    sheet(cohort, [row(2, f"{CASES[0]}-06A"), row(1, f"{CASES[1]}-01A")], OLD)
    found = find(cohort, cohort / "rna", *SAID)
    assert any(f"another tumour of the patient: {CASES[0]} (slide 01, expression 06)" in n for n in found.notes)
    sheet(cohort, [row(0, f"{CASES[0]}-01A"), row(2, f"{CASES[0]}-01A")], OLD)
    assert f"which of '{CASES[0]}' is meant: '{CASES[0]}-01A ({file_of(0)})'" in refused(cohort, cohort / "rna", *SAID)


def test_files_that_are_not_there_or_of_another_kind(cohort: Path) -> None:
    (cohort / "empty").mkdir()
    assert "none of the files of gdc_sample_sheet" in refused(cohort, cohort / "empty", *SAID)
    for i in range(8):
        (cohort / "rna" / f"id{i}" / file_of(i)).write_text("ENSG1\t5\nENSG2\t7\n")
    assert "no columns gene_id and tpm_unstranded" in refused(cohort, cohort / "rna", *SAID)


# ---------------------------------------------------------------------------------------------------- tables that say their unit


def matrix(path: Path, cases: list[str], first: str = "sample", high: float = 9.0) -> Path:
    x = np.random.default_rng(0).uniform(0, high, (3, len(cases))).round(3)
    lines = ["\t".join([first, *cases]), *("\t".join([f"G{k}", *map(str, r)]) for k, r in enumerate(x))]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


SAMPLES = [f"{c}-01" for c in CASES] + [f"{CASES[0]}-11"]


@pytest.mark.parametrize(
    ("name", "beside", "meaning"),
    [
        ("HiSeqV2.gz", ("HiSeqV2.json", '{"unit": "log2(norm_count+1)"}'), {"unit": "normalised counts", "transform": "log2p1"}),
        ("HiSeqV2", ("HiSeqV2.json", '{"unit": "mean-centred log2(tpm+1)"}'), {"transform": "mean-centredlog2(tpm+1)"}),
        ("t.tsv", ("t.tsv.json", '{"unit": "tpm"}'), {"unit": "TPM"}),
        ("TCGA-LUAD.star_fpkm-uq.tsv.gz", None, {"unit": "FPKM-UQ", "transform": "log2p1"}),
        ("TCGA-LUAD.star_counts.tsv.gz", None, {"unit": "counts", "transform": "log2p1"}),
        (
            "data_mrna_seq_v2_rsem.txt",
            ("meta_mrna_seq_v2_rsem.txt", "datatype: CONTINUOUS\nprofile_name: mRNA, RSEM\ndata_filename: data_mrna_seq_v2_rsem.txt\n"),
            {"unit": "RSEM"},
        ),
        (
            "data_expression.txt",
            ("meta_expression.txt", "datatype: Z-SCORE\ndata_filename: data_expression.txt\n"),
            {"transform": "z"},
        ),
        ("data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt", None, {"transform": "z"}),
        ("data_mrna_seq_v2_rsem.txt", ("meta_other.txt", "datatype: Z-SCORE\ndata_filename: data_other.txt\n"), {}),
        ("t.tsv", ("t.tsv.json", "no json"), {}),
        ("t.tsv", None, {}),
    ],
)  # fmt: skip
def test_what_lies_beside_a_table_says_its_unit(cohort: Path, name: str, beside, meaning: dict[str, str]) -> None:
    if beside:
        (cohort / beside[0]).write_text(beside[1])
    found = find(cohort, matrix(cohort / name, SAMPLES))
    assert found.pack["meanings"]["rna"] == meaning
    assert len(found.manifest.entries) == 8
    assert any("nothing says its unit; state it: --meaning rna.unit=" in n for n in found.notes) == (
        "unit" not in meaning
    )
    assert (f"{CASES[0]}-11", "normal tissue, not tumour") in found.unmatched


def test_a_logarithm_is_not_taken_twice(cohort: Path) -> None:
    table = matrix(cohort / "TCGA-LUAD.star_tpm.tsv.gz", SAMPLES)
    said = refused(cohort, table, "--expression-transform=log2p1")
    assert "values are log2p1 already (its name, one of Xena's GDC hub says so)" in said
    assert "leave --expression-transform log2p1 out" in said


def test_logarithms_that_cannot_be_any(cohort: Path, capsys: pytest.CaptureFixture) -> None:
    """A file of Xena's name that holds TPM after all."""
    table = matrix(cohort / "TCGA-LUAD.star_tpm.tsv.gz", SAMPLES, high=9000.0)
    assert main(["source", "tcga_nsclc", *words(cohort, table, f"--out={cohort / 'out'}")]) == 2
    assert "values are said to be log2p1, and reach 8." in (said := capsys.readouterr().err), said
    assert not (cohort / "out").exists()


def test_what_is_stated_must_agree_with_the_column(cohort: Path, capsys: pytest.CaptureFixture) -> None:
    more = (*SAID, "--meaning=rna.unit=FPKM", f"--out={cohort / 'out'}")
    assert main(["source", "tcga_nsclc", *words(cohort, cohort / "rna", *more)]) == 2
    assert "rna.unit is stated as 'FPKM' and is 'TPM'" in capsys.readouterr().err


def asked_of(references: list[Reference]) -> dict[Path, set[str]]:
    return Forms(Entry("", "", "", fields={"rna": r}) for r in references).asked


def test_only_the_columns_that_are_asked_for_are_read(cohort: Path) -> None:
    """GDC's files have nine columns of one gene; a word in another one does no harm, and a table asked for rows is read whole."""
    path = cohort / "rna" / "id0" / file_of(0)
    asked = asked_of([Reference("", path, f"column:{c}") for c in VALUES[:2]])
    assert asked == {path: set(VALUES[:2])}
    table = Table(path, only=asked[path])
    assert (table.columns, table.has_odd_cells) == (list(VALUES[:2]), False)
    whole = Table(path)
    np.testing.assert_array_equal(table.line(1, True), whole.line(whole.find(VALUES[1], True), True))
    assert Table(path, only={VALUES[0], "no such column"}).columns == whole.columns
    rows = [Reference("", path, "column:a"), Reference("", path, "ENSG1")]
    assert asked_of(rows) == {}, "a row is asked for too"


def test_a_folder_of_gdc_stands_alone(tmp_path, capsys):
    write(tmp_path / "b")
    table = matrix(tmp_path / "t.tsv", SAMPLES)
    (tmp_path / "gdc").mkdir()
    words = ["source", "tcga_nsclc", "--features", str(tmp_path / "b"), "--out", str(tmp_path / "set"), "--expression"]
    assert main([*words, str(table), str(tmp_path / "gdc")]) == 2
    assert "t.tsv, gdc: a folder of GDC beside other expression. Fix: say which is meant" in capsys.readouterr().err
