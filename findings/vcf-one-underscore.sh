#!/usr/bin/env bash
# plink 1.9 takes a sample's name in a VCF apart where it has one underscore: `north_1` becomes family `north`, person `1`. plink 2 leaves it whole,
# as the person. A name without an underscore is family and person at once for plink 1.9, and one with two ends it; for plink 2 nothing changes.
# So the person `1` of `north` and the person `1` of `south` have one IID in the file set of plink 1.9, and bed-reader's `iid`, by which most code
# joins genotypes with images, has it twice. Made by plink 2 from the same VCF the four people stay four.
# Give --double-id (plink 1.9) or --id-delim (plink 2), and join by FID and IID where a file set is not your own.
#
# Seen: IIDs of plink 1.9: 1 1 2 2 (two different ones of four people, with other genotypes); of plink 2: north_1 south_1 north_2 south_2.
# Needs Debian's plink1.9 (1.90~b6.26) and plink2 (2.00~a3.5).
# Exit status 0: still so. 1: both make the same names.
set -euo pipefail
for program in plink1.9 plink2; do
  command -v "$program" >/dev/null || { echo "no $program: apt-get install plink1.9 plink2" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check bed-reader==1.1.0 numpy==2.4.6
cd "$work"
python3 - <<'PY'
head = ["##fileformat=VCFv4.2", "##contig=<ID=1>", '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">']
columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "north_1", "south_1", "north_2", "south_2"]
lines = [[1, 100 + k, f"rs{k}", "A", "G", ".", "PASS", ".", "GT", "0/0", "0/1", "1/1", "0/1"] for k in range(5)]
open("people.vcf", "w").write("\n".join([*head, "\t".join(columns), *("\t".join(map(str, line)) for line in lines)]) + "\n")
PY
plink1.9 --vcf people.vcf --make-bed --out one >one.said 2>&1
plink2 --vcf people.vcf --make-bed --out two >two.said 2>&1
"$work/venv/bin/python" - <<'PY'
import sys

from bed_reader import open_bed

iids, same = {}, None
for name in ("one", "two"):
    with open_bed(f"{name}.bed", num_threads=1) as bed:
        iids[name], calls = bed.iid.tolist(), bed.read()
        same = same if name == "two" else bool((calls[0] == calls[1]).all())
print(f"plink 1.9: {' '.join(iids['one'])}; plink 2: {' '.join(iids['two'])}; the two people called 1 have the same genotypes: {same}")
sys.exit(not (iids["one"] == ["1", "1", "2", "2"] and len(set(iids["two"])) == 4 and not same))
PY
