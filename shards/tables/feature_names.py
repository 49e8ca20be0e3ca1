"""What the name of a row or column of a table says of it: surely no feature, doubtful, or one like the others.

Names: GENCODE's PAR_Y ids https://www.gencodegenes.org/pages/faq.html; HTSeq's and STAR's counts from their manuals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

ENDINGS = {"rnaseq": "expression", "cnv": "copy number", "mut": "mutation"}
ENSEMBL = re.compile(r"ENS[A-Z]*R?\d{6,}(\.\d+)?(_PAR_Y)?")
PAR_Y = "_PAR_Y"
# As they stand, and (all below) after `_plain`: lower case, one underscore for anything but letters and digits.
COUNTS = re.compile(r"__.+|N_[A-Za-z]\w*|Unassigned_\w+")
READS = re.compile(
    r"no_feature|ambiguous|too_low_aqual|not_aligned|alignment_not_unique|assigned|gene_id|hybridization_ref|composite_element_ref"
)
SURVIVAL = re.compile(
    r"(os|dss|dfi|dfs|pfi|pfs)|(os|dss|dfi|dfs|pfi|pfs|rfs|efs|ttp)(_(time|months?|days|years|status|event|censor(ed)?|cr|[12]))+"
    r"|(overall_|disease_free_|progression_free_)?survival(_(time|months|days|years|status|event))*"
    r"|censor(ship|ed)?|event|status|vital_status|death|dead|fustat|futime|survtime|time|duration|follow_?up(_.*)?|days_to_.*|time_to_.*"
)
CLINICAL = re.compile(
    r"age(_at_(.*diagnosis|index|initial_.*|recruitment|enrol.*|death)|_years|_in_years)?|sex|gender|is_(fe)?male|(fe)?male|race|ethnicity|(tumou?r_|histolog(ic|ical)_|neoplasm_histologic_)?grade"
    r"|(tumou?r_|ajcc_(pathologic_)?(tumou?r_)?|clinical_|pathologic_)?stage|diagnosis|histology|subtype|(oncotree|project|disease)_(code|id)"
    r"|labels?|class|target|cohort|site|tss|center|centre|batch|n_regions|pheno\d*|phenotype"
)
SPLIT = re.compile(r"splits?|folds?|train|val|valid|validation|test|partition|in_train")
NAMING = re.compile(
    r"(case|slide|sample|patient|subject|image|study|dicom)(_(id|barcode|name))?|sampleid|submitter_id|(bcr_patient_)?barcode|[fis]id|f?_?eid|pat|mat|sampleset"
    r"|id|index|unnamed(_\d+)?"
)
BOOKKEEPING = re.compile(r"(nmiss_)?allele_ct|named_allele_dosage_sum|missing_ct|denom|in_regression|cnt2?")
ANNOTATION = re.compile(
    r"gene_(name|type|biotype|symbol|length|chr|start|end|strand|description)|(hugo_)?symbol|entrez_(gene_)?id|description|biotype"
)
KNOWN = (
    (READS, "counts of reads or a second header, no gene"),
    (SURVIVAL, "survival, no feature"),
    (CLINICAL, "clinical, no feature"),
    (SPLIT, "a split, no feature"),
    (NAMING, "an id, no feature"),
    (BOOKKEEPING, "bookkeeping of scores, no feature"),
    (ANNOTATION, "annotation, no feature"),
)
# Words that make a name of several words doubtful.
TELLING = frozenset(
    (
        *(
            "survival",
            "censor",
            "censored",
            "censorship",
            "death",
            "deceased",
            "recurrence",
            "relapse",
            "followup",
            "vital",
            "status",
        ),
        *(
            "event",
            "treatment",
            "therapy",
            "age",
            "sex",
            "gender",
            "race",
            "stage",
            "grade",
            "diagnosis",
            "outcome",
            "label",
            "split",
        ),
        *("fold", "train", "test", "purity", "ploidy", "tmb"),
    )
)
GENE_SETS = re.compile(r"(HALLMARK|GO|GOBP|GOMF|GOCC|KEGG|REACTOME|BIOCARTA|WP|PID)_.*")


def without_version(name: str) -> str:
    """An Ensembl id without its version: ENSG00000002586.20_PAR_Y -> ENSG00000002586_PAR_Y; other names as they are."""
    return re.sub(r"\.\d+(?=_PAR_Y$|$)", "", name) if ENSEMBL.fullmatch(name) else name


def known_kind(name: str) -> str | None:
    """Why a name is surely no feature; None where it may be one."""
    if COUNTS.fullmatch(name):
        return KNOWN[0][1]
    plain = _plain(name)
    return next((why for form, why in KNOWN if form.fullmatch(plain)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def ending(name: str) -> str:
    """What stands behind the last underscore of a name that begins with something."""
    stem, _, ending = name.rpartition("_")
    return ending.lower() if stem else ""


def odd_ones(names: Sequence[str], rest: Sequence[int], ending_of: Mapping[int, str]) -> list[int]:
    """Names that are unlike nearly all others, or that speak of people rather than of genes."""
    n = len(rest)
    if 2 * len(ending_of) >= n > len(ending_of):
        return [i for i in rest if i not in ending_of]
    odd = {i for i in rest if _telling(names[i])}
    for form in (ENSEMBL, re.compile(r"PGS\d{6,}.*")):
        like = {i for i in rest if form.fullmatch(names[i])}
        if 2 * len(like) >= n:
            odd |= set(rest) - like
    few = {i for i in rest if re.fullmatch(r"[a-z]{3,}([_. ]+[a-z]+)*|(gen)?PC_?\d+|ERCC-\d+", names[i])}
    if 2 * len(few) <= n:
        odd |= few
    return sorted(odd) if len(odd) < n else []


def _telling(name: str) -> bool:
    parts = _plain(name).split("_")
    return (
        len(parts) > 1 and not GENE_SETS.fullmatch(name) and not ENSEMBL.fullmatch(name) and bool(TELLING & set(parts))
    )
