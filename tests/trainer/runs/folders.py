"""Folders as runs leave them: a pre-training, a fine-tune, a sweep's points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def pretrained(out: Path, finished: bool = True, steps: int = 20, lr: float = 1e-3) -> Path:
    out.mkdir(parents=True)
    config = {
        "method_name": "gimp",
        "method": {"dim": 64},
        "seed": 0,
        "optim": {"lr": lr},
        "data": {"path": "sets/a"},
        "out": str(out),
    }
    (out / "config.json").write_text(json.dumps({"config": config, "versions": {"torch": "2.14.1", "commit": "abc"}}))
    rows = [{"step": i, "stage": "pretrain", "loss": 1 / i, "keys": "0" * 16} for i in range(1, steps + 1)]
    rows[-1]["val/loss/rec"] = 0.5
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if finished:
        (out / "method.json").write_text(json.dumps({"method": "gimp", "data": {"fingerprint": f"f{lr}"}}))
        (out / "weights.safetensors").write_bytes(b"")
    return out


def tuned(out: Path, auc: float, task: str = "demo_subtype", **changes: Any) -> Path:
    """A finished fine-tune whose primary metric is `auc`; `changes` replace entries of the result."""
    out.mkdir(parents=True)
    config = {
        "about": {"task": {"name": task, "protocol": {"seeds": [0]}}, "method": "abmil", "code": "c0"},
        "data": {"path": "sets/a"},
    }
    (out / "config.json").write_text(json.dumps({"config": config}))
    metric = {
        "value": auc,
        "interval": [auc - 0.1, auc + 0.1],
        "higher_is_better": True,
        "ideal": None,
        "constant": [False],
    }
    result = {
        "format": 1, "task": task, "kind": "binary", "method": "abmil", "title": "", "mode": "finetune", "seeds": [0], "control": None,
        "init": {"kind": "scratch"}, "leak": {"checked": True, "shared": 0}, "n": {"train": 100, "test": 60}, "primary": "auc",
        "metrics": {"auc": metric, "brier": {**metric, "value": 1 - auc, "higher_is_better": False}}, "chosen": [{"seed": 0, "val": 0.9}],
        "hashes": {"data": "d0", "code": "c0"}, "versions": {"torch": "2.14.1"},
    } | changes  # fmt: skip
    (out / "result.json").write_text(json.dumps(result))
    return out


def point(out: Path, state: str, exit_status: int | None = None) -> Path:
    """status.json of a sweep's point, in a folder that may hold its run."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "status.json").write_text(json.dumps({"index": 0, "words": [], "state": state, "exit": exit_status}))
    return out
