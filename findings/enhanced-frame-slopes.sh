#!/usr/bin/env bash
# Enhanced PET, CT and MR keep a volume in one file, and the slope from stored to real values in a functional group, per frame if they differ (DICOM PS3.3
# C.7.6.16.2.9, Pixel Value Transformation), as they do in PET. pydicom 3.0.2's `apply_modality_lut` and `apply_rescale` look at the top of the file alone and
# return stored values; their documentation asks for the Modality LUT Module, which such files do not have (open report: pydicom 2353). SimpleITK 2.5.7
# multiplies every frame by the slope of the FIRST one. Neither says a word. No slice but the first is right in either.
#
# Seen: stored 1000 in three frames with slopes .5, 2 and 3, by all three storage classes: true 500, 2000, 3000; pydicom 1000, 1000, 1000; SimpleITK
# 500, 500, 500. With one slope of 2 for all: pydicom 1000, SimpleITK 2000.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/frames.py" <<'PY'
import sys
import warnings

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_rescale
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage, ExplicitVRLittleEndian, generate_uid

warnings.simplefilter("error")
path = f"{sys.argv[1]}/enhanced.dcm"


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def write(kind, slopes):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = kind, generate_uid(), ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    file.Modality = {EnhancedPETImageStorage: "PT", EnhancedCTImageStorage: "CT", EnhancedMRImageStorage: "MR"}[kind]
    file.NumberOfFrames, file.Rows, file.Columns = len(slopes), 4, 6
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[2, 2], SliceThickness=3)])
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    file.SharedFunctionalGroupsSequence = [shared]
    file.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * z])],
            PixelValueTransformationSequence=[item(RescaleIntercept=0, RescaleSlope=slope, RescaleType="US")],
        )
        for z, slope in enumerate(slopes)
    ]
    file.PixelData = np.full((len(slopes), 4, 6), 1000, np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)


def frames(values_FHW):
    return [float(v) for v in values_FHW[:, 0, 0]]


right = True
for kind in (EnhancedPETImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage):
    for slopes, first in (((0.5, 2.0, 3.0), 500.0), ((2.0, 2.0, 2.0), 2000.0)):
        write(kind, slopes)
        file = pydicom.dcmread(path)
        by_pydicom = [frames(function(file.pixel_array, file)) for function in (apply_modality_lut, apply_rescale)]
        by_itk = frames(sitk.GetArrayFromImage(sitk.ReadImage(path)))
        print(f"{kind.name}: true {[1000 * s for s in slopes]}, pydicom {by_pydicom[0]}, SimpleITK {by_itk}")
        right &= by_pydicom == [[1000.0] * 3] * 2 and by_itk == [first] * 3
sys.exit(not right)
PY
"$work/venv/bin/python" "$work/frames.py" "$work"
