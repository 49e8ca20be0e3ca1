"""The logs of all ranks as one stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cluster.logs import follow, lines
from trainer.cluster.record import Record

START = "submitit INFO - Starting with JobEnvironment(...)\n"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    (tmp_path / "id").write_text("77\n")
    return Record(tmp_path)


def head(rank: int, node: str) -> str:
    return f"{START}=== rank {rank} of 2 on {node}, restart 0, master n1:12000\n"


def test_rank_and_node_stand_in_front(record: Record) -> None:
    (record.folder / "77_0_log.out").write_text(head(0, "n1") + "a\n" + head(0, "n3") + "b\n")
    (record.folder / "77_1_log.out").write_text(head(1, "n2") + "c\nnot ended")
    (record.folder / "78_0_log.out").write_text("another job's\n")
    found = list(lines(record))
    assert [line for line in found if "submitit" not in line and "===" not in line] == [
        "[rank 0 n1] a", "[rank 0 n3] b", "[rank 1 n2] c", "[rank 1 n2] not ended",
    ]  # fmt: skip
    assert [line.split("]")[0] for line in found if "submitit" in line] == ["[rank 0 n1", "[rank 0 n3", "[rank 1 n2"]


def test_following_misses_nothing_and_repeats_nothing(record: Record) -> None:
    """Written in pieces that end anywhere, by a job that ends right after its last line."""
    log = record.folder / "77_0_log.out"
    pieces = [START, "=== rank 0 of 1 on n1, restart 0, ma", "ster n1:1\nste", "p 1\nstep 2\n", "", "step 3\nlast"]
    written = []

    def ended() -> bool:
        if len(written) == len(pieces):
            return True
        piece = pieces[len(written)]
        written.append(piece)
        with open(log, "a") as f:
            f.write(piece)
        return False

    found = list(follow(record, ended, look_every=0))
    assert found == [f"[rank 0 n1] {line}" for line in "".join(pieces).split("\n")]


def test_before_the_start_there_is_nothing(record: Record) -> None:
    assert list(lines(record)) == []
    assert list(follow(record, lambda: True)) == []
