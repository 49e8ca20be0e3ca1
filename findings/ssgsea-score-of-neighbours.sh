#!/usr/bin/env bash
# A patient's pathway score by gseapy 1.3.1's `ssgsea`: NES, the column that people take along, is ES divided by the range of all ES of the
# call, over all samples and all gene sets. The same patient with the same genes has another NES for each cohort he is analysed in, and for
# each collection of gene sets. Test patients who are scored together with training patients shift these; a new patient scored alone is on
# another scale. With one sample and one set NES is infinite. ES does not depend on the others. The documentation of the function does not
# say how NES is made. (gsva of the same package compares samples by design.)
#
# Seen, the first of six patients, one set of 20 genes: ES 148.49 always; NES 1.01 in a cohort of four, .56 in one of six, .91 in the one of
# four with a second set, inf alone.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check gseapy==1.3.1 pandas==2.3.3 numpy==2.4.6
cat > "$work/pathways.py" <<'PY'
import sys

import gseapy
import numpy as np
import pandas as pd

genes = [f"G{i}" for i in range(500)]
table = pd.DataFrame(np.random.default_rng(0).normal(5, 1, (500, 6)), index=genes, columns=list("abcdef"))
table.iloc[:20, 0] += 1
table.iloc[:40, 5] += 4
one, two = {"set": genes[:20]}, {"set": genes[:20], "other": genes[100:140]}


def first(patients, sets):
    rows = gseapy.ssgsea(table[list(patients)], sets, outdir=None, threads=1).res2d
    row = rows[(rows.Name == "a") & (rows.Term == "set")].iloc[0]
    return round(float(row.ES), 2), round(float(row.NES), 2)


seen = {"four": first("abcd", one), "six": first("abcdef", one), "four, two sets": first("abcd", two), "alone": first("a", one)}
print(*(f"{name}: ES {es}, NES {nes}" for name, (es, nes) in seen.items()), sep="\n")
sys.exit(not (len({es for es, _ in seen.values()}) == 1 and [nes for _, nes in seen.values()] == [1.01, 0.56, 0.91, np.inf]))
PY
"$work/venv/bin/python" -W ignore "$work/pathways.py"
