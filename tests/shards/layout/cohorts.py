"""Miniatures of sets with reports, genes and slides: MIMIC-CXR-JPG, UK Biobank, TCGA. Nothing here is of a real person."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from bed_reader import to_bed
from PIL import Image

from shards.layout.files import load
from shards.layout.schema import Layout

ANSWERS = ("1.0", "0.0", "-1.0", "")
VIEWS = ("PA", "LATERAL", "AP", "LL", "")


def packed(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> Path:
    """A table, packed where its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def grey(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 20), np.uint8)).save(path)


def mimic_ids(i: int) -> tuple[str, str]:
    """Person and study: two studies of each person."""
    return f"1{i // 2:07d}", f"5{i:07d}"


def mimic(root: Path) -> None:
    """Twelve people with two studies of one or two films; a study has no report file, another an empty one."""
    layout = load("mimic_cxr_jpg")
    assert isinstance(layout, Layout)
    findings = layout.labels[0].columns
    films, splits, labels = [], [], []
    for i in range(24):
        person, study = mimic_ids(i)
        folder = f"files/p{person[:2]}/p{person}/s{study}"
        for k in range(1 + i % 2):
            film = f"{i:08x}-{k:08x}-00000000-{i:08x}-{k:08x}"
            grey(root / folder / f"{film}.jpg", 10 * i + k)
            films.append([film, person, study, VIEWS[(i + k) % 5], 24, 20, 21800506])
            splits.append([film, study, person, ("train", "train", "validate", "test")[i // 2 % 4]])
        if i != 3:
            text = " \n" if i == 4 else f"FINAL REPORT\n EXAMINATION: made-up report {i} of ___.\n"
            (root / f"{folder}.txt").write_text(text)
        if i != 5:
            labels.append([person, study, *(ANSWERS[(i + k) % 4] for k in range(len(findings)))])
    head = ["dicom_id", "subject_id", "study_id"]
    packed(root / "mimic-cxr-2.0.0-metadata.csv.gz", [*head, "ViewPosition", "Rows", "Columns", "StudyDate"], films)
    packed(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], splits)
    packed(root / "mimic-cxr-2.0.0-chexpert.csv.gz", [*head[1:], *findings], labels)


UKB_PEOPLE = [str(1_000_010 + 7 * i) for i in range(12)]
UKB_COLUMNS = ["eid", "31-0.0", "21022-0.0", "21001-0.0", "4080-0.0", "4079-0.0", "20116-0.0"]


def retina(path: Path, level: int, seed: int) -> None:
    """A bright disc with a bright spot on black, as a fundus camera sees it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128]
    inside = (x - 64) ** 2 + (y - 48) ** 2 < 44**2
    pixels = np.where(inside[..., None], level + rng.integers(0, 12, (96, 128, 3)), 0)
    pixels[40:50, 80:90] += 40
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def ukb(root: Path) -> None:
    """Twelve people with both eyes, one photograph black; ten of them genotyped, eight with scores, two withdrawn."""
    rng = np.random.default_rng(0)
    for i, eid in enumerate(UKB_PEOPLE):
        for eye in (21015, 21016):
            retina(root / "fundus" / f"{eid}_{eye}_0_0.png", 0 if (i, eye) == (11, 21016) else 70 + 5 * i, i)
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(root / "fundus" / f"{UKB_PEOPLE[11]}_21016_0_0.png")
    (root / "fundus" / "bulk.txt").write_text("what the download tool left\n")
    rows = [
        [e, i % 2, 50 + i, "" if i == 2 else 24.5 + i, 130 + i, 80 + i, (0, 1, 2, -3)[i % 4]]
        for i, e in enumerate([*UKB_PEOPLE, "1999999"])
    ]
    packed(root / "ukb41234.csv", UKB_COLUMNS, rows)
    people = [*UKB_PEOPLE[:10], "-1", "-2"]
    codes = rng.integers(-1, 3, (12, 220)).astype(float)
    codes[codes < 0] = np.nan
    chromosomes = ["1"] * 200 + ["22"] * 20
    for chromosome in ("1", "22"):  # a file each, whose neighbours have names of their own
        mine = [i for i, c in enumerate(chromosomes) if c == chromosome]
        bed = root / f"ukb22418_c{chromosome}_b0_v2.bed"
        to_bed(
            bed, codes[:, mine],
            properties={
                "fid": people, "iid": people, "chromosome": [chromosome] * len(mine), "sid": [f"rs{i}" for i in mine],
                "bp_position": [i + 1 for i in mine], "allele_1": ["A"] * len(mine), "allele_2": ["G"] * len(mine),
            },
        )  # fmt: skip
        bed.with_suffix(".bim").rename(root / f"ukb_snp_chr{chromosome}_v2.bim")
        bed.with_suffix(".fam").rename(root / f"{bed.stem}_s12.fam")
    scores = [f"PGS{i:06d}" for i in range(4)]
    packed(root / "pgs.csv", ["IID", *scores], [[e, *rng.normal(size=4).round(4)] for e in UKB_PEOPLE[:8]])
    genes = ["BRCA1", "LDLR", "PCSK9"]
    packed(root / "burden.csv", ["eid", *genes], [[e, *rng.integers(0, 2, 3)] for e in UKB_PEOPLE[2:10]])


LUNG = [f"TCGA-{10 + i // 3}-{1000 + i}" for i in range(12)]


def star(root: Path, samples: Sequence[str], genes: int = 6) -> None:
    """GDC's folder of STAR counts: names that say nothing, summary rows, nine columns; the sample sheet beside the files."""
    rng, sheet = np.random.default_rng(1), []
    columns = [
        "unstranded",
        "stranded_first",
        "stranded_second",
        "tpm_unstranded",
        "fpkm_unstranded",
        "fpkm_uq_unstranded",
    ]
    names = [f"ENSG{g:011d}.{g + 1}" for g in range(genes)]
    for i, sample in enumerate(samples):
        file, name = f"{i:08x}-aaaa", f"{i:08x}-bbbb.rna_seq.augmented_star_gene_counts.tsv"
        lines = ["# gene-model: GENCODE v36", "\t".join(["gene_id", "gene_name", "gene_type", *columns])]
        lines += [
            f"{n}\t\t\t{7 * i}\t0\t0\t\t\t" for n in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
        ]
        lines += [
            "\t".join([g, f"GENE{k}", "protein_coding", *(f"{v:.4f}" for v in rng.gamma(2, 5, 6))])
            for k, g in enumerate(names)
        ]
        (root / file).mkdir(parents=True)
        (root / file / name).write_text("\n".join(lines) + "\n")
        kind = "Solid Tissue Normal" if sample[13:15] == "11" else "Primary Tumor"
        sheet.append(
            [
                file,
                name,
                "Transcriptome Profiling",
                "Gene Expression Quantification",
                "TCGA-LUAD",
                sample[:12],
                sample,
                kind,
            ]
        )
    head = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID", "Sample Type"]
    packed(root / "gdc_sample_sheet.2024-05-01.tsv", head, sheet, "\t")


def clinical(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A clinical file of cBioPortal: four lines of comments before the header."""
    packed(path, header, rows, "\t")
    path.write_text("".join(f"#{word}\n" for word in ("names", "about", "STRING", "1")) + path.read_text())


def lung(root: Path) -> None:
    """Twelve cases with a diagnostic slide, one with a frozen section besides, one with normal tissue; eleven with expression."""
    rng = np.random.default_rng(0)
    slides = [f"{c}-01Z-00-DX1.{i:08X}" for i, c in enumerate(LUNG)]
    slides += [f"{LUNG[0]}-01A-01-TS1.AAAA", f"{LUNG[1]}-11A-01-TS1.BBBB"]
    folder = root / "20x_256px_0px_overlap" / "features_conch_v15"
    folder.mkdir(parents=True)
    for slide in slides:
        patches = int(rng.integers(3, 7))
        with h5py.File(folder / f"{slide}.h5", "w") as f:
            f["features"] = rng.normal(size=(patches, 6)).astype(np.float32)
            f["coords"] = rng.integers(0, 90_000, (patches, 2))
    star(root / "gdc", [*(f"{c}-01A" for c in LUNG[:-1]), f"{LUNG[1]}-11A"])
    kinds = [[c, f"{c}-01", "LUAD" if i % 2 else "LUSC"] for i, c in enumerate(LUNG)]
    clinical(root / "data_clinical_sample.txt", ["PATIENT_ID", "SAMPLE_ID", "ONCOTREE_CODE"], kinds)
    ends = [[c, "" if i == 3 else 10.5 + i, ("0:LIVING", "1:DECEASED")[i % 2]] for i, c in enumerate(LUNG)]
    clinical(root / "data_clinical_patient.txt", ["PATIENT_ID", "OS_MONTHS", "OS_STATUS"], ends)


GLIOMA = [f"TCGA-{('02', '06', 'CS', 'DU')[i % 4]}-{4940 + i}" for i in range(12)]


PORTAL = [f"TCGA-5{i % 3}-{5000 + i}" for i in range(12)]
PORTAL_GENES = ("TP53", "IDH1", "EGFR", "ATRX", "PTEN")


def portal(root: Path) -> None:
    """Twelve cases, the last with two slides; mutations of seven of them, two more sequenced; copy numbers of ten, expression of nine."""
    rng = np.random.default_rng(0)
    names = [f"{c}-01Z-00-DX1.{i:08X}" for i, c in enumerate(PORTAL)] + [
        f"{PORTAL[-1]}-01Z-00-DX2.AA",
        f"{PORTAL[0]}-11A-00-DX1.BB",
    ]
    (root / "features").mkdir(parents=True)
    for i, name in enumerate(names):
        with h5py.File(root / "features" / f"{name}.h5", "w") as f:
            f["features"] = rng.standard_normal((3 + i % 2, 8)).astype(np.float32)
            f["coords"] = np.arange(2 * (3 + i % 2)).reshape(-1, 2)
    tumours = [f"{c}-01" for c in PORTAL]
    clinical(
        root / "data_clinical_sample.txt",
        ["PATIENT_ID", "SAMPLE_ID", "ONCOTREE_CODE"],
        [[c, t, ("GBM", "ASTR")[i % 2]] for i, (c, t) in enumerate(zip(PORTAL, tumours, strict=True))],
    )
    status = [("0:LIVING", "1:DECEASED", "")[i % 3] for i in range(12)]
    clinical(
        root / "data_clinical_patient.txt",
        ["PATIENT_ID", "OS_STATUS", "OS_MONTHS"],
        [[c, s, f"{3.5 + i}" if s else ""] for i, (c, s) in enumerate(zip(PORTAL, status, strict=True))],
    )
    rows = []
    for i, t in enumerate(tumours[:7]):
        found = [("TP53", "Missense_Mutation"), ("TP53", "Nonsense_Mutation"), ("EGFR", "Silent")]
        found.append((PORTAL_GENES[1 + i % 3], "Frame_Shift_Del"))
        rows += [[gene, 1, "BI", kind, t, "p.X1Y"] for gene, kind in found[i % 2 :]]
    rows.append(["PTEN", 1, "BI", "Missense_Mutation", "TCGA-99-9999-01", "p.X1Y"])
    head = ["Hugo_Symbol", "Entrez_Gene_Id", "Center", "Variant_Classification", "Tumor_Sample_Barcode", "HGVSp_Short"]
    path = packed(root / "data_mutations.txt", head, rows, "\t")
    path.write_text("#version 2.4\n" + path.read_text())
    packed(root / "data_gene_panel_matrix.txt", ["SAMPLE_ID", "mutations"], [[t, "WES"] for t in tumours[5:9]], "\t")
    matrices = (
        ("data_cna.txt", tumours[2:], lambda i, j: (i + j) % 5 - 2),
        ("data_mrna_seq_v2_rsem.txt", tumours[:9], lambda i, j: 10.5 * i + j),
    )
    for name, of, value in matrices:
        table = [[gene, 100 + j, *(value(i, j) for i in range(len(of)))] for j, gene in enumerate(PORTAL_GENES)]
        packed(root / name, ["Hugo_Symbol", "Entrez_Gene_Id", *of], table, "\t")


def glioma(root: Path) -> None:
    """Tiles of eight cases, slides of the others and of one without omics; one table of everything, as MCAT's."""
    rng = np.random.default_rng(0)
    for i, case in enumerate(GLIOMA[:8]):
        for k in range(2):
            grey(root / "roi_tiles" / f"{case}-01Z-00-DX1.{i:04X}_r{k}.png", 10 * i + k)
    (root / "pt_files").mkdir()
    for i, case in enumerate([*GLIOMA[8:], "TCGA-99-9999"]):
        bag_ND = torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
        torch.save(bag_ND, root / "pt_files" / f"{case}-01Z-00-DX1.AB.pt")
    head = [
        "case_id",
        "oncotree_code",
        "is_female",
        "age",
        "EGFR_cnv",
        "CDKN2A_cnv",
        "IDH1_mut",
        "TP53_mut",
        "EGFR_rnaseq",
        "TP53_rnaseq",
    ]
    rows = [
        [c, "GBM" if i % 2 else "ODG", i % 2, 40 + i, i % 4 - 1, -2 * (i % 2), i % 2, 0, *rng.normal(size=2).round(4)]
        for i, c in enumerate([*GLIOMA, "TCGA-98-0001"])
    ]
    packed(root / "tcga_gbmlgg_all_clean.csv", head, rows)
    ends = [[c, "" if i == 3 else 10.5 + i, ("0:LIVING", "1:DECEASED")[i % 2]] for i, c in enumerate(GLIOMA)]
    clinical(root / "data_clinical_patient.txt", ["PATIENT_ID", "OS_MONTHS", "OS_STATUS"], ends)


LGG = [f"TCGA-{('CS', 'DU', 'FG', 'HT')[i % 4]}-{4940 + i}" for i in range(10)]
SLICES = 3


def kaggle(root: Path) -> None:
    """Ten patients with three slices, of which the last alone shows tumour; the last patient has no expression."""
    rng, base = np.random.default_rng(0), root / "lgg-mri-segmentation" / "kaggle_3m"
    for i, case in enumerate(LGG):
        name = f"{case.replace('-', '_')}_1996090{i % 9 + 1}"
        (base / name).mkdir(parents=True)
        for k in range(1, SLICES + 1):
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(base / name / f"{name}_{k}.tif")
            mask = np.zeros((24, 24), np.uint8)
            mask[: 4 + i % 3, : 5 * (k == SLICES)] = 255
            Image.fromarray(mask).save(base / name / f"{name}_{k}_mask.tif")
    rows = [[c.replace("-", "_"), 1 + i % 3, "" if i == 2 else 30 + i] for i, c in enumerate(LGG)]
    packed(base / "data.csv", ["Patient", "RNASeqCluster", "age_at_initial_pathologic"], rows)
    genes = [[f"ENSG{g:011d}.3", *rng.gamma(2, 2, len(LGG) - 1).round(4)] for g in range(5)]
    packed(root / "TCGA-LGG.htseq_fpkm.tsv.gz", ["Ensembl_ID", *(f"{c}-01A" for c in LGG[:-1])], genes, "\t")
    ends = [[f"{c}-01A", i % 2, c, 300 + i] for i, c in enumerate(LGG)]
    packed(root / "TCGA-LGG.survival.tsv", ["sample", "OS", "_PATIENT", "OS.time"], ends, "\t")


def brats(root: Path) -> None:
    """Ten cases of 12 x 10 x 3 voxels; of the last one the automatic segmentation alone."""
    import nibabel

    rng = np.random.default_rng(0)
    for i, case in enumerate(LGG):
        folder = root / "Pre-operative_TCGA_LGG_NIfTI_and_Segmentations" / case
        folder.mkdir(parents=True)
        stem = f"{case}_1996.09.0{i % 9 + 1}"
        whole = rng.integers(50, 900, (4, 12, 10, SLICES)).astype(np.int16)
        for kind, values in zip(("flair", "t1", "t1Gd", "t2"), whole, strict=True):
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{stem}_{kind}.nii.gz")
        mask = np.zeros((12, 10, SLICES), np.int16)
        mask[2:5, 3:6, 1], mask[3, 4, 1], mask[6, 6, 1] = 2, 4, 1
        kinds = ["GlistrBoost"] if i == len(LGG) - 1 else ["GlistrBoost", "GlistrBoost_ManuallyCorrected"]
        for kind in kinds:
            values = mask if kind == kinds[-1] else np.zeros_like(mask)
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{stem}_{kind}.nii.gz")


COHORTS = {
    "brats_tcga_lgg": brats,
    "kaggle_lgg_mri": kaggle,
    "mimic_cxr_jpg": mimic,
    "tcga_cbioportal": portal,
    "tcga_gbm_lgg": glioma,
    "tcga_luad_lusc": lung,
    "uk_biobank_fundus": ukb,
}
