"""What `--dry-run` and `--print-config` print: one length a stage, that of the plan."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from launch.pretrain import main
from trainer.config.shared import Checkpoint

LENGTHS = {"steps=7": (7, None), "epochs=3": (None, 3)}


@pytest.fixture(autouse=True)
def _cache(demo_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDPAIR_CACHE", str(demo_cohort.parent))


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--method", "gimp", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("word", LENGTHS)
def test_the_configuration_has_the_plans_length(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--dry-run", word)
    config, plan = text.split("\ngimp: ", 1)
    read = yaml.safe_load(config)
    assert (read["steps"], read["epochs"]) == LENGTHS[word]
    assert read["stages"]["pretrain"]["epochs"] is None
    assert read["stages"]["pretrain"]["steps"] is None
    assert read["stages"]["gene"]["epochs"] == 5
    stages = {n: (int(s), int(e)) for n, s, e in re.findall(r"stage (\w+): (\d+) steps, (\d+) an epoch", plan)}
    assert stages["gene"][0] == 5 * stages["gene"][1]
    steps, epochs = LENGTHS[word]
    assert stages["pretrain"][0] == (steps or (epochs or 0) * stages["pretrain"][1])


def test_without_such_a_word_the_recipes_length_stands(capsys: pytest.CaptureFixture[str]) -> None:
    config, plan = printed(capsys, "--dry-run").split("\ngimp: ", 1)
    assert yaml.safe_load(config)["stages"]["pretrain"]["epochs"] == 15
    (steps, an_epoch) = re.findall(r"stage pretrain: (\d+) steps, (\d+) an epoch", plan)[0]
    assert int(steps) == 15 * int(an_epoch)


def test_without_a_plan_it_is_said_which_of_two_lengths_holds(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--print-config", "steps=7")
    assert "# steps: 7 is the length of the last stage, whatever its own section says" in text
    assert yaml.safe_load(text)["steps"] == 7
    assert "# steps" not in printed(capsys, "--print-config")


def test_the_memory_of_background_copies_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = "  checkpoints are written in the background, from copies of "
    plan = printed(capsys, "--dry-run", "checkpoint.write=background", "stages.gene.epochs=0", "zero.stage=1")
    copies = re.findall(rf"{said}([\d.]+) MB in host memory", plan)
    state = re.findall(r"state of a rank under ZeRO 1, fp32: ([\d.]+) MB .*gradients ([\d.]+) MB", plan)
    assert len(copies) == len(state) == 2
    for taken, (total, gradients) in zip(copies, state, strict=True):
        assert float(taken) == pytest.approx(float(total) - float(gradients), abs=0.11)
    assert said not in printed(capsys, "--dry-run"), "few parameters are written while training waits"


@pytest.mark.parametrize(
    ("write", "parameters", "goes_on"),
    [("auto", 9_999_999, False), ("auto", 10_000_000, True), ("wait", 10**9, False), ("background", 1, True)],
)
def test_when_training_goes_on_while_a_checkpoint_is_written(write: str, parameters: int, goes_on: bool) -> None:
    assert Checkpoint.model_validate({"write": write}).background(parameters) is goes_on
