"""One process that has loaded PyTorch, DeepSpeed and the methods forks the points of a sweep: loading costs more than a short run.

A forked point is a process as before: its own session, environment, log, exit status and memory, which goes with it. Only what is
loaded is shared, and what is known of the code alone (its hash); that is the same code that the point would load itself. With a GPU no
point is forked, since CUDA does not survive a fork once a library has looked for a device; there each point is started anew (see
`Preloaded.fits`).

The two sides talk over a socket, one JSON message a packet: asked first {"commands", "methods"}, which is answered when all is loaded;
then {"module", "words"} with the log's and the lock's descriptors, answered {"pid"} and, when it has ended, {"pid", "code"}. If the
asking side dies, its runs live on, as they do without this.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
MOST = 1 << 20
"""Bytes of a message."""
UNKNOWN = -signal.SIGKILL
"""The exit status of a run that nobody saw ending."""
LOADED = {
    "pretrain": ("trainer.pretrain", "trainer.run", "torch.utils.tensorboard", "shards.demo"),
    "finetune": ("trainer.downstream.run", "trainer.downstream.external.tests", "sklearn.metrics", "shards.demo"),
    "gwas": (),
}
"""What runs of a command import, sooner or later, besides `DEEPSPEED` and the methods."""
DEEPSPEED = ("deepspeed", "deepspeed.module_inject.auto_ep_layer")
"""The second it imports with its first engine, and Triton with it; another version may lack it."""


def environment(jobs: int) -> dict[str, str]:
    """Of runs, so many at a time: they share the cores, unless OMP_NUM_THREADS says otherwise."""
    return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // jobs)), **os.environ}


class Forked:
    """A forked run, with what is used of `subprocess.Popen`."""

    def __init__(self, owner: Preloaded, pid: int):
        self.owner, self.pid = owner, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.owner.ended(self.pid)
        return self.returncode


class Preloaded:
    """The asking side. The process is started at once, and loads while the caller looks at what is to be run.

    Args:
        env: environment of the forking process and its runs; what libraries read when they are loaded (OMP_NUM_THREADS) holds for all.
    """

    def __init__(self, env: Mapping[str, str]):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Its output is nobody's: a pipe that the sweep was given would otherwise stay open as long as a run lives.
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),), env=dict(env), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self._socket = ours
        self._codes: dict[int, int] = {}
        self._ready = False

    def prepare(self, commands: Sequence[str], methods: Sequence[str]) -> None:
        """What else to load: commands of launch/ and methods; before the first `start`, which waits for it."""
        with contextlib.suppress(ConnectionError):  # `start` tells of it
            self._socket.send(json.dumps({"commands": list(commands), "methods": list(methods)}).encode())

    @staticmethod
    def fits() -> bool:
        """Whether points may be forked on this machine."""
        import torch

        return hasattr(os, "fork") and not torch.cuda.is_available()

    def start(self, module: str, words: Sequence[str], log: int, lock: int) -> Forked:
        """Forks `module.main(words)`; both descriptors are its own from then on.

        Raises:
            OSError: the forking process could not load, with its traceback, or is gone.
        """
        if not self._ready:
            ready = self._receive() or {"error": "the process that forks the points ended while it loaded"}
            if "error" in ready:
                raise OSError(ready["error"])
            self._ready = True
        message = json.dumps({"module": module, "words": list(words)}).encode()
        socket.send_fds(self._socket, [message], [log, lock])
        while (answer := self._receive()) is not None:
            if "code" not in answer:
                return Forked(self, answer["pid"])
            self._codes[answer["pid"]] = answer["code"]
        raise OSError("the process that forks the points is gone")

    def ended(self, pid: int) -> int | None:
        """A run's exit status, None while it runs."""
        while pid not in self._codes and select.select([self._socket], [], [], 0)[0]:
            answer = self._receive()
            if answer is None:
                return UNKNOWN if _gone(pid) else None
            self._codes[answer["pid"]] = answer["code"]
        return self._codes.get(pid)

    def close(self) -> None:
        """Nothing more is asked: the forking process ends with its last run."""
        self._socket.close()
        if not self._ready:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)

    def _receive(self) -> dict[str, Any] | None:
        try:
            content = self._socket.recv(MOST)
        except ConnectionError:
            return None
        return json.loads(content) if content else None


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ------------------------------------------------------------------------------------------------------------ forking side


def serve(channel: socket.socket) -> None:
    """Forks what it is asked for; ends when nobody asks any more and no run is left."""
    try:
        load_shared()
        if not (content := channel.recv(MOST)):
            return
        load(**json.loads(content))
    except BaseException:
        _answer(channel, {"error": traceback.format_exc()[-4000:]})
        return
    # A byte in this pipe for each SIGCHLD, so that one `select` waits for a request or an end, whichever comes first.
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    channel.send(b'{"ready": 1}')
    running: set[int] = set()
    asked = True
    while asked or running:
        ready = select.select([woken, channel.fileno()] if asked else [woken], [], [])[0]
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        for pid in sorted(running):
            if (found := os.waitpid(pid, os.WNOHANG))[0]:
                running.remove(pid)
                _answer(channel, {"pid": pid, "code": os.waitstatus_to_exitcode(found[1])})
        if channel.fileno() in ready:
            content, handed, *_ = socket.recv_fds(channel, MOST, 2)
            asked = bool(content)
            if asked:
                running.add(pid := _fork(json.loads(content), handed, (channel.fileno(), woken, waker)))
                _answer(channel, {"pid": pid})


def load_shared() -> None:
    """What any run imports, before it is known which; nothing here and in `load` may start a thread that computes."""
    from trainer.runtime import choose_accelerator

    choose_accelerator()
    for name in DEEPSPEED:
        with contextlib.nullcontext() if name == "deepspeed" else contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)


def load(commands: Sequence[str], methods: Sequence[str]) -> None:
    """What runs of these commands and methods import, and what is known of the code alone."""
    from models.registry import get_method
    from trainer.state.run_folder import versions

    for name in dict.fromkeys(n for command in commands for n in LOADED[command]):
        importlib.import_module(name)
    versions()
    for method in methods:
        get_method(method)
    if "finetune" in commands:
        # A result's code is the code that was loaded, whatever becomes of the files meanwhile.
        code = importlib.import_module("trainer.downstream.code")
        for method in methods:
            code.code_hash(method)
        code.tree_hash()
        importlib.import_module("trainer.downstream.metrics.simulated").cells()
    # A run's collections of garbage then leave these objects alone, and their memory stays shared.
    gc.collect()
    gc.freeze()


def _answer(channel: socket.socket, message: Mapping[str, int | str]) -> None:
    with contextlib.suppress(ConnectionError):  # the sweep was killed; its runs go on
        channel.send(json.dumps(message).encode())


def _fork(asked: Mapping[str, Any], handed: Sequence[int], own: Sequence[int]) -> int:
    """The process id of the run, which leads a session of its own by then; the run itself never returns from here."""
    waiting, leads = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()  # a signal to the sweep reaches its runs through `Runner.stop` alone, once
        os.close(leads)
        _run(asked, handed, (*own, waiting))
    for fd in (*handed, leads):
        os.close(fd)
    os.read(waiting, 1)  # its end: a stop that came before would find no such session
    os.close(waiting)
    return pid


def _run(asked: Mapping[str, Any], handed: Sequence[int], own: Sequence[int]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log, _lock = handed
        for number in (1, 2):
            os.dup2(log, number)
        for fd in (*own, log):
            os.close(fd)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        sys.argv = [asked["module"].replace(".", "/") + ".py", *asked["words"]]
        code = importlib.import_module(asked["module"]).main(list(asked["words"]))
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: what the forking process would do at its end is not this run's to do.
        os._exit(code)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    serve(socket.socket(fileno=int(sys.argv[1])))
