#!/usr/bin/env bash
# webdataset 1.0.2 (and 0.2.111): `WebDataset(urls, shardshuffle=100)` draws one order of the shards when it is built and keeps it in every epoch, also without
# a seed (open report: webdataset 502). `.with_epoch(n)`, documented as a slice of the data set, then starts at the front of that order each time, so
# that an epoch shorter than the data trains on the same shards for ever, and the others are never read: no loss, no count and no warning shows it.
# `detshuffle=True`, whose order depends on the epoch, is no cure with a DataLoader's workers: they are started anew and count from zero, unless
# persistent_workers=True. `resampled=True` (shards drawn with replacement) draws anew each time.
#
# Seen: 8 shards of 10 samples, 20 epochs of 20 samples (of 20 per worker with two workers): 20 of 80 samples seen (40 with two workers), in one order;
# detshuffle: all 80 in the main process, 40 with two workers, all with persistent ones; resampled: 70 or more, in many orders.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 webdataset==1.0.2 numpy==2.4.6
cd "$work"
cat > shards.py <<'PY'
import io
import sys
import tarfile

import webdataset as wds
from torch.utils.data import DataLoader

EPOCHS, PER_EPOCH = 20, 20
for shard in range(8):
    with tarfile.open(f"{shard}.tar", "w") as tar:
        for i in range(10 * shard, 10 * shard + 10):
            member = tarfile.TarInfo(f"s{i}.txt")
            member.size = len(str(i))
            tar.addfile(member, io.BytesIO(str(i).encode()))


def seen(workers, persistent=False, **options):
    """(different samples, different orders) of 20 epochs."""
    data = wds.WebDataset("{0..7}.tar", **options).decode().to_tuple("txt").with_epoch(PER_EPOCH)
    loader = DataLoader(data, None, num_workers=workers, persistent_workers=persistent)
    epochs = [tuple(int(number) for (number,) in loader) for _ in range(EPOCHS)]
    return len({number for epoch in epochs for number in epoch}), len(set(epochs))


found = {}
for name, options in (
    ("shardshuffle", {"shardshuffle": 100}), ("detshuffle", {"shardshuffle": 100, "detshuffle": True, "seed": 1}),
    ("resampled", {"resampled": True, "shardshuffle": False}),
):
    for workers, persistent in ((0, False), (2, False), (2, True)):
        found[name, workers, persistent] = samples, orders = seen(workers, persistent, **options)
        how = f"{workers} {'persistent ' * persistent}workers"
        print(f"{name}, {how}: {samples} of 80 samples in {EPOCHS} epochs, {orders} orders")
same = [found["shardshuffle", *how] for how in ((0, False), (2, False), (2, True))]
drawn = [found["detshuffle", *how] for how in ((0, False), (2, False), (2, True))]
sys.exit(not (
    same == [(20, 1), (40, 1), (40, 1)] and drawn[1] == (40, 1) and drawn[0][0] == drawn[2][0] == 80
    and all(samples >= 50 for (name, *_), (samples, _) in found.items() if name == "resampled")
))
PY
"$work/venv/bin/python" -W ignore shards.py
