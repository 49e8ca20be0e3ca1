"""What is written down about a job: `OUT/slurm/STAMP/`, and for the elements of an array once more with the element's number.

job.json          command, words, runs (one an element), profile, versions, cluster id; written before the submission
config.yaml       what the command's --dry-run printed: resolved configuration and plan
status[-I].json   where the job stands: see Status
lives[-I].jsonl   one line at the beginning and one at the end of each life
JOB_submission.sh, JOB_RANK_log.out   the sbatch script; the output of every rank over all lives, as submitit names them
cancel            there when the job was cancelled by `launch/slurm.py cancel`: it saves, and is not requeued
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from trainer.errors import UserError
from trainer.state.files import write_atomic

FOLDER = "slurm"
State = Literal["submitted", "running", "requeued", "done", "failed", "cancelled"]


@dataclass
class Status:
    """Where a job stands, by its own account. A life that was killed leaves `running`; Slurm knows better then."""

    state: State = "submitted"
    job: str = ""
    restarts: int = 0
    fruitless: int = 0
    """Lives in a row that crashed without a new checkpoint."""
    since: str = ""
    nodes: str = ""
    reason: str = ""


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


class Record:
    """One element's part of a job folder (`element` is None where the job is no array)."""

    def __init__(self, folder: Path, element: int | None = None):
        self.folder, self.element = folder, element
        self._mark = "" if element is None else f"-{element}"

    @property
    def about(self) -> dict[str, Any]:
        """job.json.

        Raises:
            UserError: damaged.
        """
        try:
            return json.loads((self.folder / "job.json").read_bytes())
        except (OSError, ValueError) as e:
            raise UserError(f"{self.folder / 'job.json'}: cannot be read ({e})") from e

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.about["runs"][self.element or 0])

    @property
    def status(self) -> Status:
        try:
            return Status(**json.loads((self.folder / f"status{self._mark}.json").read_bytes()))
        except FileNotFoundError:
            return Status()

    def write(self, status: Status) -> None:
        write_atomic(self.folder / f"status{self._mark}.json", json.dumps(asdict(status), indent=1).encode() + b"\n")

    @property
    def lives(self) -> list[dict[str, Any]]:
        path = self.folder / f"lives{self._mark}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add_life(self, **what: Any) -> None:
        with open(self.folder / f"lives{self._mark}.jsonl", "a") as f:
            f.write(json.dumps({"time": now(), **what}) + "\n")
            f.flush()
            os.fsync(f.fileno())

    @property
    def cancelled(self) -> bool:
        return (self.folder / "cancel").exists()

    @property
    def job(self) -> str:
        """The cluster's name of the job, of the element in an array; empty before the submission."""
        path = self.folder / "id"
        number = path.read_text().strip() if path.exists() else ""
        return number if self.element is None or not number else f"{number}_{self.element}"


def folders(out: Path) -> list[Path]:
    """Job folders of a run or a sweep, oldest first."""
    return sorted(p.parent for p in (out / FOLDER).glob("*/job.json"))


def records(folder: Path) -> list[Record]:
    """The elements of a job; one where it is no array."""
    about = Record(folder).about
    return [Record(folder, i) for i in range(len(about["runs"]))] if about["array"] else [Record(folder)]


def newest(out: Path) -> list[Record]:
    """Records of the last job of a run or a sweep.

    Raises:
        UserError: nothing was ever submitted for it.
    """
    found = folders(out)
    if not found:
        raise UserError(f"{out}: no job was submitted for it; give the out folder of a run of launch/slurm.py")
    return records(found[-1])


# What a run or a fine-tune brings to safety; a fine-tune's trainings are two folders down (seed-S/lr-R).
KEPT = ("checkpoints/step-*/manifest.json", "weights.safetensors", "point.json", "result.json")


def progress(run: Path) -> int:
    """Newest of what a run has brought to safety, as a time in ns: a checkpoint, a training, a result. 0 when there is nothing."""
    found = (p for kept in KEPT for depth in ("", "*/", "*/*/") for p in run.glob(depth + kept))
    return max((p.stat().st_mtime_ns for p in found), default=0)


def hang_reports(run: Path) -> list[Path]:
    """What the watchdog wrote of ranks that hung, oldest first; a fine-tune's trainings are two folders down."""
    found = (p for depth in ("", "*/", "*/*/") for p in run.glob(f"{depth}hang/*/report.txt"))
    return sorted(found, key=lambda p: p.stat().st_mtime_ns)
