"""Parts written in one call are all there, also where the system takes less of them at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards.format import flush


@pytest.mark.parametrize("most", [1, 2, 7, 100, None])
def test_all_parts_are_written_in_order(most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[bytes | memoryview] = [
        b"a" * 5,
        b"",
        memoryview(b"bcd"),
        b"e" * 9,
        *(b"%d" % i for i in range(2 * flush.MOST)),
    ]
    if most is not None:
        monkeypatch.setattr(os, "writev", lambda fd, some: os.write(fd, b"".join(some)[:most]))
    with open(tmp_path / "file", "wb", buffering=0) as f:
        flush.write_all(f, parts)
        flush.begin_flush(f.fileno(), 0, 5)
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb", buffering=0) as f, pytest.raises(OSError, match="No space left"):
        flush.write_all(f, [b"a", b"b"])


def test_a_system_that_cannot_begin_to_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    flush.begin_flush(-1, 0, 1)
    monkeypatch.setattr(flush, "_sync_file_range", lambda: None)
    flush.begin_flush(-1, 0, 1)
