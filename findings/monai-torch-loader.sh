#!/usr/bin/env bash
# A data set of MONAI 1.6.1 read through PyTorch's own DataLoader with workers has the same random crops, turns and noise in every epoch.
# Each random transform keeps a numpy RandomState of its own; a worker starts with a copy of it, draws from it, and ends with the epoch, so
# that the state of the main process never moves. All workers draw the same numbers, too. Augmentation then is a data set that was enlarged
# once: no warning, and a training loss that looks better. MONAI's DataLoader gives each worker new seeds; the page on it says that it takes
# care of random states "for deterministic behaviour". The wiki's list of questions says that workers draw alike with the other loader; that
# its epochs repeat is said nowhere. With persistent_workers=True epochs differ, and workers still draw alike.
#
# Seen (torch 2.14.1), 8 images, 3 epochs, shifts of brightness, 24 of them: PyTorch's loader, 2 workers: 4 different ones, every epoch
# equal to the first; with persistent workers 12; without workers 24; MONAI's loader, 2 workers: 24.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 monai==1.6.1 numpy==2.4.6
cat > "$work/epochs.py" <<'PY'
import sys

import monai.data
import numpy as np
import torch.utils.data
from monai.transforms import RandShiftIntensity


def epochs(loader, **options):
    """Three epochs of the drawn shifts of eight black images."""
    images = monai.data.Dataset([np.zeros((1, 2, 2), np.float32)] * 8, RandShiftIntensity(1.0, prob=1.0))
    batches = loader(images, batch_size=1, **options)
    return [[float(image.flatten()[0]) for image in batches] for _ in range(3)]


torch_loader = torch.utils.data.DataLoader
seen = {
    "PyTorch, 2 workers": epochs(torch_loader, num_workers=2),
    "PyTorch, 2 workers that stay": epochs(torch_loader, num_workers=2, persistent_workers=True),
    "PyTorch, none": epochs(torch_loader),
    "MONAI, 2 workers": epochs(monai.data.DataLoader, num_workers=2),
}
different = [len(set(sum(drawn, []))) for drawn in seen.values()]
for (name, drawn), count in zip(seen.items(), different):
    print(f"{name}: {count} different of 24, epochs {'equal' if drawn[0] == drawn[1] == drawn[2] else 'differ'}")
first = seen["PyTorch, 2 workers"]
sys.exit(different != [4, 12, 24, 24] or not first[0] == first[1] == first[2])
PY
"$work/venv/bin/python" -W ignore "$work/epochs.py"
