#!/usr/bin/env bash
# safetensors 0.8.0 writes the keys of `metadata` in an order of chance: the same tensors with the same metadata, saved by two
# processes, are files of different bytes. A SHA-256 of a weights file therefore does not tell whether its weights are the same:
# hash the tensors, or write one metadata key alone (such as one JSON text).
#
# Seen (Linux x86-64, Python 3.11, numpy 2.4.6): eight processes, eight different hashes; the tensors' part is equal in all.
# Exit status 0: still so. 1: the files are equal now.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cat > "$work/save.py" <<'PY'
import sys
import numpy as np
from safetensors.numpy import save_file

metadata = {name: "1" for name in ("format", "method", "step", "dim", "depth", "heads", "patch", "seed")}
save_file({"weight": np.arange(6, dtype=np.float32)}, sys.argv[1], metadata=metadata)
PY
for i in 1 2 3 4 5 6 7 8; do
  "$work/venv/bin/python" "$work/save.py" "$work/$i.safetensors"
done
whole=$(sha256sum "$work"/*.safetensors | cut -d' ' -f1 | sort -u | wc -l)
tensors=$(for f in "$work"/*.safetensors; do tail -c 24 "$f" | sha256sum; done | sort -u | wc -l)
echo "safetensors 0.8.0: 8 saves of the same content: $whole different files, $tensors different tensors"
[ "$whole" -gt 1 ] && [ "$tensors" -eq 1 ]
