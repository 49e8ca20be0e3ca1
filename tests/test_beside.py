"""Commands that run beside each other: every failure counts, no output mixes, an interrupt reaches all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import beside

SCRIPT = str(Path(beside.__file__))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("statuses", [(0, 0), (0, 3), (4, 0), (4, 3)])
def test_both_run_at_once_and_either_failure_counts(tmp_path: Path, statuses: tuple[int, int]) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for pipe in (a, b):
        os.mkfifo(pipe)  # opening one waits for who opens its other end: neither ends alone
    first = python(
        f"import sys\nopen({str(a)!r}, 'w').close()\nopen({str(b)!r}).close()\nprint('first', flush=True)\nsys.exit({statuses[0]})"
    )
    second = python(
        f"import sys\nprint('second begins', flush=True)\nopen({str(a)!r}).close()\nopen({str(b)!r}, 'w').close()\n"
        f"print('second ends', flush=True)\nsys.exit({statuses[1]})"
    )
    done = subprocess.run([sys.executable, SCRIPT, *first, "--", *second], capture_output=True, text=True, timeout=60)
    assert done.returncode == (statuses[0] or statuses[1])
    assert "second begins\nsecond ends\n" in done.stdout
    assert done.stdout.index("first") < done.stdout.index("second begins")
    assert done.stdout.count("exit status") == sum(map(bool, statuses))


def test_what_a_signal_ends_has_failed() -> None:
    assert beside.beside([python("pass"), python("import os; os.kill(os.getpid(), 9)")]) == [0, 137]


def test_an_interrupt_reaches_all_and_all_are_waited_for(tmp_path: Path) -> None:
    end = "except KeyboardInterrupt:\n    print('tidied', flush=True)\n    sys.exit(5)"
    waits = f"import signal, sys\ntry:\n    print('ready', flush=True)\n    signal.pause()\n{end}"
    other = waits.replace("print('ready', flush=True)", f"open({str(tmp_path / 'up')!r}, 'w').close()")
    os.mkfifo(tmp_path / "up")
    command = [sys.executable, SCRIPT, *python(waits), "--", *python(other)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "ready\n"
        (tmp_path / "up").open().close()
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=60)[0]
    assert p.returncode == 5
    assert said.splitlines().count("tidied") == 2


def test_a_command_that_is_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        beside.split(["true", "--"])


def test_nothing_is_left_where_a_command_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        beside.beside([python("import signal; signal.pause()"), [str(tmp_path / "no-such-command")]])
    assert not psutil.Process().children()
