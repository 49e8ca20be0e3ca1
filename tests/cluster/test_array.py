"""A sweep as a job array: two fine-tunes and their baselines, one of them killed; `compare` reads what is there while others still run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from launch import compare
from tests.cluster.jobs import Desk, begun
from tests.cluster.slurm_cluster import kill
from trainer.cluster.record import newest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]
PART = "seed-0/lr-0.001"
STEPS = 60
WORDS = ["--task", "demo_subtype", "--method", "gimp", "protocol.seeds=[0]", "protocol.lr=[1e-3]", f"protocol.steps={STEPS}",
         "protocol.batch=8", "protocol.evaluations=2", "checkpoint.every=5", "log.tensorboard=false"]  # fmt: skip


def compared(sweep: Path, out: Path) -> list[dict[str, str]]:
    """Lines of compare.csv for the task's primary metric."""
    assert compare.main([str(sweep), "--out", str(out), "--draws", "100"]) == 0
    with open(out / "compare.csv", newline="") as f:
        return [row for row in csv.DictReader(f) if row["metric"] == "auc"]


def test_two_points_and_their_baselines_one_of_them_killed(
    desk: Desk, undisturbed: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "sweep"
    grid = {"--mode": ["finetune", "scratch"]}
    words = [*WORDS, "--init", str(undisturbed[1])]
    file.write_text(yaml.safe_dump({"command": "finetune", "words": words, "grid": grid}))
    desk.submit("--parallel", 3, "sweep", file, "--out", out)
    points = newest(out)
    assert len(points) == 4
    assert [p.run.parent.name for p in points[2:]] == ["baselines"] * 2

    # The first is killed in mid-run; the second is held still until the others are done.
    with desk.held(points[0], 10, world=1, part=PART) as ranks:
        kill(ranks[0])
    with desk.held(points[1], 10, world=1, part=PART):
        for point in (points[0], *points[2:]):
            assert desk.ended(point) == "COMPLETED", desk.log(point)
        assert len(compared(out, tmp_path / "early")) == 3
        assert "1 runs without one yet" in capsys.readouterr().out
        code, said = desk.run("status", out)
        assert code == 0
        rows = [line.split() for line in said.splitlines() if f"  {points[0].job.partition('_')[0]}_" in line]
        assert [row[1] for row in rows] == ["done", "running", "done", "done"], said
        assert [row[2] for row in rows] == ["1", "0", "0", "0"], said  # restarts
        assert 10 <= int(rows[1][3]) < STEPS, said
    assert desk.ended(points[1]) == "COMPLETED", desk.log(points[1])
    assert [p.status.state for p in points] == ["done"] * 4
    assert [begun(p) for p in points] == [2, 1, 1, 1]
    late = compared(out, tmp_path / "late")
    for method, starts in (("gimp", (False, True)), ("mean_features", (True,)), ("attention_baseline", (True,))):
        assert sorted(r["init"] == "scratch" for r in late if r["method"] == method) == list(starts)
    assert len(late) == 4
    assert "no baseline" not in capsys.readouterr().out

    # The sweep's own books agree, and there is nothing left to submit.
    books = [json.loads((p.run / "status.json").read_bytes()) for p in points]
    assert [b["state"] for b in books] == ["done"] * 4
    assert [b["attempts"] for b in books] == [2, 1, 1, 1]
    code, said = desk.run("sweep", file, "--out", out)
    assert (code, "all 2 points" in said) == (2, True), said
