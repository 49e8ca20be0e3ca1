"""An encoder that stands still at first: nothing of it moves, then all of it does, as if it had never been in an optimiser before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.finetuned import FROZEN, STAGE
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.launching import rows, series
from trainer.config.schema import Optim
from trainer.downstream.task.read import parse_task
from trainer.engine.schedule import learning_rate
from trainer.errors import UserError

Pretrained = Callable[[str], Path]
LR, FACTOR, STEPS = 1e-3, 0.1, 4
POINT = f"seed-0/lr-{LR:g}"


def words(run: Path, *more: str) -> list[str]:
    """Two frozen steps (an epoch of 43 images) and two more; drop path and crops use random numbers."""
    return [
        "--task", "demo_severity", "--method", "mrm_record", "--init", str(run), "protocol.freeze_epochs=1", f"protocol.thaw_lr={FACTOR}",
        f"protocol.steps={STEPS}", "protocol.batch=20", "protocol.evaluations=2", "protocol.layer_decay=0.75", "protocol.weight_decay=0.5",
        "method.image.drop_path=0.3", "augment.crop=0.5", *more,
    ]  # fmt: skip


def weights_of(checkpoint: Path) -> dict[str, Any]:
    (path,) = (checkpoint / "engine").glob("mp_rank_00_model_states.pt")
    return torch.load(path, weights_only=False)["module"]


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "stage", [0, pytest.param(1, marks=pytest.mark.grid), 2, 3]
)  # DeepSpeed's 1 is its 2 but for gradients
def test_frozen_then_trained_whatever_the_sharding(
    stage: int, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    """Stopped after the last frozen step, and (without sharding) killed in the frozen part: the numbers of a run that was left alone."""
    run = pretrained("mrm_record")
    given = words(run, f"zero.stage={stage}", "checkpoint.every=1", "checkpoint.keep=9")
    whole = finetune(tmp_path / "whole", *given, world=2)
    assert whole.codes == [0, 0], whole.text
    out = tmp_path / "cut"
    if stage == 0:
        died = finetune(out, *given, world=2, faults={"die": {"step": 2, "of": POINT}})
        assert died.codes == [-9, -9], died.text
    stopped = finetune(out, *given, world=2, faults={"signal": {"step": 2, "of": POINT, "name": "SIGUSR2", "rank": 1}})
    assert stopped.codes == [75, 75], stopped.text
    before, after = load_file(run / "weights.safetensors"), load_file(out / POINT / "stages" / f"{FROZEN}.safetensors")
    assert [n for n, w in before.items() if not w.equal(after[f"encoder.{n}"])] == [], "frozen, and it moved"
    assert rows(out / POINT)[1]["grad_norm"] > 0
    if stage == 0:
        first_update(after, weights_of(out / POINT / "checkpoints" / "step-00000003"))
    done = finetune(out, *given, world=2)
    assert done.codes == [0, 0], done.text
    a, b = (json.loads((f / "result.json").read_bytes()) for f in (tmp_path / "whole", out))
    assert {k: v for k, v in a.items() if k != "wall_s"} == {k: v for k, v in b.items() if k != "wall_s"}
    names = ("step", "stage", "epoch", "loss", "keys", "lr")
    assert series(out / POINT, *names) == series(tmp_path / "whole" / POINT, *names)
    weights = [load_file(f / POINT / "stages" / f"{STAGE}.safetensors") for f in (tmp_path / "whole", out)]
    assert all(w.equal(weights[1][n]) for n, w in weights[0].items())
    assert not list(out.rglob(f"{FROZEN}*.safetensors"))
    seen(rows(out / POINT))


def first_update(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Adam's first step from nothing moves every weight by its learning rate, whatever the gradient; moments or counts of an
    earlier life would show. The decay is taken off."""
    lr = learning_rate(Optim(lr=LR), 2, STEPS) * FACTOR
    for name, scale in (("encoder.encoder.blocks.1.mlp.fc1.weight", 0.75**2), ("head.out.weight", 1.0)):
        w, moved = before[name], after[name]
        step = (moved - w * (1 - lr * scale * 0.5)).abs() / (lr * scale)
        assert step.median() == pytest.approx(1.0, abs=0.02), name
        assert step.max() < 1.02, name


def seen(lines: list[dict[str, Any]]) -> None:
    """One schedule and one order over both parts, the factor in the second."""
    assert [r["stage"] for r in lines] == [FROZEN] * 2 + [STAGE] * 2
    assert [r["epoch"] for r in lines] == [0, 0.5, 1, 1.5]
    expected = [learning_rate(Optim(lr=LR), i, STEPS) * (FACTOR if i >= 2 else 1) for i in range(STEPS)]
    assert [r["lr"] for r in lines] == pytest.approx(expected)
    assert len({r["keys"] for r in lines}) == 4, "the second part does not begin with the first one's order"
    assert [i for i, r in enumerate(lines, 1) if "val/mae" in r] == [2, 4]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"freeze_epochs": 3, "freeze": "encoder"}, "the encoder would stay frozen"),
        ({"freeze_epochs": 5, "epochs": 5}, "nothing is left to train the encoder in"),
        ({"thaw_lr": 0.1}, "nothing thaws; set protocol.freeze_epochs too"),
    ],
)
def test_what_makes_no_sense_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_task({"name": "t", "kind": "binary", "label": "x", "protocol": content})
    with pytest.raises(UserError, match="mode linear never trains the encoder"):
        parse_task({"name": "t", "kind": "binary", "label": "x", "mode": "linear", "protocol": {"freeze_epochs": 1}})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_best_look_may_be_a_frozen_one(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """A rate so high that the head gets worse with its second step, and nothing moves after the thaw: the first look's weights are kept,
    over a stop in the second part, which yet begins where the first one ended."""
    run = pretrained("mrm_record")
    given = words(run, "checkpoint.every=1", "protocol.evaluations=4", "protocol.lr=3", "protocol.warmup=0")
    given, point = [*given, "protocol.thaw_lr=1e-6"], tmp_path / "run" / "seed-0" / "lr-3"
    stopped = finetune(tmp_path / "run", *given, faults={"signal": {"step": 2, "of": "lr-3", "name": "SIGUSR2"}})
    assert stopped.codes == [75], stopped.text
    handed = load_file(point / "stages" / f"{FROZEN}.safetensors")
    done = finetune(tmp_path / "run", *given)
    assert done.codes == [0], done.text
    looks = [r["val/mae"] for r in rows(point)]
    assert looks[1] > 2 * looks[0], "the second step made it worse"
    assert looks[2] == pytest.approx(looks[1], rel=1e-2), "goes on with the last weights, not with the best"
    (chosen,) = json.loads((tmp_path / "run" / "result.json").read_bytes())["chosen"]
    assert (chosen["step"], chosen["val"]) == (1, looks[0])
    kept = load_file(point / "stages" / f"{STAGE}.safetensors")
    assert all(
        w.equal(kept[n]) == n.startswith("encoder.")
        for n, w in handed.items()
        if "mean_K" not in n and "std_K" not in n
    )
