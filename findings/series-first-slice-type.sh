#!/usr/bin/env bash
# A PET series has a slope of its own in each slice. `sitk.ReadImage(files)` of SimpleITK 2.5.7 chooses the numbers of the whole volume by the FIRST slice: if
# its slope is whole (1 in an empty slice), the volume is of 16-bit integers, and the slices behind it, whose slopes have fractions, are cut to
# whole numbers, or wrap around to negative ones where their values do not fit. The same files in the other order keep all values. Nothing is said. The
# help of ReadImage says that the type is that of the file; the one of ImageSeriesReader warns of other types behind the first image, in rare situations.
# Neither says that the slope makes the type, so that in PET, all slices stored as int16, it is common. `sitk.ReadImage(files, sitk.sitkFloat64)` is right.
#
# Seen, stored 1000 in three slices: slopes 1, .37, .0005 (true 1000, 370, .5): 1000, 370, 0; in the other order all right; slopes 1, 100, 1 (true
# 1000, 100000, 1000): 1000, -31072, 1000. As float64: all right. pydicom, slice by slice: all right.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/slices.py" <<'PY'
import sys
import warnings

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

warnings.simplefilter("error")
series = generate_uid()


def write(z, slope):
    path = f"{sys.argv[1]}/{z}.dcm"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = PositronEmissionTomographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.SeriesInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, series
    file.Modality, file.Rows, file.Columns, file.SamplesPerPixel, file.PhotometricInterpretation = "PT", 4, 6, 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.PixelSpacing, file.ImageOrientationPatient, file.ImagePositionPatient = [2, 2], [1, 0, 0, 0, 1, 0], [0, 0, 3 * z]
    file.RescaleIntercept, file.RescaleSlope, file.Units = "0", str(slope), "BQML"
    file.PixelData = np.full((4, 6), 1000, np.int16).tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


def values(files, *kind):
    volume = sitk.ReadImage(files, *kind)
    return volume.GetPixelIDTypeAsString(), [round(float(v), 6) for v in sitk.GetArrayFromImage(volume)[:, 0, 0]]


def by_pydicom(path):
    file = pydicom.dcmread(path)
    return round(float(apply_modality_lut(file.pixel_array, file)[0, 0]), 6)


right = True
for slopes, wanted in (((1, 0.37, 0.0005), [1000, 370, 0]), ((0.0005, 0.37, 1), [0.5, 370, 1000]), ((1, 100, 1), [1000, -31072, 1000])):
    files = [write(z, slope) for z, slope in enumerate(slopes)]
    true = [round(1000.0 * slope, 6) for slope in slopes]
    kind, seen = values(files)
    whole, single = values(files, sitk.sitkFloat64)[1], [by_pydicom(path) for path in files]
    print(f"slopes {slopes}: true {true}, read as {kind} {seen}, as float64 {whole}, by pydicom {single}")
    right &= seen == wanted and whole == single == true
sys.exit(not right)
PY
"$work/venv/bin/python" "$work/slices.py" "$work"
