"""PLINK file sets of made-up people, and variants in blocks of disequilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bed_reader import to_bed


def file_set(folder: Path, count_NM: np.ndarray, people: Sequence[str], **more: Any) -> Path:
    """Copies of the .bim's first allele [N, M], -127 missing; `more` are columns of .bim and .fam as bed-reader calls them."""
    M = count_NM.shape[1]
    properties = {
        "iid": list(people), "fid": list(people), "sid": [f"rs{j}" for j in range(M)], "chromosome": ["1"] * M,
        "bp_position": [1000 * (j + 1) for j in range(M)], "allele_1": ["A"] * M, "allele_2": ["G"] * M, **more,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    to_bed(folder / "g.bed", count_NM.astype(np.int8), properties=properties)
    return folder / "g.bed"


def blocks(rng: np.random.Generator, people: int, variants: int, length: int = 5, missing: float = 0.0) -> np.ndarray:
    """Copies [N, M] int8, -127 missing: runs of `length` variants whose haplotypes are noisy copies of one."""
    first_HB = rng.random((2 * people, -(-variants // length))) < rng.uniform(0.1, 0.6, -(-variants // length))
    hap_HM = np.repeat(first_HB, length, 1)[:, :variants]
    hap_HM = hap_HM ^ (rng.random(hap_HM.shape) < rng.uniform(0.0, 0.25, variants))
    count_NM = (hap_HM[:people].astype(np.int8) + hap_HM[people:]).astype(np.int8)
    return np.where(rng.random(count_NM.shape) < missing, np.int8(-127), count_NM)
