"""A bare PyTorch loop over a recipe's batches in memory: `python -m tests.gpu.bare --method M --recipe R KEY=VALUE ...`.

Forward, backward, AdamW, under autocast where the recipe has a half precision; prints samples a second and floating-point operations of
a sample (forward and backward, counted by PyTorch) as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

STEPS = 8 if torch.cuda.is_available() else 3
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def main(words: list[str]) -> None:
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data
    from trainer.runtime import finish, start

    method_name, recipe = words[words.index("--method") + 1], words[words.index("--recipe") + 1]
    config, _ = build_config(method_name, recipe, [w for w in words if "=" in w])
    runtime = start()
    data = open_data(config)
    method = build_method(config, data).to(runtime.device)
    plan = method.stages()[-1]
    method.enter(plan.name)
    loader = data.loader(config, plan, method, runtime)
    steps = loader.iterate()
    batches = [next(steps).micro[0].to(runtime.device) for _ in range(2)]
    loader.close()
    params = [p for p in method.parameters() if p.requires_grad]
    adam, half = torch.optim.AdamW(params, lr=1e-6), HALF.get(config.precision)

    def step(i: int) -> None:
        with torch.autocast(runtime.device.type, half, enabled=half is not None):
            loss = method(batches[i % len(batches)]).total
        loss.backward()
        adam.step()
        adam.zero_grad()

    def wait() -> float:
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    method.train()
    with FlopCounterMode(display=False) as counted:
        step(0)
    step(1)
    began = wait()
    for i in range(STEPS):
        step(i)
    size = len(batches[0].weight_B)
    found = {"samples_per_s": STEPS * size / (wait() - began), "flops": counted.get_total_flops() / size}
    finish()
    print(json.dumps(found | {"precision": config.precision}))


if __name__ == "__main__":
    main(sys.argv[1:])
