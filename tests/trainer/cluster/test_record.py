"""What is written down about jobs, and read again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trainer.cluster.record import Status, folders, newest, progress
from trainer.errors import UserError


def job(out: Path, stamp: str, **about: object) -> Path:
    folder = out / "slurm" / stamp
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"runs": [str(out)], "array": False, **about}))
    return folder


def test_the_newest_job_of_a_run(tmp_path: Path) -> None:
    old, new = job(tmp_path, "20260101-000000-000001"), job(tmp_path, "20260101-000000-000002")
    (tmp_path / "slurm" / "20270101-half-made").mkdir()
    assert folders(tmp_path) == [old, new]
    [record] = newest(tmp_path)
    assert (record.folder, record.job, record.status) == (new, "", Status())
    (new / "id").write_text("77\n")
    assert record.job == "77"
    with pytest.raises(UserError, match="no job was submitted for it"):
        newest(tmp_path / "other")


def test_elements_have_books_of_their_own(tmp_path: Path) -> None:
    folder = job(tmp_path, "1", runs=[str(tmp_path / "a"), str(tmp_path / "b")], array=True)
    (folder / "id").write_text("77\n")
    first, second = newest(tmp_path)
    first.write(Status("running", "77_0"))
    first.add_life(event="begin", restarts=0)
    assert (first.job, second.job, second.run) == ("77_0", "77_1", tmp_path / "b")
    assert (first.status.state, second.status.state) == ("running", "submitted")
    assert (len(first.lives), len(second.lives)) == (1, 0)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = job(tmp_path, "1")
    (folder / "job.json").write_text("{")
    with pytest.raises(UserError, match=r"job\.json: cannot be read"):
        newest(tmp_path)


@pytest.mark.parametrize(
    "what",
    [
        "checkpoints/step-00000010/manifest.json", "seed-0/lr-0.001/checkpoints/step-00000010/manifest.json",
        "seed-0/lr-0.001/point.json", "weights.safetensors", "result.json",
    ],
)  # fmt: skip
def test_what_is_progress(tmp_path: Path, what: str) -> None:
    assert progress(tmp_path) == 0
    (tmp_path / what).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / what).touch()
    os.utime(tmp_path / what, ns=(5, 5))
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    assert progress(tmp_path) == 5
