#!/usr/bin/env bash
# The same Cox model in three libraries, on follow-up in whole months (as clinical tables have it, so that many patients share a time): lifelines
# 0.30.3 handles ties by Efron's method and has no other, scikit-survival 0.28.0 and statsmodels 0.15.0 take Breslow's unless told. The coefficient
# differs by a fifth, and with it every risk score and hazard ratio. With `ties="efron"` all three agree.
#
# Seen: 200 patients, true log hazard ratio 1, times rounded up to whole months (20 different ones): lifelines .860, scikit-survival and
# statsmodels .670, with ties="efron" .860.
# Exit status 0: still so. 1: the defaults agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lifelines==0.30.3 scikit-survival==0.28.0 statsmodels==0.15.0 pandas==2.3.3 numpy==2.4.6
cat > "$work/cox.py" <<'PY'
import sys

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from statsmodels.duration.hazard_regression import PHReg

rng = np.random.default_rng(0)
x = rng.normal(size=200)
table = pd.DataFrame({"x": x, "months": np.ceil(rng.exponential(np.exp(-x)) * 2), "died": 1})
outcome = Surv.from_arrays(table.died.astype(bool), table.months)
seen = {
    "lifelines": CoxPHFitter().fit(table, "months", "died").params_["x"],
    "scikit-survival": CoxPHSurvivalAnalysis().fit(table[["x"]], outcome).coef_[0],
    "statsmodels": PHReg(table.months, table[["x"]], table.died).fit().params[0],
    "scikit-survival, efron": CoxPHSurvivalAnalysis(ties="efron").fit(table[["x"]], outcome).coef_[0],
    "statsmodels, efron": PHReg(table.months, table[["x"]], table.died, ties="efron").fit().params[0],
}
print(f"{table.months.nunique()} times among 200 patients; " + ", ".join(f"{name} {value:.3f}" for name, value in seen.items()))
near = lambda a, b: abs(seen[a] - seen[b]) < 1e-3
sys.exit(not (
    near("lifelines", "scikit-survival, efron") and near("lifelines", "statsmodels, efron")
    and near("scikit-survival", "statsmodels") and seen["lifelines"] - seen["scikit-survival"] > 0.15
))
PY
"$work/venv/bin/python" -W ignore "$work/cox.py"
