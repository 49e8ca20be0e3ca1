#!/usr/bin/env bash
# One .bed of genotypes, "how many copies?", three answers. bed-reader 1.1.0 counts the allele of column 5 of the .bim. plink 1.9 (b6.26) `--recode A`
# counts the allele that is rarer among the people it was given. plink 2 (a3.5) `--export A` counts column 6, the reference allele. And
# plink 1.9 `--make-bed` exchanges columns 5 and 6 of a variant whose column-5 allele is the more frequent one among the people that are kept:
# cut into training and test by `--keep`, the same variant can have its alleles in another order in the two files, and bed-reader then returns
# 2 - g in one of them. plink 2 `--make-bed` leaves them. Compare allele_1 of the files, or cut with plink 2 or --keep-allele-order.
#
# Seen: six variants with column-5 frequencies .14 .35 .50 .51 .69 .89 among 60 people; alleles after plink 1.9: training A A A A G G, test
# A A A G G G; plink 2: A six times in both; --export A counts G six times, --recode A counts A A A G G G.
# Exit status 0: still so. 1: it changed. 2: Debian's plink1.9 and plink2 are not here.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plink1.9 --version | grep -q "v1.90b6.26" && plink2 --version | grep -q "v2.00a3.5" || { echo "needs plink1.9 1.90~b6.26 and plink2 2.00~a3.5"; exit 2; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check bed-reader==1.1.0 numpy==2.4.6
cat > "$work/alleles.py" <<'PY'
import subprocess
import sys

import numpy as np
from bed_reader import open_bed, to_bed

folder, people, variants = sys.argv[1], 60, 6
copies = np.random.default_rng(0).binomial(2, [0.1, 0.3, 0.48, 0.52, 0.7, 0.9], (people, variants)).astype(float)
names = [f"p{i}" for i in range(people)]
to_bed(f"{folder}/all.bed", copies, properties={
    "fid": ["0"] * people, "iid": names, "sex": [1] * people, "sid": [f"rs{i}" for i in range(variants)], "chromosome": ["1"] * variants,
    "bp_position": range(1, variants + 1), "allele_1": ["A"] * variants, "allele_2": ["G"] * variants,
})
parts = {"train": names[:40], "test": names[40:]}


def run(program, *options):
    subprocess.run([program, "--bfile", f"{folder}/all", *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


seen = {"bed-reader counts": "".join(open_bed(f"{folder}/all.bed").allele_1)}
assert (open_bed(f"{folder}/all.bed").read() == copies).all()
for program, export in (("plink1.9", "--recode"), ("plink2", "--export")):
    run(program, export, "A", "--out", f"{folder}/{program}")
    seen[f"{program} {export} A counts"] = "".join(c[-1] for c in open(f"{folder}/{program}.raw").readline().split()[6:])
    for part, kept in parts.items():
        with open(f"{folder}/{part}.txt", "w") as file:
            file.writelines(f"0 {name}\n" for name in kept)
        run(program, "--keep", f"{folder}/{part}.txt", "--make-bed", "--out", f"{folder}/{program}-{part}")
        seen[f"{program} {part}"] = "".join(open_bed(f"{folder}/{program}-{part}.bed").allele_1)
print(*(f"{name}: {alleles}" for name, alleles in seen.items()), sep="\n")
sys.exit(seen != {
    "bed-reader counts": "AAAAAA", "plink1.9 --recode A counts": "AAAGGG", "plink2 --export A counts": "GGGGGG",
    "plink1.9 train": "AAAAGG", "plink1.9 test": "AAAGGG", "plink2 train": "AAAAAA", "plink2 test": "AAAAAA",
})
PY
"$work/venv/bin/python" "$work/alleles.py" "$work"
