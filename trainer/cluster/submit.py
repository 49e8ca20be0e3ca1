"""From a command line to a job in the queue: what it will do, its folder, its sbatch script, its submission."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shards.errors import add_all
from trainer.cluster import preflight
from trainer.cluster.job import Task
from trainer.cluster.profile import Profile
from trainer.cluster.record import FOLDER, Record, Status, now
from trainer.config.recipe import build_config
from trainer.config.schema import out_folder
from trainer.errors import EXIT_USER, UserError
from trainer.state.run_folder import versions

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = ("pretrain", "finetune", "sweep")


@dataclass(frozen=True)
class JobPlan:
    """What a job will run: one command, or one an element of an array."""

    name: str
    words: tuple[str, ...]
    """As given."""
    out: Path
    """The run's folder, or the sweep's."""
    runs: tuple[Path, ...]
    tasks: tuple[tuple[str, ...], ...]
    """Script and arguments, one an element."""
    text: str
    """Resolved configuration and plan, as the command's own --dry-run prints them."""
    points: tuple[dict[str, Any], ...] = ()
    """Index and words of a sweep's points, one an element."""

    @property
    def array(self) -> bool:
        return self.name == "sweep"


def make_plan(name: str, words: Sequence[str], world: int) -> JobPlan:
    """Works a command line out, so that whatever the command would refuse is refused here.

    Raises:
        UserError: what is wrong with the command line, the recipe, the data or the sizes.
    """
    if name == "sweep":
        return _sweep(words)
    script = str(ROOT / "launch" / f"{name}.py")
    out, text = pretraining(words, world) if name == "pretrain" else (_out_of(name, words), "")
    # Without a folder of its own two jobs of different starting folders would meet, or not find it again.
    command = (script, *(w for w in words if not w.startswith("out=")), f"out={out}")
    return JobPlan(name, tuple(words), out, (out,), (command,), text or dry_run(command, world))


def pretraining(words: Sequence[str], world: int) -> tuple[Path, str]:
    """Folder and plan of a pre-training on `world` ranks, elsewhere."""
    from trainer.pretrain import plan_elsewhere

    p = argparse.ArgumentParser(prog="slurm.py ... pretrain", allow_abbrev=False)
    p.add_argument("--method", required=True)
    p.add_argument("--recipe")
    p.add_argument("overrides", nargs="*", metavar="section.key=value")
    add_all(p)
    args = p.parse_intermixed_args(list(words))
    config, recipe = build_config(args.method, args.recipe, args.overrides)
    before = dict(os.environ)
    try:
        text = plan_elsewhere(config, recipe, world)
    finally:
        # What planning sets for the devices of this machine must not travel with the job.
        os.environ.clear()
        os.environ.update(before)
    return out_folder(config).absolute(), text


def _out_of(name: str, words: Sequence[str]) -> Path:
    given = [w.removeprefix("out=") for w in words if w.startswith("out=")]
    if not given:
        raise UserError(f"{name}: give out=FOLDER, so that status, logs and cancel can find it")
    return Path(given[-1]).absolute()


def dry_run(command: Sequence[str], world: int) -> str:
    """What the command says of itself with --dry-run for that many ranks.

    Raises:
        UserError: what the command refuses.
    """
    whole = [sys.executable, *command, "--dry-run"]
    ranks = {"RANK": "0", "WORLD_SIZE": str(world), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(whole, text=True, capture_output=True, env={**os.environ, **ranks})
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip()
    if done.returncode == EXIT_USER and "error: " in said:
        raise UserError(said[said.index("error: ") + len("error: ") :])
    raise UserError(f"`{shlex.join(whole[1:])}` ended with status {done.returncode}:\n{said[-2000:]}")


def _sweep(words: Sequence[str]) -> JobPlan:
    """The points of a sweep and its baselines that are not done yet, an element of a job array each."""
    from trainer.downstream.task.read import kind_of
    from trainer.sweep.baselines import beside
    from trainer.sweep.file import read_sweep
    from trainer.sweep.runner import statuses

    p = argparse.ArgumentParser(prog="slurm.py ... sweep")
    p.add_argument("file", type=Path)
    p.add_argument("--out", type=Path)
    args = p.parse_args(list(words))
    out = (args.out or Path("runs") / args.file.stem).absolute()
    sweep = read_sweep(args.file, out)
    if sweep.first is not None:
        raise UserError(
            f"{args.file} pre-trains before it fine-tunes, and elements of a job array have no order; run `python launch/sweep.py "
            f"{args.file}` in a job of its own"
        )
    said = dry_run((str(ROOT / "launch" / "sweep.py"), str(args.file), "--out", str(out)), 1)
    left = [
        (one, point)
        for one in (sweep, beside(sweep, kind_of))
        for point, status in zip(one.points, statuses(one, one.points), strict=True)
        if status.state != "done"
    ]
    if not left:
        raise UserError(f"{args.file}: all {len(sweep.points)} points in {out} are done; there is nothing to submit")
    tasks = tuple(tuple(one.command_line(point)[1:]) for one, point in left)
    about = tuple({"index": point.index, "words": point.words} for _, point in left)
    return JobPlan("sweep", tuple(words), out, tuple(one.folder(point) for one, point in left), tasks, said, about)


# ---------------------------------------------------------------------------------------------------------------- the job


def parameters(profile: Profile, folder: Path, name: str) -> dict[str, Any]:
    """submitit's parameters of a job."""
    python = profile.python or shlex.quote(sys.executable)
    helper = f"{python} -m trainer.cluster.life"
    setup = [
        # The tasks are told by srun; the batch script has to live on to requeue the job after them.
        "trap : TERM USR2",
        # A requeued job may have been given other nodes (scontrol update NumNodes): Slurm leaves the number of tasks as it was.
        f"export SLURM_NTASKS=$((SLURM_JOB_NUM_NODES * {profile.processes})); export SLURM_NPROCS=$SLURM_NTASKS",
        *(f"export {k}={shlex.quote(v)}" for k, v in profile.environment.items()),
        *profile.setup,
        f"{helper} begin {shlex.quote(str(folder))} || exit $?",
    ]
    teardown = ["status=$?", f"{helper} end {shlex.quote(str(folder))} $status", "exit $?"]
    given: dict[str, Any] = {
        "job_name": f"medpair-{name}",
        "nodes": profile.nodes,
        "ntasks_per_node": profile.processes,
        "cpus_per_task": profile.cpus_per_process,
        "gpus_per_node": profile.gpus_per_node or None,
        "time": profile.time,
        "mem": f"{profile.mem_gb:g}G" if profile.mem_gb else None,
        "exclusive": profile.exclusive or None,
        "signal_delay_s": profile.warning,
        "stderr_to_stdout": True,
        "setup": setup,
        "teardown": teardown,
        # A rank that dies takes the others along, who would wait for it. srun does not inherit the cores of a task (22.05).
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_process}"],
        "additional_parameters": {
            "requeue": True,
            **({"reservation": profile.reservation} if profile.reservation else {}),
            **profile.sbatch,
        },
    }
    given |= {k: getattr(profile, k) for k in ("partition", "account", "qos", "constraint", "exclude")}
    return {k: v for k, v in given.items() if v is not None}


def script(profile: Profile, plan: JobPlan, folder: Path) -> str:
    """The sbatch script, without submitting it (and without Slurm)."""
    from submitit.slurm.slurm import _make_sbatch_string

    python = profile.python or shlex.quote(sys.executable)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    given = parameters(profile, folder, plan.name)
    if len(plan.tasks) > 1:
        given["map_count"] = len(plan.tasks)
    return _make_sbatch_string(command, folder, **given)


def new_folder(out: Path) -> Path:
    return out / FOLDER / datetime.now().strftime("%Y%m%d-%H%M%S-%f")


def submit(profile: Profile, plan: JobPlan, parallel: int | None = None) -> Record:
    """Puts the job into the queue; its folder is complete before it can start.

    Raises:
        UserError: everything that speaks against it (preflight), or what sbatch refuses.
    """
    preflight.check(profile, plan.out, plan.runs)
    folder = new_folder(plan.out)
    folder.mkdir(parents=True)
    about = {
        "command": plan.name,
        "words": plan.words,
        "cwd": os.getcwd(),
        "array": len(plan.tasks) > 1,
        "runs": [str(r) for r in plan.runs],
        "points": plan.points,
        "world": profile.world,
        "profile": profile.model_dump(mode="json"),
        "versions": versions(),
        "submitted": now(),
    }
    (folder / "job.json").write_text(json.dumps(about, indent=1) + "\n")
    (folder / "config.yaml").write_text(plan.text)
    number = _send(profile, plan, folder, parallel)
    (folder / "id").write_text(number + "\n")
    record = Record(folder, 0 if about["array"] else None)
    if not about["array"] and not record.lives:
        status = Status("submitted", number, since=now())
        _unless_begun(folder, status)
    return record


def _unless_begun(folder: Path, status: Status) -> None:
    """The first status, unless the job has written its own by now."""
    from dataclasses import asdict

    try:
        with open(folder / "status.json", "x") as f:
            f.write(json.dumps(asdict(status), indent=1) + "\n")
    except FileExistsError:
        pass


def _send(profile: Profile, plan: JobPlan, folder: Path, parallel: int | None) -> str:
    """Through submitit; returns the job's number."""
    import submitit

    executor = submitit.SlurmExecutor(folder=folder, python=profile.python)
    given = parameters(profile, folder, plan.name)
    if len(plan.tasks) > 1 and parallel:
        given["array_parallelism"] = parallel
    executor.update_parameters(**given)
    tasks = [Task(command, str(folder)) for command in plan.tasks]
    try:
        if len(tasks) == 1:
            return str(executor.submit(tasks[0]).job_id)
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
        return str(jobs[0].job_id).split("_")[0]
    except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as e:
        raise UserError(f"sbatch refused the job: {' '.join(str(e).split())}") from e
