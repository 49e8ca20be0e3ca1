"""Published tasks and protocols as files: each parses, each command that a file names does, and what lies above what is told."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from trainer.downstream.metrics.table import METRICS
from trainer.downstream.task.read import PROTOCOLS, TASKS, build_task, parse_task
from trainer.downstream.trial import metric_names
from trainer.errors import UserError

FILES = sorted(p.stem for p in TASKS.glob("*.yaml"))
WORDS = re.compile(r"^# words: (.+)$", re.M)
NAMED = [(name, line) for name in FILES for line in WORDS.findall((TASKS / f"{name}.yaml").read_text())]


@pytest.mark.parametrize("name", FILES)
def test_every_task_parses_and_its_references_are_of_its_metrics(name: str) -> None:
    task, _ = build_task(name, [])
    known = metric_names(task)
    assert task.kind in METRICS[known[0]].kinds
    for r in task.reference:
        assert task.kind in METRICS[r.metric].kinds, f"{name}: {r.metric} is no metric of {task.kind}"
        if task.recipe is not None:
            assert r.metric in known, f"{name}: {r.metric} would not be measured"
    if task.recipe is not None:
        assert (PROTOCOLS / f"{task.recipe}.yaml").is_file()


@pytest.mark.parametrize(("name", "line"), NAMED, ids=[f"{n}-{i}" for i, (n, _) in enumerate(NAMED)])
def test_every_command_that_a_task_names(name: str, line: str) -> None:
    words = shlex.split(line)
    task, _ = build_task(name, words)
    metric_names(task)
    plain, _ = build_task(name, [])
    assert task != plain
    if "protocol.fraction" in line:
        assert task.protocol.steps
        assert task.protocol.epochs is None


@pytest.mark.parametrize("name", sorted(p.stem for p in PROTOCOLS.glob("*.yaml")))
def test_every_protocol_fits_any_task(name: str) -> None:
    kind = {"kind": "segmentation"} if "siim" in name else {"kind": "binary", "label": "x"}
    parse_task({"name": "t", **kind, **yaml.safe_load((PROTOCOLS / f"{name}.yaml").read_text())})


def test_contig_as_published() -> None:
    p = build_task("aptos", ["recipe=contig"])[0].protocol
    assert (p.optimizer, p.lr, p.weight_decay, p.schedule, p.warmup) == ("adam", (1e-3,), 1e-5, "constant", 0)
    assert (p.micro_batch, p.batch, p.epochs) == (16, 16 * 4, 50)
    task = build_task("palm", [])[0]
    assert (task.protocol.freeze_epochs, task.protocol.thaw_lr, task.output.mask_weights) == (10, 0.1, (0.2, 0.8))
    assert [m.name for m in task.masks] == ["disc", "atrophy"]
    assert len(build_task("rfmid", [])[0].labels) == len(set(build_task("rfmid", [])[0].labels)) == 43


@pytest.mark.parametrize(
    ("name", "line", "warmup", "steps"),
    [
        ("nih14", 0, 50, 3_000), ("nih14", 1, 500, 30_000), ("nih14", 2, 5_000, 200_000),
        ("rsna", 0, 50, 2_000), ("rsna", 1, 200, 10_000), ("rsna", 2, 2_000, 50_000),
        ("chexpert5", 0, 150, 2_000), ("chexpert5", 1, 1_500, 60_000), ("chexpert5", 2, 15_000, 200_000),
        ("siim", 0, 100, 5_000), ("siim", 1, 1_500, 160_000), ("covid_vs_other", 0, 50, 1_000),
    ],
)  # fmt: skip
def test_shares_are_the_published_steps_of_warm_up(name: str, line: int, warmup: int, steps: int) -> None:
    """The schedule rounds share x steps; the published figure comes out to a step in a thousand."""
    words = [w for n, w in NAMED if n == name][line]
    p = build_task(name, shlex.split(words))[0].protocol
    assert p.steps == steps
    assert round(p.warmup * p.steps) == pytest.approx(warmup, rel=2e-3, abs=0)


def test_a_recipe_lies_below_its_task_and_a_word_above_it(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("{kind: binary, label: x, recipe: contig, protocol: {lr: 0.5, steps: 7}}")
    task, _ = build_task(str(path), [])
    assert (task.protocol.lr, task.protocol.optimizer, task.protocol.steps, task.protocol.epochs) == (
        (0.5,),
        "adam",
        7,
        None,
    )
    task, _ = build_task(str(path), ["recipe=mrm_record", "protocol.batch=8"])
    assert (task.protocol.lr, task.protocol.optimizer, task.protocol.batch) == ((3e-2, 3e-3, 5e-4), "sgd", 8)
    task, _ = build_task(str(path), ["recipe=mae"])
    assert (task.protocol.epochs, task.protocol.steps) == (50, None)
    own = tmp_path / "p.yaml"
    own.write_text("protocol: {epochs: 3}")
    assert build_task(str(path), [f"recipe={own}"])[0].protocol.epochs == 3
    for wrong, says in (("contg", "no recipe 'contg'; did you mean 'contig'?"), ("a/b", "recipe=a/b: no such file")):
        with pytest.raises(UserError, match=re.escape(says)):
            build_task(str(path), [f"recipe={wrong}"])
