#!/usr/bin/env bash
# A film has two pixel sizes: at the detector (Imager Pixel Spacing), which "shall never be adjusted", and in the patient (Pixel Spacing), corrected for
# magnification or calibrated on a known object; where they differ, the film has been calibrated (DICOM PS3.3 10.7.1). For CR, DX, mammography
# and angiography SimpleITK 2.5.7 takes the one at the detector and never the calibrated one: a film that has that alone comes out with pixels of 1 mm, which
# is what ITK says where it knows nothing. For CT, ultrasound and secondary captures it takes Pixel Spacing. Nothing is said, and its documentation
# names no tag. Lengths, heart sizes and resampling to a common pixel size are off by the magnification, or by all.
#
# Seen: Pixel Spacing .1, Imager Pixel Spacing .15: CR, DX, MG, XA .15; CT, US, SC .1. Pixel Spacing .1 alone: CR, DX, MG, XA 1.0; CT, US, SC .1.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 SimpleITK==2.5.7 numpy==2.4.6
cat > "$work/film.py" <<'PY'
import sys

import pydicom.uid as uid
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset

path = f"{sys.argv[1]}/film.dcm"
KINDS = {
    "CR": uid.ComputedRadiographyImageStorage, "DX": uid.DigitalXRayImageStorageForPresentation,
    "MG": uid.DigitalMammographyXRayImageStorageForPresentation, "XA": uid.XRayAngiographicImageStorage,
    "CT": uid.CTImageStorage, "US": uid.UltrasoundImageStorage, "SC": uid.SecondaryCaptureImageStorage,
}  # fmt: skip


def spacing(kind, **sizes):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = KINDS[kind], uid.generate_uid()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    film = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID, film.Modality = KINDS[kind], meta.MediaStorageSOPInstanceUID, "DX" if kind == "SC" else kind
    film.Rows, film.Columns, film.SamplesPerPixel, film.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = bytes(2 * 4 * 6)
    for name, size in sizes.items():
        setattr(film, name, [size, size])
    film.save_as(path, enforce_file_format=True)
    return round(sitk.ReadImage(path).GetSpacing()[0], 6)


both = {kind: spacing(kind, PixelSpacing=0.1, ImagerPixelSpacing=0.15) for kind in KINDS}
alone = {kind: spacing(kind, PixelSpacing=0.1) for kind in KINDS}
print(f"Pixel Spacing .1 and Imager Pixel Spacing .15: {both}")
print(f"Pixel Spacing .1 alone: {alone}")
films, others = ("CR", "DX", "MG", "XA"), ("CT", "US", "SC")
sys.exit(
    both != {k: 0.15 for k in films} | {k: 0.1 for k in others} or alone != {k: 1.0 for k in films} | {k: 0.1 for k in others}
)
PY
"$work/venv/bin/python" "$work/film.py" "$work" 2> "$work/log" || { status=$?; tail -5 "$work/log"; exit $status; }
