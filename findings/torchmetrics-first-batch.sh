#!/usr/bin/env bash
# Sensitivity at two operating points, both in one `MetricCollection` of torchmetrics 1.9.0: after the FIRST batch it compares what its
# metrics have counted, and those with equal counts share one set of counts for ever. Where no score of that batch lies between the two
# thresholds, both are one metric from then on, whatever their thresholds say, and the second reports the first's value. With a rare disease
# and small batches (slides, volumes) that is the rule. The guide says that groups are determined after the first update, where it speaks of
# what that costs, and not that two thresholds can be taken for one; a report of two metrics of one's own (torchmetrics 2596) is closed. No
# warning. `compute_groups=False` gives each its own.
#
# Seen, 400 patients, a tenth of them sick: sensitivity at .2 and .5: 1.0 and .667 by batches of 400 and 16, 1.0 and 1.0 by batches of 8, 4,
# 2 and 1; with compute_groups=False 1.0 and .667 always.
# Exit status 0: still so. 1: batches agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
cat > "$work/points.py" <<'PY'
import sys

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryRecall

torch.manual_seed(1)
sick = torch.rand(400) < 0.1
score = torch.sigmoid(torch.randn(400) + torch.where(sick, 0.5, -2.0))


def seen(size, **options):
    metrics = MetricCollection({"at_20": BinaryRecall(threshold=0.2), "at_50": BinaryRecall(threshold=0.5)}, **options)
    for start in range(0, 400, size):
        metrics.update(score[start:start + size], sick[start:start + size].int())
    return [round(float(value), 3) for value in metrics.compute().values()]


by_size = {size: (seen(size), seen(size, compute_groups=False)) for size in (400, 16, 8, 4, 2, 1)}
for size, (default, apart) in by_size.items():
    print(f"batches of {size}: sensitivity at .2 and .5 {default}, with compute_groups=False {apart}")
true, merged = [1.0, 0.667], [1.0, 1.0]
sys.exit(by_size != {size: (true if size > 8 else merged, true) for size in by_size})
PY
"$work/venv/bin/python" -W ignore "$work/points.py"
