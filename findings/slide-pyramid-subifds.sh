#!/usr/bin/env bash
# A tiled pyramid as tifffile 2026.3.3 writes it for OME-TIFF (smaller levels in SubIFDs, the place that the OME standard gives them) is a slide of ONE
# level for OpenSlide 4.0.1, without a word: a thumbnail or a tissue mask then decodes the whole base level. TiffSlide 3.0.1 sees both levels. The
# same levels as pages of their own, marked as reduced, are two levels for both. And the pixel size that the OME text states is read by
# neither (mpp is absent, or None): code that picks a level by microns falls back to whatever its default is.
#
# Seen: SubIFDs: OpenSlide 1 level, TiffSlide 2; pages marked reduced: 2 and 2; mpp of the OME file: none in both.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tifffile==2026.3.3 imagecodecs==2026.3.6 openslide-python==1.4.7 \
  openslide-bin==4.0.1.2 tiffslide==3.0.1 numpy==2.4.6
cat > "$work/slide.py" <<'PY'
import sys

import numpy as np
import openslide
import tifffile
import tiffslide

image = np.random.default_rng(0).integers(0, 255, (1024, 1536, 3), dtype=np.uint8)
kind = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
size = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
sub, pages = f"{sys.argv[1]}/sub.ome.tif", f"{sys.argv[1]}/pages.tif"
with tifffile.TiffWriter(sub, ome=True) as file:
    file.write(image, subifds=1, metadata=size, **kind)
    file.write(image[::2, ::2], subfiletype=1, **kind)
with tifffile.TiffWriter(pages) as file:
    file.write(image, **kind)
    file.write(image[::2, ::2], subfiletype=1, **kind)
seen = {}
for name, path in (("SubIFDs", sub), ("pages", pages)):
    one, other = openslide.OpenSlide(path), tiffslide.TiffSlide(path)
    mpp = one.properties.get("openslide.mpp-x"), other.properties.get("tiffslide.mpp-x")
    print(f"{name}: OpenSlide {one.level_count} levels, TiffSlide {other.level_count}; microns per pixel {mpp}")
    seen[name] = (one.level_count, other.level_count, *mpp)
sys.exit(not (seen["SubIFDs"] == (1, 2, None, None) and seen["pages"][:2] == (2, 2)))
PY
"$work/venv/bin/python" -W ignore "$work/slide.py" "$work" 2> /dev/null
