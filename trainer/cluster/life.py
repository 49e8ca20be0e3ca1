"""The beginning and the end of each life of a job, run by its batch script: `python -m trainer.cluster.life begin|end FOLDER [STATUS]`.

At the end it is decided here, once for the job and after all its tasks have left, whether the job goes back into the queue:

    0    done
    2    something to change in the input: failed
    75   stopped with a checkpoint (a time limit, preemption, a signal): requeued, as often as it takes
    else a crash (a killed task, a lost node): requeued, unless that has now happened too often without a new checkpoint

A life that saved nothing counts as a crash whatever its status, so a job whose limit is shorter than its start does not go on for ever.
Slurm's own requeues (preemption, `scontrol requeue`, node failure) do not come by here, nor does an orphan's end count: the controller is
asked whether this is still the job's current life.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from trainer.cluster import client, ends
from trainer.cluster.points import note
from trainer.cluster.record import Record, Status, hang_reports, now, progress
from trainer.errors import EXIT_BUG, EXIT_OK, EXIT_STOPPED, EXIT_USER, UserError

INPUT = "something to change in the input: "


def job_of(environ: Mapping[str, str]) -> str:
    """The job's name for scontrol. An array's element must not be named by its raw id: that of one is the whole array's."""
    if "SLURM_ARRAY_JOB_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def record_of(folder: Path, environ: Mapping[str, str]) -> Record:
    element = environ.get("SLURM_ARRAY_TASK_ID")
    return Record(folder, int(element) if element is not None else None)


def begin(folder: Path, environ: Mapping[str, str]) -> int:
    record, restarts = record_of(folder, environ), int(environ.get("SLURM_RESTART_COUNT", "0"))
    status = record.status
    nodes = environ.get("SLURM_JOB_NODELIST", "")
    record.write(Status("running", job_of(environ), restarts, status.fruitless, now(), nodes))
    so_far = {"progress": progress(record.run), "hangs": len(hang_reports(record.run))}
    before = _life_before(record, restarts)
    record.add_life(event="begin", restarts=restarts, job=job_of(environ), nodes=nodes, before=before, **so_far)
    if before:
        print(f"job {job_of(environ)}, restart {restarts}: {before}", flush=True)
    note(record)
    return EXIT_OK


def _life_before(record: Record, restarts: int) -> str:
    """Who ended the life before this one, and why, as far as it is known; empty for the first."""
    if not restarts:
        return ""
    last = next((e for e in reversed(record.lives) if e["restarts"] < restarts), None)
    if last is None:
        return "the life before left no word"
    if last["event"] == "end":
        return f"life {last['restarts']} {last['outcome']} with status {last['status']}" + (
            f" ({last['words']})" if last.get("words") else ""
        )
    wrote = ends.read(record, last["restarts"])
    words = "; ".join(dict.fromkeys(ends.grouped(wrote, e.status) or f"{e.told()}status {e.status}" for e in wrote))
    return (
        f"Slurm ended life {last['restarts']} (a requeue, a preemption, a lost node): {words or 'no rank left a word'}"
    )


def end(folder: Path, code: int, environ: Mapping[str, str]) -> int:
    """Writes down how this life ended and requeues the job if it is to go on. Returns the batch script's exit status.

    `code` is srun's; what the ranks wrote goes before it (trainer/cluster/ends.py).
    """
    record, restarts = record_of(folder, environ), int(environ.get("SLURM_RESTART_COUNT", "0"))
    wrote = ends.read(record, restarts)
    code = ends.status_of(code, wrote)
    words = ends.grouped(wrote, code if code in (EXIT_USER, EXIT_STOPPED) else EXIT_BUG)
    began = [e for e in record.lives if e["event"] == "begin" and e["restarts"] == restarts]
    gained = progress(record.run) > (began[-1]["progress"] if began else 0)
    status = record.status
    if status.restarts > restarts:
        return code  # an orphan's end: a later life keeps the books
    if code in (EXIT_OK, EXIT_USER):
        state, reason = ("done", "") if code == EXIT_OK else ("failed", f"{INPUT}{words or 'see the log'}")
        return _close(record, status, code, state, reason, gained)
    if record.cancelled:
        return _close(record, status, code, "cancelled", "", gained)
    status.fruitless = 0 if gained else status.fruitless + 1
    allowed = record.about["profile"]["max_restarts"]
    hangs = hang_reports(record.run)[began[-1].get("hangs", 0) if began else 0 :]
    said = f"status {code}" + (f" (hang: see {hangs[-1]})" if hangs else f" ({words})" if words else "")
    if status.fruitless > allowed:
        reason = (
            f"ended with {said} {status.fruitless} times in a row without a new checkpoint (max_restarts={allowed})"
        )
        return _close(record, status, code, "failed", reason, gained)
    why = "stopped" if code == EXIT_STOPPED and gained else "crashed"
    record.add_life(event="end", restarts=restarts, status=code, outcome=why, gained=gained, words=words)
    return _requeue(record, status, code, f"{why} with {said}", job_of(environ))


def _close(record: Record, status: Status, code: int, state: str, reason: str, gained: bool) -> int:
    record.add_life(event="end", restarts=status.restarts, status=code, outcome=state, gained=gained, words=reason)
    status.state, status.reason, status.since = state, reason, now()  # type: ignore[assignment]
    record.write(status)
    note(record, code)
    if reason:
        print(f"job {status.job}: {reason}", flush=True)
    # A job that its user ended is no failure of the job.
    return EXIT_OK if state == "cancelled" else code


def _requeue(record: Record, status: Status, code: int, why: str, job: str) -> int:
    try:
        info = client.job(job)
    except UserError as e:
        print(f"job {job}: not requeued: {e}", flush=True)
        return code
    if info is None or info.early or info.state not in ("RUNNING", "COMPLETING") or info.restarts != status.restarts:
        # Cancelled, or in the queue again (or about to be) by Slurm's own doing.
        early = ", ended before its time limit" if info and info.early else ""
        print(f"job {job}: {why}; left to Slurm ({info.state if info else 'unknown to it'}{early})", flush=True)
        return code
    status.state, status.since, status.reason = "requeued", now(), why
    record.write(status)
    note(record, code, again=True)
    print(f"job {job}: {why}, requeued", flush=True)
    try:
        client.ask("scontrol", "requeue", job)
    except UserError as e:
        status.state, status.reason = "failed", f"could not be requeued: {e}"
        record.write(status)
        print(f"job {job}: {status.reason}", flush=True)
        return code or EXIT_BUG
    return code


def main(argv: list[str]) -> int:
    event, folder, *rest = argv
    if event == "begin":
        return begin(Path(folder), os.environ)
    return end(Path(folder), int(rest[0]), os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
