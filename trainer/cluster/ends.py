"""How each rank of a life ended, by its own account, which it wrote as its last act (trainer/errors.py).

srun's number alone does not tell: the first rank that leaves with a status makes srun end the others, whose 137 or 143 it then reports.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from trainer.cluster.record import Record
from trainer.errors import EXIT_BUG, EXIT_OK, EXIT_STOPPED, EXIT_USER, End, ends_folder


def read(record: Record, restarts: int) -> list[End]:
    """What the ranks of a life wrote, by rank; of a rank that was killed nothing."""
    folder = ends_folder(record.folder, {"SLURM_RESTART_COUNT": str(restarts), **_element(record)})
    found = []
    for path in sorted(folder.glob("rank-*.json")):
        try:
            found.append(End(**json.loads(path.read_bytes())))
        except (ValueError, TypeError, OSError):
            continue  # a node that went down while it wrote
    return found


def _element(record: Record) -> dict[str, str]:
    return {} if record.element is None else {"SLURM_ARRAY_TASK_ID": str(record.element)}


def status_of(code: int, ends: Sequence[End]) -> int:
    """The status of a life from srun's and what its ranks wrote.

    One rank with an input to change decides for all. A rank writes that it stopped once all have saved together. Of a crash srun knows
    more: ranks that a killed one leaves behind write an error of their own.
    """
    wrote = {e.status for e in ends}
    if code == EXIT_OK:
        return code
    if EXIT_USER in wrote:
        return EXIT_USER
    return EXIT_STOPPED if EXIT_STOPPED in wrote and EXIT_BUG not in wrote else code


def grouped(ends: Sequence[End], status: int) -> str:
    """What the ranks that left with that status said, each thing once, with the ranks that said it."""
    said: dict[str, list[End]] = {}
    for e in ends:
        if e.status == status and e.reason:
            said.setdefault(e.reason, []).append(e)
    return "; ".join(
        f"{found[0].told()}" + (f" (and {len(found) - 1} more ranks)" if len(found) > 1 else "")
        for found in said.values()
    )
