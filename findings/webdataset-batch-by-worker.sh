#!/usr/bin/env bash
# `.batched(32)` in a webdataset pipeline runs in each worker of the DataLoader, over the shards that this worker has. The batch of the loss is then what
# the number of workers leaves: one hundred samples in four shards are batches of 32, 32, 32, 4 with one worker, and four batches of 25 with four; 32 is
# never reached. A contrastive loss has fewer negatives, and a schedule that counts steps another length, because a machine has more cores.
# Batch behind the loader: `WebLoader(...).unbatched().shuffle(n).batched(32)`, or the loader's own batch_size.
#
# Seen (webdataset 1.0.2): workers 0 and 1: 32 32 32 4; 2: 32 32 18 18; 4: 25 25 25 25; 4 and batched behind the loader: 32 32 32 4.
# Exit status 0: still so. 1: batches do not depend on workers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 webdataset==1.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import io
import sys
import tarfile

import webdataset as wds
from torch.utils.data import DataLoader

for shard in range(4):
    with tarfile.open(f"{shard}.tar", "w") as tar:
        for i in range(25 * shard, 25 * shard + 25):
            member = tarfile.TarInfo(f"s{i}.txt")
            member.size = len(str(i))
            tar.addfile(member, io.BytesIO(str(i).encode()))


def sizes(workers, behind=False):
    data = wds.WebDataset("{0..3}.tar", shardshuffle=False).decode().to_tuple("txt").batched(25 if behind else 32)
    loader = wds.WebLoader(data, batch_size=None, num_workers=workers).unbatched().batched(32) if behind else DataLoader(data, None, num_workers=workers)
    return [len(batch[0]) for batch in loader]


seen = {workers: sizes(workers) for workers in (0, 1, 2, 4)}
behind = sizes(4, True)
print("; ".join(f"{w} workers {s}" for w, s in seen.items()), f"; 4 workers, batched behind the loader {behind}")
sys.exit(not (seen[0] == seen[1] == behind == [32, 32, 32, 4] and seen[2] == [32, 32, 18, 18] and seen[4] == [25] * 4))
PY
