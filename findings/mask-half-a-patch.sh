#!/usr/bin/env bash
# An image and its mask through one `v2.Resize`: torchvision 0.29.1 shrinks the image about the centres of its pixels, and a `tv_tensors.Mask` with
# torch's "nearest", which takes the upper left pixel of each new cell. The mask comes out half a new pixel lower and further right than its image. At
# 224 pixels that is one pixel of 512; on the grid of a ViT's patches, where masks become labels of patches, half a patch. The same call takes the
# middle pixel if the mask is a Pillow image. torch's documentation says its "nearest" matches OpenCV's buggy one; torchvision's page of Resize has no word of masks.
# interpolation=NEAREST_EXACT mends the mask, but it is the image's interpolation too: two calls are needed.
#
# Seen, 200 round lesions in 512 x 512 pixels, mean shift of their centre in pixels of the original: to 224: image 0.0, Mask 1.1, Pillow 0.0; to 32 (patches
# of 16): image under .2, Mask 7.3 and 7.5, Pillow -.5; to 16: Mask 15.2 and 15.7. Mask with NEAREST_EXACT: as Pillow.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 pillow numpy==2.4.6
cat > "$work/mask.py" <<'PY'
import sys

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

EXACT = InterpolationMode.NEAREST_EXACT
WAYS = {
    "image": lambda disc, side: v2.Resize((side, side))(tv_tensors.Image(torch.tensor(disc)[None].float()))[0],
    "Mask": lambda disc, side: v2.Resize((side, side))(tv_tensors.Mask(torch.tensor(disc))),
    "Pillow": lambda disc, side: v2.Resize((side, side), interpolation=InterpolationMode.NEAREST)(Image.fromarray(disc)),
    "Mask, exact": lambda disc, side: v2.Resize((side, side), interpolation=EXACT)(tv_tensors.Mask(torch.tensor(disc))),
}


def shifts(side):
    """{way: how far down and right the centres of 200 discs move, mean in pixels of the 512}."""
    rng = np.random.default_rng(0)
    moved = {way: [] for way in WAYS}
    rows, columns = np.mgrid[:512, :512]
    for _ in range(200):
        row, column, radius = *rng.integers(60, 452, 2), rng.integers(24, 48)
        disc = ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8)
        for way, resize in WAYS.items():
            places = np.argwhere(np.asarray(resize(disc, side)) > 0.5)
            if len(places):
                moved[way].append((places.mean(0) + 0.5) * 512 / side - (row + 0.5, column + 0.5))
    return {way: np.mean(found, 0) for way, found in moved.items()}


right = True
for side, half in ((224, 1.14), (32, 8.0), (16, 16.0)):
    found = shifts(side)
    print(f"512 to {side}:", "; ".join(f"{way} {down:+.2f} {across:+.2f}" for way, (down, across) in found.items()))
    right &= bool((abs(found["Mask"] - half) < 0.15 * half).all() and all((abs(found[way]) < 0.9).all() for way in WAYS if way != "Mask"))
sys.exit(not right)
PY
"$work/venv/bin/python" -W ignore "$work/mask.py"
