"""Slurm's commands as scripts on a PATH of their own, that print what the real ones printed and note how they were called."""

from __future__ import annotations

from pathlib import Path

JOB = (
    "JobId={job} JobName=medpair-pretrain UserId=root(0) Priority=4294901757 Account=(null) JobState={state} Reason={reason} "
    "Dependency=(null) Requeue=1 Restarts={restarts} BatchFlag=1 ExitCode=0:0 RunTime=00:00:12 StartTime=2026-11-25T21:00:58 "
    "EndTime={ends} TimeLimit=01:00:00 Partition=main NodeList=n[1-2] BatchHost=n1 Command=/x/a b.sh"
)
LIMIT = "2026-11-25T22:00:58"
"""When that job's time is up."""


class Commands:
    """`bin` goes to the front of the PATH."""

    def __init__(self, folder: Path):
        self.bin, self.called = folder / "bin", folder / "called"
        self.bin.mkdir()
        self.called.touch()

    def prints(self, name: str, text: str, status: int = 0) -> None:
        body = f"#!/bin/sh\necho {name} \"$@\" >> '{self.called}'\n/bin/cat <<'END'\n{text}\nEND\nexit {status}\n"
        if status:
            body = body.replace("/bin/cat <<", "/bin/cat >&2 <<")
        (self.bin / name).write_text(body)
        (self.bin / name).chmod(0o755)

    def job(self, state: str, restarts: int = 0, job: str = "77", reason: str = "None", ends: str = LIMIT) -> None:
        self.prints("scontrol", JOB.format(job=job, state=state, restarts=restarts, reason=reason, ends=ends))

    @property
    def calls(self) -> list[str]:
        return self.called.read_text().splitlines()
