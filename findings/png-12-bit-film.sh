#!/usr/bin/env bash
# A 12-bit film in a 16-bit PNG, asked for as 8-bit grey: Pillow 13.0.0 (`convert("L")`) cuts everything above 255 to 255, OpenCV 5.0.0.93
# (`imread` with its defaults or IMREAD_GRAYSCALE) drops the low 8 bits. The same film is nearly white in one and nearly black in the other, with no
# word from either; a network that was trained behind one sees noise behind the other. Neither looks at the bits that are used: scale by them yourself.
#
# Seen: grey 0 200 255 256 1000 4095 of 4095 -> Pillow 0 200 255 255 255 255; OpenCV 0 0 0 1 3 15.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
cat > "$work/film.py" <<'PY'
import sys

import cv2
import numpy as np
from PIL import Image

film = np.array([[0, 200, 255, 256, 1000, 4095]], np.uint16)
path = f"{sys.argv[1]}/film.png"
Image.fromarray(film).save(path)
pillow = np.asarray(Image.open(path).convert("L"))[0].tolist()
default, grey = cv2.imread(path)[0, :, 0].tolist(), cv2.imread(path, cv2.IMREAD_GRAYSCALE)[0].tolist()
print(f"stored {film[0].tolist()}: Pillow {pillow}, OpenCV {default}, as grey {grey}")
sys.exit(not (pillow == [0, 200, 255, 255, 255, 255] and default == grey == [0, 0, 0, 1, 3, 15]))
PY
"$work/venv/bin/python" "$work/film.py" "$work"
