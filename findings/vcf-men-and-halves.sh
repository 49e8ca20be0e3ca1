#!/usr/bin/env bash
# A VCF of chromosome X with men as haploid calls ("1") and halves of calls ("./1"), both valid, in two readers. cyvcf2 0.35.0: the man with "1" is HOM_ALT
# (two alternate alleles), "./1" is HET, and `aaf` counts both so. scikit-allel 1.3.13: the man with "1" has one alternate allele by
# `to_n_alt()`, which also turns what is missing into 0; asked to mark the missing (`fill=-1`), it calls every man missing, whatever he carries, since
# his second allele is stored as -1. Documented: the 0 for missing, and cyvcf2's strict_gt for halves. Of men neither documentation says a word.
# Dosages of 2, 1 and missing for the same call are three association tests.
#
# Seen, of "0" "1" "." (men), "0/1" "1/1" "./1" "./." (women): cyvcf2 (gts012) 0 2 missing, 1 2 1 missing, aaf .6 where 5 of 7 alleles are alternate (.714);
# with strict_gt "./1" is missing; scikit-allel 0 1 0, 1 2 1 0; with fill=-1 missing for all three men and for "./1".
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cyvcf2==0.35.0 scikit-allel==1.3.13 numpy==2.4.6
cat > "$work/men.py" <<'PY'
import sys

import allel
from cyvcf2 import VCF

CALLS = ["0", "1", ".", "0/1", "1/1", "./1", "./."]
path = f"{sys.argv[1]}/x.vcf"
with open(path, "w") as file:
    file.write('##fileformat=VCFv4.2\n##contig=<ID=X>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n')
    file.write("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *(f"p{i}" for i in range(7))]) + "\n")
    file.write("\t".join(["X", "3000000", "rs1", "A", "G", ".", "PASS", ".", "GT", *CALLS]) + "\n")


def cyvcf2(**options):
    (variant,) = VCF(path, gts012=True, **options)
    return [int(v) if v < 3 else -1 for v in variant.gt_types], round(float(variant.aaf), 4)


calls = allel.GenotypeArray(allel.read_vcf(path, fields=["calldata/GT"])["calldata/GT"])
(seen, aaf), (strict, _) = cyvcf2(), cyvcf2(strict_gt=True)
plain, marked = calls.to_n_alt()[0].tolist(), calls.to_n_alt(fill=-1)[0].tolist()
reference, alternate = calls.count_alleles()[0].tolist()
print("calls", *CALLS)
print(f"alternate alleles (missing: -1): cyvcf2 {seen}, strict {strict}; scikit-allel {plain}, fill=-1 {marked}")
print(f"alternate: {alternate} of {reference + alternate} alleles, {alternate / (reference + alternate):.4f}; cyvcf2's aaf {aaf}")
sys.exit(not (
    seen == [0, 2, -1, 1, 2, 1, -1] and strict == [0, 2, -1, 1, 2, -1, -1] and plain == [0, 1, 0, 1, 2, 1, 0]
    and marked == [-1, -1, -1, 1, 2, -1, -1] and aaf == 0.6 and (reference, alternate) == (2, 5)
))
PY
"$work/venv/bin/python" -W ignore "$work/men.py" "$work"
