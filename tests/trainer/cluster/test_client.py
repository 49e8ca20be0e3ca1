"""What Slurm's commands print, as data."""

from __future__ import annotations

import pytest

from tests.trainer.cluster.desk import JOB, LIMIT, Commands
from trainer.cluster import client
from trainer.errors import UserError

NODES = """\
NodeName=n1 Arch=x86_64 CPUTot=8 NodeAddr=127.0.100.1 NodeHostName=host Gres=gpu:a100:4(S:0-1) Partitions=main,gpu
NodeName=n2 Arch=x86_64 CPUTot=16 NodeHostName=n2.cluster Gres=gpu:2,gpu:h100:6 Partitions=gpu
NodeName=n3 CPUTot=8 NodeHostName=n3 Gres=(null) Partitions=main"""
PARTITIONS = """\
PartitionName=main AllowGroups=ALL Default=YES MaxNodes=UNLIMITED MaxTime=2:00:00 TotalCPUs=16 TotalNodes=2
PartitionName=gpu Default=NO MaxNodes=1 MaxTime=UNLIMITED TotalNodes=2"""


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("5:30", 6),
        ("1:30:00", 90),
        ("2-0", 2880),
        ("2-12", 3600),
        ("1-00:30", 1470),
        ("0:0:1", 1),
        (" 7 ", 7),
    ],
)
def test_times(text: str, minutes: int) -> None:
    assert client.minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "1h", "1:2:3:4", "-5", "1.5"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UserError, match="write minutes, hours:minutes:seconds"):
        client.minutes(text)


def test_a_machine_of_no_cluster(slurm: Commands) -> None:
    slurm.prints("scontrol", "scontrol: fatal: Could not establish a configuration source", status=1)
    with pytest.raises(
        UserError, match=r"show partition: no slurm\.conf: .* run this on a login node, or set SLURM_CONF"
    ):
        client.partitions()


def test_a_job(slurm: Commands) -> None:
    slurm.job("RUNNING", restarts=2)
    found = client.job("77")
    assert found == client.JobInfo("77", "RUNNING", "", "n[1-2]", 2, "2026-11-25T21:00:58", "2026-11-25T22:00:58")
    assert found.active


def test_a_job_that_is_being_ended_before_its_time_limit(slurm: Commands) -> None:
    early = {
        (s, e): client.job("77")
        for s in ("RUNNING", "COMPLETING")
        for e in ("2026-11-25T21:30:00", LIMIT)
        if slurm.job(s, ends=e) is None
    }
    assert [k for k, found in early.items() if found and found.early] == [("COMPLETING", "2026-11-25T21:30:00")]
    slurm.prints(
        "scontrol",
        JOB.format(job=77, state="COMPLETING", restarts=0, reason="None", ends=LIMIT).replace("01:00:00", "UNLIMITED"),
    )
    assert client.job("77").early  # type: ignore[union-attr]


def test_of_an_array_the_element_asked_for(slurm: Commands) -> None:
    split = "\n".join(
        JOB.format(job=80 + i, state=state, restarts=i, reason="None", ends=LIMIT)
        .replace(" JobName", f" ArrayJobId=80 ArrayTaskId={i} JobName")
        for i, state in enumerate(("COMPLETED", "RUNNING"))
    )  # fmt: skip
    slurm.prints(
        "scontrol",
        split + "\n" + JOB.format(job=80, state="PENDING", restarts=0, reason="JobArrayTaskLimit", ends=LIMIT),
    )
    assert (client.job("80_0").state, client.job("80_1").restarts) == ("COMPLETED", 1)  # type: ignore[union-attr]
    assert client.job("80_5").state in client.ACTIVE  # type: ignore[union-attr]


def test_a_job_that_only_accounting_remembers(slurm: Commands) -> None:
    slurm.prints("scontrol", "slurm_load_jobs error: Invalid job id specified", status=1)
    assert client.job("77") is None
    slurm.prints("sacct", "CANCELLED by 0|n[1-2]|2026-11-25T21:00:58|2026-11-25T21:10:00")
    found = client.job("77")
    assert found == client.JobInfo(
        "77", "CANCELLED", "", "n[1-2]", 0, "2026-11-25T21:00:58", "2026-11-25T21:10:00", "accounting"
    )
    assert not found.active
    slurm.prints("sacct", "Slurm accounting storage is disabled", status=1)
    assert client.job("77") is None


def test_nodes_and_partitions(slurm: Commands) -> None:
    slurm.prints("scontrol", NODES)
    assert client.nodes("gpu") == [client.Node("n1", "host", 8, 4), client.Node("n2", "n2.cluster", 16, 8)]
    assert [n.gpus for n in client.nodes("main")] == [4, 0]
    slurm.prints("scontrol", PARTITIONS)
    assert client.partitions() == {
        "main": client.Partition("main", True, 2, None, 120),
        "gpu": client.Partition("gpu", False, 2, 1, None),
    }


def test_errors_name_the_command(slurm: Commands) -> None:
    with pytest.raises(UserError, match="sinfo: not on PATH; run this on a login node"):
        client.ask("sinfo")
    slurm.prints("sinfo", "Unable to contact slurm controller", status=1)
    with pytest.raises(UserError, match="sinfo -h: Unable to contact slurm controller"):
        client.ask("sinfo", "-h")
    (slurm.bin / "sinfo").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(UserError, match="sinfo: no answer in 0 s; is the Slurm controller up"):
        client.ask("sinfo", limit=0.1)
    assert set(client.absent()) == set(client.NEEDED) - {"sinfo"}
