#!/usr/bin/env bash
# scikit-learn 1.9.1: `cohen_kappa_score(..., weights="quadratic")`, the usual score for grades 0 to 4 of retinopathy, measures the distance
# between grades by their place among the values that OCCUR in the two lists, not by the grades. If nobody in a test set has grade 2 or
# 3, by truth or by prediction, grade 4 counts as 2, and taking 4 for 1 costs as much as taking 1 for 0. A small test set, a fold or a bootstrap sample
# is scored by another rule than the whole. `labels=range(5)` makes it the score of the grades.
#
# Seen: truth 0 1 4 0, predicted 0 4 1 0: .636 without labels, .163 with them.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/kappa.py" <<'PY'
import sys

import numpy as np
from sklearn.metrics import cohen_kappa_score

truth, predicted = np.array([0, 1, 4, 0]), np.array([0, 4, 1, 0])
without = cohen_kappa_score(truth, predicted, weights="quadratic")
named = cohen_kappa_score(truth, predicted, weights="quadratic", labels=range(5))
squares = (truth[:, None] - predicted) ** 2
by_hand = 1 - np.diag(squares).mean() / squares.mean()
print(f"quadratic kappa: {without:.4f} without labels, {named:.4f} with labels 0 to 4, {by_hand:.4f} from the squared differences")
sys.exit(not (abs(named - by_hand) < 1e-12 and abs(without - 0.63636) < 1e-4))
PY
"$work/venv/bin/python" "$work/kappa.py"
