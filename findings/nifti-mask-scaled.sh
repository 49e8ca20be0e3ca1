#!/usr/bin/env bash
# nibabel 5.4.2: a mask of labels 0, 1, 2, 4 that was computed in floating point and is saved under a header of whole numbers (the header of
# the image that it belongs to, as examples do) is not stored as 0, 1, 2, 4. Values are stretched over the whole range of the stored
# type, with a slope and, for int16, an offset, and come back as 0, 1.0039, 1.9921, 4.0000. The usual `.astype(int)` cuts
# 1.9921 to 1: label 2 is gone and its voxels are label 1. Rounding, or saving an array that has whole numbers already, keeps them. The
# stored type still says uint8, and SimpleITK reads the file as float32 with the same values.
#
# Seen (nibabel 5.4.2, SimpleITK 2.5.7, numpy 2.4.6): uint8: labels 0 1 4 after astype(int); int16: labels 0 1 2 3 (4 became 3).
# Exit status 0: still so. 1: the labels come back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/mask.py" <<'PY'
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

mask = np.zeros((8, 8, 8))
mask[2:5], mask[5:7], mask[7] = 1, 2, 4
lost = {}
for dtype in ("uint8", "int16"):
    for kept in (False, True):
        header = nib.Nifti1Header()
        header.set_data_dtype(dtype)
        file = f"{sys.argv[1]}/{dtype}{kept}.nii.gz"
        nib.save(nib.Nifti1Image(mask.astype(dtype) if kept else mask, np.eye(4), header), file)
        image = nib.load(file)
        values = np.unique(image.get_fdata())
        labels = np.unique(image.get_fdata().astype(int)).tolist()
        other = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(file)))
        assert np.allclose(values, other)
        print(f"{dtype}, saved as {'whole numbers' if kept else 'floats'}: stored {image.get_data_dtype()}, slope {image.dataobj.slope:.6g},"
              f" offset {image.dataobj.inter:.6g}; values {values.round(6).tolist()}; astype(int): {labels}")
        lost[dtype, kept] = labels != [0, 1, 2, 4]
sys.exit(lost != {("uint8", False): True, ("uint8", True): False, ("int16", False): True, ("int16", True): False})
PY
"$work/venv/bin/python" "$work/mask.py" "$work"
