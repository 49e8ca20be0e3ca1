"""Runs on a Slurm cluster: `python launch/slurm.py --nodes 2 --gpus-per-node 8 pretrain --method gimp data.path=DIR out=RUN`.

    python launch/slurm.py [options] pretrain|finetune|sweep ...   submits; what follows the command is the command's own
    python launch/slurm.py status RUN                              what runs, since when, how far, how fast, until when
    python launch/slurm.py logs RUN [--follow] [--rank R]          output of all ranks, rank and node in front
    python launch/slurm.py cancel RUN [--now]                      save and end

The job saves before its time limit or when it is preempted, goes back into the queue and on, until the run is done (docs/cluster.md).
Exit status: 0 submitted, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SUBMIT = ("pretrain", "finetune", "sweep")


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="slurm.py", description="Submit a run to Slurm, look at it, end it.")
    p.add_argument(
        "--cluster", metavar="PROFILE", help="a YAML file, or a name in configs/cluster; `default` when not given"
    )
    p.add_argument("--nodes", type=int)
    p.add_argument("--gpus-per-node", type=int, help="processes of a node, one a GPU")
    p.add_argument("--processes-per-node", type=int, help="processes of a node without GPUs")
    p.add_argument("--cpus-per-process", type=int, help="cores of a process")
    p.add_argument("--mem-gb", type=float, help="host memory of a node")
    p.add_argument("--partition")
    p.add_argument("--account")
    p.add_argument("--qos")
    p.add_argument("--constraint")
    p.add_argument("--exclude", metavar="NODES", help="nodes to stay away from")
    p.add_argument("--time", help="limit of one life of the job: minutes, hours:minutes:seconds, days-hours")
    p.add_argument("--warning", type=int, help="seconds before the limit at which the run saves")
    p.add_argument("--max-restarts", type=int, help="crashes in a row without a new checkpoint before giving up")
    p.add_argument("--parallel", type=int, help="points of a sweep that run at a time")
    p.add_argument("--dry-run", action="store_true", help="print the sbatch script and the resolved configuration")
    p.add_argument("command", choices=[*SUBMIT, "status", "logs", "cancel"])
    p.add_argument("words", nargs=argparse.REMAINDER, help="the command's own words, or RUN")
    add_all(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from shards.errors import told
    from trainer.errors import EXIT_OK, EXIT_USER, UserError

    try:
        run = {"status": show_status, "logs": show_logs, "cancel": cancel}.get(args.command, submit)
        run(args)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (whoever read has left)
    except Exception as e:
        # Errors of the data and the method are known by their problems: their own rooms load torch, which a look at a job has no use for.
        if not (isinstance(e, UserError) or hasattr(e, "problems")):
            raise
        print(f"error: {told(e)}", file=sys.stderr)
        return EXIT_USER
    return EXIT_OK


def submit(args: argparse.Namespace) -> None:
    from trainer.cluster.profile import load
    from trainer.cluster.submit import make_plan, new_folder, script
    from trainer.cluster.submit import submit as send

    profile = load(args.cluster, options(args))
    plan = make_plan(args.command, args.words, profile.world)
    if args.dry_run:
        print(f"{script(profile, plan, new_folder(plan.out))}\n# ---- what it runs\n{plan.text}")
        return
    record = send(profile, plan, args.parallel)
    number = (record.folder / "id").read_text().strip()
    where = (
        f"{profile.nodes} node{'s' * (profile.nodes > 1)} x {profile.processes} process{'es' * (profile.processes > 1)}"
    )
    points = f", {len(plan.tasks)} points" if plan.array else ""
    print(f"job {number}: {where}{points}\n  folder    {record.folder}")
    for what in ("status", "logs --follow", "cancel"):
        print(f"  python launch/slurm.py {what} {shlex.quote(str(plan.out))}")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The words that go over the profile."""
    others = ("cluster", "parallel", "dry_run", "command", "words")
    return {k: v for k, v in vars(args).items() if k not in others}


def show_status(args: argparse.Namespace) -> None:
    from trainer.cluster.status import text

    p = argparse.ArgumentParser(prog="slurm.py status")
    p.add_argument("run", type=Path)
    print(text(p.parse_args(args.words).run.absolute()))


def show_logs(args: argparse.Namespace) -> None:
    from trainer.cluster import client
    from trainer.cluster.logs import follow, lines
    from trainer.cluster.record import newest

    p = argparse.ArgumentParser(prog="slurm.py logs")
    p.add_argument("run", type=Path)
    p.add_argument("--follow", action="store_true", help="go on until the job has ended")
    p.add_argument("--rank", type=int, help="of this rank only")
    p.add_argument("--point", type=int, default=0, help="of this element of a sweep's job array")
    chosen = p.parse_args(args.words)
    records = newest(chosen.run.absolute())
    record = records[min(chosen.point, len(records) - 1)]

    def ended() -> bool:
        if record.status.state in ("done", "failed", "cancelled"):
            return True
        info = client.job(record.job) if record.job else None
        return info is None or not info.active

    for line in follow(record, ended) if chosen.follow else lines(record):
        if chosen.rank is None or line.startswith(f"[rank {chosen.rank} "):
            print(line, flush=True)


def cancel(args: argparse.Namespace) -> None:
    from trainer.cluster.status import cancel

    p = argparse.ArgumentParser(prog="slurm.py cancel")
    p.add_argument("run", type=Path)
    p.add_argument("--now", action="store_true", help="kill it; the steps since the last checkpoint are lost")
    chosen = p.parse_args(args.words)
    print("\n".join(cancel(chosen.run.absolute(), chosen.now)))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
