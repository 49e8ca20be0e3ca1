"""Commands killed between two of their writes: `python tests/kills/campaign.py --kills 200 --seed 0 [--only split]`.

Each command runs once undisturbed, which counts its writes (files opened for writing, renamed, removed, folders made) and gives the
end that is right. Then it is killed (SIGKILL) before the n-th of them, n drawn from the seed; what it worked on must still be whole,
and the same command, given again, must come to the same end, byte for byte, with no file left over.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

LIMIT = 240  # seconds of a command
SHARDS = "shards.__main__"
EXPORTED = ("--to", "safetensors", "--out", "exported")
TIMED = ("samples_per_s", "data_wait", "peak_memory")
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Failed(AssertionError):
    """What must not happen."""


@dataclass
class Command:
    """module and words run in `here`; `before` fills the folder; `whole` raises where a kill left something torn; `end` is compared."""

    name: str
    module: str
    words: list[str]
    before: Callable[[Path], None]
    end: Callable[[Path], Any]
    whole: Callable[[Path], None] = lambda here: None


@dataclass
class Outcomes:
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    writes: int = 0


# ------------------------------------------------------------------------------------------------------------ one command


def run(command: Command, here: Path, kill_before: int | None = None) -> tuple[int, int, str]:
    """Runs the command in a process of its own; (status, writes it came to, what it said)."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile() as counted:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for fd in (1, 2):
                    os.dup2(said.fileno(), fd)
                sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
                os.chdir(here)
                _watch(here, counted.fileno(), kill_before)
                status = int(importlib.import_module(command.module).main(list(command.words)) or 0)
                sys.stdout.flush()
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        status = _wait(pid)
        said.seek(0)
        return status, int(os.pread(counted.fileno(), 16, 0) or 0), said.read()


def _wait(pid: int) -> int:
    deadline = time.monotonic() + LIMIT
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise Failed(f"over {LIMIT} s")
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)
    return os.waitstatus_to_exitcode(ended[1])


def _watch(here: Path, fd: int, kill_before: int | None) -> None:
    """Counts what changes files below `here`, and dies before the number that is asked for."""
    root, made = str(here.resolve()), [0]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            writes = event in EVENTS
        if not writes or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if path.startswith(root) and path != root:
            made[0] += 1
            if made[0] == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            os.pwrite(fd, str(made[0]).encode().ljust(16), 0)

    sys.addaudithook(hook)


# ----------------------------------------------------------------------------------------------------------- what they leave


def files(folder: Path, skip: Sequence[str] = ()) -> dict[str, str]:
    """Name -> SHA-256 of every file, hidden ones too: a stray temporary file is a difference."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {str(p.relative_to(folder)): p for p in found}
    return {
        n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in names.items() if not n.startswith(tuple(skip) or "\0")
    }


def trained(here: Path) -> Any:
    """Weights and every step's row of a run, but for its times; checkpoints by name."""
    rows = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    plain = [{k: v for k, v in r.items() if k not in TIMED} for r in rows]
    kept = ("weights.safetensors", "patients.txt", "method.json")
    return plain, {n: h for n, h in files(here / "run").items() if n in kept or n.startswith("stages/")}


def linted(folder: Path) -> str:
    from shards.check.lint import lint

    if found := list(lint(folder).problems):
        raise Failed(f"{folder.name} is torn: {found[0]}")
    return json.loads((folder / "dataset.json").read_bytes())["fingerprint"]


def commands(base: Path) -> list[Command]:
    """All commands that write, on small inputs made in `base`."""
    import tests.shards.manifests as manifests
    from tests.trainer.launching import small_cohort

    cohort = small_cohort(base)
    sources = manifests.sources(base / "sources", 8)
    sources.pack(base / "packed")
    both = {linted(base / "packed")}

    def set_or_nothing(here: Path) -> None:
        if (here / "set").exists():
            both.add(linted(here / "set"))

    def copied(here: Path) -> None:
        shutil.copytree(base / "packed", here / "set")

    def adopted(here: Path) -> None:
        copied(here)
        for path in (here / "set").rglob("*"):
            if path.is_file() and path.suffix != ".tar":
                path.unlink()

    manifest = str(sources.manifest)
    data = f"data.path={cohort}"
    tiny = {
        "gimp": ["method.dim=16", "method.heads=2", "method.window=24", "method.landmarks=8", "method.genes.groups=4",
            "stages.gene.epochs=0"],
        "mgi": [], "mrm_relation": [], "mrm_record": [],
    }  # fmt: skip

    def pretrain(name: str, *more: str) -> Command:
        common = [
            "epochs=null",
            "steps=3",
            "global_batch=4",
            "checkpoint.every=1",
            "log.tensorboard=false",
            "data.val_split=''",
            "out=run",
        ]
        words = ["--method", name, "--recipe", "demo", data, *common, *tiny[name], *more]
        return Command(" ".join(["pretrain", name, *more]), "launch.pretrain", words, lambda here: None, trained)

    made = base / "pretrained"
    made.mkdir()
    status, _, said = run(pretrain("gimp"), made)
    if status:
        raise Failed(f"the base run ends with {status}: {said[-800:]}")
    probe = [
        "--task",
        "demo_subtype",
        "--method",
        "gimp",
        "--init",
        str(made / "run"),
        "--mode",
        "linear",
        data,
        "seeds=0",
        "out=tuned/a",
    ]
    finetune = Command("finetune", "launch.finetune", probe, lambda here: None, probed)
    (base / "tuned").mkdir()
    for seed in (0, 1):
        again = [w.replace("seeds=0", f"seeds={seed}").replace("tuned/a", f"tuned/{seed}") for w in probe]
        status, _, said = run(Command("finetune", "launch.finetune", again, lambda here: None, probed), base)
        if status:
            raise Failed(f"the base fine-tune ends with {status}: {said[-800:]}")

    def runs(here: Path) -> None:
        shutil.copytree(made / "run", here / "run")

    def of_set(here: Path) -> Any:
        # An empty lock file that nobody holds may outlive a kill between the work's end and its removal; the next command takes it.
        return linted(here / "set"), files(here, skip=(".set.lock",))

    return [
        Command("pack", SHARDS, ["pack", manifest, "--out", "set", "--name", "set"], lambda here: None, of_set, set_or_nothing),
        Command(
            "pack --jobs 2", SHARDS, ["pack", manifest, "--out", "set", "--name", "set", "--jobs", "2", "--shard-samples", "3"],
            lambda here: None, of_set, set_or_nothing,
        ),
        Command(
            "pack --overwrite", SHARDS, ["pack", manifest, "--out", "set", "--name", "set", "--overwrite", "--split-seed", "5"],
            copied, of_set, set_or_nothing,
        ),
        Command("split", SHARDS, ["split", "set", "--fractions", "0.5,0.25,0.25", "--seed", "7"], copied, of_set, set_or_nothing),
        Command("tokenizer", SHARDS, ["tokenizer", "set", "--size", "60"], copied, of_set, set_or_nothing),
        Command("index", SHARDS, ["index", "set"], adopted, of_set),
        *(pretrain(name) for name in tiny),
        pretrain("gimp", "checkpoint.write=background"),
        finetune,
        Command("compare", "launch.compare", [str(base / "tuned"), "--out", "report", "--draws", "100"], lambda here: None, reported),
        Command("export", "launch.export", ["run", *EXPORTED], runs, lambda here: files(here / "exported")),
    ]  # fmt: skip


def probed(here: Path) -> Any:
    result = json.loads(next(iter((here / "tuned").rglob("result.json"))).read_bytes())
    return result["metrics"], result["n"], result["chosen"]


def reported(here: Path) -> Any:
    """The table; the page holds pictures whose bytes are a library's."""
    return (
        (here / "report/compare.csv").read_text(),
        (here / "report/compare.md").read_text(),
        sorted(files(here / "report")),
    )


# ----------------------------------------------------------------------------------------------------------------- campaign


def campaign(kills: int, seed: int, only: str | None = None) -> dict[str, Outcomes]:
    """Kills spread evenly over the commands; a kill is a function of (seed, command, number)."""
    # Loaded once; every command is a forked copy that has it all.
    import launch.compare  # noqa: F401
    import launch.export  # noqa: F401
    from tests.trainer.forking import load

    load()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    found: dict[str, Outcomes] = {}
    with tempfile.TemporaryDirectory(prefix="medpair-kills-") as t:
        base = Path(t) / "base"
        base.mkdir()
        all_ = [c for c in commands(base) if not only or only in c.name]
        for number, command in enumerate(all_):
            share = kills // len(all_) + (number < kills % len(all_))
            found[command.name] = _kill(command, Path(t), [seed, number], share)
    return found


def _kill(command: Command, where: Path, seed: list[int], kills: int) -> Outcomes:
    out = Outcomes()
    with _folder(where) as here:
        command.before(here)
        status, out.writes, said = run(command, here)
        if status:
            raise Failed(f"{command.name} ends with {status} undisturbed: {said[-1500:]}")
        right = command.end(here)
    for i in range(kills):
        at = int(np.random.default_rng([*seed, i]).integers(1, out.writes + 1))
        with _folder(where) as here:
            try:
                out.counts[_one(command, here, at, right)] += 1
            except Exception as e:
                out.counts["FAILED"] += 1
                out.failures.append(
                    f"{command.name}, before write {at} of {out.writes}: {type(e).__name__}: {str(e)[:600]}"
                )
    return out


def _one(command: Command, here: Path, at: int, right: Any) -> str:
    command.before(here)
    status, _, said = run(command, here, at)
    if status != -signal.SIGKILL:
        raise Failed(f"not killed: status {status}: {said[-400:]}")
    command.whole(here)
    status, _, said = run(command, here)
    # Killed while it tidied up, a command has done its work already, and says that it is done.
    if status not in (0, 2):
        raise Failed(f"given again it ends with {status}: {said[-600:]}")
    end = command.end(here)
    if end != right:
        raise Failed(f"another end{'' if status == 0 else f' ({said[-300:]})'}: {_difference(right, end)}")
    return "the same end" if status == 0 else "done already"


def _difference(a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        changed = {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}
        return str(dict(list(changed.items())[:4]))
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)) and len(a) == len(b):
        return "; ".join(_difference(x, y) for x, y in zip(a, b, strict=True) if x != y)[:600]
    return f"{str(a)[:200]} -> {str(b)[:200]}"


@contextlib.contextmanager
def _folder(where: Path) -> Any:
    here = where / "case"
    here.mkdir()
    try:
        yield here
    finally:
        shutil.rmtree(here, ignore_errors=True)


def table(found: dict[str, Outcomes]) -> str:
    lines = ["| command | writes | kills | same end | failed |", "|---|---|---|---|---|"]
    for name, o in found.items():
        lines.append(
            f"| `{name}` | {o.writes} | {sum(o.counts.values())} | {o.counts['the same end']} | {o.counts['FAILED']} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", help="commands whose name holds this word")
    args = p.parse_args(argv)
    began = time.monotonic()
    found = campaign(args.kills, args.seed, args.only)
    print(table(found))
    failures = [f for o in found.values() for f in o.failures]
    print(f"{time.monotonic() - began:.0f} s, {len(failures)} failed")
    print("\n".join(failures))
    return min(len(failures), 99)


if __name__ == "__main__":
    sys.exit(main())
