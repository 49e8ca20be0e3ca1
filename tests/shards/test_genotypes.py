"""PLINK sets and .npz as both PLINKs mean them: chromosomes, people, positions, and which allele a code counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bed_reader import to_bed

from shards.errors import DataError
from shards.sources._genotypes import bases, impute_mode, read_genotypes
from shards.tables.alleles import named, other_alleles

CODES = [[0, 1, 2], [1, 2, 0]]


def plink(folder: Path, codes=CODES, name: str = "g", **more) -> Path:
    """A file set; `more` are columns of .bim and .fam as bed-reader calls them."""
    people, snps = np.shape(codes)
    properties = {
        "iid": [f"p{i}" for i in range(people)], "sid": [f"rs{j}" for j in range(snps)], "chromosome": ["1"] * snps,
        "bp_position": [100 * (j + 1) for j in range(snps)], "allele_1": ["A"] * snps, "allele_2": ["G"] * snps, **more,
    }  # fmt: skip
    path = folder / f"{name}.bed"
    to_bed(path, np.array(codes, np.int8), properties=properties)
    return path


@pytest.mark.parametrize(
    ("chromosomes", "kept"),
    [
        (["01", "02", "10"], 3), (["chr1", "Chr2", "CHR22"], 3), (["1", "X", "MT"], 1), (["23", "24", "22"], 1),
        (["25", "26", "9"], 1), (["0X", "0", "09"], 1), (["PAR1", "XY", "1"], 1), (["chrM", "chrY", "chr7"], 1),
    ],
)  # fmt: skip
def test_chromosomes(tmp_path, chromosomes, kept):
    found = read_genotypes(plink(tmp_path, chromosome=chromosomes), 1)
    assert len(found.snps) == kept
    assert found.codes.shape == (2, kept)
    left = [n for n in found.notes if "on other chromosomes" in n]
    assert bool(left) == (kept < 3)


def test_other_chromosomes_are_counted_by_name(tmp_path):
    found = read_genotypes(plink(tmp_path, [[0] * 6, [1] * 6], chromosome=["23", "X", "26", "0", "25", "1"]), 1)
    assert "genotypes: not read: on other chromosomes: 2 on X, 1 on MT, 1 on 0, 1 on XY" in found.notes


def test_negative_positions_are_off(tmp_path):
    found = read_genotypes(plink(tmp_path, bp_position=[100, -200, 300]), 1)
    assert found.snps == ["rs0", "rs2"]
    assert found.codes.tolist() == [[0, 2], [1, 0]]
    assert any("1 of negative position" in n for n in found.notes)


def test_a_file_that_leaves_no_snp_says_why(tmp_path):
    with pytest.raises(DataError, match="no SNP is left of 3: on other chromosomes: 1 on X, 1 on Y, 1 on MT"):
        read_genotypes(plink(tmp_path, chromosome=["X", "Y", "MT"]), 1)
    with pytest.raises(DataError, match="no SNP is left of 3: 3 of negative position"):
        read_genotypes(plink(tmp_path, bp_position=[-1, -2, -3]), 1)
    missing = read_genotypes(plink(tmp_path, [[-127], [-127]]), 1)
    with pytest.raises(DataError, match="none of 1 SNPs has a single call"):
        impute_mode(missing)


def test_people_of_two_families(tmp_path):
    found = read_genotypes(plink(tmp_path, iid=["1", "1"], fid=["F1", "F2"]), 1)
    assert found.people == ["F1_1", "F2_1"]
    assert found.notes[0] == "g.fam: '1' is a person of 2 families (F1, F2): people are called FID_IID"
    assert read_genotypes(plink(tmp_path, iid=["1", "2"], fid=["F1", "F2"]), 1).people == ["1", "2"]
    with pytest.raises(DataError, match=r"1 people stand twice, .*: 'F1_1' in line 1 and line 2"):
        read_genotypes(plink(tmp_path, iid=["1", "1"], fid=["F1", "F1"]), 1)


def test_bim_and_fam_with_odd_blanks(tmp_path):
    path = plink(tmp_path)
    bim = path.with_suffix(".bim")
    lines = bim.read_text().splitlines()
    bim.write_text("\n".join("  " + line.replace("\t", "   ") + " " for line in lines) + "\n\n")
    path.with_suffix(".fam").write_text("0  p0 0\t0  0 0\n0 p1   0 0 0 0\n")
    found = read_genotypes(path, 1)
    assert (found.people, found.snps, found.codes.tolist()) == (["p0", "p1"], ["rs0", "rs1", "rs2"], CODES)
    bim.write_text("\n".join([" ".join(line.split()[:2] + line.split()[3:]) for line in lines]))  # without centimorgans
    assert read_genotypes(path, 1).snps == ["rs0", "rs1", "rs2"]
    bim.write_text("\n".join(["CHR SNP CM BP A1 A2", *lines]))
    with pytest.raises(DataError, match=r"g\.bim: 1 lines are not read: line 1: position 'BP'"):
        read_genotypes(path, 1)
    bim.write_text("\n".join([*lines[:2], "1 rs2 0 300"]))
    with pytest.raises(DataError, match=r"g\.bim: 1 lines are not read: line 3 has 4 cells"):
        read_genotypes(path, 1)
    bim.write_text("\n".join(lines[:2] * 4))
    with pytest.raises(DataError, match=r"g\.bed: has 6 bytes; 2 people of the \.fam and 8 SNPs of the \.bim need 11"):
        read_genotypes(path, 1)


def test_the_same_dna_reads_alike_whichever_allele_a_file_counts(tmp_path):
    codes = np.array([[0, 1, -127], [2, 2, 1], [1, -127, 0]])
    other = np.where(codes < 0, codes, 2 - codes)
    a = plink(tmp_path, codes, "a", allele_1=["A", "C", "AT"], allele_2=["G", "T", "A"])
    b = plink(tmp_path, other, "b", allele_1=["G", "T", "A"], allele_2=["A", "C", "AT"])
    one, two = read_genotypes(a, 1), read_genotypes(b, 1)
    np.testing.assert_array_equal(one.codes, two.codes)
    assert one.names == two.names == ["rs0_A(/G)", "rs1_C(/T)", "rs2_A(/AT)"]
    assert one.snps == ["rs0", "rs1", "rs2"]
    as_written = [read_genotypes(p, 1, "file") for p in (a, b)]
    np.testing.assert_array_equal(as_written[0].codes, np.where(codes < 0, -1, codes))
    np.testing.assert_array_equal(as_written[1].codes, np.where(codes < 0, -1, other))
    assert as_written[0].names == ["rs0_A(/G)", "rs1_C(/T)", "rs2_AT(/A)"]
    assert as_written[1].names == ["rs0_G(/A)", "rs1_T(/C)", "rs2_A(/AT)"]
    said = other_alleles(as_written[0].names, as_written[1].names)
    assert said is not None
    assert said.startswith("3 of 3 SNPs count another allele (rs0_A(/G) and rs0_G(/A), ")
    assert "--count-allele sorted" in said
    assert all(g.names_say_alleles for g in (one, two, *as_written))


def test_vocabularies_that_differ_in_more_than_alleles_are_not_called_so():
    assert other_alleles(["rs0_A(/G)"], ["rs1_G(/A)"]) is None
    assert other_alleles(["rs0_A(/G)"], ["rs0_A(/G)"]) is None
    assert other_alleles(["rs0_A(/G)"], ["rs0_A(/G)", "rs1_A(/G)"]) is None
    assert other_alleles(None, ["rs0_A(/G)"]) is None
    assert other_alleles(["rs0", "rs1_A"], ["rs0_G(/A)", "rs1_A"]) is not None, (
        "one that does not say, and one that does"
    )
    assert [named("rs1", *ab) for ab in (("A", "G"), ("A", ""), ("", "G"))] == ["rs1_A(/G)", "rs1_A", "rs1"]


def test_alleles_that_tell_nothing(tmp_path):
    assert bases(["1", "2"], ["2", "1"]) == ([], []), "minor and major of this file"
    assert bases(["A1"], ["A2"]) == ([], [])
    assert bases(["1", "3"], ["2", "4"]) == (["A", "G"], ["C", "T"]), "--allele1234"
    assert bases(["a", "0"], ["g", "C"]) == (["A", ""], ["G", "C"])
    coded = plink(tmp_path, allele_1=["1", "2", "1"], allele_2=["2", "1", "2"])
    found = read_genotypes(coded, 1)
    assert found.names == found.snps == ["rs0", "rs1", "rs2"]
    assert not found.names_say_alleles
    assert any("WHICH ALLELE IS COUNTED IS NOT TOLD" in n for n in found.notes)
    lost = read_genotypes(plink(tmp_path, allele_1=["0", "A", "C"], allele_2=["G", "T", "G"]), 1)
    assert lost.names == ["rs0", "rs1_A(/T)", "rs2_C(/G)"]
    assert not lost.names_say_alleles
    assert any("1 of 3 SNPs lack an allele" in n for n in lost.notes)
    assert any("2 SNPs are A/T or C/G" in n for n in lost.notes)


def test_ids_that_several_snps_share_are_told_apart_by_place_and_alleles(tmp_path):
    more = {"sid": ["rs1", "rs1", "."], "bp_position": [5, 5, 9], "allele_2": ["G", "T", "G"]}
    found = read_genotypes(plink(tmp_path, chromosome=["chr1"] * 3, **more), 1)
    assert found.snps == ["1:5", "1:5#2", "1:9"]
    assert found.names == ["1:5_A(/G)", "1:5_A(/T)", "1:9_A(/G)"]


def test_npz(tmp_path):
    """Ids as bytes, chromosomes as floats, alleles COUNTED/OTHER."""
    path = tmp_path / "g.npz"
    arrays = {
        "genotype": np.array(CODES, np.int8),
        "sample_id": np.array([b"p0", b"p1"]),
        "rsid": np.array([b"rs0", b"rs1", b"rs2"]),
    }
    np.savez(path, chrom=np.array([1.0, 2.0, 23.0]), **arrays)
    found = read_genotypes(path, None)
    assert (found.people, found.snps) == (["p0", "p1"], ["rs0", "rs1"])
    np.savez(path, chrom=np.array([b"1", b"chr2", b"03"]), allele=np.array([b"A/G", b"T/C", b"G/T"]), **arrays)
    assert read_genotypes(path, None, "file").names == ["rs0_A(/G)", "rs1_T(/C)", "rs2_G(/T)"]
    turned = read_genotypes(path, None)
    assert turned.names == ["rs0_A(/G)", "rs1_C(/T)", "rs2_G(/T)"]
    assert turned.codes.tolist() == [[0, 1, 2], [1, 0, 0]]
    np.savez(path, chrom=["1"] * 3, allele=["A/G", "T", "G/T"], **arrays)
    with pytest.raises(DataError, match="1 alleles are not COUNTED/OTHER, such as 'T'"):
        read_genotypes(path, None)
    np.savez(path, chrom=["1"] * 3, allele=["A/G"], **arrays)
    with pytest.raises(DataError, match="genotype is"):
        read_genotypes(path, None)


def test_a_file_a_chromosome_is_read_as_one(tmp_path):
    """Wherever the files are cut and whoever stands first in them; people who differ are named."""
    rng = np.random.default_rng(0)
    codes, people = rng.integers(0, 3, (4, 30)), [f"p{i}" for i in range(4)]
    more = {"chromosome": ["22"] * 9 + ["1"] * 12 + ["22"] * 6 + ["X"] * 3, "sid": [f"rs{j}" for j in range(30)]}
    more |= {"bp_position": rng.permutation(30) + 1, "allele_1": ["A"] * 30, "allele_2": ["G"] * 30}
    whole = read_genotypes(plink(tmp_path, codes, **more), 4)
    parts = []
    for k, (mine, order) in enumerate(
        [(range(12), [0, 1, 2, 3]), (range(12, 25), [3, 1, 0, 2]), (range(25, 30), [2, 3, 1, 0])]
    ):
        of = {n: [v[j] for j in mine] for n, v in more.items()}
        parts.append(plink(tmp_path, codes[order][:, mine], f"part{k}", iid=[people[i] for i in order], **of))
    found = read_genotypes(parts, 4)
    assert (found.people, found.snps, found.names) == (whole.people, whole.snps, whole.names)
    assert np.array_equal(found.codes, whole.codes)
    assert "genotypes: 3 files of the same people are read as one" in found.notes
    parts[1].with_suffix(".fam").write_text(parts[1].with_suffix(".fam").read_text().replace("p1", "q1"))
    with pytest.raises(
        DataError, match=r"part1.fam: other people than in part0.fam: 1 .* not here, 1 .* \('p1', 'q1'\)"
    ):
        read_genotypes(parts, 4)
    with pytest.raises(DataError, match="one of several files"):
        read_genotypes([parts[0], tmp_path / "g.npz"], 4)
