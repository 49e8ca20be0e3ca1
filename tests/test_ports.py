"""A test's port is its own until its process ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests import ports

ROOT = Path(__file__).parent.parent


def taken_by_another_process(port: int) -> bool:
    code = f"from tests import ports; print(ports._take({port}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    return done.stdout.strip() == "True"


def test_no_other_process_gets_it_and_the_next_one_does() -> None:
    port = ports.free_port()
    assert not ports._take(port)
    assert not taken_by_another_process(port)
    ports._kept.pop().close()
    assert taken_by_another_process(port)
    assert taken_by_another_process(port), "a process that has ended keeps nothing"


def test_one_that_somebody_listens_on_is_passed_over() -> None:
    with socket.socket() as s:
        s.bind(("0.0.0.0", ports.free_port()))
        ports._kept.pop().close()
        assert not ports._take(s.getsockname()[1])


def test_many_at_once_are_different() -> None:
    found = ports.free_ports(50)
    assert len(set(found)) == 50
    assert all(ports.FIRST <= p <= ports.LAST for p in found)
