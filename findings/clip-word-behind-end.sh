#!/usr/bin/env bash
# A token of one's own in CLIP's text tower ("<age>", "[LEFT]"): open_clip 3.3.0's tokenizer takes them (`additional_special_tokens=`) and numbers them behind
# the end-of-text token, 49408 and up. Its text tower finds the end of a text as the token with the LARGEST number (`pool_type: argmax`, its
# default). The embedding is then taken at the added token, attention looks back only, and every word behind it
# does not exist: texts that differ in the diagnosis have one embedding and no gradient. transformers 5.24.0 does the same for configurations with
# eos_token_id 2, which older published ones have (a comment in its source says so; its documentation, and the tokenizer's of open_clip, do not).
# `pool_type: eos` with `eos_id`, or eos_token_id 49407, reads the whole text.
#
# Seen: "a film, pneumonia" and "a film, no finding" apart by more than .1; "<age> 71, pneumonia" and "<age> 71, no finding" by 0; with pool_type eos by
# more than .1. transformers: 0 with eos_token_id 2, more than .1 with the real one.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0 transformers==5.24.0 numpy==2.4.6
cat > "$work/words.py" <<'PY'
import sys

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTextConfig, CLIPTextModel

tokens = SimpleTokenizer(additional_special_tokens=["<age>"], context_length=16)
PLAIN, ADDED = ("a film, pneumonia", "a film, no finding"), ("<age> 71, pneumonia", "<age> 71, no finding")
print("tokens of", ADDED[0], "are", tokens(ADDED[0])[0].tolist(), "end of text:", tokens.eot_token_id)


@torch.no_grad()
def open_clip(pair, **pooling):
    torch.manual_seed(0)
    text = CLIPTextCfg(vocab_size=tokens.vocab_size, context_length=16, width=32, heads=2, layers=2, **pooling)
    net = CLIP(32, CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=8, image_size=16), text).eval()
    a, b = net.encode_text(tokens(list(pair)))
    return float((a - b).abs().max())


@torch.no_grad()
def transformers(pair, end):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    net = CLIPTextModel(CLIPTextConfig(vocab_size=tokens.vocab_size, eos_token_id=end, bos_token_id=tokens.sot_token_id, **shape)).eval()
    a, b = net(tokens(list(pair))).pooler_output
    return float((a - b).abs().max())


end = tokens.eot_token_id
found = {
    "open_clip, plain": open_clip(PLAIN), "open_clip, added": open_clip(ADDED),
    "open_clip, added, pool_type eos": open_clip(ADDED, pool_type="eos", eos_id=end),
    "transformers, plain, eos_token_id 2": transformers(PLAIN, 2), "transformers, added, eos_token_id 2": transformers(ADDED, 2),
    f"transformers, added, eos_token_id {end}": transformers(ADDED, end),
}
for name, apart in found.items():
    print(f"{name}: {apart:.3f} apart")
sys.exit([apart > 0.1 for apart in found.values()] != [True, False, True, True, False, True] or found["open_clip, added"] > 1e-6)
PY
"$work/venv/bin/python" -W ignore "$work/words.py"
