"""Many launches for the price of one: a process that has loaded everything once and forks real ranks on request.

Loading PyTorch and DeepSpeed costs more than a tiny run. Each rank is a process of its own as in launching.py, with its own
process group, faults and exit status; only the loading is shared. A test module holds one `Forks` and asks it for runs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]


class Forks:
    """The asking side. `launch` is that of launching.py, without the loading."""

    def __init__(self, cache: Path):
        from tests.trainer.launching import Ended

        self._made = Ended
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MEDPAIR_CACHE": str(cache.parent), "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).resolve())],
            env=env, cwd=ROOT, text=True, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def launch(
        self,
        world: int,
        words: list[str],
        faults: dict[str, Any] | None = None,
        limit: float = 240,
        program: str = "pretrain",
        more: list[list[str]] | None = None,
    ) -> Any:
        """Runs `launch/PROGRAM.py WORDS` on `world` ranks and waits for all of them.

        `more`: command lines that the same processes run afterwards, while all goes well (of those that set up no engine).
        """
        from tests.ports import free_port

        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job = {
            "world": world, "words": [words, *(more or [])], "faults": faults or {}, "limit": limit, "port": free_port(),
            "program": program,
        }  # fmt: skip
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, f"the forking process ended with {self._server.wait(10)}"
        return self._made(**json.loads(answer))

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever of its session is left
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            if self._server.stdout is not None:
                self._server.stdout.close()


# --------------------------------------------------------------------------------------------------------- forking side


def serve() -> None:
    """Loads everything, then runs one job for each line of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print while loading is no answer
    from trainer.runtime import choose_accelerator

    choose_accelerator()
    import deepspeed  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.manifold  # noqa: F401
    import torch
    import torch._dynamo
    import torch.distributed.fsdp  # the two come in with the first optimizer

    import launch.finetune
    import launch.pretrain  # noqa: F401
    import trainer.downstream.runner
    import trainer.run  # noqa: F401
    from models.registry import get_method, method_names

    torch.set_num_threads(1)
    for name in method_names():
        get_method(name)
    # So that a wait below can be for "a child has ended, or this much time has passed".
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


def run(job: dict[str, Any]) -> dict[str, Any]:
    outputs = [tempfile.TemporaryFile("w+") for _ in range(job["world"])]  # noqa: SIM115
    ranks = [_fork(job, rank, out) for rank, out in enumerate(outputs)]
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
    return {"codes": [codes[pid] for pid in ranks], "outputs": said}


def _fork(job: dict[str, Any], rank: int, out: IO[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        # The forking process's standard output was the answers' pipe; the child's must not buffer into it.
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        world = str(job["world"])
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=world, LOCAL_WORLD_SIZE=world,
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(job["port"]),
        )  # fmt: skip
        from tests.trainer import driver

        driver.plant(job["faults"])
        main = importlib.import_module(f"launch.{job['program']}").main
        status = next((s for s in map(main, job["words"]) if s), 0)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
