#!/usr/bin/env bash
# A class that no case of a test set has (a rare grade, a small fold) is three things to torchmetrics 1.9.0. MulticlassAUROC counts it as an area of 0
# in its macro average (with a warning); MulticlassAveragePrecision leaves it out; MulticlassAccuracy, whose default is macro, counts it as 0 as soon as
# one case is predicted to be it, and leaves it out otherwise. scikit-learn's balanced_accuracy_score leaves it out always. All other classes are the same.
#
# Seen: three classes, of which sixty cases have two: areas .928 and .980, macro .636 (mean of the two: .954); average precision .903 and .982,
# macro .942; accuracy .556 where scikit-learn's balanced accuracy is .833.
# Exit status 0: still so. 1: an absent class is treated alike.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchmetrics==1.9.0 scikit-learn==1.9.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch.nn.functional import one_hot
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassAveragePrecision

truth = torch.tensor([0, 0, 0, 1, 1, 1] * 10)
noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
p = torch.softmax(noise + 2 * one_hot(truth, 3), 1)
area = float(MulticlassAUROC(3)(p, truth))
two = [roc_auc_score(truth == k, p[:, k]) for k in (0, 1)]
precision = float(MulticlassAveragePrecision(3)(p, truth))
each = MulticlassAveragePrecision(3, average="none")(p, truth)[:2]
accuracy, balanced = float(MulticlassAccuracy(3)(p, truth)), balanced_accuracy_score(truth, p.argmax(1))
print(f"areas {two[0]:.3f} {two[1]:.3f}, macro {area:.3f}; average precision {each[0]:.3f} {each[1]:.3f}, macro {precision:.3f}; "
      f"accuracy {accuracy:.3f}, scikit-learn's balanced accuracy {balanced:.3f}")
near = lambda a, b: abs(a - b) < 1e-3
sys.exit(not (near(area, sum(two) / 3) and near(precision, float(each.mean())) and near(accuracy, balanced * 2 / 3)))
PY
