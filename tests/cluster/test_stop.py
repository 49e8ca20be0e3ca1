"""Every way a job can be disturbed, in mid-run on a real Slurm: it ends COMPLETED by itself, as if nothing had happened.

Each case is a job on two nodes with reader threads, disturbed once while its ranks are held still at a step they have reached; some
cases run at the same time, spread over ZeRO 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cluster.jobs import (
    EVERY,
    RUN,
    STEPS,
    WHAT,
    Desk,
    begun,
    last_step,
    saved_when_stopped,
    series,
    told,
    went_on_from,
)
from tests.cluster.slurm_cluster import kill, until
from trainer.cluster.record import Record

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]
AT_A_TIME = 3
Ranks = dict[int, psutil.Process]


@dataclass(frozen=True)
class Case:
    """One disturbance. `graceful`: no step may be lost."""

    act: Callable[[Desk, Record, Ranks], None]
    zero: int
    words: tuple[str, ...] = ()
    graceful: bool = True
    after: Callable[[Desk, Record], None] = lambda desk, record: None
    """Once the ranks may move again."""


def signalled(desk: Desk, record: Record, ranks: Ranks) -> None:
    desk.cluster.command("scancel", "--signal=USR2", record.job)
    told(ranks)


def requeued(desk: Desk, record: Record, ranks: Ranks) -> None:
    desk.cluster.command("scontrol", "requeue", record.job)


def preempted(desk: Desk, record: Record, ranks: Ranks) -> None:
    """A job of a higher partition wants both nodes for a moment."""
    desk.cluster.command("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    told(ranks)


def out_of_time(desk: Desk, record: Record, ranks: Ranks) -> None:
    """The limit is moved so near that it is time for the warning: one to two minutes away, warned of two minutes ahead."""
    hours, minutes, _ = map(int, desk.cluster.job(record.job)["RunTime"].split(":"))
    desk.cluster.command("scontrol", "update", f"JobId={record.job}", f"TimeLimit={hours * 60 + minutes + 2}")
    told(ranks)


def more_time(desk: Desk, record: Record) -> None:
    """The next life gets the usual limit again, or it would be warned at once."""
    until("requeued", lambda: desk.cluster.job(record.job)["Restarts"] == "1", 120, 0.5)
    desk.cluster.command("scontrol", "update", f"JobId={record.job}", "TimeLimit=10")


def task_killed(desk: Desk, record: Record, ranks: Ranks) -> None:
    kill(ranks[1])


def node_dies(desk: Desk, record: Record, ranks: Ranks) -> None:
    """The power of the second node goes. The partition has no other, so the job waits for its return."""
    desk.cluster.kill_node("f2")


def node_returns(desk: Desk, record: Record) -> None:
    until("the node is down", lambda: "down" in desk.cluster.command("sinfo", "-h", "-n", "f2", "-o", "%T"), 120, 0.5)
    desk.cluster.start_node("f2")


CASES = {
    "time limit": Case(out_of_time, 1, ("--time", "10", "--warning", "120"), after=more_time),
    "preemption": Case(preempted, 2, ("--partition", "low")),
    "death of a node": Case(node_dies, 3, ("--partition", "frail"), graceful=False, after=node_returns),
    "scancel --signal=USR2": Case(signalled, 3),
    "scontrol requeue": Case(requeued, 1),
    "kill -9 of a task": Case(task_killed, 2, graceful=False),
}


@dataclass
class Ended:
    record: Record
    state: str
    reached: int
    """The last step that was logged when the disturbance came."""


def disturb(desk: Desk, name: str, folder: Path) -> Ended:
    case = CASES[name]
    out = folder / name.replace(" ", "-").replace("=", "-")
    record = desk.submit("--nodes", 2, *case.words, *RUN, f"zero.stage={case.zero}", f"out={out}")
    with desk.held(record) as ranks:
        case.act(desk, record, ranks)
        reached = last_step(record.run)
    case.after(desk, record)
    return Ended(record, desk.ended(record), reached)


@pytest.fixture(scope="module")
def cases(
    desk: Desk, undisturbed: dict[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Ended]]]:
    folder = tmp_path_factory.mktemp("cases")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        futures = {name: pool.submit(disturb, desk, name, folder) for name in CASES}
        yield futures
        for f in futures.values():
            f.cancel()


@pytest.mark.parametrize("name", CASES)
def test_a_disturbed_run_is_the_undisturbed_one(
    name: str, cases: dict[str, Future[Ended]], desk: Desk, undisturbed: dict[int, Path]
) -> None:
    case, ended = CASES[name], cases[name].result()
    record, other = ended.record, undisturbed[case.zero]
    assert ended.state == "COMPLETED", desk.log(record)
    assert record.status.state == "done"
    assert 0 < ended.reached < STEPS
    assert series(record.run, *WHAT) == series(other, *WHAT)  # bit-equal
    assert (record.run / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()
    # Slurm may end a life once more of its own accord (it does when a dead node comes back), as long as that costs no step.
    assert begun(record) >= 2, record.lives
    assert record.status.restarts >= 1
    went_on, *later = went_on_from(record)
    with desk.lock:  # other cases may be submitting, their output caught
        lost = max(0, ended.reached - went_on)
        print(f"{name}: ZeRO {case.zero}, at step {ended.reached}, went on from {went_on}, lost {lost}, then {later}")
    if case.graceful:
        assert ended.reached <= went_on < STEPS  # saved after the disturbance: nothing was done twice
    else:
        assert 0 <= ended.reached - went_on <= EVERY
    assert set(later) <= {went_on, *saved_when_stopped(record)}, desk.log(record)
