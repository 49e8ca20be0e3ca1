#!/usr/bin/env bash
# SimpleITK 2.5.7 turns the grey values of a MONOCHROME1 film around while it reads (0 becomes 4095 and 4095 becomes 0 at 12 bits stored), and
# leaves "MONOCHROME1" in the metadata of the image that it returns. pydicom 3.0.2 returns what is stored. Code that turns
# films around by their tag, right behind pydicom, turns them twice behind SimpleITK: in a mixed folder, MONOCHROME1 films alone come out
# negative. A film that is written again is MONOCHROME2.
#
# Seen: stored 0 100 4095 2000; pydicom 0 100 4095 2000; SimpleITK 4095 3995 0 2095, tag 0028|0004 MONOCHROME1; with a film of
# MONOCHROME2 both return what is stored.
# Exit status 0: still so. 1: both read the same, or the tag follows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/film.py" <<'PY'
import sys

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

stored = np.array([[0, 100], [4095, 2000]], np.uint16)
seen = {}
for kind in ("MONOCHROME1", "MONOCHROME2"):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset("film", {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.Rows, film.Columns, film.SamplesPerPixel, film.PhotometricInterpretation = *stored.shape, 1, kind
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = stored.tobytes()
    path = f"{sys.argv[1]}/{kind}.dcm"
    film.save_as(path, enforce_file_format=True)
    image = sitk.ReadImage(path)
    one, other = pydicom.dcmread(path).pixel_array.ravel().tolist(), sitk.GetArrayFromImage(image).ravel().tolist()
    tag = image.GetMetaData("0028|0004").strip()
    print(f"{kind}: pydicom {one}, SimpleITK {other}, its tag {tag}")
    seen[kind] = (one == stored.ravel().tolist(), other == (4095 - stored.astype(int)).ravel().tolist(), tag)
sys.exit(seen != {"MONOCHROME1": (True, True, "MONOCHROME1"), "MONOCHROME2": (True, False, "MONOCHROME2")})
PY
"$work/venv/bin/python" "$work/film.py" "$work"
