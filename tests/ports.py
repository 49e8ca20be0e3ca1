"""Ports for tests: nobody has them between the look and the bind.

They lie below those of runs (from 12,000, trainer/rendezvous.py) and of outgoing connections (from 32,768), either of which could
take one before its owner binds it, and a test process keeps each to itself among all test processes of this machine, by a name that the
kernel forgets with the process.
"""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 2_000, 11_999
_kept: list[socket.socket] = []


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on and no other test process will."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(FIRST, LAST + 1), 1000):
        if len(found) == n:
            return found
        if _take(port):
            found.append(port)
    raise AssertionError(f"no {n} free ports")


def free_port() -> int:
    return free_ports(1)[0]


def _take(port: int) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0medpair-test-port-{port}")
        with contextlib.closing(socket.socket()) as s:
            s.bind(("0.0.0.0", port))
    except OSError:
        name.close()
        return False
    _kept.append(name)
    return True
