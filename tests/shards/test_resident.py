"""The largest memory of a process is its own, not that of whoever started it."""

from __future__ import annotations

import subprocess
import sys

from shards.resident import peak_resident

ASK = "from shards.resident import peak_resident as p; a = p(); x = bytearray(60_000_000); print(a, p())"


def test_a_small_program_started_by_a_large_one() -> None:
    held = bytearray(300_000_000)
    for i in range(0, len(held), 4096):
        held[i] = 1
    assert peak_resident() > 300_000_000
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 150_000_000
    assert 60_000_000 <= after - before < 100_000_000
