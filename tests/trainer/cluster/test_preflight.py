"""Sizes, file systems and folders: what is refused and what is not, without a Slurm."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.trainer.cluster.desk import Commands
from trainer.cluster.client import Node, Partition
from trainer.cluster.preflight import active_problems, file_system, folder_problems, shared_problems, size_problems
from trainer.cluster.profile import load
from trainer.cluster.record import Record, Status
from trainer.state import fence

GPU = Partition("gpu", False, 4, None, 240)
EIGHT = [Node(f"g{i}", f"g{i}.cluster", 64, 8) for i in range(3)] + [Node("g3", "g3", 64, 4)]
MOUNTS = [(Path("/nfs/lab"), "nfs4"), (Path("/nfs"), "ext4"), (Path("/scratch"), "lustre"), (Path("/"), "overlay")]


def sizes(nodes: int, gpus: int, **more: object) -> list[str]:
    return list(size_problems(load(None, {"nodes": nodes, "gpus_per_node": gpus, **more}), GPU, EIGHT))


def test_what_fits_is_not_refused() -> None:
    assert sizes(3, 8) == []
    assert sizes(4, 4) == []
    assert sizes(1, 8, cpus_per_process=8, time="4:00:00") == []


def test_every_size_that_does_not_fit() -> None:
    assert sizes(4, 8) == ["--nodes 4 --gpus-per-node 8: partition gpu has 3 such nodes"]
    assert sizes(1, 9) == ["--gpus-per-node 9: nodes of partition gpu have at most 8"]
    assert sizes(5, 4) == ["--nodes 5: partition gpu gives at most 4"]
    few = Partition("gpu", False, 4, 2, None)
    profile = load(None, {"nodes": 3, "time": "30-0"})
    assert list(size_problems(profile, few, EIGHT)) == ["--nodes 3: partition gpu gives at most 2"]
    assert len(sizes(9, 9, cpus_per_process=9, time="5:00:00", warning=30)) == 4


def test_the_file_system_of_a_folder_is_that_of_its_nearest_mount() -> None:
    assert file_system(Path("/nfs/lab/runs"), MOUNTS) == "nfs4"
    assert file_system(Path("/nfs/other"), MOUNTS) == "ext4"
    assert file_system(Path("/nfslike"), MOUNTS) == "overlay"


def test_a_folder_of_this_machine_alone_is_refused_unless_said_to_be_shared(tmp_path: Path) -> None:
    plain, said = load(None, {}), load(None, {"shared_folders": [str(tmp_path)]})
    local, shared = [(Path("/"), "xfs")], [(Path("/"), "lustre")]
    assert "on a file system of this machine (xfs)" in next(shared_problems(plain, tmp_path / "run", EIGHT, local))
    assert not list(shared_problems(plain, tmp_path / "run", EIGHT, shared))
    assert not list(shared_problems(said, tmp_path / "run", EIGHT, local))
    here = [Node("n1", socket.gethostname(), 8, 0)]
    assert not list(shared_problems(plain, tmp_path / "run", here, local))
    assert list(shared_problems(plain, tmp_path / "run", here + EIGHT, local))


def test_a_folder_is_tried(tmp_path: Path) -> None:
    assert not list(folder_problems(tmp_path / "new" / "run"))
    (tmp_path / "file").touch()
    [problem] = folder_problems(tmp_path / "file" / "run")
    assert problem == f"out={tmp_path}/file/run: cannot be written (Not a directory); give another out=FOLDER"


def test_only_a_job_that_lives_is_in_the_way(tmp_path: Path, slurm: Commands) -> None:
    folder = tmp_path / "slurm" / "stamp"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"runs": [str(tmp_path)], "array": False}))
    (folder / "id").write_text("77\n")
    record = Record(folder)
    for own, real, expected in (
        ("running", "RUNNING", 1), ("requeued", "PENDING", 1), ("running", "NODE_FAIL", 0), ("done", "RUNNING", 0),
    ):  # fmt: skip
        record.write(Status(own, "77"))  # type: ignore[arg-type]
        slurm.job(real)
        found = list(active_problems(tmp_path))
        assert len(found) == expected, (own, real, found)
    fence.take(tmp_path, fence.Life("5", 0, "n1", 9))
    fence.leave(tmp_path)
    assert not list(active_problems(tmp_path))  # a token of a run that has ended
