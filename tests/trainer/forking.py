"""Many launches for the price of one: a process that has loaded everything once and forks real ranks on request.

Loading PyTorch and DeepSpeed costs more than a tiny run. Each rank is a process of its own as in launching.py, with its own
environment, process group, faults and exit status; only the loading is shared, by all launches of a test process. What a rank had
to load all the same, the next ones find loaded: it names its modules when it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


@dataclass
class Forks:
    """The asking side: `launch` is that of launching.py, for any program. `cache`: where the demo cohort lies."""

    cache: Path

    def launch(
        self,
        world: int,
        words: list[str],
        faults: dict[str, Any] | None = None,
        limit: float = 240,
        program: str = "pretrain",
        more: list[list[str]] | None = None,
    ) -> Any:
        """Runs `launch/PROGRAM.py WORDS` (or `main` of a dotted module) on `world` ranks and waits for all of them.

        `more`: command lines that the same processes run afterwards, while all goes well (of those that set up no engine).
        """
        from tests.ports import free_port
        from tests.trainer.launching import Ended

        job = {
            "world": world, "words": [words, *(more or [])], "faults": faults or {}, "limit": limit, "port": free_port(),
            "program": program, "env": self._env(),
        }  # fmt: skip
        return Ended(**_server().ask(job))

    def command(
        self, program: str, words: list[str], limit: float = 240, faults: dict[str, Any] | None = None
    ) -> tuple[int, str]:
        """Runs `main(words)` of `program` in a process that is no rank of anything: what a user types at a shell."""
        answer = _server().ask(self._command(program, words, faults) | {"limit": limit})
        return answer["codes"][0], answer["outputs"][0]

    def begin(self, program: str, words: list[str], faults: dict[str, Any] | None = None) -> Begun:
        """As `command`, and returns while it runs."""
        said = tempfile.NamedTemporaryFile("r", prefix="begun-")  # noqa: SIM115
        pid = _server().ask(self._command(program, words, faults) | {"said": said.name})["pid"]
        return Begun(pid, said)

    def _command(self, program: str, words: list[str], faults: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "world": 1, "plain": True, "words": [words], "faults": faults or {}, "port": 0, "program": program, "env": self._env(),
        }  # fmt: skip

    def _env(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "MEDPAIR_CACHE": str(self.cache.parent)}


@dataclass
class Begun:
    """A command that runs, with what is used of `subprocess.Popen`; it ends with the process that forked it."""

    pid: int
    _said: IO[str]

    @property
    def log(self) -> Path:
        return Path(self._said.name)

    def said(self) -> str:
        """Its output so far."""
        self._said.seek(0)
        return self._said.read()

    def poll(self) -> int | None:
        return _server().ask({"pid": self.pid, "limit": 0})["code"]

    def ended(self, limit: float) -> tuple[int, str]:
        """Status and output."""
        code = _server().ask({"pid": self.pid, "limit": limit})["code"]
        assert code is not None, f"not ended after {limit} s:\n{self.said()}"
        return code, self.said()


@functools.cache
def _server() -> _Server:
    """The one of this test process, started when first asked for."""
    opened = _Server()
    atexit.register(opened.close)
    return opened


class _Server:
    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).resolve())],
            env=env, cwd=ROOT, text=True, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BaseException:  # a test's time is over: what is answered later must not be taken for another job's end
            self.close()
            raise
        if not answer:
            self.close()
            raise AssertionError(f"the forking process ended with {self._process.returncode}")
        return json.loads(answer)

    def close(self) -> None:
        """Ranks that still run end with the process that forked them."""
        _server.cache_clear()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


# --------------------------------------------------------------------------------------------------------- forking side


def load() -> None:
    """All that commands import, before they are forked: each would import it again."""
    from tests.disk import no_waiting
    from trainer.runtime import choose_accelerator

    no_waiting()
    choose_accelerator()
    import deepspeed  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.manifold  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401
    import torch.distributed.fsdp  # noqa: F401  the two come in with the first optimizer
    import torch.utils.tensorboard  # noqa: F401

    import launch.finetune  # noqa: F401
    import launch.pretrain  # noqa: F401
    import trainer.downstream.run  # noqa: F401
    import trainer.run  # noqa: F401
    from models.registry import get_method, method_names
    from trainer.downstream.code import RUNNER, closure
    from trainer.state.run_folder import versions

    torch.set_num_threads(1)
    # Its walk through the code takes longer than a short fine-tune; a fork finds the files' imports known.
    closure([RUNNER, *(get_method(name).__module__ for name in method_names())])
    versions()
    # torch asks at the start of each process group for backends that packages bring, and every installed package is read for it.
    importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
    importlib.metadata.entry_points(group="torch.distributed.backends")
    gc.freeze()  # a fork's collections look at what is its own, and share the pages of what is not


def serve() -> None:
    """Loads everything, then runs one job for each line of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print while loading is no answer
    load()
    # So that a wait below can be for "a child has ended, or this much time has passed".
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    begun: dict[int, int | None] = {}
    for line in sys.stdin:
        job = json.loads(line)
        answer = begin(job, begun) if "said" in job else end(job, begun) if "pid" in job else run(job)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def begin(job: dict[str, Any], begun: dict[int, int | None]) -> dict[str, Any]:
    with open(job["said"], "w") as out, open(os.devnull, "w") as nothing:
        pid = _fork(job, 0, out, 0, nothing.fileno())
    begun[pid] = None
    return {"pid": pid}


def end(job: dict[str, Any], begun: dict[int, int | None]) -> dict[str, Any]:
    """The status of one that has begun, None where it still runs when the limit is over."""
    pid, deadline = job["pid"], time.monotonic() + job["limit"]
    while begun[pid] is None:
        if (ended := os.waitpid(pid, os.WNOHANG))[0]:
            begun[pid] = os.waitstatus_to_exitcode(ended[1])
        elif (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
        else:
            break
    return {"code": begun[pid]}


def run(job: dict[str, Any]) -> dict[str, Any]:
    outputs = [tempfile.TemporaryFile("w+") for _ in range(job["world"])]  # noqa: SIM115
    lacked = tempfile.TemporaryFile("w+")  # noqa: SIM115
    ranks: list[int] = []
    for rank, out in enumerate(outputs):
        ranks.append(_fork(job, rank, out, ranks[0] if ranks else 0, lacked.fileno()))
    codes: dict[int, int] = {}
    deadline = time.monotonic() + job["limit"]
    while len(codes) < len(ranks):
        for pid in ranks:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        left = deadline - time.monotonic()
        if len(codes) == len(ranks):
            break
        if left <= 0:
            for pid in set(ranks) - set(codes):
                os.kill(pid, signal.SIGKILL)
            left = 10.0
        signal.sigtimedwait({signal.SIGCHLD}, left)
    said = []
    for out in outputs:
        out.seek(0)
        said.append(out.read())
        out.close()
    _load(lacked)
    return {"codes": [codes[pid] for pid in ranks], "outputs": said}


def _load(lacked: IO[str]) -> None:
    """What rank 0 imported, if it lived to tell; a module that cannot be had by its name alone stays with the ranks."""
    lacked.seek(0)
    names = [n for n in lacked.read().split("\n") if n and n not in sys.modules]
    lacked.close()
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if names:
        gc.freeze()


def _fork(job: dict[str, Any], rank: int, out: IO[str], group: int, lacked: int) -> int:
    """A rank, in the process group that rank 0 leads; joined on both sides, so that it holds whichever goes first."""
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # it joined by itself
            os.setpgid(pid, group)
        return pid
    status, loaded = 1, set(sys.modules)
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.setpgid(0, group)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        # The forking process's standard output was the answers' pipe; the child's must not buffer into it. As the interpreter's
        # own, they leave their numbers open where a further fork replaces them.
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        world = str(job["world"])
        os.environ.clear()
        os.environ.update(job["env"])
        if not job.get("plain"):
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=world, LOCAL_WORLD_SIZE=world,
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(job["port"]),
            )  # fmt: skip
        from tests.trainer import driver

        driver.plant(job["faults"])
        program = job["program"]
        main = importlib.import_module(program if "." in program else f"launch.{program}").main
        status = next((s for s in map(main, job["words"]) if s), 0)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        if rank == 0:
            # What a test brings along stays with its ranks: it may look for its neighbours in a folder of its own.
            new = sorted(n for n in set(sys.modules) - loaded if not n.startswith("tests."))
            os.write(lacked, "\n".join(new).encode())
        os._exit(status)


if __name__ == "__main__":
    serve()
