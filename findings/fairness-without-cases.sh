#!/usr/bin/env bash
# A group of patients without a case of the disease (women over 80 at one hospital, a small fold) and fairlearn 0.15.0: its sensitivity is
# 0, not unknown, and no warning says so. `equalized_odds_difference` and `equal_opportunity_difference` subtract the lowest sensitivity
# from the highest, so that the gap of a model which serves all groups alike is the whole sensitivity, and the ratio, of which 1 is fair, is
# 0. A group without a healthy patient does the same to the false positive rate. The pages of these functions do not say what a group
# without cases counts for; scikit-learn's recall_score warns where it does this. Leave such groups out before the call, or count cases in
# the same MetricFrame.
#
# Seen, three groups, sensitivity .667 in two, no case in the third: by group .667, .667, 0; equalized odds difference .667, ratio 0, no
# warning; without the third group 0 and 1.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fairlearn==0.15.0 scikit-learn==1.9.1 pandas==2.3.3 numpy==2.4.6
cat > "$work/fair.py" <<'PY'
import sys
import warnings

import numpy as np
from fairlearn.metrics import MetricFrame, equalized_odds_difference, equalized_odds_ratio, true_positive_rate
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import recall_score

groups = np.array(["first"] * 60 + ["second"] * 60 + ["third"] * 30)
sick = np.array([1, 1, 1, 0, 0, 0] * 20 + [0] * 30)
found = np.array([1, 1, 0, 1, 0, 0] * 20 + [1, 0, 0] * 10)


def seen(kept):
    told = {"sensitive_features": groups[kept]}
    by_group = MetricFrame(metrics=true_positive_rate, y_true=sick[kept], y_pred=found[kept], **told).by_group
    numbers = (equalized_odds_difference(sick[kept], found[kept], **told), equalized_odds_ratio(sick[kept], found[kept], **told))
    return [round(float(rate), 3) for rate in by_group], [round(float(number), 3) for number in numbers]


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    whole, without = seen(groups != ""), seen(groups != "third")
    warned = [str(w.message) for w in said]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    recall_score(sick[groups == "third"], found[groups == "third"])
    by_sklearn = any(w.category is UndefinedMetricWarning for w in said)
print(f"sensitivity by group, equalized odds difference and ratio: {whole}, warnings {warned}; without the third group {without}")
print(f"scikit-learn's recall of the third group warns: {by_sklearn}")
sys.exit(not (whole == ([0.667, 0.667, 0], [0.667, 0]) and not warned and without == ([0.667, 0.667], [0, 1]) and by_sklearn))
PY
"$work/venv/bin/python" "$work/fair.py"
