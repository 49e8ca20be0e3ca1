"""What an association leaves: every estimate, the clumps, a summary. Columns are called as plink2 and plink1.9 call them.

Shape letters: P phenotypes, M variants.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trainer.gwas.bed import FileSet
from trainer.gwas.clumping import Clump
from trainer.gwas.linear import ERRCODES
from trainer.gwas.scan import Chromosome
from trainer.gwas.student import LN10, as_text
from trainer.state.files import write_atomic

ASSOCIATIONS, CLUMPS, PEOPLE = "associations.tsv.gz", "clumps.tsv", "people.tsv"
CLUMP_COLUMNS = ("CHR", "SNP", "BP", "A1", "P", "TOTAL", "NSIG", "S05", "S01", "S001", "S0001", "SP2")


def merged(log10_p_PM: np.ndarray) -> np.ndarray:
    """log10 of the smallest P of a variant over all phenotypes, times their number (Bonferroni), at most 0; NaN where all are."""
    with np.errstate(invalid="ignore"):
        least_M = np.where(np.isnan(log10_p_PM), np.inf, log10_p_PM).min(0)
    return np.where(np.isinf(least_M) & (least_M > 0), np.nan, np.minimum(least_M + np.log10(len(log10_p_PM)), 0.0))


def write_associations(path: Path, files: FileSet, found: Mapping[str, Chromosome], phenotypes: Sequence[str]) -> None:
    """A line a variant and phenotype. P is text where a double would be 0; LOG10_P is its logarithm in full."""
    from isal import igzip

    def packed(name: str) -> bytes:
        return igzip.compress(_lines(files, name, found[name], phenotypes), 1, mtime=0)

    # Gzip members one after the other are one file; chromosomes are written side by side.
    header = igzip.compress("\t".join(COLUMNS).encode() + b"\n", 1, mtime=0)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        write_atomic(path, b"".join([header, *pool.map(packed, found)]))


def _lines(files: FileSet, name: str, c: Chromosome, phenotypes: Sequence[str]) -> bytes:
    import pyarrow as pa
    from pyarrow import csv as arrow

    buffer = io.BytesIO()
    # Its own header would be quoted.
    options = arrow.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    arrow.write_csv(pa.table(_columns(files, name, c, phenotypes), names=[*COLUMNS]), buffer, options)
    return buffer.getvalue()


COLUMNS = (
    "CHROM",
    "POS",
    "ID",
    "A1",
    "OMITTED",
    "A1_FREQ",
    "PHENO",
    "OBS_CT",
    "BETA",
    "SE",
    "T_STAT",
    "LOG10_P",
    "P",
    "ERRCODE",
)


def _columns(files: FileSet, name: str, c: Chromosome, phenotypes: Sequence[str]) -> list[object]:
    import pyarrow as pa

    P, M = c.beta_PM.shape
    columns, v = files.by_chromosome[name], files.variants
    tested, omitted = alleles(files, columns, c.is_first_M)
    each = lambda values, kind: pa.chunked_array([pa.array(values, kind)] * P)  # noqa: E731
    known = lambda x_PM: pa.array(x_PM.ravel(), from_pandas=True)  # noqa: E731
    return [
        pa.array([name] * (P * M)), each(v.positions[columns], pa.int64()), each(v.ids[columns].tolist(), pa.string()),
        each(tested, pa.string()), each(omitted, pa.string()), each(c.frequency_M, pa.float64()),
        pa.array(np.repeat(np.array(phenotypes, object), M), pa.string()), pa.array(c.n_PM.ravel()), known(c.beta_PM), known(c.se_PM),
        known(c.t_PM), known(c.log10_p_PM), _p(c.log10_p_PM.ravel()), pa.array(np.array(ERRCODES, object)[c.code_PM.ravel()], pa.string()),
    ]  # fmt: skip


def _p(log10_p: np.ndarray) -> object:
    """P as text, from its logarithm where it is small."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with np.errstate(over="ignore"):
        plain = pc.cast(pa.array(10**log10_p, from_pandas=True), pa.string())
    small = log10_p < -290
    if not small.any():
        return plain
    texts = np.array(plain.to_pylist(), object)
    texts[small] = as_text(log10_p[small])
    return pa.array(texts, pa.string())


def alleles(files: FileSet, columns: np.ndarray, is_first_M: np.ndarray) -> tuple[list[str], list[str]]:
    """Of each variant the allele that is counted, and the other."""
    one, two = files.variants.counted[columns], files.variants.other[columns]
    return np.where(is_first_M, one, two).tolist(), np.where(is_first_M, two, one).tolist()


def clump_rows(
    files: FileSet, found: Mapping[str, Chromosome], clumps: Mapping[str, Sequence[Clump]]
) -> list[dict[str, object]]:
    """A row a clump, by P over all chromosomes."""
    rows = []
    for name, own in clumps.items():
        columns = files.by_chromosome[name]
        ids, positions = files.variants.ids[columns], files.variants.positions[columns]
        tested, _ = alleles(files, columns, found[name].is_first_M)
        for c in own:
            values = (name, ids[c.index], int(positions[c.index]), tested[c.index], as_text(np.array([c.log10_p]))[0],
                      len(c.members), *c.bins, ",".join(ids[[*c.listed]]) if c.listed else "NONE")  # fmt: skip
            rows.append((c.log10_p, dict(zip(CLUMP_COLUMNS, values, strict=True))))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def neg_log10(log10_p: np.ndarray) -> np.ndarray:
    """-log10 P for drawing: finite, as P is 0 for a perfect fit alone."""
    return np.minimum(-log10_p, 1e6 / LN10)
