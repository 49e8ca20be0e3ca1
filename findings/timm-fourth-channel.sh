#!/usr/bin/env bash
# timm fits published weights to other numbers of channels (in_chans) by repeating the three colours and scaling by 3 / channels. Of four MRI sequences the
# first and the fourth get the filters of red and every one three quarters of its own: which sequence stands where decides what the network begins with,
# and swapping the first with the fourth changes nothing while swapping the first with the second does. With one channel the three filters are added up
# instead, which is as if the grey image stood in all three.
#
# Seen (timm 1.0.31, resnet18, first convolution of a file of weights): 4 channels: 0.75 x red, green, blue, red; 2 channels: 1.5 x red, green;
# 1 channel: red + green + blue. Output of random weights: 0 apart for 1 <-> 4, above 0 for 1 <-> 2.
# Exit status 0: still so. 1: changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import timm
import torch

torch.manual_seed(0)
torch.save(timm.create_model("resnet18").state_dict(), "weights.pth")


def begun(channels):
    words = {"pretrained": True, "pretrained_cfg_overlay": {"file": "weights.pth"}, "in_chans": channels}
    return timm.create_model("resnet18", **words).eval()


rgb = torch.load("weights.pth")["conv1.weight"]
four, two, one = (begun(n).conv1.weight.detach() for n in (4, 2, 1))
repeated = torch.allclose(four, 0.75 * rgb[:, [0, 1, 2, 0]]) and torch.allclose(two, 1.5 * rgb[:, :2])
added = torch.allclose(one, rgb.sum(1, keepdim=True), atol=1e-6)
with torch.no_grad():
    net, x = begun(4), torch.randn(2, 4, 64, 64)
    plain, last, second = (net(x[:, order]) for order in ([0, 1, 2, 3], [3, 1, 2, 0], [1, 0, 2, 3]))
apart = [float((plain - other).abs().max()) for other in (last, second)]
print(f"repeated and scaled: {repeated}; one channel adds up: {added}; output apart for 1 <-> 4: {apart[0]:.1e}, for 1 <-> 2: {apart[1]:.1e}")
sys.exit(not (repeated and added and apart[0] < 1e-5 < 1e-4 < apart[1]))
PY
