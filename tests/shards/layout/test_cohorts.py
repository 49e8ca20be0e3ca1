"""Sets with reports, genes and slides on their miniatures: what becomes of their quirks."""

from __future__ import annotations

import importlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.errors import DataError
from shards.layout.files import layout_names, load
from shards.read.dataset import Dataset
from tests.shards.layout import cohorts
from tests.shards.layout import miniatures as mini
from tests.shards.layout.quirks import TESTED, quirk
from tests.shards.layout.test_layouts import find, made


def test_every_quirk_in_the_docs_has_a_test():
    for name in ("test_layouts", "test_dicom_films", "test_layout_faults", "test_releases"):
        importlib.import_module(f"tests.shards.layout.{name}")
    assert {n: set(load(n).quirks) for n in layout_names()} == TESTED


def packed(name: str, tmp_path: Path, *more: str, change: Callable[[Path], object] = lambda root: None) -> Dataset:
    root = made(name, tmp_path)
    change(root)
    words = ["--root", str(root), "--out", str(tmp_path / "set"), "--split-fractions", "0.6,0.2,0.2", *more]
    assert main(["source", name, *words]) == 0
    return Dataset.open(tmp_path / "set")


@quirk("mimic_cxr_jpg")
def test_films_reports_and_findings_of_mimic(tmp_path):
    found = find("mimic_cxr_jpg", made("mimic_cxr_jpg", tmp_path))
    assert not found.manifest.problems
    of: dict[str, list] = {}
    for entry in found.manifest.entries:
        study = next(s for i in range(24) if (s := cohorts.mimic_ids(i)[1]) in str(entry.fields["image"].path))
        of.setdefault(study, []).append(entry)
    assert len(of) == 24
    for i in range(24):
        person, study = cohorts.mimic_ids(i)
        assert len(of[study]) == 1 + i % 2
        for entry in of[study]:
            assert entry.patient == person
            assert entry.split == ("train", "train", "val", "test")[i // 2 % 4]
            text = None if i in (3, 4) else f"FINAL REPORT\n EXAMINATION: made-up report {i} of ___.\n"
            assert entry.texts.get("report") == text
            said = [None if i == 5 else ("present", "absent", "uncertain", None)[(i + k) % 4] for k in range(2)]
            assert [entry.labels.get(n) for n in ("no_finding", "enlarged_cardiomediastinum")] == said
    assert "3 of 36 samples have no 'report'" in found.notes
    assert Counter(e.labels.get("view") for e in found.manifest.entries)["lateral"] == 14
    assert Counter(e.labels.get("view") for e in found.manifest.entries)[None] == 7


def test_a_report_that_is_no_text_is_named(tmp_path):
    root = made("mimic_cxr_jpg", tmp_path)
    report = next((root / "files").rglob("*.txt"))
    report.write_bytes(b"FINDINGS: \xff\xfe")
    with pytest.raises(DataError, match=rf"{report.name} cannot be read as UTF-8"):
        find("mimic_cxr_jpg", root)


@quirk("uk_biobank_fundus")
def test_people_eyes_genes_and_codes_of_uk_biobank(tmp_path, capsys):
    with packed("uk_biobank_fundus", tmp_path) as data:
        records = {r.key: r for r in (data[i] for i in range(len(data)))}
        labels = {r.key: r.labels for r in records.values()}
        assert set(data.info.fields) - {"meta"} == {"image", "snp", "pgs", "burden"}
        assert data.info.labels["age"].kind == "number"
        assert data.info.labels["smoking"].kind == "class"
    eids = cohorts.UKB_PEOPLE
    assert len(records) == 23, "a black photograph has no retina"
    assert {(k.split("_")[0], k.split("_")[1], labels[k]["eye"]) for k in records} == {
        (e, f, {"21015": "left", "21016": "right"}[f]) for e in eids for f in ("21015", "21016")
    } - {(eids[11], "21016", "right")}
    assert all(r.patient == k.split("_")[0] for k, r in records.items())
    one = {e: labels[f"{e}_21015_0_0"] for e in eids}
    assert [one[e]["sex"] for e in eids[:2]] == ["female", "male"]
    assert [one[e].get("smoking") for e in eids[:4]] == ["never", "previous", "current", None]
    assert one[eids[2]].get("bmi") is None
    assert one[eids[3]]["age"] == 53
    have = [tuple(records[f"{e}_21015_0_0"].has(n) for n in ("snp", "pgs", "burden")) for e in eids]
    assert have == [(i < 10, i < 8, 2 <= i < 10) for i in range(12)]
    assert "are of the first assessment (instance 0), also beside photographs" in capsys.readouterr().out
    assert data.info.fields["snp"].shape == (3,), "every 100th SNP of each chromosome"


@quirk("tcga_luad_lusc")
def test_slides_star_counts_and_subtypes_of_lung_cancer(tmp_path, capsys):
    with packed("tcga_luad_lusc", tmp_path) as data:
        assert sorted(r.patient for r in data) == sorted(cohorts.LUNG[:-1])
        assert data.info.fields["rna"].shape == (6,), "without the four summary rows"
        assert data.info.fields["rna"].meaning["unit"] == "FPKM"
        assert data.info.fields["rna"].meaning["transform"] == "log2p1"
        assert data.vocabulary("rna")[0] == "ENSG00000000000"
        of = {r.patient: r.labels for r in data}
    assert [of[c]["ONCOTREE_CODE"] for c in cohorts.LUNG[:2]] == ["LUSC", "LUAD"]
    assert of[cohorts.LUNG[1]]["os_event"] == "event"
    assert of[cohorts.LUNG[3]].get("os_months") is None
    assert "SAMPLE_ID" not in data.info.labels
    said = capsys.readouterr().out
    assert "SAMPLE_ID: names of samples, so no label" in said
    assert "--expression gdc --expression-column fpkm_unstranded --expression-transform log2p1" in said
    left = (tmp_path / "set" / "unmatched.csv").read_text()
    assert "frozen section (TS)" in left
    assert left.count("normal tissue") == 2, "a slide and a file of expression"


@quirk("tcga_gbm_lgg")
def test_tiles_bags_and_one_table_of_everything(tmp_path):
    with packed("tcga_gbm_lgg", tmp_path) as data:
        of: dict[str, list] = {}
        for r in data:
            of.setdefault(r.patient, []).append((r.has("image"), r.has("patches"), r.labels))
        assert data.vocabulary("rna") == ("EGFR", "TP53")
        assert data.vocabulary("cnv") == ("EGFR", "CDKN2A")
        assert data.vocabulary("mutation") == ("IDH1", "TP53")
    assert {c: len(v) for c, v in of.items()} == {c: 2 if i < 8 else 1 for i, c in enumerate(cohorts.GLIOMA)}
    assert [of[c][0][:2] for c in (cohorts.GLIOMA[0], cohorts.GLIOMA[9])] == [(True, False), (False, True)]
    assert of[cohorts.GLIOMA[1]][0][2]["os_event"] == "event"
    assert of[cohorts.GLIOMA[3]][0][2].get("os_months") is None
    assert of[cohorts.GLIOMA[0]][0][2]["oncotree_code"] == "ODG"


def test_expression_of_the_portals_stands_in_for_a_table_of_omics(tmp_path):
    root = made("tcga_gbm_lgg", tmp_path)
    (root / "tcga_gbmlgg_all_clean.csv").unlink()
    genes = [[g, *np.arange(10).tolist()] for g in ("EGFR", "TP53")]
    cohorts.packed(root / "HiSeqV2.gz", ["sample", *(f"{c}-01" for c in cohorts.GLIOMA[:10])], genes, "\t")
    entries = find("tcga_gbm_lgg", root).manifest.entries
    assert {e.patient for e in entries} == set(cohorts.GLIOMA[:10])
    assert all(e.fields["rna"].text == f"HiSeqV2.gz#column:{e.patient}-01" for e in entries)
    both = made("tcga_gbm_lgg", tmp_path / "both")
    shutil.copy(root / "HiSeqV2.gz", both)
    with pytest.raises(DataError, match="both hold 'rna'"):
        find("tcga_gbm_lgg", both)


def apart(root: Path) -> list[list[float]]:
    """What the portals give of LUAD and LUSC each: a matrix, with genes in another order, and clinical tables; the values of all cases."""
    shutil.rmtree(root / "gdc")
    genes = [f"ENSG{g:011d}.3" for g in range(5)]
    values = np.random.default_rng(0).gamma(2, 2, (5, len(cohorts.LUNG))).round(4)
    tables = {
        name: (root / name).read_text().splitlines()
        for name in ("data_clinical_sample.txt", "data_clinical_patient.txt")
    }
    for project, mine, order in (("LUAD", range(5), [0, 1, 2, 3, 4]), ("LUSC", range(5, 12), [3, 1, 4, 0, 2])):
        rows = [[genes[g], *values[g, mine]] for g in order]
        head = ["Ensembl_ID", *(f"{cohorts.LUNG[i]}-01A" for i in mine)]
        cohorts.packed(root / f"TCGA-{project}.star_tpm.tsv.gz", head, rows, "\t")
        folder = root / f"{project.lower()}_tcga_gdc"
        folder.mkdir()
        for name, lines in tables.items():
            chosen = [
                line + ("\tmore" if project == "LUSC" and k else "")
                for k, line in enumerate(lines)
                if k < 5 or k - 5 in mine
            ]
            (folder / name).write_text("\n".join(chosen) + "\n")
            (root / name).unlink(missing_ok=True)
    return values.T.tolist()


def by_hand(root: Path, file: str) -> None:
    """CLAM's folder of results below the root, and Xena's matrices as a browser or a downloader names them."""
    (root / "results").mkdir()
    (root / "20x_256px_0px_overlap" / "features_conch_v15").rename(root / "results" / "h5_files")
    (root / "results" / "pt_files").mkdir()
    shutil.rmtree(root / "20x_256px_0px_overlap")
    shutil.rmtree(root / "gdc")
    for project, samples in (("LUAD", cohorts.LUNG[:6]), ("LUSC", cohorts.LUNG[6:])):
        rows = [[f"G{g}", *(f"{g + i:.1f}" for i in range(len(samples)))] for g in range(4)]
        cohorts.packed(root / file.format(project), ["sample", *(f"{c}-01" for c in samples)], rows, "\t")


@pytest.mark.parametrize("file", ["TCGA.{}.sampleMap_HiSeqV2.gz", "TCGA.{}.sampleMap%2FHiSeqV2.gz"])
def test_files_as_clam_and_a_browser_leave_them_are_found(file, tmp_path):
    root = made("tcga_luad_lusc", tmp_path)
    by_hand(root, file)
    assert len(find("tcga_luad_lusc", root).manifest.entries) == len(cohorts.LUNG)


@quirk("tcga_luad_lusc", "for each project")
def test_tables_of_two_projects_are_joined(tmp_path, capsys):
    values: list[list[float]] = []
    with packed("tcga_luad_lusc", tmp_path, change=lambda root: values.extend(apart(root))) as data:
        of = {r.patient: (r.read("rna").tolist(), r.labels) for r in data}
        assert data.vocabulary("rna") == tuple(f"ENSG{g:011d}" for g in range(5))
        assert data.info.fields["rna"].meaning == {"unit": "TPM", "transform": "log2p1"}
    assert sorted(of) == sorted(cohorts.LUNG)
    assert np.allclose([of[c][0] for c in cohorts.LUNG], values, rtol=1e-3)
    assert [of[c][1]["ONCOTREE_CODE"] for c in cohorts.LUNG[:2]] == ["LUSC", "LUAD"]
    assert of[cohorts.LUNG[11]][1]["os_event"] == "event"
    said = capsys.readouterr().out
    assert "--expression TCGA-LUAD.star_tpm.tsv.gz, TCGA-LUSC.star_tpm.tsv.gz" in said


def matrix(root: Path, name: str, sample: str, genes: Sequence[int]) -> None:
    rows = [[f"ENSG{g:011d}.3", 1.5] for g in genes]
    cohorts.packed(root / f"TCGA-{name}.tsv.gz", ["Ensembl_ID", sample], rows, "\t")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: matrix(root, "LUSC.star_fpkm", "TCGA-99-0001-01A", [0]),
         "TCGA-LUSC.star_fpkm.tsv.gz: values are not said to be those of TCGA-LUAD.star_tpm.tsv.gz: transform log2p1, unit FPKM here"),
        (lambda root: shutil.copy(root / "TCGA-LUAD.star_tpm.tsv.gz", root / "TCGA-LUSC.htseq_tpm.tsv.gz"),
         "TCGA-LUSC.htseq_tpm.tsv.gz: 5 samples stand in another table too (TCGA-10-1000-01A"),
        (lambda root: matrix(root, "LUSC.star_tpm", f"{cohorts.LUNG[-1]}-01A", [1, 2, 3, 4, 8]),
         "not those of the field's first table: 1 are not here (ENSG00000000000*) and 1 are here alone (ENSG00000000008*)"),
        (lambda root: (root / "gdc").mkdir(), "could be meant by --expression: TCGA-LUAD.star_tpm.tsv.gz, TCGA-LUSC.star_tpm.tsv.gz, gdc"),
    ],
)  # fmt: skip
def test_tables_that_are_not_of_one_kind_are_refused(harm, said, tmp_path, capsys):
    root = made("tcga_luad_lusc", tmp_path)
    apart(root)
    harm(root)
    assert main(["source", "tcga_luad_lusc", "--root", str(root), "--out", str(tmp_path / "set")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def words(folder: Path, field: str) -> list[str]:
    return (folder / "vocab" / f"{field}.txt").read_text().split()


@quirk("tcga_cbioportal")
def test_mutations_copy_numbers_and_expression_of_a_portal(tmp_path):
    with packed("tcga_cbioportal", tmp_path) as data:
        assert len(data) == 13, "no slide of normal tissue"
        of = {r.patient: r for r in data}
        genes, *others = (words(tmp_path / "set", n) for n in ("mutation", "rna", "cnv"))
        assert genes == ["ATRX", "EGFR", "IDH1", "TP53"], "of these cases, silent ones aside, in alphabetical order"
        sequenced = [c for c in cohorts.PORTAL if of[c].has("mutation")]
        assert sequenced == cohorts.PORTAL[:9], "seven with rows, two that the panel matrix names"
        found = np.array([of[c].read("mutation") for c in sequenced])
        assert found[:, genes.index("TP53")].tolist() == [1] * 7 + [0] * 2
        assert found[:, genes.index("EGFR")].tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 0], "two that are not silent"
        assert not found[7:].any()
        assert [c for c in cohorts.PORTAL if of[c].has("cnv")] == cohorts.PORTAL[2:]
        assert of[cohorts.PORTAL[2]].read("cnv").tolist() == [-2, -1, 0, 1, 2]
        assert [c for c in cohorts.PORTAL if of[c].has("rna")] == cohorts.PORTAL[:9]
        assert others == [list(cohorts.PORTAL_GENES)] * 2
        assert of[cohorts.PORTAL[1]].labels == {"ONCOTREE_CODE": "ASTR", "os_event": "event", "os_months": 4.5}


LONG = """
about: values gene by gene
licence: internal
citation: none
tables:
  people: {file: people.csv}
  values: {file: values.csv, join: {who: "{id}"}, several: true}
rows: [people]
sample: "{id}"
patient: "{id}"
fields:
  report: {text: ["{said}"]}
  rna: {long: {table: values, feature: gene, value: level, keep: {unit: [TPM]}, least: 2}}
"""


def long(root: Path, rows: Sequence[Sequence[object]]) -> Path:
    cohorts.packed(root / "people.csv", ["id", "said"], [[f"p{i}", f"words {i}"] for i in range(5)])
    cohorts.packed(root / "values.csv", ["who", "gene", "level", "unit"], rows)
    (root / "long.yaml").write_text(LONG)
    return root / "long.yaml"


def test_values_gene_by_gene_become_a_vector(tmp_path):
    rows = [[f"p{i}", gene, 1.5 * i + j, "TPM"] for i in range(4) for j, gene in enumerate("ba")]
    rows += [["p0", "once", 1, "TPM"], ["p1", "a", 99, "counts"], ["p2", "a", 4, "TPM"]]
    found = find(str(long(tmp_path, rows)), tmp_path)
    vectors = [np.load(e.fields["rna"].path).tolist() if "rna" in e.fields else None for e in found.manifest.entries]
    assert vectors == [[1, 0], [2.5, 1.5], [4, 3], [5.5, 4.5], None]
    assert found.pack["vocab"]["rna"].read_text() == "a\nb\n"
    assert "rna: 2 features that 2 samples or more have, from rows of values" in found.notes


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["p0", "a", "much", "TPM"], "'much' of 'a' is no number (values.csv line 6), field 'rna'"),
        (["p0", "a", 7, "TPM"], "'a' has two values, 1 and 7 (values.csv line 6)"),
    ],
)
def test_values_that_contradict_are_refused(row, said, tmp_path, capsys):
    layout = long(tmp_path, [*([f"p{i}", "a", 1, "TPM"] for i in range(4)), row])
    assert main(["source", str(layout), "--root", str(tmp_path), "--out", str(tmp_path / "set")]) == 2
    assert said.partition(", field")[0] in capsys.readouterr().err


def test_a_long_table_without_a_frequent_feature_is_refused(tmp_path, capsys):
    layout = long(tmp_path, [["p0", "a", 1, "TPM"], ["p1", "a", 1, "counts"]])
    assert main(["source", str(layout), "--root", str(tmp_path), "--out", str(tmp_path / "set")]) == 2
    assert "no feature of 'rna' is left" in capsys.readouterr().err


@quirk("kaggle_lgg_mri")
def test_slices_masks_and_expression_of_lgg(tmp_path):
    with packed("kaggle_lgg_mri", tmp_path) as data:
        assert Counter(r.labels["tumour"] for r in data) == {"no": 18, "yes": 9}
        assert all(r.read("mask").any() == (r.labels["tumour"] == "yes") for r in data)
        assert {r.patient for r in data} == set(cohorts.LGG[:-1])
        assert data.info.labels["os_days"].kind == "number"
        one = next(r for r in data if r.patient == cohorts.LGG[1])
    assert one.labels["os_days"] == 301
    assert one.labels["RNASeqCluster"] == "2"
    assert "no expression of this patient" in (tmp_path / "set" / "unmatched.csv").read_text()


@quirk("brats_tcga_lgg")
def test_slices_of_volumes_and_the_better_segmentation(tmp_path):
    with packed("brats_tcga_lgg", tmp_path) as data:
        assert len(data) == len(cohorts.LGG) * cohorts.SLICES
        masks = {r.key: r.read("mask") for r in data}
        assert {n.split("-z")[1] for n in masks} == {"000", "001", "002"}
        assert all(m.any() == n.endswith("z001") for n, m in masks.items()), "the corrected one where there are both"
        assert set(np.unique(masks[f"{cohorts.LGG[0]}-z001"])) == {0, 1, 2, 4}


def test_files_of_two_kinds_for_one_field_are_counted(tmp_path):
    notes = find("brats_tcga_lgg", made("brats_tcga_lgg", tmp_path)).notes
    stem, last = "{folder}{case}_{day}_GlistrBoost", len(cohorts.LGG) - 1
    assert (
        f"files for 'mask' are not all of one name: {last} as {stem}_ManuallyCorrected.nii.gz, 1 as {stem}.nii.gz"
        in notes
    )
    assert sum("not all of one name" in n for n in notes) == 1


def test_a_layout_of_a_python_source_tells_all_that_is_missing_at_once(tmp_path):
    root = made("tcga_luad_lusc", tmp_path)
    shutil.rmtree(root / "gdc")
    shutil.rmtree(root / "20x_256px_0px_overlap")
    (root / "features.tar.gz").touch()
    (root / "labels.csv").touch()
    with pytest.raises(DataError) as said:
        find("tcga_luad_lusc", root)
    text = str(said.value)
    assert "no features or */features_* or h5_files or pt_files or */h5_files or *.npz" in text
    assert "unpack the 1 archives that lie there (features.tar.gz)" in text
    assert "2 could be meant by --labels: data_clinical_sample.txt, labels.csv" in text
    assert "say which: --labels FILE" in text
    assert not (tmp_path / "out-work").exists()


def test_what_the_command_line_says_is_not_looked_for(tmp_path):
    root = made("kaggle_lgg_mri", tmp_path)
    moved = tmp_path / "elsewhere.tsv.gz"
    (root / "TCGA-LGG.htseq_fpkm.tsv.gz").rename(moved)
    found = find("kaggle_lgg_mri", root, "--expression", str(moved), "--slices", "positive")
    assert len(found.manifest.entries) == 9
    assert not any(n.startswith("--expression TCGA") for n in found.notes)


SOURCED = """
about: "my slices"
licence: internal
citation: none
source: lgg_mri
fields: [image, mask, rna]
arguments:
  images: {file: kaggle_3m}
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("source: lgg_mri", "source: lgg_mr", "no source 'lgg_mr' in Python"),
        ("  images:", "  pictures:", "the source 'lgg_mri' has no option 'pictures'"),
        ("{file: kaggle_3m}", "{file: kaggle_3m, value: a}", "give one of file, value, listed"),
        ("{file: kaggle_3m}", "{file: kaggle_3m, also: {gdc: {slices: all}}}", "also: 'gdc' is none of the patterns"),
        ("{file: kaggle_3m}", "{listed: true}", "samples and an argument that is listed go together"),
        ("arguments:", "argument:", "unknown key 'argument'; did you mean 'arguments'?"),
    ],
)
def test_what_a_layout_of_a_python_source_cannot_say(tmp_path, old, new, says, capsys):
    assert old in SOURCED
    layout = tmp_path / "mine.yaml"
    layout.write_text(SOURCED.replace(old, new))
    assert main(["source", str(layout), "--root", str(tmp_path), "--out", str(tmp_path / "set")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


@quirk("siim_acr", "lists leak")
def test_released_lists_that_leak_are_refused_or_stated(tmp_path, capsys):
    root = made("siim_acr", tmp_path)
    names = [f"{mini.siim_name(i)}.png" for i in range(mini.SIIM_FILMS)]
    lists = {"train": names[:4], "val": names[4:5], "test": [*names[5:], names[0]]}
    for split, of in lists.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(of))
    given = [w for s in lists for w in ("--split-list", f"{s}={tmp_path / s}.txt")]
    words = ["source", "siim_acr", "--root", str(root), "--out", str(tmp_path / "set"), *given]
    assert main(words) == 2
    assert mini.siim_name(0).replace(".", "_") in capsys.readouterr().err.replace(".", "_")
    assert main([*words, "--accept-leaking-lists"]) == 0
    with Dataset.open(tmp_path / "set") as data:
        assert data.info.leaking_splits


@quirk("rsna_pneumonia", "typing error")
def test_a_label_of_11_is_named(tmp_path):
    root = made("rsna_pneumonia", tmp_path)
    table = root / "stage_2_train_labels.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1][:-1] + "11", *lines[2:]]) + "\n")
    with pytest.raises(DataError, match=r"column 'Target' is '11' in 1 rows .* means nothing here: known are '0', '1'"):
        find("rsna_pneumonia", root)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "folder", "samples", "patients"),
    [("tcga_luad_lusc", "gimp_nsclc", 400, 400), ("tcga_gbm_lgg", "mrm_glioma", 194, 164)],
)
def test_folders_of_real_samples(name, folder, samples, patients, real_data, tmp_path):
    assert main(["source", name, "--root", str(real_data / folder), "--out", str(tmp_path / "set")]) == 0
    with Dataset.open(tmp_path / "set") as data:
        assert (len(data), data.info.patients) == (samples, patients)
        assert data.info.source == name
