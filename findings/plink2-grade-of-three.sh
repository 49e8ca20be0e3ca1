#!/usr/bin/env bash
# A phenotype of grades 0, 1, 2 (no, mild, severe) in a table for plink 2 (a3.5): everybody with grade 0 is left out, 1 becomes the controls and 2 the
# cases. plink reads a column whose values are all among 0, 1, 2, -9 as case and control, in which 0 means missing; it says "1 binary phenotype loaded"
# and ends well. With one person of grade 3 the same column is a quantity, and all are in. plink's page on its input states how cases are coded and that 0 may
# mean missing there; that the values choose the model, and the healthy are then those who are missing, is left to the reader. Adding 10 to
# all grades keeps everybody, and the coefficient is that of the grade.
#
# Seen, 120 people, 40 of each grade: 0 1 2: logistic model of 80; one 2 made 3: linear model of 120; all plus 10: linear model of 120.
# Exit status 0: still so. 1: it changed. 2: Debian's plink2 (2.00~a3.5) is not here.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plink2 --version 2>/dev/null | grep -q "v2.00a3.5" || { echo "needs plink2 2.00~a3.5: apt-get install plink2"; exit 2; }
cd "$work"
python3 - <<'PY'
import random

random.seed(0)
people = [f"person{i}" for i in range(120)]
head = ["##fileformat=VCFv4.2", "##contig=<ID=1>", '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">']
columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *people]
calls = random.choices(["0/0", "0/1", "1/1"], k=120)
line = ["1", "100", "rs1", "A", "G", ".", "PASS", ".", "GT", *calls]
open("people.vcf", "w").write("\n".join([*head, "\t".join(columns), "\t".join(line)]) + "\n")
grades = [i % 3 for i in range(120)]
for name, values in {"three": grades, "four": [*grades[:-1], 3], "plus10": [10 + grade for grade in grades]}.items():
    rows = (f"{person}\t{value}\n" for person, value in zip(people, values))
    open(f"{name}.txt", "w").write("#IID\tgrade\n" + "".join(rows))
PY
for name in three four plus10; do
  plink2 --vcf people.vcf --pheno $name.txt --glm allow-no-covars --threads 1 --out $name >/dev/null
  file=$(ls $name.grade.glm.*)
  count=$(awk -F'\t' 'NR == 1 {for (i = 1; i <= NF; i++) if ($i == "OBS_CT") c = i} NR == 2 {print $c}' "$file")
  echo "$name: $(grep -o '1 [a-z]* phenotype loaded ([^)]*)' $name.log), ${file#*.glm.}, people in the model: $count" | tee -a seen.txt
done
grep -q "three: 1 binary .*logistic.*: 80$" seen.txt && grep -q "four: 1 quantitative .*linear.*: 120$" seen.txt &&
  grep -q "plus10: 1 quantitative .*linear.*: 120$" seen.txt
