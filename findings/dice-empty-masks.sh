#!/usr/bin/env bash
# Ten slices, eight of them healthy; a network draws both lesions exactly, and a spot in four of the healthy slices. MONAI 1.6.1's DiceMetric with its
# defaults: 1.00, since a case whose true mask is empty is left out, whatever was drawn in it. With ignore_empty=False: .60, as an empty
# mask that stays empty counts 1. torchmetrics 1.9.0's DiceScore: .33, as the spots count 0 and what is rightly left empty is left out. Nothing is
# warned of. In data where most slices are empty (pneumothorax, lesions) a published Dice says little without the rule.
#
# Seen: MONAI 1.0, with ignore_empty=False .6; torchmetrics .3333, by pixels of all slices (aggregation_level="global") .8.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 monai==1.6.1 torchmetrics==1.9.0 numpy==2.4.6
cat > "$work/dice.py" <<'PY'
import sys

import torch
from monai.metrics import DiceMetric
from torchmetrics.segmentation import DiceScore

truth, drawn = torch.zeros(10, 1, 32, 32, dtype=torch.int64), torch.zeros(10, 1, 32, 32, dtype=torch.int64)
truth[:2, :, 8:16, 8:16] = 1
drawn[:2, :, 8:16, 8:16] = 1
drawn[2:6, :, :4, :4] = 1


def monai(**options):
    metric = DiceMetric(**options)
    metric(drawn, truth)
    return round(float(metric.aggregate()), 4)


def torchmetrics(level):
    metric = DiceScore(num_classes=1, average="micro", input_format="one-hot", aggregation_level=level)
    return round(float(metric(drawn, truth)), 4)


seen = {
    "MONAI": monai(), "MONAI, ignore_empty=False": monai(ignore_empty=False),
    "torchmetrics": torchmetrics("samplewise"), "torchmetrics, global": torchmetrics("global"),
}
print(*(f"{name}: {value}" for name, value in seen.items()), sep="\n")
sys.exit(list(seen.values()) != [1.0, 0.6, 0.3333, 0.8])
PY
"$work/venv/bin/python" "$work/dice.py"
