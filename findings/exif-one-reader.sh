#!/usr/bin/env bash
# A photograph (of a fundus, of skin, of a slide's label) whose EXIF says that the camera was held upright is turned by OpenCV's imread, and by nobody else:
# Pillow, torchvision and OpenCV itself with IMREAD_UNCHANGED give the pixels as stored. It holds for greyscale, and for PNG, which carries EXIF as well.
# Boxes and masks drawn in one of them lie across the image in the other; of a square photograph no shape tells.
# Ask for one way by name: ImageOps.exif_transpose (Pillow), apply_exif_orientation=True (torchvision), IMREAD_IGNORE_ORIENTATION (OpenCV).
#
# Seen: 20 rows of 40 with orientation 6. Pillow and torchvision [20, 40]; OpenCV COLOR and GRAYSCALE [40, 20], UNCHANGED [20, 40]; JPEG and PNG alike.
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
from torchvision.io import read_image

pixels = np.zeros((20, 40, 3), np.uint8)
pixels[:, :20] = 200
exif = Image.Exif()
exif[0x0112] = 6
still = True
for name in ("photo.jpg", "photo.png"):
    Image.fromarray(pixels).save(name, exif=exif)
    seen = {
        "Pillow": np.asarray(Image.open(name)).shape[:2],
        "torchvision": tuple(read_image(name).shape[1:]),
        "OpenCV COLOR": cv2.imread(name, cv2.IMREAD_COLOR).shape[:2],
        "OpenCV GRAYSCALE": cv2.imread(name, cv2.IMREAD_GRAYSCALE).shape[:2],
        "OpenCV UNCHANGED": cv2.imread(name, cv2.IMREAD_UNCHANGED).shape[:2],
    }
    print(f"{name}: " + "; ".join(f"{who} {list(shape)}" for who, shape in seen.items()))
    stored = {who for who, shape in seen.items() if shape == (20, 40)}
    still &= stored == {"Pillow", "torchvision", "OpenCV UNCHANGED"}
sys.exit(not still)
PY
