"""A hang is ended and the rank that the others wait for is named; what may take long is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.trainer.launching import HERE, ROOT, TINY, launch, series
from trainer.config.shared import Health
from trainer.health.hang import Beat, missing, read_beats, report, waits_in, write_beat
from trainer.health.watchdog import FIRST_STEPS, Clock, Watchdog
from trainer.runtime import longest_wait

HEALTH = Health(hang_factor=10, hang_floor=30, hang_pause=100)
BEAT = Beat(0, "n1", "host", 1, 7, "forward and backward", 3.0, 50, 4)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def steps(clock: Clock, time: Time, count: int, seconds: float, data: float = 0.0, first: int = 1) -> None:
    for step in range(first, first + count):
        clock.at("data", step)
        time.now += data
        clock.at("forward and backward", step)
        time.now += seconds / 2
        clock.at("update", step)
        time.now += seconds / 2


def test_a_step_is_late_by_the_median_of_steps_without_their_waits_and_the_first_ones() -> None:
    time = Time()
    clock = Clock(HEALTH, time)
    assert clock.limit() == 100  # start-up
    steps(clock, time, FIRST_STEPS, 60)
    assert clock.limit() == 100  # the last of the first steps
    steps(clock, time, 9, 4, data=20, first=FIRST_STEPS + 1)
    assert clock.median == 4
    assert clock.limit() == 40
    step, phase, seconds = clock.place()
    assert (step, phase, seconds) == (FIRST_STEPS + 9, "update", 4)
    clock.at("evaluate", step)
    time.now += 90
    assert clock.place()[2] == 90
    assert clock.limit() == 100
    clock.at("log", step)
    time.now += 1
    assert clock.place()[2] == 5, "an evaluation is no part of its step"
    steps(clock, time, 19, 1, first=step + 1)
    assert clock.limit() == 30, "never under the floor"
    clock.at("start", step + 19)
    steps(clock, time, FIRST_STEPS, 1, first=step + 20)
    assert clock.limit() == 100, "another stage begins"


def test_compiling_is_no_part_of_a_step_and_is_added_up_over_it() -> None:
    time = Time()
    clock = Clock(HEALTH, time)
    steps(clock, time, FIRST_STEPS + 9, 1)
    clock.at("data", step := FIRST_STEPS + 10)
    clock.at("forward and backward", step)
    time.now += 2
    for seconds in (20, 25):
        clock.compiling(True)
        time.now += seconds
        found, limit, slow = clock.place(), clock.limit(), clock.slow()
        clock.compiling(False)
    assert (found, limit) == ((step, "compile", 45), 100), "as long as an evaluation may take"
    assert slow == (step, "compile")
    time.now += 1
    assert (clock.place(), clock.limit()) == ((step, "forward and backward", 3), 30)
    clock.at("evaluate", step)
    clock.compiling(True)
    clock.compiling(False)
    assert clock.place() == (step, "evaluate", 0)


def said_after(dog: Watchdog, capfd: pytest.CaptureFixture[str]) -> str:
    """What the watchdog's thread says next."""
    text = ""
    while not text.endswith("\n"):
        dog._over.wait(dog.tick)
        text += capfd.readouterr().err
    return text


@pytest.mark.timeout(60)
def test_slow_compiling_is_said_as_such_and_by_who_waits_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    health = Health(notice=0.05)
    token = Watchdog.prepare(tmp_path, health)
    dogs = [Watchdog(tmp_path, rank, 2, health, token) for rank in range(2)]
    try:
        for dog in dogs:
            dog.at("data", 1)
            dog.at("forward and backward", 1)
            dog.compiling(True)
        said = said_after(dogs[0], capfd)
        assert said.startswith("slow: rank 0 on ")
        assert " has compiled blocks of the network for 0 s at step 1; " in said
        dogs[0].compiling(False)
        said = said_after(dogs[0], capfd)
        assert "the others wait for rank 1 on " in said
        assert ": compile of step 1, " in said
    finally:
        for dog in dogs:
            dog.close()


def test_time_that_the_process_did_not_run_is_forgiven() -> None:
    time = Time()
    clock = Clock(HEALTH, time)
    steps(clock, time, 6, 1)
    time.now += 1000
    clock.forgive(1000)
    assert clock.place()[2] == 1


def test_the_missing_rank_is_silent_or_behind_or_in_no_collective() -> None:
    beats = {r: replace(BEAT, rank=r) for r in range(3)}
    waiting: dict[int, str | None] = dict.fromkeys(range(3), "all_reduce")
    assert missing(beats, [1], {0: "all_reduce"})[0] == [1]
    assert missing({**beats, 2: replace(BEAT, rank=2, collectives=49)}, [], waiting)[0] == [2]
    assert missing({**beats, 0: replace(BEAT, step=6, collectives=90)}, [], waiting)[0] == [0]
    assert missing(beats, [], {**waiting, 1: None})[0] == [1]
    nobody, how = missing(beats, [], waiting)
    assert nobody == []
    assert "network" in how
    assert missing({0: BEAT}, [], {})[0] == [0]


def test_a_report_says_where_a_silent_rank_was_last_heard_of(tmp_path: Path) -> None:
    beats = {0: replace(BEAT, node="n0"), 1: replace(BEAT, rank=1, step=5)}
    text = report("late", beats, [1], {0: "waits in all_reduce\n..."}, tmp_path, 3)
    assert text.splitlines()[:5] == [
        "hang: late",
        "missing: rank 1 on n1 (process 1): last heard of at forward and backward of step 5: its process does not answer",
        "missing: rank 2: never heard of in this life",
        "  rank 0 on n0 (process 1): forward and backward of step 7, 3 s, 50 collectives entered, waits in all_reduce",
        "  rank 1 on n1 (process 1): last heard of at forward and backward of step 5, 50 collectives entered",
    ]


def test_a_later_life_takes_the_place_to_write_away(tmp_path: Path) -> None:
    first = tmp_path / f".beats-{Watchdog.prepare(tmp_path, HEALTH)}"
    write_beat(first, replace(BEAT, step=123456), new=True)
    write_beat(first, BEAT)
    assert read_beats(first, 2) == {0: BEAT}
    second = Watchdog.prepare(tmp_path, HEALTH)
    with pytest.raises(FileNotFoundError):
        write_beat(first, BEAT)
    assert [p.name for p in tmp_path.iterdir()] == [f".beats-{second}"]


def test_no_collective_is_seen_where_there_is_none() -> None:
    assert waits_in() is None


@pytest.mark.parametrize(
    ("health", "seconds"),
    [
        (Health(), 3600 + 600),
        (Health(hang_pause=50_000), 50_000 + 600),
        (Health(hang_floor=7200), 7200 + 600),
        (Health(hang_pause=5, hang_floor=1), 10),
        (Health(hang_factor=0), 3600 + 600),
    ],
)
def test_collectives_wait_longer_than_any_pause(
    health: Health, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEEPSPEED_TIMEOUT", raising=False)
    assert longest_wait(health).total_seconds() == seconds
    monkeypatch.setenv("DEEPSPEED_TIMEOUT", "2000")
    assert longest_wait(health).total_seconds() == 120_000


# --------------------------------------------------------------------------------------------------------- real ranks


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_blocked_rank_is_named_with_its_stack_and_the_run_ends_for_a_restart(
    tmp_path: Path, demo_cohort: Path
) -> None:
    """By the real launcher, which ends with the ranks' status."""
    out = tmp_path / "run"
    words = [*TINY, "steps=12", "checkpoint.every=3", "health.hang_floor=5", "health.notice=1", f"out={out}"]
    launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port())]
    command = [*launcher, "--no_local_rank", str(HERE / "driver.py"), '{"block": {"step": 8, "rank": 1}}', *words]
    env = {
        **os.environ,
        "MEDPAIR_CACHE": str(demo_cohort.parent),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    hung = subprocess.run(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240
    )
    assert hung.returncode == 1, hung.stdout
    (folder,) = (out / "hang").iterdir()
    report = (folder / "report.txt").read_text()
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    assert "at step 8, forward and backward; the limit is 5 s" in report
    assert f"missing: rank 1 on {node}" in report
    said = hung.stdout.split("hang:")[0]
    assert "slow: forward and backward of step 8 has taken" in said, "long before it is a hang"
    assert f"the others wait for rank 1 on {node}" in said
    assert "it is behind the others" in report
    assert report in hung.stdout
    assert f"rank 1 on {node} ends: a hang" in hung.stdout
    assert hung.stdout.count("in planted_block") == 2, "the stack of rank 1, by itself and in the report"
    stacks = [(folder / f"rank-0000{r}.txt").read_text() for r in (0, 1)]
    assert stacks[0].startswith("waits in ")
    assert "planted_block" in stacks[1]
    assert "thread loader-0" in stacks[1]
    again = launch(2, words, demo_cohort)
    assert again.codes == [0, 0], again.text
    assert "(step 6)" in again.outputs[0]
    assert [s for (s,) in series(out, "step")] == list(range(1, 13))
    assert not list(out.glob(".beats-*"))


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_slow_data_evaluations_and_saves_are_no_hang(tmp_path: Path, demo_cohort: Path) -> None:
    """One rank reads, evaluates and saves much longer than the floor, and than DeepSpeed lets others wait in a collective."""
    words = [*TINY[:-1], "steps=8", "health.hang_floor=3", "health.notice=0.6", f"out={tmp_path / 'run'}"]
    faults = {"slow": {"rank": 1, "seconds": 8, "step": 7}, "impatient": {"seconds": 3, "step": 0}}
    slow = launch(2, words, demo_cohort, faults)
    assert slow.codes == [0, 0], slow.text
    assert "has waited for data for" in slow.outputs[1]
    assert "no reader thread is at a sample" in slow.outputs[1], "the planner waits here, not a read"
    assert not (tmp_path / "run" / "hang").exists()
    assert series(tmp_path / "run", "step")[-1] == (8,)


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_ended_when_it_is_off(tmp_path: Path, demo_cohort: Path) -> None:
    words = [*TINY, "steps=6", "health.hang_factor=0", "health.hang_floor=0.1", f"out={tmp_path / 'run'}"]
    blocked = launch(2, words, demo_cohort, {"block": {"step": 5, "rank": 1, "seconds": 8}})
    assert blocked.codes == [0, 0], blocked.text
    assert not list((tmp_path / "run").glob(".beats-*"))
