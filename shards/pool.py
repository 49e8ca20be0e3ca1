"""Worker threads: daemons that run calls from a queue and hold nothing else, so that dropping the pool ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

Call = Callable[[], None]


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


def _work(queue: SimpleQueue[Call | None]) -> None:
    while (call := queue.get()) is not None:
        call()
        del call  # else an idle thread would keep the last batch alive
