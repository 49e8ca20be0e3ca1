"""Every method, every task of the demo cohort, every mode, through the real runner: new methods and tasks are tested by being there.

Most systems run a diagonal of it (tests/diagonal.py). What fits ends with a whole result; what does not is refused with a reason, and
nothing is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.registry import families, get_method
from tests.diagonal import cells
from tests.trainer.downstream.conftest import Finetune, tuning
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import DEFAULTS, METRICS
from trainer.downstream.task.read import TASKS, build_task
from trainer.downstream.task.schema import Task
from trainer.reporting.result import read_result
from trainer.tracking.metrics_file import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DEMO = sorted(p.stem for p in TASKS.glob("demo_*.yaml"))
# Bags and genes with every kind of task; images, masks among what they predict.
WHOLE = {"gimp", "mgi"}
Pretrained = Callable[[str], Path]


def sees_images(method: str) -> bool:
    """Whether an encoder can say where: it has an image encoder."""
    return "image" in get_method(method).inputs


def checked(out: Path, method: str, task: Task, mode: str) -> dict[str, Any]:
    """The result in `out`, after asking all of it that does not depend on the task."""
    read_result(out / "result.json")
    found = json.loads((out / "result.json").read_bytes())
    assert (found["method"], found["task"], found["kind"]) == (method, task.name, task.kind)
    own = method if get_method(method).draws_masks else "upernet"
    assert found["decoder"] == (own if task.kind == "segmentation" else None)
    assert found["init"]["kind"] == ("scratch" if mode == "scratch" else "pretrained")
    assert found["mode"] == ("finetune" if mode == "scratch" else mode)
    assert list(found["metrics"]) == list(dict.fromkeys([task.metric or DEFAULTS[task.kind][0], *DEFAULTS[task.kind]]))
    told = Predictions.load(out / found["predictions"][0])
    assert len(set(told.keys_N)) == len(told) == found["n"]["test"], "every test case once"
    assert len(set(told.patients_N)) == found["n"]["test_patients"]
    for name, m in found["metrics"].items():
        value = METRICS[name].compute(told)
        assert m["per_seed"][0] == (None if math.isnan(value) else pytest.approx(value, abs=1e-12)), name
        assert m["k"] is None or m["k"] == [METRICS[name].right(told)]
    return found


@pytest.mark.parametrize(("method", "task_name"), cells(DEMO, whole=WHOLE))
def test_every_mode_of_what_fits(
    method: str, task_name: str, pretrained: Pretrained, finetune: Finetune, cohort: Path, tmp_path: Path
) -> None:
    task, _ = build_task(task_name, [])
    if not get_method(method).outline:
        by_labels_alone(method, task, finetune, tmp_path)
        return
    words = ["--task", task_name, "--method", method, "--init", str(pretrained(method)), "output.width=16"]
    if task.kind == "segmentation" and not sees_images(method):
        ended = finetune(tmp_path / "run", *words)
        assert ended.codes == [2], ended.text
        assert f"{method} has no image encoder" in ended.text
        assert not (tmp_path / "run").exists()
        return
    trained = [
        checked_run(finetune, tmp_path / mode, [*words, "--mode", mode], method, task, mode)
        for mode in ("finetune", "scratch")
    ]
    assert trained[0]["hashes"]["checkpoint"]
    assert trained[1]["hashes"]["checkpoint"] is None
    probes(finetune, cohort, tmp_path, words, method, task)


def by_labels_alone(method: str, task: Task, finetune: Finetune, tmp_path: Path) -> None:
    """A method without pre-training: trained with or without `--init scratch`; probes of its random encoder are refused."""
    words = ["--task", task.name, "--method", method, "--recipe", "demo"]
    if task.kind == "segmentation" and not sees_images(method):
        ended = finetune(tmp_path / "run", *words)
        assert ended.codes == [2], ended.text
        assert f"{method} has no image encoder" in ended.text
        assert not (tmp_path / "run").exists()
        return
    checked_run(finetune, tmp_path / "scratch", words, method, task, "scratch")
    if method == "clam" and task.kind in ("binary", "multiclass"):
        logged = [
            r["instance_accuracy"]
            for p in (tmp_path / "scratch").rglob("metrics.jsonl")
            for r in read_metrics(p.parent)
        ]
        assert logged
        assert all(0 <= share <= 1 for share in logged), "what a head watches stands in the log of steps"


def checked_run(finetune: Finetune, out: Path, words: list[str], method: str, task: Task, mode: str) -> dict[str, Any]:
    ended = finetune(out, *words)
    assert ended.codes == [0], ended.text
    if method in families()["slides"]:
        shares = [r["padding"] for p in out.rglob("metrics.jsonl") for r in read_metrics(p.parent)]
        assert shares
        assert not any(shares), "nothing is computed on what fills a batch of slides up, and the log of steps says so"
    return checked(out, method, task, mode)


def probes(finetune: Finetune, cohort: Path, tmp_path: Path, words: list[str], method: str, task: Task) -> None:
    """Linear probe and k-NN, where the kind has them; the others are refused."""
    short = ["protocol.epochs=1", "protocol.steps=null", "protocol.weight_decays=0"]
    fits = {"linear": task.kind != "segmentation", "knn": task.kind not in ("segmentation", "multilabel", "survival")}
    lines = {m: [*words, *short, "--mode", m] for m in fits}
    both = [tuning(cohort, tmp_path / m, *lines[m]) for m in fits if fits[m]]
    if both:
        ended = finetune(tmp_path / "linear", *lines["linear"], more=tuple(both[1:]))
        assert ended.codes == [0], ended.text
    for mode, possible in fits.items():
        if possible:
            checked(tmp_path / mode, method, task, mode)
            continue
        ended = finetune(tmp_path / mode, *lines[mode])
        assert ended.codes == [2], ended.text
        assert (
            f"mode: {'knn has no' if task.kind != 'segmentation' else mode + ' works on pooled vectors'}" in ended.text
        )
        assert not (tmp_path / mode).exists()
