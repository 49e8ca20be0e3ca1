#!/usr/bin/env bash
# A label mask saved with a palette (as annotation tools and VOC's masks are, so that classes have colours) is three different masks. Pillow gives the
# numbers of the classes, 0, 1, 2. torchvision asked for GRAY and OpenCV asked for greyscale give the brightness of each class's colour, 0, 38, 75,
# and that is one channel of whole numbers too; OpenCV asked to change nothing (IMREAD_UNCHANGED) gives three channels of colour. A loss that
# ignores numbers above the last class, or `mask > 0`, runs on all of them.
#
# Seen: classes 0 1 2 on black, dark red, dark green. Pillow 0 1 2; torchvision GRAY 0 38 75; OpenCV GRAYSCALE 0 38 75, UNCHANGED [8, 8, 3] of 0
# and 128.
# Exit status 0: still so. 1: they agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys

import cv2
import numpy as np
from PIL import Image
from torchvision.io import ImageReadMode, read_image

mask = np.zeros((8, 8), np.uint8)
mask[2:4], mask[5:7] = 1, 2
image = Image.fromarray(mask)
image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 3 * 253)
image.save("mask.png")
seen = {
    "Pillow": np.asarray(Image.open("mask.png")),
    "torchvision GRAY": read_image("mask.png", ImageReadMode.GRAY).numpy(),
    "OpenCV GRAYSCALE": cv2.imread("mask.png", cv2.IMREAD_GRAYSCALE),
    "OpenCV UNCHANGED": cv2.imread("mask.png", cv2.IMREAD_UNCHANGED),
}
values = {name: np.unique(a).tolist() for name, a in seen.items()}
print("; ".join(f"{name} {list(a.shape)} {values[name]}" for name, a in seen.items()))
numbers = values["Pillow"] == [0, 1, 2]
sys.exit(not (numbers and values["torchvision GRAY"] == values["OpenCV GRAYSCALE"] == [0, 38, 75] and seen["OpenCV UNCHANGED"].ndim == 3))
PY
