"""Every array of the pack of plink2's estimates and plink1.9's clumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.gwas.plink import file_set
from trainer.gwas.bed import allele_tested, open_file_set
from trainer.gwas.clumping import Rules, clump
from trainer.gwas.covariates import basis_of
from trainer.gwas.haplotypes import haplotype_r2
from trainer.gwas.phenotypes import inverse_normal, principal_components, residuals
from trainer.gwas.scan import parts_of, scan
from trainer.gwas.tables import merged

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    found = real_data.parent / "parity" / "restoration_segmentation_gwas"
    if not (found / "gwas.npz").is_file():
        pytest.skip("the pack of parity is not beside the real samples")
    return found


@pytest.fixture(scope="module")
def pack(folder: Path) -> Any:
    return np.load(folder / "gwas.npz")


def test_phenotypes(pack) -> None:
    score_NP, _ = principal_components(pack["features"], 10)
    np.testing.assert_allclose(np.abs(score_NP), np.abs(pack["pca"]), atol=1e-6)
    basis = basis_of([str(i) for i in range(17)], pack["covariates"], Path("pack"))
    np.testing.assert_allclose(residuals(basis.q_NC, pack["pca"]), pack["residual"], atol=1e-9)
    np.testing.assert_allclose(inverse_normal(pack["residual"]), pack["pheno"], atol=1e-12)


def test_estimates_and_clumps_from_a_file_set(pack, folder: Path, tmp_path: Path) -> None:
    """Written as PLINK files with the variants in another order, and read back."""
    order = np.random.default_rng(0).permutation(len(pack["ids"]))
    count_NM = np.where(pack["genotypes"] < 0, -127, pack["genotypes"])[:, order]
    bed = file_set(tmp_path, count_NM, [f"p{i}" for i in range(len(count_NM))], sid=pack["ids"][order].tolist(),
                   chromosome=[str(c) for c in pack["chrom"][order]], bp_position=pack["pos"][order].tolist())  # fmt: skip
    files = open_file_set(bed)
    names = [str(i) for i in range(10)]

    def basis(value_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = basis_of([str(i) for i in range(17)], value_NC, Path("pack"))
        return found.q_NC, found.z_NC

    parts = parts_of(pack["pheno"], names, np.arange(len(count_NM)), pack["covariates"], basis)
    found = dict(scan(files, parts, tmp_path / "kept", "", 2, lambda: False, lambda _: None))
    place = {n: i for i, n in enumerate(pack["ids"].tolist())}
    merged_p = np.full(len(place), np.nan)
    for name, c in found.items():
        at = [place[i] for i in files.describe(files.by_chromosome[name])]
        for got, wanted in ((c.beta_PM, "beta"), (c.se_PM, "se"), (c.t_PM, "t"), (10**c.log10_p_PM, "p")):
            np.testing.assert_allclose(got, pack[wanted][:, at], rtol=5e-6, err_msg=wanted)
        np.testing.assert_array_equal(c.n_PM, pack["obs"][:, at])
        np.testing.assert_array_equal(c.is_first_M, pack["a1_is_bim_a1"][at])
        np.testing.assert_array_equal((c.code_PM == 1).all(0), pack["constant"][at])
        merged_p[at] = 10 ** merged(c.log10_p_PM)
    np.testing.assert_allclose(merged_p, pack["merged_p"], rtol=5e-6)
    for setting in json.loads((folder / "gwas.clumps.json").read_text()):
        rows = []
        for name, columns in files.by_chromosome.items():
            ids = files.describe(columns)
            log10_p = np.log10(pack["merged_p"][[place[i] for i in ids]])
            rules = Rules(*(setting[k] for k in ("p1", "p2", "r2", "kb")))
            for c in clump(
                files.variants.positions[columns], log10_p, lambda at, k=columns: files.counts(k[at]), rules
            ):
                rows.append((c.log10_p, (ids[c.index], len(c.members), *c.bins, [ids[i] for i in c.listed])))
            assert name in ("1", "2", "22")
        keys = ("index", "TOTAL", "NSIG", "S05", "S01", "S001", "S0001", "SP2")
        assert [r for _, r in sorted(rows, key=lambda r: r[0])] == [
            tuple(c[k] for k in keys) for c in setting["clumps"]
        ]


def test_disequilibrium_of_pairs(pack) -> None:
    count_MN = pack["genotypes"].T
    found = [haplotype_r2(count_MN[a], count_MN[b : b + 1])[0] for a, b in zip(pack["ld_a"], pack["ld_b"], strict=True)]
    np.testing.assert_allclose(found, pack["ld_r2"], atol=5e-7)
    assert allele_tested(count_MN[:3], np.ones(len(count_MN[0]), bool))[0].all()
