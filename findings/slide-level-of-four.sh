#!/usr/bin/env bash
# A slide whose levels are 1, 4 and 16 times smaller, and the level for a downsample of 4: level 1, where the sides are multiples of 4. Where they are
# not, as in most scanned slides, the level's own factor comes out as 4.002 (4,099 pixels became 1,024), which is above 4, and
# `get_best_level_for_downsample(4)` is level 0: sixteen times the pixels, read and scaled down by the caller. OpenSlide 4.0.1 and TiffSlide 3.0.1 alike.
# A thumbnail or a tissue mask of one slide reads sixteen times the pixels of another's, and looks the same. Ask for 4.01, or compare the factors.
#
# Seen: 4,096 x 4,096: factors 1, 4, 16, levels 0, 1, 2; 4,099 x 4,098: factors 1, 4.0024, 16.0098, levels 0, 0, 1 for downsamples 1, 4, 16.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tifffile==2026.3.3 imagecodecs==2026.3.6 openslide-python==1.4.7 \
  openslide-bin==4.0.1.2 tiffslide==3.0.1 numpy==2.4.6
cat > "$work/level.py" <<'PY'
import sys

import numpy as np
import openslide
import tifffile
import tiffslide

seen = []
for width, height in ((4096, 4096), (4099, 4098)):
    base = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    path = f"{sys.argv[1]}/{width}.tif"
    with tifffile.TiffWriter(path) as file:
        for factor in (1, 4, 16):
            level = np.ascontiguousarray(base[::factor, ::factor][: height // factor, : width // factor])
            file.write(level, tile=(256, 256), photometric="rgb", compression="jpeg", subfiletype=int(factor > 1))
    for library in (openslide.OpenSlide, tiffslide.TiffSlide):
        slide = library(path)
        levels = [slide.get_best_level_for_downsample(d) for d in (1, 4, 16)]
        print(f"{width} x {height}, {library.__name__}: factors", *(round(f, 4) for f in slide.level_downsamples), "levels", *levels)
        seen.append(levels)
sys.exit(seen != [[0, 1, 2], [0, 1, 2], [0, 0, 1], [0, 0, 1]])
PY
"$work/venv/bin/python" "$work/level.py" "$work"
