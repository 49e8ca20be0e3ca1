"""The command of `make gpu-check` on a CPU: what it says, and with which status it ends."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.pretrain import main as pretrain
from tests.gpu import __main__ as command
from tests.gpu import apart, kernels, process, runs
from tests.gpu.outcome import Case, Check, Found, NotRun, Outcome, outcomes, report, tried, within
from tests.models.elsewhere import DEVICE, Elsewhere


def told(*checks: tuple[str, Check], left: float = 1.0) -> list[Outcome]:
    return list(outcomes(dict(checks), lambda: left, apart.apart, [name for name, _ in checks]))


def fine() -> dict[str, Case]:
    return {"one": lambda: Found("pass", "a | b"), "two": lambda: within(2.0, 1.0, "error")}


def absent() -> Found:
    raise NotRun("no card")


def broken() -> Found:
    raise RuntimeError("kernel died")


def test_what_breaks_fails_and_the_others_still_run() -> None:
    found = told(("first", lambda: {"broken": broken, "absent": absent}), ("second", fine))
    assert [(o.check, o.state) for o in found] == [
        ("first: broken", "FAIL"), ("first: absent", "not run"), ("second: one", "pass"), ("second: two", "FAIL"),
    ]  # fmt: skip
    assert "kernel died" in found[0].said
    text = report(found, 3.0)
    assert "1 passed, 2 failed, 1 not run" in text
    assert "torch " in text
    assert "a \\| b" in text


def test_no_case_begins_after_its_time() -> None:
    late = [Outcome(f"fine: {name}", "not run", "no time was left") for name in ("one", "two")]
    assert told(("fine", fine), left=0.0) == late
    turns = iter([1.0, 1.0, 0.0])
    found = list(outcomes({"fine": fine}, lambda: next(turns), apart.apart, ["fine"]))
    assert [o.state for o in found] == ["pass", "not run"]


def test_a_process_that_dies_takes_no_other_case_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying.py").write_text(
        "import os, sys\nfrom tests.gpu import apart\nfrom tests.gpu.outcome import Found\n"
        "fine = lambda: Found('pass', 'fine')\n"
        "apart.CHECKS['dying'] = lambda: {'first': fine, 'dies': lambda: os.kill(os.getpid(), 9), 'last': fine}\n"
        "apart.main(sys.argv[1:])\n"
    )
    real = process.ended
    monkeypatch.setattr(apart, "ended", lambda words: real([sys.executable, str(tmp_path / "dying.py"), *words[3:]]))
    found = list(apart.apart("dying", ["first", "dies", "last"]))
    assert [(o.check, o.state) for o in found] == [("first", "pass"), ("dies", "FAIL"), ("last", "pass")]
    assert "its process ended with -9" in found[1].said


def test_a_process_in_which_something_was_raised_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(apart.CHECKS, "odd", lambda: {"absent": absent, "broken": broken, "one": fine()["one"]})
    apart.main(["odd", "absent", "broken", "one"])
    lines = [json.loads(line.removeprefix(apart.BEGINS)) for line in capsys.readouterr().out.splitlines()]
    assert [(line["check"], line["state"]) for line in lines] == [("absent", "not run"), ("broken", "FAIL")]


def test_what_takes_too_long_ends_with_all_that_it_started() -> None:
    out, why = process.ended(["sh", "-c", "sleep 600 & echo $!; wait"], longest=1.0)
    assert "took longer than 1 s" in why
    try:
        started = os.pidfd_open(int(out))
    except ProcessLookupError:
        return
    # Its end was asked for; a process is gone a moment after it closed what it wrote to.
    assert select.select([started], [], [], 30)[0]
    os.close(started)


def test_the_report_is_there_when_the_command_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*given: object) -> Iterator[Outcome]:
        yield Outcome("one", "pass", "fine")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "outcomes", cut)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--out", str(tmp_path / "report.md")])
    assert "| one | pass |" in (tmp_path / "report.md").read_text()


def test_an_error_that_is_no_number_fails() -> None:
    assert within(float("nan"), 1.0, "error").state == "FAIL"
    nothing = kernels.gap([torch.tensor([float("nan"), 1.0])], [torch.ones(2).double()])
    assert within(nothing, 1.0, "error").state == "FAIL"


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_on_a_cpu_it_checks_what_a_cpu_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.md"
    assert command.main(["--only", "attention", "copies", "--out", str(out)]) == 0
    text = out.read_text()
    assert "no GPU" in text
    assert "says nothing of a GPU" in text
    assert "| attention: float32, learned bias | pass |" in text
    assert "| copies: pinned, on a side stream | not run |" in text
    said = capsys.readouterr().out
    assert "attention: float32: sdpa" in said
    assert "No GPU was found" in said.splitlines()[-1]


def test_a_wrong_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.layer.attention
    monkeypatch.setattr(kernels.layer, "attention", lambda q, k, v, mask=None: right(q, k, 1.01 * v, mask))
    assert tried("float32", kernels.attention()["float32"])[0].state == "FAIL"


def test_a_failure_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "outcomes", lambda *given: iter([Outcome("one", "FAIL", "")]))
    assert command.main(["--out", str(tmp_path / "report.md")]) == 1


def test_every_scan_that_runs_here_passes() -> None:
    found = {name: tried(name, case)[0] for name, case in kernels.scans().items()}
    assert {name: o.state for name, o in found.items() if o.state != "not run"} == {
        **{n: "pass" for n in kernels.IMPLEMENTATIONS if not kernels.missing(n)}, "dispatch": "pass",
    }  # fmt: skip


def test_a_gpu_that_goes_to_pytorch_beside_its_kernels_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CUDA", True)
    monkeypatch.setattr(kernels.scan, "backend", lambda *given: "chunked")
    monkeypatch.setattr(kernels, "missing", lambda name: "" if name == "triton" else "not installed")
    assert kernels.dispatched().state == "FAIL"
    monkeypatch.setattr(kernels, "missing", lambda name: "not installed")
    assert kernels.dispatched().state == "pass"


def test_kernels_meet_no_tensor_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: a device that refuses those of the CPU."""
    with Elsewhere():
        monkeypatch.setattr(kernels, "DEVICE", DEVICE)
        cases = {**kernels.attention(), "chunked": kernels.scans()["chunked"], "dispatch": kernels.scans()["dispatch"]}
        found = [tried(name, case)[0] for name, case in cases.items() if name != "xformers"]
    assert [o for o in found if o.state != "pass" and o.check != "dispatch"] == []
    assert "sdpa" in found[0].said


@pytest.mark.slow
@pytest.mark.parametrize("method", runs.METHODS)
def test_the_words_of_a_papers_recipe_are_taken_and_it_is_short(
    method: str, demo_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDPAIR_CACHE", str(demo_cohort.parent))
    words = [*runs.words_of(method, "paper"), f"steps={runs.SHORT}", f"out={tmp_path / 'run'}", "--dry-run"]
    assert pretrain(words) == 0
    lengths = [int(line.split()[2]) for line in capsys.readouterr().out.splitlines() if line.startswith("stage ")]
    assert 0 < sum(lengths) <= 20


def test_losses_are_judged_with_the_steps_that_were_left_out() -> None:
    def rows(values: list[float], skipped: list[bool]) -> list[dict[str, Any]]:
        return [{"stage": "pretrain", "loss": v, "skipped": s} for v, s in zip(values, skipped, strict=True)]

    whole, no = [2.0, 1.0, 0.5], [False] * 3
    assert runs.judged(rows([2.0, 1.01, 0.5], no), whole, 0.05).state == "pass"
    assert runs.judged(rows([2.0, 1.2, 0.5], no), whole, 0.05).state == "FAIL"
    # fp16: the first step was too large for the scale, so that all after it are one update behind.
    assert runs.judged(rows([2.0, 2.0, 1.0], [True, False, False]), whole, 0.05).state == "pass"
    assert runs.judged(rows([2.0, 2.0, 2.0], [True, True, True]), whole, 0.05).state == "FAIL"


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
    assert runs.judged(rows, runs.losses(rows), 0.0).state == "pass"
    with pytest.raises(RuntimeError, match="no_such_key"):
        runs.small(tmp_path / "b", "no_such_key=1")
