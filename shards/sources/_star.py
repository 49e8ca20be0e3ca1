"""GDC's STAR counts: a folder of files, one a sample, whose names say nothing of the patient, and the sample sheet that does.

FOLDER/FILE_ID/UUID.rna_seq.augmented_star_gene_counts.tsv   as gdc-client writes them (or all files in one folder)
gdc_sample_sheet.DATE.tsv                                     File ID, File Name, Case ID, Sample ID, Sample Type (or Tissue Type)

A file has nine columns, six of them values of one gene in four units: which one is meant is asked, never taken.
Format: https://docs.gdc.cancer.gov/Data/Bioinformatics_Pipelines/Expression_mRNA_Pipeline/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins
from shards.layout.nearly import BEGUN
from shards.pack.reference import COLUMN, Reference
from shards.sources._barcode import NORMAL, sample_type
from shards.tables.identity import barcode, few
from shards.tables.keyed import Row, keyed, read_rows
from shards.tables.table_file import open_table

UNITS = {
    "unstranded": "counts",
    "stranded_first": "counts",
    "stranded_second": "counts",
    "tpm_unstranded": "TPM",
    "fpkm_unstranded": "FPKM",
    "fpkm_uq_unstranded": "FPKM-UQ",
}
KIND = "star_gene_counts.tsv"
SHEETS = "gdc_sample_sheet*.tsv"
NEEDED = ("File ID", "File Name", "Sample ID")
TISSUE = ("Sample Type", "Tissue Type")  # the first until 2024, the second since
Unmatched = list[tuple[str, str]]


def star_samples(
    folder: Path, sheet: Path | None, column: str | None, transform: str | None, unmatched: Unmatched
) -> tuple[dict[str, Reference], list[str]]:
    """The file of each sample, called `BARCODE (FILE)`, and what to tell. What has no file or no sample goes to `unmatched`.

    Raises:
        DataError: column or transform not said, no sample sheet, a sheet that contradicts itself, no file, or files of another kind.
    """
    problems = _unsaid(folder, column, transform)
    where = sheet or _sheet_of(folder, problems)
    if problems or where is None:
        raise DataError(problems)
    here = _files(folder)
    problems += _begun(folder)
    found: dict[str, Reference] = {}
    for name, row in keyed(read_rows(where, NEEDED), "File Name", "file").items():
        sample, why = _sample(row, problems)
        path = None if why else _path(here, row, problems)
        if sample is None or path is None:
            unmatched.append((name, why or f"in {where.name}, but not in {folder.name}"))
        else:
            found[f"{sample} ({path.name})"] = Reference(f"{path.name}#{COLUMN}{column}", path, f"{COLUMN}{column}")
    used = {r.path for r in found.values()} | {p for n, _ in unmatched for p in here.get(n, ())}
    unmatched += [(p.name, f"not in {where.name}") for paths in here.values() for p in paths if p not in used]
    if problems:
        raise DataError(problems)
    if not found:
        what = f"none of the files of {where.name} is there ({sum(map(len, here.values()))} files end in {KIND})"
        raise bad(what, folder, "give the folder into which the files of this sample sheet were downloaded")
    _of_the_kind(next(iter(found.values())), str(column))
    assert column is not None
    return found, [f"expression: {len(found)} files of samples by {where.name}, {column} ({UNITS[column]})"]


def _unsaid(folder: Path, column: str | None, transform: str | None) -> list[Problem]:
    """What only the user can say."""
    known = ", ".join(f"{c} ({u})" for c, u in UNITS.items())
    found = []
    if column not in UNITS:
        what = "the files hold several values of a gene" if column is None else f"no column '{column}'"
        found.append(
            Problem(f"{what}: {known}", str(folder), "say which: --expression-column tpm_unstranded, or another")
        )
    if transform is None:
        what = "nothing says whether values are packed as they are or as logarithms"
        found.append(
            Problem(what, str(folder), "say it: --expression-transform log2p1, or --expression-transform none")
        )
    return found


def _sheet_of(folder: Path, problems: list[Problem]) -> Path | None:
    """The only sample sheet in the folder or beside it."""
    found = no_twins(p for place in (folder, folder.parent) for p in place.glob(SHEETS))
    if len(found) == 1:
        return found[0]
    what = (
        f"{len(found)} sample sheets ({few([p.name for p in found])})"
        if found
        else "no sample sheet, which says whose files these are"
    )
    fix = "give GDC's with --sample-sheet FILE (the cart of the portal has it: Download, Sample Sheet)"
    problems.append(Problem(what, str(folder), fix))
    return None


def _files(folder: Path) -> dict[str, list[Path]]:
    """Files of STAR counts by name; a packed one under the name that the sheet has."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in no_twins(p for p in folder.rglob(f"*{KIND}*") if p.is_file()):
        name = path.name.removesuffix(".gz")
        if name.endswith(KIND):
            found[name].append(path)
    return found


def _begun(folder: Path) -> Iterator[Problem]:
    """Files that gdc-client, or a browser, has not whole yet."""
    names = sorted(p.name for p in folder.rglob(f"*{KIND}*") if BEGUN.search(p.name))
    if names:
        what = f"{len(names)} files were begun to be downloaded and are not whole ({few(names)})"
        yield Problem(what, str(folder), "call gdc-client again with the same manifest, or remove them")


def _sample(row: Row, problems: list[Problem]) -> tuple[str | None, str | None]:
    """The sample of a line, or why it has none; what contradicts itself becomes a problem."""
    if not row["File Name"].removesuffix(".gz").endswith(KIND):
        return None, "no file of STAR counts"
    names = sorted({n.strip() for n in row["Sample ID"].split(",")})
    if len(names) != 1:
        return None, f"made of several samples ({', '.join(names)})"
    if barcode(names[0]) is None:
        return None, "not a TCGA barcode"
    kind = sample_type(names[0])
    said = next((f"{c} '{row[c]}'" for c in TISSUE if row.get(c)), None)
    fix = "mend the line, or download the sample sheet again"
    if kind is None:
        what = f"Sample ID '{names[0]}' does not say which tissue it is of (01 tumour, 11 normal)"
        problems.append(Problem(what, row.where, fix))
    elif said and ("normal" in said.lower()) != (kind in NORMAL):
        problems.append(Problem(f"Sample ID '{names[0]}' is of sample type {kind:02d}, {said}", row.where, fix))
    if "Case ID" in row and barcode(row["Case ID"].split(",")[0]) != barcode(names[0]):
        problems.append(Problem(f"Sample ID '{names[0]}' is not of Case ID '{row['Case ID']}'", row.where, fix))
    return names[0], None


def _path(here: Mapping[str, list[Path]], row: Row, problems: list[Problem]) -> Path | None:
    """The file of a line: in the folder of its id, or the only one of its name."""
    paths = here.get(row["File Name"].removesuffix(".gz"), [])
    own = [p for p in paths if p.parent.name == row["File ID"]] or paths
    if len(own) > 1:
        what = f"'{row['File Name']}' is there {len(own)} times ({few([str(p) for p in own])})"
        problems.append(Problem(what, row.where, "keep one of these files"))
    return own[0] if own else None


def _of_the_kind(ref: Reference, column: str) -> None:
    """The first file is looked into, so that a folder of others is told once; packing looks into each."""
    header = open_table(ref.path).header
    if header[0] != "gene_id" or column not in header:
        fix = "download the files again: those of GDC's releases before 32 have other columns"
        raise bad(f"no columns gene_id and {column} (it has {few(header)})", ref.path, fix)
