"""Association and clumping against plink2 and plink1.9, side by side: `python -m tests.benchmarks.gwas [--people 4000] [--missing .01]`.

Both programs test the same phenotypes on the same file set with the same threads; times are whole commands of theirs, and reading, fitting
and the tables of ours. Prints both times and the largest difference of every estimate. Needs Debian's plink2 and plink1.9.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.trainer.gwas.plink import blocks, file_set
from trainer.gwas.bed import open_file_set
from trainer.gwas.clumping import Rules, clump
from trainer.gwas.covariates import basis_of
from trainer.gwas.linear import FITTED
from trainer.gwas.phenotypes import inverse_normal
from trainer.gwas.scan import parts_of, scan
from trainer.gwas.tables import CLUMP_COLUMNS, clump_rows, merged, write_associations

COVARIATES = 17


def made(
    folder: Path, people: int, variants: int, phenotypes: int, missing: float
) -> tuple[Path, np.ndarray, np.ndarray]:
    """(.bed of 22 chromosomes, covariates, phenotypes), with twenty planted effects; tables for plink beside it."""
    rng = np.random.default_rng(0)
    # In parts: its draws are of eight bytes each.
    starts = range(0, variants, 2000)
    count_NM = np.concatenate([blocks(rng, people, min(2000, variants - i), 10, missing) for i in starts], 1)
    chromosome = np.sort(rng.integers(1, 23, variants))
    names = [f"p{i}" for i in range(people)]
    bed = file_set(
        folder,
        count_NM,
        names,
        fid=["0"] * people,
        chromosome=[str(c) for c in chromosome],
        bp_position=[5000 * (j + 1) for j in range(variants)],
    )
    value_NC = np.column_stack(
        [rng.integers(1, 3, people), rng.normal(56, 8, people), rng.normal(0, 0.01, (people, COVARIATES - 2))]
    )
    y_NP = rng.normal(size=(people, phenotypes))
    for m in rng.choice(variants, 20, replace=False):
        y_NP[:, rng.integers(phenotypes)] += 0.3 * np.maximum(count_NM[:, m], 0)
    y_NP = inverse_normal(y_NP)
    for name, values, head in (("y", y_NP, "PC"), ("c", value_NC, "C")):
        lines = ["\t".join(["#IID", *(f"{head}{i + 1}" for i in range(values.shape[1]))])]
        lines += ["\t".join([n, *map(repr, row)]) for n, row in zip(names, values.tolist(), strict=True)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return bed, value_NC, y_NP


def timed(command: list[str]) -> float:
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - begun


def cpu(who: int) -> float:
    """Seconds of all threads: on a machine that others use, the time on the clock says little."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def estimates(path: Path) -> dict[str, dict[str, float]]:
    with open(path, newline="") as f:
        rows = csv.DictReader(f, delimiter="\t")
        return {
            r["ID"]: {k: float("nan" if r[k] == "NA" else r[k]) for k in ("BETA", "SE", "T_STAT", "P", "OBS_CT")}
            for r in rows
        }


def main() -> None:
    p = argparse.ArgumentParser()
    for flag, default in (
        ("people", 4000),
        ("variants", 50_000),
        ("phenotypes", 10),
        ("threads", len(os.sched_getaffinity(0))),
    ):
        p.add_argument(f"--{flag}", type=int, default=default)
    p.add_argument("--missing", type=float, default=0.01, help="share of missing calls")
    args = p.parse_args()
    assert shutil.which("plink2") and shutil.which("plink1.9"), "install plink2 and plink1.9"  # noqa: PT018
    with tempfile.TemporaryDirectory() as tmp:
        compare(Path(tmp), args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    bed, value_NC, y_NP = made(folder, args.people, args.variants, args.phenotypes, args.missing)
    threads = ["--threads", str(args.threads)]
    theirs_s = timed(["plink2", "--bfile", str(bed.with_suffix("")), "--pheno", str(folder / "y.tsv"), "--covar", str(folder / "c.tsv"),
                      "--glm", "hide-covar", "--covar-variance-standardize", "--out", str(folder / "p"), *threads])  # fmt: skip
    begun, theirs_cpu_s, cpu_s = time.monotonic(), cpu(resource.RUSAGE_CHILDREN), cpu(resource.RUSAGE_SELF)
    files = open_file_set(bed)
    names = [f"PC{i + 1}" for i in range(args.phenotypes)]

    def basis(v_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = basis_of([str(i) for i in range(COVARIATES)], v_NC, folder)
        return found.q_NC, found.z_NC

    parts = parts_of(y_NP, names, np.arange(args.people), value_NC, basis)
    found = dict(scan(files, parts, folder / "kept", "", args.threads, lambda: False, lambda _: None))
    fitted_s = time.monotonic() - begun
    write_associations(folder / "a.tsv.gz", files, found, names)
    ours_s, ours_cpu_s = time.monotonic() - begun, cpu(resource.RUSAGE_SELF) - cpu_s
    print(
        f"{args.people} people, {args.variants} variants, {args.phenotypes} phenotypes, {args.missing:.0%} missing, {args.threads} threads"
    )
    print(
        f"plink2 {theirs_s:.1f} s, ours {ours_s:.1f} s ({fitted_s:.1f} s without the table): {theirs_s / ours_s:.1f} times its speed"
    )
    print(f"processor time: plink2 {theirs_cpu_s:.1f} s, ours {ours_cpu_s:.1f} s", flush=True)
    ids = [i for n in found for i in files.describe(files.by_chromosome[n])]
    code_M, worst = np.concatenate([c.code_PM[0] for c in found.values()]), dict[str, float]()
    for p, name in enumerate(names):
        theirs = estimates(folder / f"p.{name}.glm.linear")
        for column, array in (
            ("BETA", "beta_PM"),
            ("SE", "se_PM"),
            ("T_STAT", "t_PM"),
            ("P", "log10_p_PM"),
            ("OBS_CT", "n_PM"),
        ):
            ours_M = np.concatenate([getattr(c, array)[p] for c in found.values()]).astype(float)
            ours_M = 10**ours_M if column == "P" else ours_M
            theirs_M = np.array([theirs[i][column] for i in ids])
            assert (np.isnan(theirs_M) == np.isnan(ours_M)).all() or column == "OBS_CT", column
            kept = (code_M == FITTED) & (theirs_M != 0)
            worst[column] = max(worst.get(column, 0.0), float(np.abs(ours_M[kept] / theirs_M[kept] - 1).max()))
    print(f"largest relative differences: {', '.join(f'{k} {v:.1e}' for k, v in worst.items())}")
    clumps(folder, bed, files, found, args)


def clumps(folder: Path, bed: Path, files, found, args: argparse.Namespace) -> None:
    """plink1.9's clumps of our merged P values, row by row."""
    rules = Rules(5e-8, 1e-4, 0.1, 150)
    lines = ["SNP P"]
    for n, c in found.items():
        lines += [
            f"{i} {10**v:.17g}"
            for i, v in zip(files.describe(files.by_chromosome[n]), merged(c.log10_p_PM), strict=True)
        ]
    (folder / "m.txt").write_text("\n".join(lines) + "\n")
    theirs_s = timed(["plink1.9", "--bfile", str(bed.with_suffix("")), "--clump", str(folder / "m.txt"), "--clump-p1", str(rules.p1),
                      "--clump-p2", str(rules.p2), "--clump-r2", str(rules.r2), "--clump-kb", str(rules.kb), "--allow-no-sex",
                      "--out", str(folder / "q"), "--threads", str(args.threads)])  # fmt: skip
    begun = time.monotonic()
    own = {}
    for n, c in found.items():
        columns = files.by_chromosome[n]
        own[n] = clump(
            files.variants.positions[columns], merged(c.log10_p_PM), lambda at, k=columns: files.counts(k[at]), rules
        )
    rows = clump_rows(files, found, own)
    ours_s = time.monotonic() - begun
    # plink1.9 writes no file where there is no clump.
    written = (folder / "q.clumped").read_text() if (folder / "q.clumped").exists() else " ".join(CLUMP_COLUMNS)
    theirs = [line.split() for line in written.splitlines() if line.strip()]
    keys = ("SNP", "TOTAL", "NSIG", "S05", "S01", "S001", "S0001", "SP2")
    at = [theirs[0].index(k) for k in keys]
    wanted = [tuple(r[i].replace("(1)", "") for i in at) for r in theirs[1:]]
    equal = wanted == [tuple(str(r[k]) for k in keys) for r in rows]
    print(f"clumps: plink1.9 {theirs_s:.1f} s, ours {ours_s:.1f} s; {len(wanted)} rows, all fields equal: {equal}")
    assert equal


if __name__ == "__main__":
    main()
