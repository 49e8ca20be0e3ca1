"""Rows of a table that start from runs of pre-training that are there already (`launch/sweep.py --pretrained`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.sweep import main
from tests.trainer.downstream.conftest import pretraining


@pytest.fixture(scope="module")
def made(pretrained, tmp_path_factory) -> Path:
    """Another table's folder, with one of the two runs that rows start from."""
    folder = tmp_path_factory.mktemp("earlier")
    shutil.copytree(pretrained("mgi"), folder / "pretrain" / "MGI-of-before")
    return folder


@pytest.fixture
def command(cohort: Path, tmp_path: Path) -> list[str]:
    words = [w for w in pretraining("mgi", cohort, tmp_path) if not w.startswith("out=")]
    content: dict[str, Any] = {
        "command": "finetune",
        "words": ["--task", "demo_subtype"],
        "baselines": False,
        "pretrain": {"mgi": words, "another seed": [*words, "seed=1"]},
        "rows": {
            "MGI": {"words": {"--method": "mgi"}, "start": "mgi"},
            "MGI, once more": {"words": {"--method": "mgi"}, "start": "another seed"},
        },
    }
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return [str(file), "--out", str(tmp_path / "out"), "--dry-run", f"data.path={cohort}"]


def test_a_row_starts_from_the_run_of_its_configuration_and_data(command: list[str], made: Path, capsys) -> None:
    assert main([*command, "--pretrained", str(made)]) == 0
    said = capsys.readouterr().out
    there = made / "pretrain" / "MGI-of-before"
    assert f"mgi: {there}\n" in said
    assert "another-seed: no such run there, it is made\n" in said
    assert f"--init {there} " in said
    assert f"out={Path(command[2]) / 'pretrain' / 'another-seed'}" in said
    assert f"out={Path(command[2]) / 'pretrain' / 'mgi'}" not in said, "made once more"
    # A run itself, and the folder that holds runs, are found as well.
    assert main([*command, "--row", "MGI", "--pretrained", str(there)]) == 0
    assert f"mgi: {there}\n" in capsys.readouterr().out
    assert main([*command, "--pretrained", str(there.parent)]) == 0


def test_runs_of_other_words_or_data_are_none_of_the_table(
    command: list[str], made: Path, tmp_path, demo_cohort, capsys
) -> None:
    assert main([*command, "pretrain.mgi:seed=7", "--pretrained", str(made)]) == 2
    said = capsys.readouterr().err
    assert f"no run below {made} is one that {command[0]} starts from; leave it out to make them" in said
    assert f"mgi: {made / 'pretrain' / 'MGI-of-before'}: seed: 0 -> 7" in said
    assert main([*command, f"pretrain:data.path={demo_cohort}", "--pretrained", str(made)]) == 2
    assert "are not those of this table, or were packed anew since" in capsys.readouterr().err
    assert main([*command, "--pretrained", str(tmp_path)]) == 2
    assert f"--pretrained {tmp_path}: no finished run of pre-training here" in capsys.readouterr().err


def test_of_two_runs_with_different_weights_neither_is_taken(command: list[str], made: Path, tmp_path, capsys) -> None:
    both = tmp_path / "both"
    for name in ("a", "b"):
        shutil.copytree(made / "pretrain" / "MGI-of-before", both / name)
    assert main([*command, "--pretrained", str(both)]) == 0, "the same weights twice"
    capsys.readouterr()
    path = both / "b" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert main([*command, "--pretrained", str(both)]) == 2
    assert (
        f"mgi is the configuration of {both / 'a'}, {both / 'b'}, whose weights differ; give one of them"
        in capsys.readouterr().err
    )


def test_a_table_without_pre_training_has_no_use_for_runs(command: list[str], made: Path, tmp_path, capsys) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text(
        yaml.safe_dump({"command": "finetune", "words": ["--task", "demo_subtype"], "grid": {"seeds": [0, 1]}})
    )
    assert main([str(file), "--dry-run", "--pretrained", str(made)]) == 2
    assert f"no row of {file} starts from a run of pre-training; leave it out" in capsys.readouterr().err
