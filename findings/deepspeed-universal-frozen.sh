#!/usr/bin/env bash
# DeepSpeed 0.19.8's universal checkpoints, the way to go on with another number of GPUs, bring back what is trained, and nothing else. Frozen
# parameters (a teacher, a loaded encoder) and buffers (running means, queues) keep what the new model was built with, under ZeRO 3 and ZeRO 1. The load
# returns as if all were well. A checkpoint loaded as it was saved, by as many ranks, brings everything back.
#
# Seen, of a model whose frozen weights are all 7 and whose batch norm has seen three batches: after the load frozen weights, running mean, running
# variance and the count of batches are those of the fresh model; every trained tensor is equal. The first loss was 92.3 before and is .63 after.
# Exit status 0: still so. 1: what is loaded changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 deepspeed==0.19.8 numpy==2.4.6 setuptools
cat > "$work/resume.py" <<'PY'
import os
import socket
import subprocess
import sys

folder = sys.argv[1]
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


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.teacher = nn.Linear(3, 2).requires_grad_(False)

    def forward(self, x):
        return (self.norm(self.student(x)) - self.teacher(x)).square().mean()


def engine(stage, universal):
    net = Net()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)
    config = {
        "train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True,
        "checkpoint": {"load_universal": universal},
    }
    return deepspeed.initialize(model=net, optimizer=optimizer, config=config)[0]


def tensors(made, stage, change=None):
    with deepspeed.zero.GatheredParameters(list(made.module.parameters()), modifier_rank=0 if change else None, enabled=stage == 3):
        if change:
            change(made.module)
        return {name: value.clone() for name, value in made.module.state_dict().items()}


def sevens(net):
    net.teacher.weight.data.fill_(7.0)


x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
lost = {}
for stage in (1, 3):
    made, at = engine(stage, False), f"{folder}/zero-{stage}"
    tensors(made, stage, sevens)
    for _ in range(3):
        made.backward(made(x))
        made.step()
    kept = tensors(made, stage)
    made.save_checkpoint(at, tag="saved")
    before = made(x).item()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", f"{at}/saved", "--output_folder", f"{at}/universal"]
    subprocess.run(command + ["--inject_missing_state"] * (stage == 1), check=True, capture_output=True)
    fresh = engine(stage, True)
    fresh.load_checkpoint(at, tag="universal")
    back = tensors(fresh, stage)
    lost[stage] = sorted(name for name in kept if not torch.equal(kept[name].float(), back[name].float()))
    print(f"ZeRO {stage}: not brought back: {', '.join(lost[stage]) or 'nothing'}; loss {before:.4f} before, {fresh(x).item():.4f} after")
fully = ["norm.num_batches_tracked", "norm.running_mean", "norm.running_var", "teacher.weight"]
sys.exit(lost != {1: fully, 3: fully})
PY
"$work/venv/bin/python" -W ignore "$work/resume.py" "$work" 2> "$work/log" || { status=$?; tail -5 "$work/log"; exit $status; }
