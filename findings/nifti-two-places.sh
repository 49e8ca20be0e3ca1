#!/usr/bin/env bash
# A NIfTI file has two affines: where the scanner saw the head (qform, code 1) and where a registration put it (sform, code 2 "aligned" or 4 "MNI").
# Both are valid side by side. nibabel 5.4.2 takes the sform whenever it has a code; SimpleITK 2.5.7 takes it only
# where its code is 1, and else the qform. The same voxel lies elsewhere, and what SimpleITK writes back has lost the registration (both codes 1).
# Neither says a word. A mask drawn through one library and an image read through the other are apart by the registration.
#
# Seen: sform moved by 10, 20, 30 mm: with code 1 both libraries place voxel 0 there; with code 2 and 4 nibabel does, SimpleITK says 0, 0, 0, and the
# file that it writes says so to nibabel, too.
# Exit status 0: still so. 1: the libraries agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/places.py" <<'PY'
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

folder = sys.argv[1]
scanner, registered = np.eye(4), np.eye(4)
registered[:3, 3] = 10, 20, 30
seen = {}
for code in (1, 2, 4):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    image.set_qform(scanner, 1)
    image.set_sform(registered, code)
    nib.save(image, f"{folder}/head.nii")
    by_itk = sitk.ReadImage(f"{folder}/head.nii")
    sitk.WriteImage(by_itk, f"{folder}/back.nii")
    back = nib.load(f"{folder}/back.nii")
    x, y, z = by_itk.GetOrigin()  # ITK's axes point to the left and to the back: the first two change their sign
    seen[code] = [tuple(float(v) + 0.0 for v in place) for place in (nib.load(f"{folder}/head.nii").affine[:3, 3], (-x, -y, z), back.affine[:3, 3])]
    print(f"sform code {code}: voxel 0 by nibabel {seen[code][0]}, by SimpleITK {seen[code][1]}, written back {seen[code][2]}, "
          f"codes {int(back.header['qform_code'])} and {int(back.header['sform_code'])}")
moved, still = (10.0, 20.0, 30.0), (0.0, 0.0, 0.0)
sys.exit(seen != {1: [moved] * 3, 2: [moved, still, still], 4: [moved, still, still]})
PY
"$work/venv/bin/python" -W ignore "$work/places.py" "$work"
