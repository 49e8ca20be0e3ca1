#!/usr/bin/env bash
# A colour image in DICOM (ultrasound, skin, fundus, a slide) is mostly a JPEG in YBR. pydicom 2 returned YBR, and code turned it into RGB by the tag:
# `convert_color_space(ds.pixel_array, ds.PhotometricInterpretation, "RGB")`. pydicom 3.0.2 returns RGB already and leaves the tag at YBR_FULL_422,
# so that the same line turns it twice: red becomes green, without a word. After `ds.decompress()` the tag says RGB, and the line
# does nothing. An uncompressed YBR_FULL image is turned as well and keeps its tag, too. `pixel_array(ds, raw=True)` is what is stored.
#
# Seen: (200, 40, 60) in RGB: pixel_array (199, 40, 60) under the tag YBR_FULL_422; through the usual line (104, 255, 43); after decompress() the tag is RGB.
# Exit status 0: still so. 1: the tag follows, or pixel_array returns YBR.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 pillow==13.0.0 numpy==2.4.6
cat > "$work/colour.py" <<'PY'
import io
import sys

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

COLOUR = (200, 40, 60)
rgb = np.full((64, 64, 3), COLOUR, np.uint8)


def dataset(syntax, photometric, pixels):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PixelRepresentation = 3, 0, 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PhotometricInterpretation = photometric
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB"
    return ds


def looked(ds):
    array = ds.pixel_array
    twice = convert_color_space(array, ds.PhotometricInterpretation, "RGB") if "YBR" in ds.PhotometricInterpretation else array
    return [tuple(map(int, x[0, 0])) for x in (array, twice)] + [ds.PhotometricInterpretation]


coded = io.BytesIO()
Image.fromarray(rgb).save(coded, "JPEG", quality=95, subsampling=0)
jpeg = dataset(JPEGBaseline8Bit, "YBR_FULL_422", encapsulate([coded.getvalue()]))
plain = dataset(ExplicitVRLittleEndian, "YBR_FULL", convert_color_space(rgb, "RGB", "YBR_FULL").tobytes())
print("stored as JPEG:", *looked(jpeg))
print("uncompressed:", *looked(plain))
seen = looked(jpeg), looked(plain)[2]
jpeg.decompress()
print("after decompress():", *looked(jpeg))
near = [max(abs(a - b) for a, b in zip(colour, COLOUR)) for colour in (seen[0][0], seen[0][1], looked(plain)[0])]
sys.exit(not (near[0] <= 2 and near[1] > 100 and near[2] <= 2 and seen[0][2] == "YBR_FULL_422" and seen[1] == "YBR_FULL" and looked(jpeg)[2] == "RGB"))
PY
"$work/venv/bin/python" "$work/colour.py"
