#!/usr/bin/env bash
# One variant without a p value (a monomorphic one: every association tool writes NA for it) among 1,000, and statsmodels 0.15.0 gives two answers in
# one call: `multipletests(p, method="fdr_bh")` still rejects 23, but all 1,000 corrected p values are NaN, so that a list of q < .05 is empty. The same
# with fdr_by, fdr_tsbh and simes-hochberg; hommel and fdr_gbs reject none; bonferroni, sidak and holm are as they should be. No warning.
# scipy 1.17.1's false_discovery_control refuses the NaN.
#
# Seen: without the NaN 23 rejected, 23 corrected values under .05; with it 23 and 0.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1 pandas==2.3.3 numpy==2.4.6
cat > "$work/fdr.py" <<'PY'
import sys
import warnings

import numpy as np
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

warnings.simplefilter("error")
p = np.random.default_rng(0).uniform(size=1000)
p[:20] = 1e-8
gap = p.copy()
gap[500] = np.nan


def counts(values, method):
    rejected, corrected, *_ = multipletests(values, method=method)
    return int(rejected.sum()), int((corrected < 0.05).sum())


seen = {m: (counts(p, m), counts(gap, m)) for m in ("bonferroni", "holm", "fdr_bh", "fdr_by", "fdr_tsbh", "hommel", "fdr_gbs")}
for method, (whole, one) in seen.items():
    print(f"{method}: rejected, corrected under .05: {whole}; with one NaN {one}")
try:
    false_discovery_control(gap)
    refused = False
except ValueError as e:
    refused = True
    print(f"scipy: {e}")
split = all(seen[m][1][0] > 0 and seen[m][1][1] == 0 for m in ("fdr_bh", "fdr_by", "fdr_tsbh"))
none = all(seen[m][0][0] > 0 and seen[m][1] == (0, 0) for m in ("hommel", "fdr_gbs"))
sys.exit(not (refused and split and none and seen["fdr_bh"][0] == (23, 23) and seen["holm"][1] == (20, 20)))
PY
"$work/venv/bin/python" "$work/fdr.py"
