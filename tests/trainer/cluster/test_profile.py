"""A cluster's profile: words over files, every problem at once; and the sbatch script that comes of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from trainer.cluster.profile import PROFILES, load
from trainer.cluster.submit import JobPlan, script
from trainer.errors import UserError


@pytest.mark.parametrize("name", sorted(p.stem for p in PROFILES.glob("*.yaml")))
def test_the_projects_own_profiles_load(name: str) -> None:
    assert load(name, {}).world >= 1


def test_words_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("nodes: 4\ngpus_per_node: 8\npartition: gpu\ntime: 90\n")
    profile = load(str(file), {"nodes": 2, "partition": None})
    assert (profile.nodes, profile.processes, profile.world, profile.partition) == (2, 8, 16, "gpu")
    assert profile.time == "90"


def test_all_problems_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("partion: main\nnodes: 0\ntime: soon\n")
    with pytest.raises(UserError) as e:
        load(str(file), {})
    assert len(e.value.problems) == 3
    text = str(e.value)
    assert "partion" in text
    assert "partition" in text
    assert "nodes" in text
    assert "--time soon: write minutes" in text


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'gpu-8'"):
        load("gpu8", {})
    with pytest.raises(UserError, match="known: container, default, gpu-8"):
        load("zzz", {})
    with pytest.raises(UserError, match="no such file"):
        load(str(tmp_path / "x.yaml"), {})


def plan(*tasks: tuple[str, ...]) -> JobPlan:
    return JobPlan("pretrain", (), Path("/r"), (Path("/r"),), tasks, "")


def test_the_script_says_what_the_profile_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "nodes: 4\ngpus_per_node: 8\ncpus_per_process: 6\naccount: lab\nexclusive: true\ntime: 1-0\nwarning: 300\nmem_gb: 900\n"
        "setup: ['module load cuda']\nenvironment: {NCCL_SOCKET_IFNAME: 'ib0 # it'}\nsbatch: {comment: hello}\n"
    )
    folder = tmp_path / "a folder"
    text = script(load(str(file), {}), plan(("a.py",)), folder)
    for line in (
        "nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=6", "account=lab", "exclusive", "time=1-0",
        "signal=USR2@300", "mem=900G", "requeue", "comment=hello",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text, text
    lines = text.splitlines()
    order = ["trap : TERM USR2", "export NCCL_SOCKET_IFNAME='ib0 # it'", "module load cuda"]
    places = [lines.index(line) for line in order]
    begin = next(i for i, line in enumerate(lines) if "trainer.cluster.life begin" in line)
    srun = next(i for i, line in enumerate(lines) if line.startswith("srun "))
    end = next(i for i, line in enumerate(lines) if "trainer.cluster.life end" in line)
    assert [*places, begin, srun, end] == sorted([*places, begin, srun, end])
    assert lines[end - 1] == "status=$?"
    assert "--kill-on-bad-exit=1" in shlex.split(lines[srun])
    assert shlex.split(lines[begin])[4] == str(folder)


def test_points_become_an_array() -> None:
    profile = load(None, {})
    assert "--array=0-2" in script(profile, plan(("a",), ("b",), ("c",)), Path("/f"))
    assert "--array" not in script(profile, plan(("a",)), Path("/f"))


def test_a_container_is_entered_for_every_python() -> None:
    text = script(load("container", {}), plan(("a.py",)), Path("/f"))
    inside = "apptainer exec --nv image.sif python"
    assert text.count(inside) == 3
    assert f"{inside} -m trainer.cluster.life begin" in text
