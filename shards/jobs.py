"""Work shared out to processes of this machine, with results in the order of the work, whatever their number."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from shards.errors import bad

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

MOST = 16
"""Processes where no number is asked for; more than that read one disk in turns."""
SHARE = 128
"""Units of work (samples, members) that are worth a process, by default."""
AHEAD = 2
"""Results of each process that may wait to be taken."""
PR_SET_PDEATHSIG = 1
DIED = "a worker process ended before its work was done: killed from outside, or the memory ran out"
FEWER = "give the command again, with fewer processes if the memory is short: --jobs 1"


def option(parser: argparse.ArgumentParser) -> None:
    """Gives a command line `--jobs`."""
    what = f"worker processes; the result is the same for any number (default: one a usable core, at most {MOST})"
    parser.add_argument("--jobs", type=count, metavar="N", help=what)


def count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of 1 or more")
    return int(text)


def usable(asked: int | None, units: int) -> int:
    """How many processes to use: as asked, else one a core that this process may use, fewer for little work."""
    return asked or max(1, min(len(os.sched_getaffinity(0)), MOST, units // SHARE))


def waiting(jobs: int) -> int:
    """How many items of `in_order` are worked on, or wait to be taken, at a time: item i + that begins after result i was used."""
    return 1 if jobs == 1 else AHEAD * jobs


def in_order(work: Callable[[T], R], items: Sequence[T], jobs: int) -> Generator[R, None, None]:
    """`work(item)` of each item, in the order of the items. The next result is begun when the last one has been used.

    With one job it happens in this process; else in forked ones, which have all that this process has and hand results back by pickle.
    Files that are open and read by their position must be closed before.

    Raises:
        DataError: what `work` raises; a worker that was killed.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    # Loaded where they are needed: they are a tenth of what a small command takes to start.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("fork"), initializer=_begin, initargs=(work, os.getpid())
    )
    try:
        running: deque[Future[Any]] = deque()
        left = iter(items)
        for item in left:
            running.append(pool.submit(_do, item))
            if len(running) == waiting(jobs):
                break
        while running:
            yield running.popleft().result()
            for item in left:
                running.append(pool.submit(_do, item))
                break
    except BrokenProcessPool as e:
        raise bad(DIED, f"--jobs {jobs}", FEWER) from e
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[..., object]


def _begin(work: Callable[[T], object], parent: int) -> None:
    """A worker ends with its parent, however that ends; an interrupt is for the parent to answer."""
    global _work
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = work


def _do(item: object) -> object:
    return _work(item)
