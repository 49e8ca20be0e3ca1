#!/usr/bin/env bash
# OpenCV 5.0.0's CLAHE on films in 16 bits: the clip limit does nothing. For 512 x 512 pixels and the usual 8 x 8 tiles every limit up to 31
# gives the same image, bit for bit; on the film's upper 8 bits limits of 1, 2, 4 and 8 are four images. The limit is turned into a count of
# pixels per bin, rounded down and at least 1, and a tile has 4,096 pixels but 65,536 bins. So a search over limits sees no difference, and
# the same limit begins to work at another size of image (from 8 on for 1,024 pixels, from 2 for 2,048). The documentation says "threshold
# for contrast limiting" and that 16 bits are supported. Scale to 8 bits first, or look whether two limits differ.
#
# Seen, 512 x 512, limits 1, 2, 4, 8, 16, 31, 40: 16 bits: one image for six of them, another for 40; with sides of 1,024 the first three
# equal, of 2,048 none; 8 bits: 1, 2, 4, 8, 16 all differ.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > "$work/limits.py" <<'PY'
import sys

import cv2
import numpy as np

LIMITS = (1, 2, 4, 8, 16, 31, 40)


def equal(side, bits):
    """Of each clip limit: whether the image is that of the limit 1."""
    row, column = np.mgrid[:side, :side] * (512 / side)
    noise = np.random.default_rng(0).normal(0, 60, row.shape)
    film = (2000 + 900 * np.sin(column / 90) * np.cos(row / 70) + noise).clip(0, 4095).astype(np.uint16)
    film = film * 16 if bits == 16 else (film // 16).astype(np.uint8)
    images = [cv2.createCLAHE(limit, (8, 8)).apply(film) for limit in LIMITS]
    return [bool((image == images[0]).all()) for image in images]


seen = {(side, bits): equal(side, bits) for side, bits in ((512, 16), (1024, 16), (2048, 16), (512, 8))}
for (side, bits), same in seen.items():
    print(f"{side} pixels, {bits} bits: equal to limit 1:", *(f"{limit} {s}" for limit, s in zip(LIMITS, same)))
sys.exit(not (
    seen[512, 16] == [True] * 6 + [False] and seen[1024, 16] == [True] * 3 + [False] * 4
    and seen[2048, 16] == seen[512, 8] == [True] + [False] * 6
))
PY
"$work/venv/bin/python" "$work/limits.py"
