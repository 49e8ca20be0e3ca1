"""What the system does to a command: its reader goes (`... | head`), a disk refuses its files. Neither is told by a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shards.terminal import UNREAD, ends_with_its_reader
from trainer.errors import EXIT_BUG, exit_status

ROOT = Path(__file__).parent.parent.parent
COMMANDS = {
    "shards info": ["-m", "shards", "info", "{set}"],
    "shards lint": ["-m", "shards", "lint", "{set}"],
    "shards --help": ["-m", "shards", "--help"],
    "medpair": ["launch/medpair.py", "shards", "info", "{set}"],
    "pretrain": ["launch/pretrain.py", "--method", "gimp", "--print-config"],
    "finetune": ["launch/finetune.py", "--help"],
    "compare": ["launch/compare.py", "--help"],
    "doctor": ["launch/doctor.py"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_reads_on(name: str, demo_cohort: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [w.format(set=demo_cohort) for w in COMMANDS[name]]
    try:
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            cwd=ROOT,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
        )
    finally:
        os.close(write)
    assert ended.stderr == ""
    # argparse itself passes over what it cannot print.
    assert ended.returncode in ((0, UNREAD) if "--help" in words else (UNREAD,))


def fails(number: int, name: str | None = None) -> None:
    raise OSError(number, os.strerror(number), *([name] if name else []))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG])
def test_a_file_that_the_system_refused_is_named(number: int, capsys: pytest.CaptureFixture) -> None:
    assert ends_with_its_reader(lambda: fails(number, "out/x.json") or 0)() == 1
    assert exit_status(lambda: fails(number, "out/x.json")) == EXIT_BUG
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"error: out/x.json: cannot be read or written ({os.strerror(number)}); ")


def test_other_errors_keep_their_traceback(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(FileNotFoundError):
        ends_with_its_reader(lambda: fails(errno.ENOENT) or 0)()
    with pytest.raises(BrokenPipeError):  # of another pipe: standard output has its reader
        ends_with_its_reader(lambda: fails(errno.EPIPE) or 0)()
    assert exit_status(lambda: fails(errno.ENOENT)) == EXIT_BUG
    assert "Traceback" in capsys.readouterr().err
