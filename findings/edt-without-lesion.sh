#!/usr/bin/env bash
# The distance to the nearest lesion where there is none (a healthy slice, an absent class), as boundary losses and distance maps ask for by
# `distance_transform_edt(mask == 0)`. scipy 1.17.1 returns the distance to a point OUTSIDE of the image, one row above its upper left
# corner: small, smooth numbers that differ from row to row, and no warning. SimpleITK 2.5.7's Danielsson filter returns distances to the
# lower right end of the image, with Maurer's 1.8e19, the package edt 3.1.2 inf. scipy's page says nothing of it; an open report (scipy
# 1616) is the oldest of several. Ask `mask.any()` first.
#
# Seen, 4 x 4 pixels without lesion: scipy 1 in the upper left and 5 in the lower right corner, nearest point (-1, 0); 64 x 64 with one
# lesion pixel in the lower right corner 89.1 at the upper left, without it 1; edt inf; SimpleITK 11.3 and 7.8, and 1.8e19.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 edt==3.1.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/distances.py" <<'PY'
import sys

import edt
import numpy as np
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt

healthy = np.zeros((4, 4), np.uint8)
distance, (row, column) = distance_transform_edt(healthy == 0, return_indices=True)
large = np.zeros((64, 64), np.uint8)
without = distance_transform_edt(large == 0)[0, 0]
large[-1, -1] = 1
image = sitk.GetImageFromArray(healthy)
corners = lambda x: (round(float(x[0, 0]), 1), round(float(x[-1, -1]), 1))
seen = {
    "scipy": corners(distance), "scipy's nearest": (int(row[2, 2]), int(column[2, 2])),
    "64 x 64, with and without": (round(float(distance_transform_edt(large == 0)[0, 0]), 1), float(without)),
    "edt": corners(edt.edt((healthy == 0).astype(np.uint8))),
    "Danielsson": corners(sitk.GetArrayFromImage(sitk.DanielssonDistanceMap(image))),
    "Maurer": float(sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False)).min()),
}
print(*(f"{name}: {value}" for name, value in seen.items()), sep="\n")
sys.exit(not (
    seen["scipy"] == (1.0, 5.0) and seen["scipy's nearest"] == (-1, 0) and seen["64 x 64, with and without"] == (89.1, 1.0)
    and seen["edt"] == (np.inf, np.inf) and seen["Danielsson"] == (11.3, 7.8) and seen["Maurer"] > 1e19
))
PY
"$work/venv/bin/python" "$work/distances.py"
