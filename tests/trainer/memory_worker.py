"""Counts the bytes of model state on every rank for each ZeRO stage (or those named); writes them beside what was predicted.

FOLDER [STAGE ...]
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

WORDS = [
    "method.dim=64",
    "method.heads=2",
    "method.window=24",
    "method.landmarks=8",
    "method.genes.groups=4",
    "global_batch=8",
]
CASES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")]


def main(words: list[str]) -> int:
    folder, asked = Path(words[0]), [int(w) for w in words[1:]]
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data
    from trainer.engine.engine import Engine
    from trainer.engine.memory import StateBytes, border, count
    from trainer.plan import state_bytes
    from trainer.runtime import finish, start

    runtime, found = start(), []
    for stage, precision in CASES:
        if asked and stage not in asked:
            continue
        config, _ = build_config("gimp", None, [*WORDS, f"zero.stage={stage}", f"precision={precision}"])
        data = open_data(config)
        method = build_method(config, data)
        predicted = state_bytes(method, "pretrain", config, runtime.world)
        method.enter("pretrain")
        engine = Engine(method, config, "pretrain", runtime)
        loader = data.loader(config, method.stages()[-1], engine.method, runtime)
        steps = iter(loader.iterate())
        before: list[StateBytes] = []
        reduce = engine.deepspeed.allreduce_gradients

        def counted(engine=engine, stage=stage, before=before, reduce=reduce, **kwargs) -> None:
            before.append(count(engine.deepspeed, stage))
            reduce(**kwargs)

        engine.deepspeed.allreduce_gradients = counted
        for last in (False, True):  # Adam makes its moments in the first update
            engine.backward(engine.forward(next(steps).micro[0]).total)
            if not last:
                engine.update(1e-4)
        found.append(
            {
                "stage": stage,
                "precision": precision,
                "counted": asdict(before[-1] if stage < 2 else count(engine.deepspeed, stage)),
                "predicted": asdict(predicted),
                "border": border(engine.deepspeed, stage),
                "largest": max(getattr(p, "ds_numel", p.numel()) for p in method.parameters()) * 4,
            }
        )
        loader.close()
        engine.close()
    (folder / f"rank{runtime.rank}.json").write_text(json.dumps(found))
    finish()
    return 0
