"""A finished run that no step was taken in: all files that pre-training leaves for others, with the first weights."""

from __future__ import annotations

import json
from pathlib import Path

from models.init.grids import grid_text
from models.init.weights import weights_bytes
from trainer.build import build_method, resolve
from trainer.config.recipe import build_config
from trainer.data import open_data
from trainer.state.finished import write_card


def untrained(method: str, data: Path, out: Path, *words: str) -> Path:
    """The run's folder; `words` are those of the command line."""
    config, _ = build_config(method, "demo", [f"data.path={data}", f"out={out}", *words])
    _, _, resolved = resolve(config)
    opened = open_data(config)
    try:
        out.mkdir(parents=True)
        write_card(out, config, resolved["method"], opened)
        made = build_method(config, opened)
        (out / "weights.safetensors").write_bytes(weights_bytes(made.state_dict(), grid_text(made)))
        (out / "config.json").write_text(json.dumps({"config": resolved}, default=str))
    finally:
        opened.close()
    return out
