"""Every number that a run reports, computed here once more by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from trainer.errors import TrainingError
from trainer.health.steps import BadSteps, collapse_readings, effective_rank, feature_std
from trainer.plan import stage_lengths
from trainer.runtime import Runtime
from trainer.state import files
from trainer.tracking.metrics_file import read_metrics
from trainer.tracking.summary import improvement, report, yardstick
from trainer.tracking.tracker import Tracker, loss_text

ALONE = Runtime(rank=0, world=1, local_rank=0, device=torch.device("cpu"))


def row(step: int, loss: float, **more: object) -> dict:
    base = {"step": step, "stage": "only", "loss": loss, "loss/a": loss, "skipped": False, "lr": 0.1}
    return {**base, "samples_per_s": 1.0, "data_wait": 0.0, **more}


def test_collapse_monitors() -> None:
    collapsed = torch.ones(8, 4)
    assert feature_std(collapsed) == 0.0
    spread = torch.cat([torch.eye(4), -torch.eye(4)])
    # Each of 4 dimensions is +-2 (a unit vector times sqrt 4) for 2 of 8 samples, else 0: standard deviation 1.
    assert feature_std(spread) == pytest.approx(1.0)
    assert effective_rank(spread) == pytest.approx(4.0)
    line = torch.arange(8.0)[:, None] * torch.ones(1, 4)
    assert effective_rank(line) == pytest.approx(1.0)
    two = torch.diag(torch.tensor([3.0, 3.0, 0.0, 0.0]))
    s = torch.linalg.svdvals(two - two.mean(0)).tolist()
    p = [v / sum(s) for v in s if v > 1e-9]
    assert effective_rank(two) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-4)
    assert set(collapse_readings({"x": spread, "one": spread[:1]})) == {"feature_std/x", "effective_rank/x"}


def test_improvement_is_first_tenth_against_last_tenth() -> None:
    rows = [row(i + 1, 20.0 - i, **{"chance/a": 5.0}) for i in range(20)]
    rows[3] = row(4, 1e9, skipped=True)
    rows[9] |= {"val/loss/a": 3.0, "val/accuracy": 0.5}
    rows[19] |= {"val/loss/a": 2.0, "val/accuracy": 0.75}
    assert improvement(rows, ["accuracy"]) == [
        ("only", "a (training)", 20.0, 1.0, 5.0),
        ("only", "a (held back)", 3.0, 2.0, 5.0),
        ("only", "accuracy (held back)", 0.5, 0.75, None),
    ]


def test_chance_is_what_was_measured_on_the_same_batches() -> None:
    one = row(1, 3.1, **{"chance/a": 3.5, "val/loss/a": 3.4, "val/a_chance": 3.36, "a_baseline": 9.0})
    assert [r[-1] for r in improvement([one])] == [3.5, 3.36]
    two = row(1, 1e-5, **{"a_shuffled": 2e-4, "val/loss/a": 1e-5, "val/a_shuffled": 3e-4})
    assert [r[-1] for r in improvement([two])] == [2e-4, 3e-4]
    assert yardstick({"a_baseline": 0.7, "a_shuffled": 0.1}, "a") == 0.7


def test_small_losses_are_not_printed_as_zero() -> None:
    assert [loss_text(v) for v in (0.0, 3.46574, 0.01, 5.617e-5, float("nan"))] == [
        "0.0000",
        "3.4657",
        "0.0100",
        "5.6e-05",
        "nan",
    ]


def test_the_closing_text_says_where_things_are(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row(1, 1.0)) + "\n")
    text = report(tmp_path, "done", "mgi", demo=True)
    for word in (
        "metrics.jsonl",
        "tensorboard --logdir",
        "checkpoints",
        "weights.safetensors",
        "python -m shards pack",
        "--method mgi data.path=DIR",
    ):
        assert word in text
    assert "python -m shards pack" not in report(tmp_path, "done", "mgi", demo=False)


def test_each_step_stands_in_the_file_once_after_a_resume(tmp_path: Path) -> None:
    first = Tracker(tmp_path, ALONE, 0, 9, 100, False)
    for step in range(1, 6):
        first.step(row(step, float(step)))
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as f:
        f.write('{"step": 6, "lo')  # a crash in the middle of a line
    again = Tracker(tmp_path, ALONE, 3, 9, 100, False)  # the checkpoint was at step 3
    again.step(row(4, float("nan")))
    again.close()
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, None)]


def test_a_run_that_is_refused_before_its_first_step_leaves_its_folder_as_it_was(tmp_path: Path) -> None:
    """Weights of another vocabulary, say: what is wrong with them is seen when they are loaded."""
    first = Tracker(tmp_path, ALONE, 0, 9, 100, True)
    first.step(row(1, 1.0))
    first.step(row(2, 2.0))
    first.close()

    def files() -> dict[Path, tuple[int, bytes]]:
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file()}

    before = files()
    Tracker(tmp_path, ALONE, 1, 9, 100, True).close()
    assert files() == before


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Tracker(tmp_path, ALONE, 0, 2, 100, True)
    tracker.step(row(1, 0.5))
    tracker.step(row(2, 0.25))
    tracker.images("picture", torch.zeros(4, 6, 3, dtype=torch.uint8).numpy(), 2)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("only/loss/a")] == [(1, 0.5), (2, 0.25)]
    assert events.Tags()["images"] == ["picture"]


def test_the_budget_of_bad_steps() -> None:
    bad = BadSteps(1, [(3, ["x"])])
    with pytest.raises(TrainingError, match=r"(?s)2 steps.*step 3: x.*step 9: y, z"):
        bad.add(9, ["y", "z"])


def test_a_folder_is_complete_or_it_says_what_is_wrong(tmp_path: Path) -> None:
    work = tmp_path / ".tmp-x"
    (work / "engine").mkdir(parents=True)
    (work / "engine" / "a").write_bytes(b"12345")
    entries = {"engine/a": files.digest(work / "engine" / "a")}
    final = tmp_path / "x"
    assert "no manifest" in (files.problem(work) or "")
    files.publish(work, final, entries)
    assert files.problem(final) is None
    (final / "engine" / "a").write_bytes(b"12346")
    assert "does not have the hash" in (files.problem(final) or "")
    (final / "engine" / "a").write_bytes(b"1234")
    assert "has 4 bytes, its manifest says 5" in (files.problem(final) or "")
    (final / "engine" / "a").unlink()
    assert "engine/a is missing" in (files.problem(final) or "")
    (final / files.NAME).write_text("{")
    assert "cannot be read" in (files.problem(final) or "")


def test_stage_lengths() -> None:
    from models.contract import Stage
    from trainer.config.schema import parse

    stages = [Stage("one", (), epochs=3), Stage("two", (), epochs=4)]

    def steps(**config: object) -> list[int]:
        return [p.steps for p in stage_lengths(parse({"method_name": "m", **config}), stages, [10, 20])]

    assert steps() == [30, 80]
    assert steps(epochs=2) == [30, 40]
    assert steps(steps=7, stages={"one": {"epochs": 0}, "two": {"epochs": 9}}) == [0, 7]
    assert steps(stages={"one": {"steps": 5}, "two": {"epochs": 9}}) == [5, 180]
