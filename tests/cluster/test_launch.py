"""The same run by Slurm and on this machine: equal losses, to the last bit, on 2 nodes x 1 and 2 x 2 processes.

Pre-training and a fine-tune of what was pre-trained, under ZeRO 1 to 3 each. Here the `deepspeed` launcher starts two ranks of the
first; other ranks are forked, which is the same without loading everything for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.jobs import LIMIT, ROOT, RUN, TINY, WHAT, Desk, begun, main_log, series
from tests.ports import free_port
from tests.trainer.forking import Forks
from tests.trainer.launching import small_cohort
from trainer.cluster.record import Record

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(1500)]
TASK = ["--task", "demo_subtype", "--method", "gimp", "protocol.seeds=[0]", "protocol.lr=[1e-3]", "protocol.steps=12",
        "protocol.batch=8", "protocol.evaluations=3", "log.tensorboard=false"]  # fmt: skip


@pytest.fixture(scope="module")
def tuning(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words of a fine-tune of what was pre-trained, on an eighth of the demo cohort: its looks cost more than its steps."""
    folder = tmp_path_factory.mktemp("tuning")
    data = f"data.path={small_cohort(folder)}"
    run = forked(desk, 1, ["pretrain", *TINY, "steps=2", data], folder / "run")
    return ["finetune", *TASK, data, "--init", str(run)]


def by_deepspeed(desk: Desk, world: int, words: list[str], out: Path) -> Path:
    """The run of `deepspeed launch/COMMAND.py ...` on this machine."""
    launcher = [
        str(Path(sys.executable).parent / "deepspeed"),
        "--num_gpus",
        str(world),
        "--master_port",
        str(free_port()),
    ]
    command = [*launcher, f"launch/{words[0]}.py", *words[1:], f"out={out}"]
    done = subprocess.run(command, env=desk.env, cwd=ROOT, text=True, capture_output=True, timeout=LIMIT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return out


def forked(desk: Desk, world: int, words: list[str], out: Path) -> Path:
    """The same run, of forked ranks."""
    ended = Forks(desk.cache).launch(world, [*words[1:], f"out={out}"], limit=LIMIT, program=words[0])
    assert ended.codes == [0] * world, ended.text
    return out


def completed(desk: Desk, record: Record) -> None:
    assert desk.ended(record) == "COMPLETED", desk.log(record)
    assert record.status.state == "done"
    assert begun(record) == 1


def ranks_of(record: Record) -> list[str]:
    """The nodes of the ranks, as their logs begin."""
    files = sorted(record.folder.glob(f"{record.job}_*_log.out"))
    heads = [next(line for line in f.read_text().splitlines() if line.startswith("=== rank")) for f in files]
    return [head.split(" on ")[1].split(",")[0] for head in heads]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_nodes_are_two_local_ranks(stage: int, desk: Desk, undisturbed: dict[int, Path], tmp_path: Path) -> None:
    words = [*RUN, f"zero.stage={stage}"]
    record = desk.submit("--nodes", 2, *words, f"out={tmp_path / 'slurm'}")
    here = [undisturbed[stage], *([by_deepspeed(desk, 2, words, tmp_path / "local")] if stage == 1 else [])]
    completed(desk, record)
    assert len(set(ranks_of(record))) == 2
    for local in here:
        assert series(record.run, *WHAT) == series(local, *WHAT)
        assert (record.run / "weights.safetensors").read_bytes() == (local / "weights.safetensors").read_bytes()


def on_two_by_two(desk: Desk, words: list[str], folder: Path) -> tuple[Record, Path]:
    """The run on two nodes of two processes, and on four ranks of this machine."""
    record = desk.submit("--nodes", 2, "--processes-per-node", 2, *words, f"out={folder / 'slurm'}")
    local = forked(desk, 4, words, folder / "local")
    completed(desk, record)
    return record, local


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_nodes_of_two_are_four_local_ranks(stage: int, desk: Desk, tmp_path: Path) -> None:
    record, local = on_two_by_two(desk, [*RUN, f"zero.stage={stage}", "steps=20"], tmp_path)
    nodes = ranks_of(record)
    assert len(nodes) == 4
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert "of 4 on" in main_log(record)
    assert series(record.run, *WHAT) == series(local, *WHAT)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_fine_tune_on_two_nodes_is_that_on_two_local_ranks(
    stage: int, desk: Desk, tuning: list[str], tmp_path: Path
) -> None:
    words = [*tuning, f"zero.stage={stage}"]
    record = desk.submit("--nodes", 2, *words, f"out={tmp_path / 'slurm'}")
    local = forked(desk, 2, words, tmp_path / "local")
    completed(desk, record)
    same_fine_tune(record, local)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_fine_tune_on_two_nodes_of_two_is_that_on_four_local_ranks(
    stage: int, desk: Desk, tuning: list[str], tmp_path: Path
) -> None:
    words = [*tuning, f"zero.stage={stage}"]
    same_fine_tune(*on_two_by_two(desk, words, tmp_path))


def same_fine_tune(record: Record, local: Path) -> None:
    point = Path("seed-0") / "lr-0.001"
    what = ("step", "loss", "loss/task", "grad_norm", "lr", "keys", "val/auc")
    trained, there = ([{k: r.get(k) for k in what} for r in rows(out / point)] for out in (record.run, local))
    assert trained == there
    assert len(trained) == 12
    results = [json.loads((out / "result.json").read_bytes()) for out in (record.run, local)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["hashes"] == results[1]["hashes"]


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
