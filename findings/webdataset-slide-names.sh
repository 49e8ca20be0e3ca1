#!/usr/bin/env bash
# webdataset 1.0.2: the key of a sample ends at the first dot of a file's name, whatever `__key__` was given to `TarWriter`. TCGA names its slides
# BARCODE.UUID.svs, and people keep BARCODE.UUID as the key. Two slides of one patient that follow each other have the same barcode up
# to the dot, so they are read as one sample whose fields are called "UUID.features.npy": one sample for two, none of the
# fields that a pipeline asks for, and no complaint by writer or reader. Put another sign in the dot's place before packing.
#
# Seen: 2 samples written, 1 read: key TCGA-AB-1234-01Z-00-DX1, four fields.
# Exit status 0: still so. 1: two samples come back, or the writer refuses.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
cat > "$work/slides.py" <<'PY'
import sys

import numpy as np
import webdataset as wds

shard = f"{sys.argv[1]}/slides.tar"
with wds.TarWriter(shard) as writer:
    for part in ("11111111-aaaa", "22222222-bbbb"):
        writer.write({"__key__": f"TCGA-AB-1234-01Z-00-DX1.{part}", "features.npy": np.zeros((2, 3), np.float32), "cls": 1})
samples = [{k for k in sample if not k.startswith("__")} | {sample["__key__"]} for sample in wds.WebDataset(shard, shardshuffle=False)]
print(f"written 2, read {len(samples)}: {[sorted(s) for s in samples]}")
sys.exit(not (len(samples) == 1 and len(samples[0]) == 5))
PY
"$work/venv/bin/python" "$work/slides.py" "$work"
