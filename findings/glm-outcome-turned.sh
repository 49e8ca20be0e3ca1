#!/usr/bin/env bash
# statsmodels 0.15.0, formulas: the same outcome as 0/1, as True/False or as the words "alive" and "dead" gives `smf.glm(..., family=Binomial())` and `smf.gee`
# two models of opposite sign. A column that is not numeric becomes one column per value, in the order of the alphabet, and two columns are read as
# [success, failure], as the documentation of GLM says of arrays: so the probability of False, or of "alive", is fitted. pandas makes such a column out of
# every comparison (`table.stage > 2`). R's glm takes TRUE, or the second level, as the event. `smf.logit` refuses the same column. The documentation does
# not mention columns that are not numbers. Two signs of it: `endog_names` is a list of two, and every odds ratio is one over the right one.
#
# Seen: 400 patients, true coefficient 1: as 0/1 1.003 by glm, gee and logit; as bool, "no"/"yes", "alive"/"dead" -1.003 by glm and gee, no warning, and a
# ValueError of logit.
# Exit status 0: still so. 1: the signs agree, or it is refused.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1 pandas==2.3.3 numpy==2.4.6
cat > "$work/outcome.py" <<'PY'
import sys
import warnings

import numpy as np
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf

warnings.simplefilter("error")
rng = np.random.default_rng(0)
x = rng.normal(size=400)
died = rng.random(400) < 1 / (1 + np.exp(0.5 - x))
columns = {"0/1": died.astype(int), "bool": died, "no/yes": np.where(died, "yes", "no"), "alive/dead": np.where(died, "dead", "alive")}
fits = {
    "glm": lambda t: smf.glm("y ~ x", t, family=sm.families.Binomial()).fit(),
    "gee": lambda t: smf.gee("y ~ x", groups=np.arange(400), data=t, family=sm.families.Binomial()).fit(),
    "logit": lambda t: smf.logit("y ~ x", t).fit(disp=0),
}


def coefficient(fit, column):
    try:
        return round(float(fit(pd.DataFrame({"x": x, "y": column})).params["x"]), 3)
    except ValueError:
        return "refused"


seen = {name: [coefficient(fit, column) for fit in fits.values()] for name, column in columns.items()}
for name, found in seen.items():
    print(f"{name}: " + ", ".join(f"{by} {value}" for by, value in zip(fits, found)))
sys.exit(seen.pop("0/1") != [1.003] * 3 or any(found != [-1.003, -1.003, "refused"] for found in seen.values()))
PY
"$work/venv/bin/python" "$work/outcome.py"
