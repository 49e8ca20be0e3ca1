#!/usr/bin/env bash
# One batch of 16 pairs on one process, two or four: the same loss, but by default open_clip 3.3.0's ClipLoss gives the encoders a gradient
# that is as many times smaller as there are ranks, and the temperature the whole one. Each rank's loss is that of the whole batch, and its
# own features alone carry a gradient; DDP then divides by the number of ranks what it should add up. AdamW hides most of it; clipping
# (--grad-clip-norm), SGD, LARS and the balance between encoders and temperature do not: a learning rate or a clip found on one GPU means
# something else on eight. `local_loss=True` alone is another gradient again. With gather_with_grad=True it is right. The README gives the
# two flags for memory, and says that with both the numbers are one-to-one those of the naive method; that they change the size of the
# gradient it does not say (a question of 2023 shows it: open_clip 616).
#
# Seen, norm of the gradient of the image encoder by 1, 2 and 4 ranks: default 9.99, 4.99, 2.50; local_loss 9.99, 5.59, 5.59;
# gather_with_grad, and both, 9.99 always; gradient of the temperature 6.82 in all.
# Exit status 0: still so. 1: it changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0 numpy==2.4.6
cat > "$work/ranks.py" <<'PY'
import sys
from tempfile import mkdtemp

import torch
from open_clip.loss import ClipLoss
from torch import distributed, multiprocessing, nn

BATCH = 16
WAYS = {
    "default": {}, "local_loss": {"local_loss": True}, "gather_with_grad": {"gather_with_grad": True},
    "both": {"local_loss": True, "gather_with_grad": True},
}


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(16, 8), nn.Linear(16, 8)
        self.log_scale = nn.Parameter(torch.tensor(2.659))

    def forward(self, images, texts):
        normed = nn.functional.normalize
        return normed(self.image(images), dim=-1), normed(self.text(texts), dim=-1), self.log_scale.exp()


def work(rank, ranks, file, found):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
    torch.manual_seed(1)
    images = torch.randn(BATCH, 16)
    texts = images + torch.randn(BATCH, 16)
    mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    for name, options in WAYS.items():
        towers = Towers()
        parallel = nn.parallel.DistributedDataParallel(towers)
        loss = ClipLoss(rank=rank, world_size=ranks, **options)
        loss(*parallel(images[mine], texts[mine])).backward()
        if rank == 0:
            found[name, ranks] = round(float(towers.image.weight.grad.norm()), 2), round(float(towers.log_scale.grad), 2)
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Manager() as manager:
        found = manager.dict()
        for ranks in (1, 2, 4):
            multiprocessing.spawn(work, (ranks, f"{mkdtemp(dir=sys.argv[1])}/meet", found), nprocs=ranks)
        encoder = {name: [found[name, ranks][0] for ranks in (1, 2, 4)] for name in WAYS}
        scale = {found[name, ranks][1] for name in WAYS for ranks in (1, 2, 4)}
    print(f"gradient of the image encoder by 1, 2, 4 ranks: {encoder}; of the temperature: {scale}")
    sys.exit(not (
        encoder == {"default": [9.99, 4.99, 2.5], "local_loss": [9.99, 5.59, 5.59], "gather_with_grad": [9.99] * 3, "both": [9.99] * 3}
        and scale == {6.82}
    ))
PY
"$work/venv/bin/python" -W ignore "$work/ranks.py" "$work"
