#!/usr/bin/env bash
# DeepSpeed 0.19.8's schedules with the same words in the configuration and an optimizer of two groups (encoder 1e-5, head 1e-4): WarmupLR and
# WarmupCosineLR warm up to each group's own rate; WarmupDecayLR, which its source makes a kind of WarmupLR, warms both up to .001 whatever the
# optimizer says, a hundred times the encoder's. The documentation names .001 as the default of warmup_max_lr for both WarmupLR and WarmupDecayLR, and
# says nothing of the optimizer's rate. In all three the first TWO steps of the optimizer have a rate of 0, with "linear" as with "log": two batches are
# read, counted and learn nothing. Give warmup_max_lr as a list, one rate per group, and warmup_min_lr above 0.
#
# Seen, warmup_num_steps 10: rates of the 12th step: WarmupLR 1e-5 and 1e-4, WarmupCosineLR the same (.9997 of it), WarmupDecayLR .001 and .001; weights
# unchanged after steps 1 and 2, changed at step 3. With warmup_max_lr=[1e-5, 1e-4] WarmupDecayLR keeps to them.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 deepspeed==0.19.8 numpy==2.4.6 setuptools
cat > "$work/rates.py" <<'PY'
import os
import socket
import sys

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
os.environ |= {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
}

import deepspeed
import torch
from torch import nn

deepspeed.init_distributed("gloo", verbose=False)
RATES = [1e-5, 1e-4]


def run(kind, **params):
    """(rates of the 12th step, of both groups; which of the first four steps changed the weights)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW([{"params": part.parameters(), "lr": rate} for part, rate in zip(net, RATES)])
    config = {"train_micro_batch_size_per_gpu": 2, "scheduler": {"type": kind, "params": {"warmup_num_steps": 10, **params}}}
    engine = deepspeed.initialize(model=net, optimizer=optimizer, config=config)[0]
    changed = []
    for step in range(12):
        before, used = net[1].weight.detach().clone(), [group["lr"] for group in optimizer.param_groups]
        engine.backward(engine(torch.ones(2, 4)).square().mean())
        engine.step()
        changed.append(not torch.equal(before, net[1].weight))
    return used, changed[:4]


near = lambda found, wanted: all(abs(f / w - 1) < 0.01 for f, w in zip(found, wanted))
right = True
for kind, total, top in (
    ("WarmupLR", {}, RATES), ("WarmupCosineLR", {"total_num_steps": 100}, RATES), ("WarmupDecayLR", {"total_num_steps": 1000}, [1e-3, 1e-3]),
):
    for way in ("log", "linear"):
        used, changed = run(kind, warmup_type=way, **total)
        print(f"{kind}, {way}: rates of the 12th step {used}, optimizer's {RATES}; steps that changed the weights: {changed}")
        right &= near(used, top) and changed == [False, False, True, True]
used, _ = run("WarmupDecayLR", total_num_steps=1000, warmup_max_lr=RATES)
print(f"WarmupDecayLR with warmup_max_lr={RATES}: {used}")
sys.exit(not (right and near(used, RATES)))
PY
"$work/venv/bin/python" -W ignore "$work/rates.py" 2> "$work/log" | grep -vE '^(\[|DeepSpeed)' || { status=${PIPESTATUS[0]}; tail -5 "$work/log"; exit "$status"; }
