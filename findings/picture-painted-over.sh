#!/usr/bin/env bash
# An ultrasound image with the patient's name in its corner is opened with Pillow, the name is painted over (`ImageDraw`, `paste`,
# `putpixel`), and the image goes into a data set of Hugging Face datasets 5.2.0 or of litdata 0.2.76: what is stored is the file it was
# opened from, name and all. Both look at the image's `filename` and take the file instead of the pixels; so a `thumbnail()` is the full
# size again. Methods that return a new image (`crop`, `resize`, `copy`) leave the file name behind, and are stored as they are, which is
# why it is seldom seen. datasets does it with every format and also behind `map` and `save_to_disk`; litdata with JPEG alone. datasets'
# page says "PIL image object", litdata's "compressed bytes", neither whose, and no warning comes. Give `image.copy()`.
#
# Seen, a JPEG of 256 x 256 of grey 40 whose upper 40 rows were painted white (255), brightest pixel of these rows: in memory 255; from
# datasets 40, after map 40, from disk 40, with copy() 255; from litdata 40, with copy() 255. A thumbnail of 64 x 64 comes out of datasets
# as 256 x 256.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 datasets==5.2.0 litdata==0.2.76 pillow==13.0.0 numpy==2.4.6
cat > "$work/paint.py" <<'PY'
import os
import sys

os.environ["HF_HOME"] = os.environ["HOME"] = sys.argv[1]

import datasets
import litdata
import numpy as np
from PIL import Image, ImageDraw

work = sys.argv[1]
IMAGE = datasets.Features({"image": datasets.Image()})


def painted():
    image = Image.open(f"{work}/scan.jpg")
    ImageDraw.Draw(image).rectangle((0, 0, 255, 39), fill=255)
    return image


def thumbnail():
    image = Image.open(f"{work}/scan.jpg")
    image.thumbnail((64, 64))
    return image


def brightest(image):
    return int(np.asarray(image)[..., :40, :].max())


def stored(image):
    return datasets.Dataset.from_dict({"image": [image]}, features=IMAGE)[0]["image"]


def sample(copied):
    return {"image": painted().copy() if copied else painted()}


def by_litdata(copied):
    folder = f"{work}/litdata-{copied}"
    litdata.optimize(sample, [copied], output_dir=folder, chunk_bytes="1MB", num_workers=1, start_method="fork")
    return brightest(litdata.StreamingDataset(folder)[0]["image"])


if __name__ == "__main__":
    Image.new("L", (256, 256), 40).save(f"{work}/scan.jpg", quality=95)
    mapped = datasets.Dataset.from_dict({"i": [0]}).map(lambda row: {"image": painted()})
    mapped.save_to_disk(f"{work}/saved")
    seen = {
        "in memory": brightest(painted()), "datasets": brightest(stored(painted())), "datasets, map": brightest(mapped[0]["image"]),
        "datasets, from disk": brightest(datasets.load_from_disk(f"{work}/saved")[0]["image"]),
        "datasets, copy()": brightest(stored(painted().copy())), "litdata": by_litdata(False), "litdata, copy()": by_litdata(True),
    }
    size = stored(thumbnail()).size
    with open(f"{work}/seen.txt", "w") as file:
        file.writelines(f"{name}: {value}\n" for name, value in {**seen, "thumbnail from datasets": size}.items())
    sys.exit(not (list(seen.values()) == [255, 40, 40, 40, 255, 40, 255] and size == (256, 256)))
PY
status=0
"$work/venv/bin/python" -W ignore "$work/paint.py" "$work" > "$work/log" 2>&1 || status=$?
cat "$work/seen.txt" 2>/dev/null || tail -5 "$work/log"
exit "$status"
