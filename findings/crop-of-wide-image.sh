#!/usr/bin/env bash
# torchvision 0.29.1's RandomResizedCrop draws ten times an area in `scale` and a shape in `ratio` (3/4 to 4/3); where none of the ten fits into the image, it
# takes the largest central crop of an allowed shape. For an image wider than (4/3) / scale[0] nothing ever fits: the "random" crop is the same in every
# epoch, smaller than scale[0] allows, and the two ends of the image are never seen in training. open_clip 3.3.0 trains with scale .9 to 1 unless told, so
# that any image wider than 1.48:1 is meant: OCT B-scans and dental panoramas (2:1 to 3:1), strips of an ECG, whole spines. torchvision's documentation says
# that area and shape are random, and not what happens otherwise (it stands in a comment of the source). A wider `ratio`, or Resize first, cures it.
#
# Seen, of 500 crops: 100 x 100 pixels, scale .9 to 1: 326 different; 100 x 150: one, 88.7 % of the image; 100 x 310: one, 42.9 %, also with scale .5
# to 1. open_clip's own training transform of a 100 x 310 image: one picture, and the outer 88 columns of each side never in it.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0 numpy==2.4.6
cat > "$work/crops.py" <<'PY'
import sys

import numpy as np
import torch
from open_clip import image_transform
from PIL import Image
from torchvision.transforms import RandomResizedCrop

torch.manual_seed(0)


def drawn(height, width, scale):
    """(different crops of 500, largest share of the image's area)."""
    boxes = [RandomResizedCrop.get_params(torch.zeros(1, height, width), scale, (3 / 4, 4 / 3)) for _ in range(500)]
    return len(set(boxes)), max(h * w for _, _, h, w in boxes) / (height * width)


found = {}
for height, width, scale in ((100, 100, (0.9, 1)), (100, 150, (0.9, 1)), (100, 310, (0.9, 1)), (100, 310, (0.5, 1)), (100, 310, (0.2, 1))):
    found[width, scale[0]] = many, share = drawn(height, width, scale)
    print(f"{height} x {width}, scale {scale}: {many} different crops, area at most {share:.3f}")

train = image_transform(64, is_train=True)
columns = np.zeros((100, 310, 3), np.uint8)
columns[:, :88] = columns[:, -88:] = 255  # white ends; -2 or so is black after open_clip's normalisation
views = torch.stack([train(Image.fromarray(columns)) for _ in range(200)])
same, dark = bool((views == views[0]).all()), bool((views < 0).all())
print(f"open_clip's training transform, 100 x 310: one picture in 200: {same}; never a pixel of the outer 88 columns: {dark}")
few = [found[150, 0.9], found[310, 0.9], found[310, 0.5]]
sys.exit(not (
    found[100, 0.9][0] > 200 and [many for many, _ in few] == [1, 1, 1] and [round(share, 3) for _, share in few] == [0.887, 0.429, 0.429]
    and found[310, 0.2][0] > 200 and same and dark
))
PY
"$work/venv/bin/python" -W ignore "$work/crops.py"
