"""Worker threads: daemons that run calls from a queue and hold nothing else, so that dropping the pool ends them."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

Call = Callable[[], None]
# How long a process that ends waits for calls that are running: one that hangs in a read must not hold it back.
EXIT_SECONDS = 10.0


class Pool:
    """`workers` threads running calls in the order given. With 0 workers `put` keeps nothing: the caller runs its own calls.

    A call must catch its own errors. `close` waits for the calls that are running and drops the rest.
    """

    def __init__(self, workers: int, name: str = "loader"):
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self.closed = False
        self._threads = [
            threading.Thread(target=_work, args=(self._queue,), name=f"{name}-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        _pools.add(self)

    @property
    def workers(self) -> int:
        return len(self._threads)

    def put(self, call: Call) -> None:
        assert not self.closed, "the pool is closed"
        self._queue.put(call)

    def stop(self) -> None:
        """Drops what is waiting and tells the threads to end, without waiting for them."""
        self.closed = True
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            self._queue.put(None)

    def close(self) -> None:
        if not self.closed:
            self.stop()
        for thread in self._threads:
            thread.join()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _end() -> None:
    """An interpreter that ends kills daemon threads where they want its lock, and inside C++ that aborts the process."""
    pools = list(_pools)
    for pool in pools:
        pool.stop()
    deadline = time.monotonic() + EXIT_SECONDS
    for thread in (t for pool in pools for t in pool._threads):
        thread.join(max(0.0, deadline - time.monotonic()))


def _work(queue: SimpleQueue[Call | None]) -> None:
    while (call := queue.get()) is not None:
        call()
        del call  # else an idle thread would keep the last batch alive
