"""A save that is cut short anywhere never loses the last complete checkpoint, and resume says what it skips."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.launching import TINY, launch, rows, series
from trainer.state.files import problem

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]


def _in_child(action: Callable[[], None]) -> int:
    """Runs `action` in a forked copy of this process; returns its wait status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def _kill_before(number: int, counter: Path) -> None:
    """Every call that writes, flushes or renames counts; the number-th one is never made."""
    import builtins

    import torch

    made = [0]

    def counted(f: Callable[..., Any], writes: Callable[..., bool] = lambda *a, **k: True) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if writes(*args, **kwargs):
                made[0] += 1
                os.pwrite(fd, str(made[0]).encode().ljust(8), 0)
                if made[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return f(*args, **kwargs)

        return call

    fd = os.open(counter, os.O_RDWR | os.O_CREAT)
    for owner, name in (
        (os, "fsync"), (os, "rename"), (os, "replace"), (os, "fdopen"), (os, "mkdir"), (torch, "save"),
        (shutil, "copyfile"), (shutil, "rmtree"),
    ):  # fmt: skip
        setattr(owner, name, counted(getattr(owner, name)))
    builtins.open = counted(builtins.open, lambda path, mode="r", *a, **k: "w" in mode)


@pytest.mark.parametrize("write", ["wait", "background"])
def test_a_kill_between_any_two_writes_keeps_the_last_checkpoint(write: str, tmp_path: Path, demo_cohort: Path) -> None:
    """The real engine, a process for every place at which a save can die, until one gets through."""
    assert _in_child(lambda: _every_kill(tmp_path, demo_cohort, write)) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["places"] >= 15, report
    assert report["lost"] == []
    assert 1 <= report["published"] < report["places"], "some places are before the rename, some after it"


def _every_kill(tmp_path: Path, demo_cohort: Path, write: str) -> None:
    import deepspeed  # noqa: F401  (loaded once, before the forks; a process group could not be forked)
    import torch

    import trainer.run  # noqa: F401

    torch.set_num_threads(1)
    os.environ["MEDPAIR_CACHE"] = str(demo_cohort.parent)
    (tmp_path / "best").write_bytes(b"weights")
    assert _in_child(lambda: _save(tmp_path, write, 1, None)) == 0
    kept, lost, published, number = tmp_path / "checkpoints", [], 0, 0
    while (status := -1) and number < 100:
        number += 1
        status = _in_child(lambda number=number: _save(tmp_path, write, 2, number))  # type: ignore[misc]
        steps = [p.name for p in sorted(kept.glob("step-*")) if problem(p) is None]
        if not steps:
            lost.append(number)
        if "step-00000002" in steps:
            published += 1
            if "step-00000001" not in steps:
                assert _in_child(lambda: _save(tmp_path, write, 1, None)) == 0
            shutil.rmtree(kept / "step-00000002")
        if status == 0:
            break
    (tmp_path / "report.json").write_text(json.dumps({"places": number - 1, "lost": lost, "published": published}))


def _save(tmp_path: Path, write: str, step: int, kill_before: int | None) -> None:
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data
    from trainer.engine.engine import Engine
    from trainer.runtime import start
    from trainer.state.checkpoint import Checkpoints

    config, _ = build_config("gimp", None, [*TINY[2:], "steps=4", "checkpoint.keep=1", f"checkpoint.write={write}"])
    runtime = start()
    method = build_method(config, open_data(config))
    method.enter("pretrain")
    engine = Engine(method, config, "pretrain", runtime)
    if kill_before is not None:
        _kill_before(kill_before, tmp_path / "count")
    checkpoints = Checkpoints(tmp_path, config.checkpoint, runtime)
    checkpoints.save(engine, step, {"step": step}, tmp_path / "best")
    checkpoints.wait()


@pytest.mark.parametrize("write", ["wait", "background"])
def test_a_full_disk_on_one_rank_ends_the_run_and_keeps_the_last_checkpoint(
    write: str, tmp_path: Path, demo_cohort: Path
) -> None:
    words = [*TINY, "steps=8", "checkpoint.every=3", f"checkpoint.write={write}", f"out={tmp_path / 'run'}"]
    full = launch(2, words, demo_cohort, {"full": {"step": 4, "rank": 1}, "prompt": {}})
    assert full.codes == [1, 1], full.text
    # What fails in the background ends the run at the next step, on both ranks, and not only at the next save.
    assert rows(tmp_path / "run")[-1]["step"] == (6 if write == "wait" else 7)
    assert "the checkpoint at step 6 could not be written" in full.text
    assert "rank 1: a file could not be written to its end: no space left, a quota" in full.text
    assert "step-00000003" in full.text
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))
    again = launch(2, words, demo_cohort)
    assert again.codes == [0, 0], again.text
    assert "going on from" in again.outputs[0]
    assert [r["step"] for r in rows(tmp_path / "run")] == list(range(1, 9))


def test_a_flipped_byte_is_found_named_and_skipped(tmp_path: Path, demo_cohort: Path) -> None:
    words = [*TINY, "steps=6", "checkpoint.every=2", "checkpoint.keep=3"]
    whole = launch(1, [*words, f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0], whole.text
    cut = [*words, f"out={tmp_path / 'cut'}"]
    died = launch(1, cut, demo_cohort, {"die": {"step": 5}})
    assert died.codes == [-9], died.text
    damaged = tmp_path / "cut" / "checkpoints" / "step-00000004" / "engine" / "mp_rank_00_model_states.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    again = launch(1, cut, demo_cohort)
    assert again.codes == [0], again.text
    assert "skipping checkpoint step-00000004: engine/mp_rank_00_model_states.pt does not have the hash" in again.text
    assert "step-00000002 (step 2)" in again.text
    assert series(tmp_path / "cut", "step", "loss", "keys") == series(tmp_path / "whole", "step", "loss", "keys")
    for folder in (tmp_path / "cut" / "checkpoints").glob("step-*"):
        (folder / "manifest.json").unlink()
    none = launch(1, cut, demo_cohort)
    assert none.codes == [2], none.text
    assert "none of the 3 checkpoints" in none.text
