"""The command of `make gpu-check` on a CPU: what it says, and with which status it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.gpu import __main__ as command
from tests.gpu import kernels, runs
from tests.gpu.outcome import Check, NotRun, Outcome, outcomes, report, within


def told(*checks: tuple[str, Check], left: float = 1.0) -> list[Outcome]:
    return list(outcomes(dict(checks), lambda: left))


def fine() -> Iterator[Outcome]:
    yield Outcome("one", "pass", "a | b")
    yield within("two", 2.0, 1.0, "error")


def absent() -> Iterator[Outcome]:
    raise NotRun("no card")
    yield


def broken() -> Iterator[Outcome]:
    yield Outcome("one", "pass", "before")
    raise RuntimeError("kernel died")


def test_what_breaks_fails_and_the_others_still_run() -> None:
    found = told(("broken", broken), ("absent", absent), ("fine", fine))
    assert [(o.check, o.state) for o in found] == [
        ("broken: one", "pass"), ("broken", "FAIL"), ("absent", "not run"), ("fine: one", "pass"), ("fine: two", "FAIL"),
    ]  # fmt: skip
    assert "kernel died" in found[1].said
    text = report(found, 3.0)
    assert "2 passed, 2 failed, 1 not run" in text
    assert "torch " in text
    assert "a \\| b" in text


def test_no_check_begins_after_its_time() -> None:
    assert told(("fine", fine), left=0.0) == [Outcome("fine", "not run", "no time was left")]


def test_an_error_that_is_no_number_fails() -> None:
    assert within("x", float("nan"), 1.0, "error").state == "FAIL"
    nothing = kernels.gap([torch.tensor([float("nan"), 1.0])], [torch.ones(2).double()])
    assert within("x", nothing, 1.0, "error").state == "FAIL"


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_on_a_cpu_it_checks_what_a_cpu_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.md"
    assert command.main(["--only", "attention", "copies", "--out", str(out)]) == 0
    text = out.read_text()
    assert "no GPU" in text
    assert "says nothing of a GPU" in text
    assert "| attention: sdpa, learned bias, float32 | pass |" in text
    assert "| copies | not run |" in text
    said = capsys.readouterr().out
    assert "sdpa float32" in said
    assert "No GPU was found" in said.splitlines()[-1]


def test_a_wrong_kernel_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.layer.attention
    monkeypatch.setattr(kernels.layer, "attention", lambda q, k, v, mask=None: right(q, k, 1.01 * v, mask))
    assert command.main(["--only", "attention", "--out", str(tmp_path / "report.md")]) == 1


def test_every_scan_that_runs_here_passes() -> None:
    found = told(("scan", kernels.scans))
    assert {o.check: o.state for o in found if o.state != "not run"} == {
        **{f"scan: {n}": "pass" for n, why in kernels.missing().items() if not why}, "scan: dispatch": "pass",
    }  # fmt: skip


def test_losses_are_judged_with_the_steps_that_were_left_out() -> None:
    def rows(values: list[float], skipped: list[bool]) -> list[dict[str, object]]:
        return [{"stage": "pretrain", "loss": v, "skipped": s} for v, s in zip(values, skipped, strict=True)]

    whole, no = [2.0, 1.0, 0.5], [False] * 3
    assert runs.judged("x", rows([2.0, 1.01, 0.5], no), whole, 0.05).state == "pass"
    assert runs.judged("x", rows([2.0, 1.2, 0.5], no), whole, 0.05).state == "FAIL"
    # fp16: the first step was too large for the scale, so that all after it are one update behind.
    assert runs.judged("x", rows([2.0, 2.0, 1.0], [True, False, False]), whole, 0.05).state == "pass"
    assert runs.judged("x", rows([2.0, 2.0, 2.0], [True, True, True]), whole, 0.05).state == "FAIL"


def test_a_recipe_passes_by_its_losses_its_steps_and_its_speed() -> None:
    fine = [{"loss": 1.0, "skipped": False}] * 3
    assert runs.sound(fine, 0.9, least=0.5)
    assert not runs.sound(fine, 0.4, least=0.5)
    assert not runs.sound([*fine, {"loss": float("nan"), "skipped": False}], 0.9, least=0.5)
    assert not runs.sound([*fine, {"loss": 1.0, "skipped": True}], 0.9, least=0.5)
    assert not runs.sound(fine, float("nan"), least=0.0)


def test_peaks_are_those_of_the_card_itself() -> None:
    known = {
        "NVIDIA A40": 150e12,
        "NVIDIA A100 80GB PCIe": 312e12,
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H200": 989e12,
    }
    assert {card: runs.peak_of(card) for card in known} == known
    others = (
        "NVIDIA RTX A4000",
        "NVIDIA H100 PCIe",
        "NVIDIA H200 NVL",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L4",
    )
    assert not any(runs.peak_of(card) for card in others)


@pytest.mark.slow
def test_a_run_under_zero_is_near_the_whole_one(tmp_path: Path) -> None:
    """The runs of the check themselves, of a short one: their words are accepted, their lines are read."""
    rows = runs.small(tmp_path / "a", "zero.stage=1", "precision=fp32", "data.workers=1")
    assert len(runs.losses(rows)) == runs.STEPS
    assert runs.judged("ZeRO 1", rows, runs.losses(rows), 0.0).state == "pass"
    with pytest.raises(RuntimeError, match="no_such_key"):
        runs.small(tmp_path / "b", "no_such_key=1")
