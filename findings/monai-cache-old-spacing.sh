#!/usr/bin/env bash
# MONAI 1.6.1's PersistentDataset keeps preprocessed volumes in a folder and takes them from there in the next run, whatever the transforms
# are by then: names of cached files are made of the input's path alone. A run at 2 mm gets the volumes of 1 mm, one with another window the
# old window. The class's documentation says that the names "also try to contain the hash of the transforms" and that it "should be robust
# to changes"; its parameter `hash_transform`, further down, is None by default, and no hash is made. With MONAI's own `json_hashing` given
# there the volumes are old ones still; `pickle_hashing` makes new ones. (A file that was written anew under its old name is never read
# again in any of the three.)
#
# Seen, a volume of 20 x 20 x 20 at 1 mm, then at 2 mm, then at 2 mm with another window: default and json_hashing: three times the first,
# one cached file; pickle_hashing: 20, 10 and 10 voxels a side with three spreads of values, three files.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 monai==1.6.1 nibabel==5.4.2 numpy==2.4.6
cat > "$work/cache.py" <<'PY'
import sys

import nibabel
import numpy as np
from monai.data import PersistentDataset
from monai.data.utils import json_hashing, pickle_hashing
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensityRange, Spacing

work = sys.argv[1]
volume = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), f"{work}/head.nii")


def run(mm, window, **options):
    steps = [LoadImage(), EnsureChannelFirst(), Spacing((mm, mm, mm)), ScaleIntensityRange(-window, window, 0, 1)]
    image = PersistentDataset([f"{work}/head.nii"], Compose(steps), **options)[0]
    return image.shape[-1], round(float(image.std()), 3)


seen = {}
for name, options in {
    "default": {}, "json_hashing": {"hash_transform": json_hashing}, "pickle_hashing": {"hash_transform": pickle_hashing},
}.items():
    options["cache_dir"] = f"{work}/{name}"
    seen[name] = [run(1, 1, **options), run(2, 1, **options), run(2, 100, **options)]
    print(f"{name}: voxels a side and spread of 1 mm, 2 mm, 2 mm and another window: {seen[name]}")
old = all(len(set(seen[name])) == 1 for name in ("default", "json_hashing"))
new = [side for side, _ in seen["pickle_hashing"]] == [20, 10, 10] and len(set(seen["pickle_hashing"])) == 3
sys.exit(not (old and new))
PY
"$work/venv/bin/python" -W ignore "$work/cache.py" "$work"
