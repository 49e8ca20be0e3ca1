"""Sweeps: what a file means, what is refused, and real runs that fail, stop, are killed and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from launch.sweep import main
from tests.trainer.forking import Begun, Forks
from tests.trainer.launching import ROOT, TINY, launch, series
from trainer.config.recipe import override
from trainer.errors import UserError
from trainer.sweep.file import read_sweep
from trainer.sweep.points import Sweep, words_of
from trainer.sweep.preloaded import UNKNOWN, Forked, Preloaded
from trainer.sweep.runner import _lock

GIMP = {"command": "pretrain", "words": ["--method", "gimp", "steps=2"]}


def written(path: Path, **content: Any) -> Path:
    path.write_text(yaml.safe_dump({**GIMP, **content}, sort_keys=False))
    return path


def read(tmp_path: Path, **content: Any) -> Sweep:
    return read_sweep(written(tmp_path / "s.yaml", **content))


# ------------------------------------------------------------------------------------------------------------ what it means


def test_points_are_combined_with_the_whole_grid_in_the_files_order(tmp_path: Path) -> None:
    sweep = read(
        tmp_path,
        points=[{"method.margin": 0.5}, {"method.margin": 0.8, "--recipe": "demo"}],
        grid={"seed": [0, 1], "optim.lr": ["1e-4"]},
    )
    assert [p.name for p in sweep.points] == [
        "margin-0.5_seed-0_lr-0.0001",
        "margin-0.5_seed-1_lr-0.0001",
        "margin-0.8_recipe-demo_seed-0_lr-0.0001",
        "margin-0.8_recipe-demo_seed-1_lr-0.0001",
    ]
    assert [p.index for p in sweep.points] == [0, 1, 2, 3]
    assert sweep.out == Path("runs/s")
    assert sweep.command_line(sweep.points[3])[1:] == [
        str(ROOT / "launch" / "pretrain.py"), "--method", "gimp", "steps=2", "method.margin=0.8", "--recipe", "demo",
        "seed=1", "optim.lr=0.0001", "out=runs/s/margin-0.8_recipe-demo_seed-1_lr-0.0001",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [0, 1.5, 1e-5, True, None, "a", "12", "", "null", "1e-4", [1, 2], ["a", "b"], "x y"])
def test_words_are_read_back_as_the_value_they_were_made_of(value: Any) -> None:
    (word,) = words_of("section.key", value)
    assert override({}, [word]) == {"section": {"key": value}}


def test_flags_are_words_of_their_own() -> None:
    assert words_of("--task", "dr_grade") == ["--task", "dr_grade"]
    assert (words_of("--fast", True), words_of("--fast", False)) == (["--fast"], [])


def test_names_are_safe_and_differ(tmp_path: Path) -> None:
    paths = ["runs/a", "runs-a", "../../etc", "x" * 300]
    names = [p.name for p in read(tmp_path, grid={"data.path": paths}).points]
    assert len({n.lower() for n in names}) == 4
    assert all("/" not in n and not n.startswith(".") and len(n) < 140 for n in names)
    two = read(tmp_path, grid={"optim.lr": [1.0, 2.0], "stages.pretrain.optim.lr": [3.0]})
    assert two.points[0].name == "optim.lr-1.0_stages.pretrain.optim.lr-3.0"


def test_a_points_name_and_words_do_not_depend_on_the_others(tmp_path: Path) -> None:
    few, more = (read(tmp_path, grid={"seed": seeds}) for seeds in ([0, 1], [0, 1, 2]))
    assert more.points[:2] == few.points


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grids": {}}, "grids: unknown key; did you mean 'grid'?"),
        ({"command": "learn"}, "command: Input should be 'pretrain', 'finetune' or 'gwas'"),
        ({}, "neither grid nor points says what differs"),
        ({"grid": {"seed": []}}, "grid.seed: an empty list"),
        ({"grid": {"seed": 3}}, "grid.seed: Input should be a valid list"),
        ({"grid": {"out": ["a"]}}, "out: a sweep sets it itself"),
        ({"grid": {"steps": [1, 2]}}, "steps stands among the words and among what differs"),
        ({"grid": {"seed": [1]}, "points": [{"seed": 2}]}, "points[0].seed stands in the grid too"),
        ({"grid": {"seed": [1, 2, 1]}}, "points 0 and 2 are the same run (seed=1; seed=1)"),
        ({"points": [{"a b": 2}]}, "'a b' is no key"),
    ],
)
def test_files_that_mean_nothing_are_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as e:
        read(tmp_path, **content)
    assert message in str(e.value)
    assert "s.yaml" in str(e.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grid": {"seed": [0, 1], "optim.lrr": [1.0]}}, "optim.lrr: unknown key; did you mean 'lr'? (at seed=0, optim.lrr=1.0 and 1 more"),
        ({"grid": {"method.margn": [1.0]}}, "method.margn: unknown key; did you mean 'margin'?"),
        ({"grid": {"--recipe": ["demo", "demi"]}}, "no recipe 'demi' of gimp"),
        ({"grid": {"--recipe": ["demo", "gimp-demo"]}}, "points 0 and 1 are the same run"),
        ({"points": [{"seed": 1}, {"seed": 1.0}]}, "points 0 and 1 are the same run"),
        ({"words": ["steps=2"], "grid": {"seed": [0]}}, "is no command line of launch/pretrain.py"),
        ({"words": ["--method", "gimb"], "grid": {"seed": [0]}}, "no method 'gimb'; did you mean 'gimp'?"),
    ],
)  # fmt: skip
def test_a_sweep_whose_runs_would_be_refused_does_not_start(
    content: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "s.yaml", **content)
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_numbers_and_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "s.yaml", grid={"seed": [0, 1]})
    assert main([str(file), "--point", "2", "--jobs", "0"]) == 2
    said = capsys.readouterr().err
    assert "--point 2: " in said
    assert "has the points 0 to 1" in said
    assert "--jobs 0: at least 1" in said
    assert main([str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "torn.yaml").write_text("a: [")
    assert main([str(tmp_path / "torn.yaml")]) == 2
    assert "not YAML" in capsys.readouterr().err


def test_a_fine_tune_may_leave_the_start_out_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--task", "demo_subtype", "--method"]
    for method, code in (("abmil", 0), ("gimp", 2)):
        file = written(
            tmp_path / f"{method}.yaml", command="finetune", words=[*words, method], grid={"seeds": [[0], [1]]}
        )
        assert main([str(file), "--out", str(tmp_path / method), "--dry-run"]) == code
    assert "--init: gimp is pre-trained; give the folder of a finished run" in capsys.readouterr().err


def test_a_dry_run_prints_commands_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "s.yaml", grid={"seed": [0, 1]})
    assert main([str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("launch/pretrain.py --method gimp steps=2 seed=") == 2
    assert not (tmp_path / "out").exists()


def test_folders_of_other_runs_are_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(tmp_path / "s.yaml", grid={"seed": [0, 1]}), tmp_path / "out"
    (out / "seed-0").mkdir(parents=True)
    (out / "seed-0" / "config.json").write_text("{}")
    (out / "seed-1").mkdir()
    status = {"index": 1, "words": ["--method", "gimp", "steps=9", "seed=1"], "state": "done"}
    (out / "seed-1" / "status.json").write_text(json.dumps(status))
    assert main([str(file), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "seed-0 holds something that no sweep made" in said
    assert "was run as `--method gimp steps=9 seed=1`, now it would be `--method gimp steps=2 seed=1`" in said
    assert sorted(p.name for p in out.rglob("*")) == ["config.json", "seed-0", "seed-1", "status.json"]


# ---------------------------------------------------------------------------------------------------------------- real runs

TIME = 240
LOADED: dict[str, Any] = {"preloaded": {}}


def command(file: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, "-W", "ignore", str(ROOT / "launch" / "sweep.py"), str(file), "--out", str(out), *words]


def started(cache: Path, words: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MEDPAIR_CACHE": str(cache.parent)}
    return subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def swept(forks: Forks, file: Path, out: Path, *words: str, faults: dict[str, Any] | None = LOADED) -> tuple[int, str]:
    """Status and output of a sweep to its end, by a process that has loaded everything already, and so has what forks its points."""
    return forks.command("sweep", command(file, out, *words)[4:], TIME, faults)


def begun(forks: Forks, file: Path, out: Path, *words: str) -> Begun:
    """As `swept`, while it runs."""
    return forks.begin("sweep", command(file, out, *words)[4:], LOADED)


def ended(process: subprocess.Popen[str] | Begun) -> tuple[int, str]:
    if isinstance(process, Begun):
        return process.ended(TIME)
    said = process.communicate(timeout=TIME)[0]
    return process.returncode, said


def status(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / name / "status.json").read_text())


def until(process: subprocess.Popen[str] | Begun, log: Path, words: str) -> None:
    """Returns once `words` stand in the log that a run writes meanwhile."""
    limit = time.monotonic() + TIME
    while not (log.exists() and words in log.read_text()):
        assert process.poll() is None, ended(process)
        assert time.monotonic() < limit, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)


def runs_of(process: subprocess.Popen[str] | Begun) -> list[psutil.Process]:
    """Forked by the process that has loaded everything."""
    (forking,) = psutil.Process(process.pid).children()
    return forking.children()


def kill(process: subprocess.Popen[str] | Begun, *runs: psutil.Process) -> None:
    """SIGKILL to a sweep, and to these of its runs."""
    os.kill(process.pid, signal.SIGKILL)
    for p in runs:
        p.kill()
    assert ended(process)[0] == -signal.SIGKILL
    psutil.wait_procs(runs, timeout=TIME)


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_failures_are_collected_and_everything_else_runs(tmp_path: Path, forks: Forks) -> None:
    words = [w for w in TINY if not w.startswith("optim.lr")]
    points = [
        {"data.path": str(tmp_path / "nowhere")},
        {"optim.kind": "sgd", "optim.lr": 1000, "health.max_bad_steps": 0, "optim.clip": 0.0},
        {"seed": 3},
    ]
    file, out = (
        written(tmp_path / "s.yaml", words=[*words, "--recipe", "demo", "steps=4"], points=points),
        tmp_path / "out",
    )
    refused, nan, good = names = [p.name for p in read_sweep(file).points]
    code, said = swept(forks, file, out, "--jobs", "2")
    assert code == 1, said
    found = {n: status(out, n) for n in names}
    assert [found[n]["state"] for n in names] == ["failed", "failed", "done"], said
    assert [found[n]["exit"] for n in names] == [2, 1, 0]
    assert [found[n]["attempts"] for n in names] == [1, 2, 1], "a refused input is not tried again at once, a crash is"
    assert "nowhere: no dataset.json" in (out / refused / "log.txt").read_text()
    assert (out / good / "weights.safetensors").is_file()
    assert "1 done, 2 failed" in said
    assert "step 4, loss " in said
    code, said = swept(forks, file, out)
    assert code == 1
    assert status(out, good) == found[good], "what is done is not run again"
    assert status(out, nan) == found[nan], "what failed too often is not run again"
    assert "failed 2 times; --retries 2 tries it again" in said
    assert status(out, refused)["attempts"] == 2
    code, said = swept(forks, file, out, "--point", "0", "--retries", "2")
    assert (code, status(out, refused)["attempts"]) == (2, 3), said
    code, said = swept(forks, file, out, "--point", "2")
    assert code == 0, said


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_is_stopped_or_killed_goes_on(tmp_path: Path, demo_cohort: Path, forks: Forks) -> None:
    """The one that is stopped and the one that its run outlives are started as a user does, the others forked."""
    words = [*TINY, "--recipe", "demo", "steps=200", "checkpoint.every=25", "log.every=10"]
    file, out = written(tmp_path / "s.yaml", words=words, grid={"seed": [0, 1]}), tmp_path / "out"
    log = out / "seed-0" / "log.txt"

    sweep = started(demo_cohort, command(file, out))
    until(sweep, log, "step 10/200")
    sweep.send_signal(signal.SIGTERM)
    code, said = ended(sweep)
    assert code == 75, said
    assert (status(out, "seed-0")["state"], status(out, "seed-0")["exit"]) == ("stopped", 75), said
    assert status(out, "seed-1")["state"] == "waiting"
    assert (out / "seed-0" / "checkpoints" / "latest").exists()

    second = begun(forks, file, out)
    until(second, log, "step 60/200")
    kill(second, *runs_of(second))
    assert status(out, "seed-0")["state"] == "running", "nobody was left to say otherwise"

    sweep = started(demo_cohort, command(file, out))
    until(sweep, out / "seed-1" / "log.txt", "recipe ")
    (left,) = runs_of(sweep)
    left.suspend()
    kill(sweep)
    assert (status(out, "seed-0")["state"], status(out, "seed-0")["attempts"]) == ("done", 3)
    assert status(out, "seed-0")["failures"] == 0

    last = begun(forks, file, out, "--jobs", "2")
    until(last, last.log, "waiting for it\n")
    first = last.said().splitlines()
    left.resume()
    assert "seed-0: done already" in first[0]
    assert "seed-1: still running from an earlier start of this sweep; waiting for it" in first[1]
    code, said = ended(last)
    assert code == 0, said
    assert "another process is training in it" not in (out / "seed-1" / "log.txt").read_text()
    assert "2 done" in said

    whole = launch(1, [*words, "seed=0", f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0], whole.text
    assert series(out / "seed-0", "step", "loss", "keys") == series(tmp_path / "whole", "step", "loss", "keys")


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_point_that_the_system_kills_for_memory_is_named_and_the_others_go_on(tmp_path: Path, forks: Forks) -> None:
    """Whatever a point does ends with its process, although all of them were forked from one."""
    words = [*TINY, "--recipe", "demo", "steps=40", "log.every=2"]
    file, out = written(tmp_path / "s.yaml", words=words, grid={"seed": [0, 1]}), tmp_path / "out"
    sweep = begun(forks, file, out, "--jobs", "2", "--retries", "0")
    until(sweep, out / "seed-0" / "log.txt", "step 4/40")
    os.kill(_pid(out / "seed-0"), signal.SIGKILL)
    code, said = ended(sweep)
    assert (code, [status(out, n)["state"] for n in ("seed-0", "seed-1")]) == (1, ["failed", "done"]), said
    assert status(out, "seed-0")["exit"] == -signal.SIGKILL
    assert "seed-0: failed, status -9" in said
    assert "killed (SIGKILL): the system does so where memory is out; give fewer --jobs, or a smaller batch" in said
    code, said = swept(forks, file, out, "--jobs", "1", "--retries", "1")
    assert code == 0, said
    assert "seed-0: goes on" in said


def _pid(run: Path) -> int:
    """Of the process that a run is."""
    return json.loads((run / ".fence").read_bytes())["life"]["pid"]


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forked_points_are_those_of_processes_of_their_own(tmp_path: Path, forks: Forks) -> None:
    """The same numbers to the last bit, each in a process that is gone afterwards; refused and dead ones are told as such."""
    points = [{"seed": 0}, {"seed": 1}, {"data.path": str(tmp_path / "nowhere")}]
    file = written(tmp_path / "s.yaml", words=[*TINY, "--recipe", "demo", "steps=6"], points=points)
    names = [p.name for p in read_sweep(file).points]
    for out, how in ((tmp_path / "forked", []), (tmp_path / "alone", ["--no-preload"])):
        code, said = swept(forks, file, out, *how, faults=None)
        assert code == 1, said
        assert "loads everything itself" not in said
        assert [status(out, n)["exit"] for n in names] == [0, 0, 2], said
    for name in names[:2]:
        both = [series(tmp_path / out / name, "step", "loss", "grad_norm", "keys") for out in ("forked", "alone")]
        assert both[0] == both[1]
        weights = [(tmp_path / out / name / "weights.safetensors").read_bytes() for out in ("forked", "alone")]
        assert weights[0] == weights[1]


def test_what_cannot_be_loaded_in_advance_is_said(tmp_path: Path) -> None:
    forking = Preloaded(dict(os.environ))
    forking.prepare(["pretrain"], ["gimb"])
    with open(tmp_path / "log.txt", "ab") as log, pytest.raises(OSError, match="no method 'gimb'; did you mean 'gimp'"):
        forking.start("launch.sweep", ["--help"], log.fileno(), log.fileno())
    forking.close()


def test_the_end_of_the_forking_process_is_noticed(tmp_path: Path) -> None:
    """A run that lives is waited for; how one ended that nobody saw is unknown, which counts as a failure."""
    forking = Preloaded(dict(os.environ))
    forking.prepare(["gwas"], [])
    lock = _lock(tmp_path)
    assert lock is not None
    with open(tmp_path / "log.txt", "ab") as log:
        # Any module of ours with a main(argv) that takes a while: the help of a command ends at once.
        run = forking.start("launch.sweep", ["--help"], log.fileno(), lock)
    limit = time.monotonic() + TIME
    while run.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert run.returncode == 0
    assert "usage: sweep.py" in (tmp_path / "log.txt").read_text()
    run = Forked(forking, os.getpid())
    forking._process.kill()
    forking._process.wait()
    assert run.poll() is None, "this process lives"
    run.pid = run.pid + 2**22
    assert run.poll() == UNKNOWN
    with open(tmp_path / "log.txt", "ab") as log, pytest.raises(OSError, match=r"gone|[Bb]roken|[Cc]onnection"):
        forking.start("launch.sweep", ["--help"], log.fileno(), lock)
    forking.close()
    os.close(lock)
