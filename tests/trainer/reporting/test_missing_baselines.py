"""A table without a baseline says so, why, and by which command it gets one; the command is that of the task as it was asked."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.reporting import runs
from trainer.downstream.task.read import build_task
from trainer.reporting import report
from trainer.reporting.baselines import missing
from trainer.reporting.collect import collect
from trainer.reporting.groups import group
from trainer.reporting.result import Result
from trainer.reporting.result_parts import External


def said(root: Path) -> list[str]:
    return [line for g in group(collect([root]).results) for line in missing(g)]


def asked(folder: Path, data: Path, name: str, *words: str) -> None:
    """What a fine-tune keeps of what it was asked."""
    task, _ = build_task(name, list(words))
    about = {
        "about": {"task": task.model_dump(mode="json", exclude={"out", "leak", "tests"})},
        "data": {"path": str(data)},
    }
    (folder / "config.json").write_text(json.dumps({"config": about}))


def test_a_table_without_one_says_how_to_make_it(tmp_path: Path) -> None:
    for share in (0.5, 1.0):
        folder = runs.write(tmp_path / f"runs/{share}", task="demo_subtype", fraction=share)
        words = (f"protocol.fraction={share}", "protocol.lr=1e-3", "protocol.seeds=[0, 1, 2]", "leave_out=[x]")
        asked(folder, tmp_path, "demo_subtype", *words, "output.width=64")
    half, whole = said(tmp_path / "runs")
    assert half.startswith(
        "demo_subtype, 50 % of labels: no baseline is in this table: these results were made one by one"
    )
    command = shlex.split(half.partition("its folder too: ")[2])
    assert command == [
        "python", "launch/finetune.py", "--task", "demo_subtype", "--method", "mean_features", "--init", "scratch", "--mode", "linear",
        "method.reads=patches", 'leave_out=["x"]', "protocol.fraction=0.5", f"data.path={tmp_path}",
        f"out={tmp_path}/runs/baselines/demo-subtype-mean-features-50",
    ]  # fmt: skip
    assert "protocol.fraction" not in whole
    again, _ = build_task("demo_subtype", [w for w in command if w.startswith(("protocol.", "leave_out"))])
    assert again.protocol.seeds == (0, 1, 2)
    assert again.leave_out == ("x",)
    made = report.build([tmp_path / "runs"], 100, 0)
    assert "no baseline is in this table" in report.markdown(made)
    assert "no baseline is in this table" in report.html(made)


def test_the_file_of_a_task_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    """Its name alone finds no file."""
    folder = runs.write(tmp_path / "runs/one", task="ours")
    asked(folder, tmp_path, "demo_subtype")
    (line,) = said(tmp_path / "runs")
    assert "task ours is none of configs/task, so give its file as TASK.yaml. Make one" in line
    assert "--task TASK.yaml --method mean_features" in line


def test_one_is_enough_for_its_amount_and_on_other_data_none_can_stand(tmp_path: Path) -> None:
    probe: dict[str, Any] = {"method": "mean_features", "mode": "linear", **runs.SCRATCH}
    for share in (0.5, 1.0):
        runs.write(tmp_path / f"{share}", fraction=share)
    runs.write(tmp_path / "baselines/mean", fraction=0.5, **probe)
    (left,) = said(tmp_path)
    assert "100 % of labels" in left
    (away,) = (r for r in collect([tmp_path / "1.0"]).results)
    there = External(name="north", predictions_sha256=())
    (g,) = group([Result(away.folder, away.content.model_copy(update={"external": there}))])
    assert missing(g) == []
    (g,) = group([Result(away.folder, away.content.model_copy(update={"hold_out": "north"}))])
    (held,) = missing(g)
    assert held.startswith("demo_binary at north, held out, 100 % of labels: no baseline")
    assert held.rpartition("out=")[2] != left.rpartition("out=")[2], "a folder of its own"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("segmentation", "--method unet --init scratch"),
        ("retrieval", "--method bag_of_words --init scratch --mode zeroshot"),
        ("survival", "--method mean_features --init scratch --mode linear method.reads=patches"),
    ],
)
def test_of_each_kind_the_one_that_fits(kind: str, words: str, tmp_path: Path) -> None:
    runs.write(tmp_path / "a", "segmentation" if kind == "segmentation" else "survival")
    (g,) = group(collect([tmp_path]).results)
    content = g.entries[0].first.content
    object.__setattr__(content, "kind", kind)
    (line,) = missing(g)
    assert words in line
    assert "its data are not at a place that is known any more" in line
    assert "data.path=DIR" in line


def test_one_that_failed_is_the_reason(tmp_path: Path) -> None:
    runs.write(tmp_path / "point")
    folder = tmp_path / "baselines/demo-mean"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("start\nerror: label: no such column\n")
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    assert "one by one" in said(tmp_path)[0]
    (folder / "status.json").write_text(json.dumps({"state": "failed"}))
    assert "the sweep's failed (demo-mean: error: label: no such column)" in said(tmp_path)[0]
