#!/usr/bin/env bash
# A NIfTI file says in which unit its sizes are: millimetres, or micrometres (micro-CT, light sheet, specimens), and seconds or milliseconds
# for the time between volumes. SimpleITK 2.5.7 reads the unit and turns all into millimetres and seconds; nibabel 5.4.2 hands out the
# numbers as they stand, in `affine` as in `get_zooms()`, while its guide calls the space of the affine one of millimetres. The same voxel
# is 25 mm or .025 mm, a volume differs by 10^9, a resampling to 1 mm makes one enlarge what the other shrinks, and a repetition time is
# 2000 or 2. What SimpleITK writes back is in mm and means the same to both. No warning. Look at `header.get_xyzt_units()` first: it is the
# one place where nibabel tells.
#
# Seen, voxels of 25 micrometres, origin 100: nibabel 25 and 100, SimpleITK .025 and .1 (its own sign apart); after SimpleITK wrote it
# nibabel says .025 and .1; four dimensions with 2000 msec: nibabel 2000, SimpleITK 2.
# Exit status 0: still so. 1: the libraries agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/units.py" <<'PY'
import sys

import nibabel
import numpy as np
import SimpleITK as sitk

folder = sys.argv[1]


def write(shape, sizes, units):
    affine = np.diag([*sizes[:3], 1.0])
    affine[:3, 3] = 100
    image = nibabel.Nifti1Image(np.zeros(shape, np.float32), affine)
    image.header.set_zooms(sizes)
    image.header.set_xyzt_units(*units)
    nibabel.save(image, f"{folder}/image.nii")


def by_nibabel(file="image.nii"):
    image = nibabel.load(f"{folder}/{file}")
    return round(float(image.header.get_zooms()[-1]), 6), round(float(image.affine[2, 3]), 6)


def by_simpleitk():
    image = sitk.ReadImage(f"{folder}/image.nii")
    sitk.WriteImage(image, f"{folder}/back.nii")
    return round(image.GetSpacing()[-1], 6), round(image.GetOrigin()[2], 6)


write((4, 4, 4), (25, 25, 25), ("micron", "sec"))
space = [by_nibabel(), by_simpleitk(), by_nibabel("back.nii")]
write((4, 4, 4, 5), (1, 1, 1, 2000), ("mm", "msec"))
time = [by_nibabel()[0], by_simpleitk()[0]]
print(f"size and origin of voxels by nibabel, SimpleITK, nibabel of what SimpleITK wrote: {space}; time by nibabel, SimpleITK: {time}")
sys.exit(not (space == [(25, 100), (0.025, 0.1), (0.025, 0.1)] and time == [2000, 2]))
PY
"$work/venv/bin/python" "$work/units.py" "$work"
