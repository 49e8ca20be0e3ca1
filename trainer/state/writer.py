"""A thread that writes while training goes on, with a process group of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from trainer.health.hang import WRITERS


class Writer:
    """One piece of work at a time; its error is kept for whoever waits for it.

    The thread does not outlive the process: what ends the process at once (a kill, a second SIGINT) leaves the work undone.
    """

    def __init__(self, timeout: timedelta):
        self._timeout = timeout
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._group: dist.ProcessGroup | None = None

    @property
    def failed(self) -> bool:
        return self._error is not None

    def group(self) -> dist.ProcessGroup | None:
        """For collectives of the ranks' writers, which must not meet those of training; None on one rank. All ranks must call."""
        if self._group is None and dist.get_world_size() > 1:
            made = dist.new_group(backend="gloo", timeout=self._timeout, group_desc=WRITERS)
            assert isinstance(made, dist.ProcessGroup), "all ranks are in it"
            self._group = made
        return self._group

    def start(self, work: Callable[[], None]) -> None:
        assert self._thread is None, "wait for the last piece of work first"

        def run() -> None:
            try:
                work()
            except BaseException as e:
                self._error = e

        self._thread = threading.Thread(target=run, name="checkpoint writer", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is under way; raises, once, what ended the last piece of work."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Gives the group back, so that another run of this process can have one."""
        if self._group is not None and self._thread is None and dist.is_initialized():
            dist.destroy_process_group(self._group)
        self._group = None
