#!/usr/bin/env bash
# From a mask to a contour for a planning system, and back, by rt-utils 1.2.7. Written, the contour runs through the CENTRES of the outer
# pixels: the structure is half a pixel smaller all around, a line one pixel wide has an area of 0, and one pixel is a contour of one point.
# Read, every pixel that the outline touches is in: a structure that was drawn elsewhere becomes half a pixel larger all around. Both
# together give back the mask exactly, so that a test of there and back sees nothing. Volumes, doses and Dice against a clinical structure
# are off, most for small lesions. README and docstrings of this version are silent; the repository has an open report (qurit/rt-utils 86),
# and a merged change (141) that lets one ask for outer edges.
#
# Seen, pixels of 1 mm: a mask of 10 x 10 (100 mm2): contour of 81 mm2; 4 pixels in a line: 0; one pixel: one point. A square of 10 x 10 mm
# drawn around 100 pixels is read as 121, a circle of 3 mm radius (28 mm2) as 45 pixels, of 10 mm (314 mm2) as 357. Written and read: 100.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rt-utils==1.2.7 pydicom==3.0.2 opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > "$work/contours.py" <<'PY'
import sys

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from rt_utils import RTStructBuilder

series, study, frame = generate_uid(), generate_uid(), generate_uid()
for n in range(4):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, ds.SOPInstanceUID
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(ds, name, "")
    ds.Modality, ds.InstanceNumber, ds.Rows, ds.Columns = "CT", n + 1, 32, 32
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelSpacing, ds.SliceThickness, ds.ImagePositionPatient = [1, 1], 2, [0, 0, 2 * n]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelData = bytes(2 * 32 * 32)
    ds.save_as(f"{sys.argv[1]}/{n}.dcm", enforce_file_format=True)

mask_YXZ = np.zeros((32, 32, 4), bool)
mask_YXZ[5:15, 5:15, 0] = mask_YXZ[20, 5:9, 1] = mask_YXZ[20, 20, 2] = True
structures = RTStructBuilder.create_new(sys.argv[1])
structures.add_roi(mask=mask_YXZ, name="lesion")
contours = structures.ds.ROIContourSequence[0].ContourSequence


def area(contour):
    x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def read(points_mm):
    """Pixels of a structure that somebody else drew in slice 0."""
    contours[0].ContourData = [float(v) for x, y in points_mm for v in (x, y, 0)]
    structures.ds.ROIContourSequence[0].ContourSequence = contours[:1]
    return int(structures.get_roi_mask_by_name("lesion").sum())


written = [(area(c), len(c.ContourData) // 3) for c in contours]
back = (structures.get_roi_mask_by_name("lesion") == mask_YXZ)[..., 0].all()
turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
square = read([(4.5, 4.5), (14.5, 4.5), (14.5, 14.5), (4.5, 14.5)])
circles = [read(zip(16 + r * np.cos(turn), 16 + r * np.sin(turn))) for r in (3, 10)]
print(f"written, area in mm2 and points: {written}; there and back the same: {back}; read: square {square}, circles {circles}")
sys.exit(not (written == [(81, 4), (0, 2), (0, 1)] and back and square == 121 and circles == [45, 357]))
PY
mkdir "$work/ct"
"$work/venv/bin/python" -W ignore "$work/contours.py" "$work/ct"
