#!/usr/bin/env bash
# "RAS" is asked of three libraries and two opposite volumes come back. nibabel 5.4.2 and SimpleITK 2.5.7 (and MONAI, TorchIO) name the side
# that an axis runs TO, ANTsPy 0.6.1 the side that it comes FROM, as ITK once did: what nibabel calls RAS is LPI to `ants.get_orientation`,
# and `ants.reorient_image2(image, "RAS")`, a word taken over from a pipeline in another library, turns around all three axes: left is
# right, front is back and top is bottom. The header goes along, so that viewers and files are right; the array that a network gets is
# upside down and mirrored, and a network that has learnt sides from other arrays sees the other lung. nibabel's guide knows that some read
# the letters so, and names no library; the help of ants' functions has no word of it. Ask ants for "LPI", or compare `nibabel.aff2axcodes`
# of what was written.
#
# Seen, one voxel set at the left, posterior, inferior corner: nibabel RAS, ants LPI, SimpleITK RAS for the same file; reoriented to RAS it
# is at index 0, 0, 0 by nibabel and SimpleITK, at the opposite corner by ants, whose file is LPI to nibabel; to LPI by ants 0, 0, 0.
# Exit status 0: still so. 1: the letters agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check antspyx==0.6.1 nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/letters.py" <<'PY'
import sys

import ants
import nibabel
import numpy as np
import SimpleITK as sitk

file = f"{sys.argv[1]}/head.nii"
volume_XYZ = np.zeros((6, 7, 8), np.float32)
volume_XYZ[0, 0, 0] = 1
nibabel.save(nibabel.Nifti1Image(volume_XYZ, np.eye(4)), file)


def corner(array_XYZ):
    """Index of the voxel that is set."""
    return tuple(np.argwhere(np.asarray(array_XYZ) == 1)[0].tolist())


def by_ants(letters):
    turned = ants.reorient_image2(ants.image_read(file), letters)
    ants.image_write(turned, f"{sys.argv[1]}/turned.nii")
    return corner(turned.numpy()), "".join(nibabel.aff2axcodes(nibabel.load(f"{sys.argv[1]}/turned.nii").affine))


image = sitk.ReadImage(file)
names = (
    "".join(nibabel.aff2axcodes(nibabel.load(file).affine)), ants.get_orientation(ants.image_read(file)),
    sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()),
)
seen = {
    "nibabel": corner(nibabel.as_closest_canonical(nibabel.load(file)).get_fdata()),
    "SimpleITK": corner(sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS")).T),
    "ants": by_ants("RAS"), "ants, LPI": by_ants("LPI"),
}
print(f"the file, by nibabel, ants, SimpleITK: {names}")
print(*(f"reoriented to RAS, {name}: {value}" for name, value in seen.items()), sep="\n")
sys.exit(not (
    names == ("RAS", "LPI", "RAS") and seen["nibabel"] == seen["SimpleITK"] == (0, 0, 0)
    and seen["ants"] == ((5, 6, 7), "LPI") and seen["ants, LPI"] == ((0, 0, 0), "RAS")
))
PY
"$work/venv/bin/python" -W ignore "$work/letters.py" "$work"
