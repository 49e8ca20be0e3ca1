#!/usr/bin/env bash
# The same 400 logits and labels have another AUC by the size of batches in which torchmetrics 1.9.0 gets them. Its binary (and multilabel) metrics
# decide anew at each `update` whether scores are probabilities: a batch with a value outside 0 to 1 goes through a sigmoid, one whose values all
# happen to lie in 0 to 1 is taken as it stands, and both are ranked together. Slides are evaluated a bag at a time, so that each score decides
# for itself. Probabilities, or one call with all cases, agree with scikit-learn.
#
# Seen: AUC by batches of 400 and 50: .7290 (scikit-learn 1.9.1: .7290), of 4 .7276, of 2 .7012, of 1 .6805; average precision of 1 falls as well.
# Exit status 0: still so. 1: batches agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/bags.py" <<'PY'
import sys

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

generator = torch.Generator().manual_seed(0)
label = torch.randint(0, 2, (400,), generator=generator)
logit = torch.randn(400, generator=generator) * 0.8 + 0.5 + 0.6 * label


def by_batches(metric, score, size):
    for at in range(0, 400, size):
        metric.update(score[at : at + size], label[at : at + size])
    return metric.compute().item()


auc = {size: by_batches(BinaryAUROC(), logit, size) for size in (400, 50, 4, 2, 1)}
told = roc_auc_score(label, logit)
print(f"AUC of scikit-learn {told:.4f}; of torchmetrics by batches of " + ", ".join(f"{s}: {v:.4f}" for s, v in auc.items()))
precision = by_batches(BinaryAveragePrecision(), logit, 1)
print(f"average precision: {average_precision_score(label, logit):.4f}, by batches of one {precision:.4f}")
probabilities = by_batches(BinaryAUROC(), logit.sigmoid(), 1)
print(f"AUC of probabilities by batches of one: {probabilities:.4f}")
sys.exit(not (abs(auc[400] - told) < 1e-5 and abs(probabilities - told) < 1e-5 and auc[1] < told - 0.03 and auc[2] < told - 0.01))
PY
"$work/venv/bin/python" -W ignore "$work/bags.py"
