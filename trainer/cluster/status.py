"""What runs, since when, at which step, how fast, how often restarted, when it will end. With or without accounting on the cluster."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from trainer.cluster import client
from trainer.cluster.record import Record, newest
from trainer.errors import UserError
from trainer.tracking.metrics_file import read_metrics

RECENT = 20  # steps that the speed is taken from


@dataclass
class Report:
    """A run as its own books and Slurm have it."""

    job: str
    state: str
    """submitted, pending, running, requeued, done, failed, cancelled, or what Slurm says of a job that was killed."""
    reason: str = ""
    nodes: str = ""
    since: str = ""
    restarts: int = 0
    until: str = ""
    """The time limit of this life."""
    step: int | None = None
    steps: int | None = None
    samples_per_s: float | None = None
    seconds_left: float | None = None
    loss: float | None = None
    part: str = ""
    """Of a fine-tune, the training that the steps are of."""


def report(record: Record, asked: client.JobInfo | None = None, ask: bool = True) -> Report:
    """Where a run stands. Its own status is believed once it has ended by itself; before that, Slurm knows better."""
    own = record.status
    info = asked or (client.job(record.job) if ask and record.job else None)
    out = Report(record.job or "-", own.state, own.reason, own.nodes, own.since, own.restarts)
    if own.state not in ("done", "failed", "cancelled") and info is not None:
        out.nodes, out.restarts = info.nodes or own.nodes, max(info.restarts, own.restarts)
        out.state = "pending" if info.state in client.WAITING else info.state.lower()
        out.reason = info.reason or own.reason
        if info.state == "RUNNING":
            out.since, out.until = info.started, info.ends
    elif info is None and own.state not in ("done", "failed", "cancelled") and ask:
        out.state, out.reason = (
            f"gone while {own.state}",
            "neither the controller nor accounting knows the job any more",
        )
    _of_metrics(out, record)
    return out


def _of_metrics(out: Report, record: Record) -> None:
    folder = _training(record.run)
    rows = read_metrics(folder)
    out.steps, out.part = _total(record), str(folder.relative_to(record.run)) if folder != record.run else ""
    if not rows:
        return
    last = rows[-1]
    out.step, out.loss = last.get("step"), last.get("loss")
    speeds = [r["samples_per_s"] for r in rows[-RECENT:] if r.get("samples_per_s")]
    if speeds:
        out.samples_per_s = statistics.median(speeds)
    batch = _global_batch(record)
    if out.steps and batch and out.samples_per_s and out.step is not None and out.state == "running":
        out.seconds_left = max(0, out.steps - out.step) * batch / out.samples_per_s


def _training(run: Path) -> Path:
    """The folder that a run's steps are written to: of a fine-tune, that of its newest training."""
    found = list(run.glob("seed-*/lr-*/metrics.jsonl"))
    return max(found, key=lambda p: p.stat().st_mtime_ns).parent if found else run


def _total(record: Record) -> int | None:
    """Steps of the whole run, from its plan."""
    import re

    if record.element is not None:
        return None
    lines = re.findall(r"^stage \S+: (\d+) steps", _plan(record), re.M)
    return sum(map(int, lines)) if lines else None


def _global_batch(record: Record) -> int | None:
    import re

    found = re.search(r"^global_batch: (\d+)$", _plan(record), re.M)
    return int(found.group(1)) if found else None


def _plan(record: Record) -> str:
    path = record.folder / "config.yaml"
    return path.read_text() if path.exists() else ""


# ------------------------------------------------------------------------------------------------------------------- text


def text(out: Path) -> str:
    """The status of a run or a sweep for a person.

    Raises:
        UserError: nothing was submitted for it, or Slurm does not answer.
    """
    found = newest(out)
    about = found[0].about
    head = f"{about['command']} {' '.join(about['words'])}\n  folder    {found[0].folder}"
    reports = [report(r) for r in found]
    if len(found) == 1 and found[0].element is None:
        return "\n".join([head, *_lines(reports[0])])
    rows = [f"  {'job':<14}{'state':<12}{'restarts':>9}{'step':>8}  run"]
    for record, r in zip(found, reports, strict=True):
        rows.append(
            f"  {r.job:<14}{r.state:<12}{r.restarts:>9}{r.step or 0:>8}  {record.run.name}  {r.reason}".rstrip()
        )
    return "\n".join([head, *rows])


def _lines(r: Report) -> list[str]:
    lines = [f"  job       {r.job}, {r.state}" + (f" ({r.reason})" if r.reason else "")]
    lines.append(f"  since     {r.since or '-'}" + (f" on {r.nodes}" if r.nodes else ""))
    lines.append(f"  restarts  {r.restarts}")
    if r.step is not None:
        total = f" of {r.steps}" if r.steps else ""
        loss = f", loss {r.loss:.4f}" if isinstance(r.loss, float) else ""
        lines.append(f"  step      {r.step}{total}{loss}" + (f" ({r.part})" if r.part else ""))
    if r.samples_per_s:
        lines.append(f"  speed     {r.samples_per_s:.1f} samples/s")
    if r.seconds_left is not None:
        ends = datetime.now() + timedelta(seconds=r.seconds_left)
        lines.append(f"  ends      about {ends:%Y-%m-%d %H:%M} ({timedelta(seconds=round(r.seconds_left))} from now)")
    if r.until:
        lines.append(f"  limit     {r.until}: saved and requeued before that")
    return lines


# ----------------------------------------------------------------------------------------------------------------- cancel


def cancel(out: Path, now: bool = False) -> list[str]:
    """Ends a run's job: it saves first and can go on when submitted again; with `now` it is killed. Returns what was done.

    Raises:
        UserError: nothing was submitted, or it has ended.
    """
    found = newest(out)
    said: list[str] = []
    active: list[tuple[Record, client.JobInfo]] = []
    for record in found:
        info = client.job(record.job) if record.job else None
        if info is not None and info.active:
            active.append((record, info))
    if not active:
        states = ", ".join(sorted({r.status.state for r in found}))
        raise UserError(f"{out}: its last job has ended ({states}); there is nothing to cancel")
    (found[0].folder / "cancel").touch()
    for record, info in active:
        if info.state == "RUNNING" and not now:
            client.ask("scancel", "--signal=USR2", info.job)
            said.append(f"job {info.job}: saves and ends; submit the same command to go on")
        else:
            client.ask("scancel", info.job)
            status: Any = record.status
            status.state, status.reason = "cancelled", ""
            record.write(status)
            said.append(f"job {info.job}: cancelled")
    return said
