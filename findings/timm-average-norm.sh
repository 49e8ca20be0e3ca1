#!/usr/bin/env bash
# Features of a published ViT as the mean of its patch tokens: timm 1.0.31's `create_model(name, pretrained=True, global_pool="avg")`. With that pooling
# timm's ViT has no last norm before the pooling but a norm behind it (`fc_norm`), under another name: weights made with a class token, or by
# MAE, have `norm.*`, which is dropped, and `fc_norm` stays at 1 and 0. One line in the log says "Unexpected keys"; nothing is raised. The
# same file as checkpoint_path= is refused. `fc_norm=False` keeps the norm where it was trained, and gives the mean of the normed tokens.
#
# Seen, of a ViT-Tiny whose norm has weights .5 to 2: pretrained with "avg": fc_norm all 1, features up to 2.5 off; with fc_norm=False equal;
# checkpoint_path with "avg": RuntimeError.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 safetensors==0.8.0 numpy==2.4.6
cat > "$work/norm.py" <<'PY'
import sys

import timm
import torch
from safetensors.torch import save_file

NAME, path = "vit_tiny_patch16_224", f"{sys.argv[1]}/published.safetensors"
torch.manual_seed(0)
published = timm.create_model(NAME, num_classes=0).eval()
images = torch.randn(2, 3, 224, 224)
with torch.no_grad():
    published.norm.weight.copy_(torch.linspace(0.5, 2, 192))
    published.norm.bias.fill_(0.3)
    wanted = published.forward_features(images)[:, 1:].mean(1)
save_file(published.state_dict(), path)


@torch.no_grad()
def apart(**words):
    model = timm.create_model(NAME, num_classes=0, global_pool="avg", **words).eval()
    return model, float((model(images) - wanted).abs().max())


there = {"pretrained": True, "pretrained_cfg_overlay": {"file": path}}
model, off = apart(**there)
kept = apart(fc_norm=False, **there)[1]
fresh = bool((model.fc_norm.weight == 1).all())
try:
    refused = apart(checkpoint_path=path) is None
except RuntimeError:
    refused = True
print(f"global_pool='avg': fc_norm all 1: {fresh}, features off by {off:.3f}; fc_norm=False: {kept:.1e}; checkpoint_path refused: {refused}")
sys.exit(not (fresh and off > 1 and kept < 1e-5 and refused))
PY
"$work/venv/bin/python" "$work/norm.py" "$work"
