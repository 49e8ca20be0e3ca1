"""A report over several tasks, and what validation was asked."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.reporting.runs import SCRATCH, write
from trainer.reporting import words
from trainer.reporting.collect import collect
from trainer.reporting.groups import group
from trainer.reporting.report import build, html, markdown


def test_settings_with_two_tasks_in_common_are_compared_over_them(tmp_path: Path) -> None:
    for task in ("demo_a", "demo_b"):
        for name, skill, changes in (("p", 3.0, {}), ("s", 0.1, SCRATCH)):
            write(tmp_path / task / name, skill=skill, task=task, **changes)
    write(tmp_path / "number", "regression", 1.0)
    report = build([tmp_path], 100, 0, 0.02)
    assert report.over is not None
    (row,) = report.over.rows
    assert row[:3] == ("gimp: pretrained", "gimp: scratch", "2")
    assert float(row[4]) > 0.9
    assert sum(map(float, row[4:])) > 0.998
    for said in (markdown(report), html(report)):
        assert "Over several tasks" in said
        assert "better by over 0.02" in said


def test_tasks_on_which_a_system_stands_with_one_training_are_counted(tmp_path: Path) -> None:
    for task, seeds in (("demo_a", (0,)), ("demo_b", (0, 1))):
        write(tmp_path / task / "p", skill=3.0, task=task, seeds=(0, 1))
        write(tmp_path / task / "s", skill=0.1, task=task, seeds=seeds, **SCRATCH)
    report = build([tmp_path], 100, 0)
    assert report.over is not None
    assert [row[2] for row in report.over.rows] == ["2 (1 of one seed)"]
    assert "more than of the systems" in report.over.note


def test_one_task_has_no_such_table(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=2.0)
    write(tmp_path / "b", skill=0.2, **SCRATCH)
    assert build([tmp_path], 100, 0).over is None


def test_a_site_held_out_is_no_task_and_a_folder_no_name(tmp_path: Path) -> None:
    """The cases of a site are those of the task again; which of two alike is which of another task's, only their folders say."""
    for name, skill, changes in (("p", 3.0, {}), ("s", 0.1, SCRATCH)):
        write(tmp_path / "whole" / name, skill=skill, task="demo_a", **changes)
        write(tmp_path / "held" / name, skill=skill, task="demo_a", hold_out="north", **changes)
    assert build([tmp_path], 100, 0).over is None
    for task in ("demo_b", "demo_c"):
        for name in ("one", "two"):
            write(tmp_path / task / name, skill=1.0, task=task, hashes={"data": "d0", "config": name})
    assert build([tmp_path], 100, 0).over is None


def test_looks_at_validation_are_counted(tmp_path: Path) -> None:
    grid = [{"lr": lr, "val": 0.5, "epoch": 2.0, "val_loss": None} for lr in (1e-3, 1e-4, 1e-5)]
    chosen = [{"seed": s, "lr": 1e-3, "val": 0.5, "looks": 20, "look": 3, "grid": grid} for s in range(3)]
    write(tmp_path / "a", chosen=chosen)
    (g,) = group(collect([tmp_path]).results)
    assert words.chosen_among(g.entries[0]) == "3 x 20 evaluations on 30"
    write(tmp_path / "a", chosen=[])
    (g,) = group(collect([tmp_path]).results)
    assert words.chosen_among(g.entries[0]) == "–"
