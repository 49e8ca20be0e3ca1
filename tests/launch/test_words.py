"""The command that finds visual words in training images: which images a word is of, the same ones again, and the leaks it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from launch.words import _no_leak, main, neighbours
from models.transforms.visual_words import read_words
from tests.trainer.forking import Forks
from tests.trainer.launching import small_cohort
from trainer.errors import UserError


def asked(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"words": 3, "instances": 2, "margin": 0.1, "apart": 0.01, "seed": 0, **given})


def test_a_word_is_a_place_in_the_images_most_like_its_reference_one_of_each_patient() -> None:
    angles = np.array([0.0, 0.1, 0.2, 3.0, 3.1, 3.15, 0.05])
    x_ND = np.stack([np.cos(angles), np.sin(angles)], 1) * np.arange(1, 8)[:, None]
    keys, patients = list("abcdefg"), ["P1", "P2", "P3", "P4", "P5", "P6", "P1"]
    found = neighbours(x_ND, keys, patients, asked())
    assert ("a" in found) + ("g" in found) <= 1, "two images of one patient"
    of: dict[int, list[tuple[str, float, float]]] = {}
    for key, words in found.items():
        for word, row, column in words:
            of.setdefault(int(word), []).append((key, row, column))
    assert sorted(of) == [0, 1, 2]
    for instances in of.values():
        assert len(instances) == 2
        assert len({place for _, *place in map(tuple, instances) for place in [tuple(place)]}) == 1, "one place"
        near = {key in "abcg" for key, *_ in instances}
        assert len(near) == 1, "of one of the two groups"
    assert len(neighbours(x_ND, keys, patients, asked(instances=1))) == 3, "each reference is its own nearest"
    assert found == neighbours(x_ND, keys, patients, asked())
    assert found != neighbours(x_ND, keys, patients, asked(seed=1))


def test_too_few_patients_are_told() -> None:
    with pytest.raises(UserError, match="2 patients have training images, fewer than --words 3"):
        neighbours(np.eye(3), list("abc"), ["P1", "P2", "P2"], asked())


class Cohort:
    """A data set's splits by patient, as far as the search for leaks asks."""

    def __init__(self, **splits: list[str]):
        self.path, self.of = "DIR", splits
        self.info = SimpleNamespace(splits={k: len(v) for k, v in splits.items()})

    def subset(self, split: str) -> SimpleNamespace:
        return SimpleNamespace(indices=split)

    def patients_of(self, split: str) -> list[str]:
        return self.of[split]


def learned(*patients: str) -> Any:
    return SimpleNamespace(path="RUN", overlap=lambda held: ([p for p in held if p in patients], []))


def test_an_encoder_that_learned_from_held_back_people_finds_no_words() -> None:
    data: Any = Cohort(train=["P1", "P2"], val=["P3"], test=["P4", "P5"])
    _no_leak(data, learned("P1", "P2", "P9"))
    with pytest.raises(UserError, match=r"RUN learned from 2 people who are held back in DIR \(.*P3.*P5.*\)"):
        _no_leak(data, learned("P3", "P5"))


def test_people_of_two_splits_are_a_leak() -> None:
    data: Any = Cohort(train=["P1", "P2"], test=["P2", "P4"])
    with pytest.raises(UserError, match="1 people stand in 'train' and in another split"):
        _no_leak(data, learned())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "test"], "those of held-back images would be a leak"),
        (["--split", "val"], "would be a leak"),
        (["--out", "words.txt"], "words are a .json file"),
        (["--out", "nowhere/words.json"], "there is no folder"),
        (["--words", "1"], "--words 1: give at least 2"),
        (["--instances", "0"], "--instances 0"),
        (["--margin", "0.5"], "--margin 0.5"),
    ],
)
def test_what_finds_no_words_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    if "--out" in words:
        words = ["--out", str(tmp_path / words[1])]
    assert main(["RUN", "DIR", "--out", str(tmp_path / "words.json"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_words_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A short run's features find words, the same ones again, and a run that names them begins with the file."""
    cohort = small_cohort(tmp_path)
    forks, short = Forks(cohort), ["--recipe", "demo", f"data.path={cohort}", "steps=2", "global_batch=8"]
    ended = forks.launch(1, ["--method", "simclr", *short, "log.tensorboard=false", f"out={tmp_path / 'run'}"])
    assert ended.codes == [0], ended.text
    files = [tmp_path / f"{n}.json" for n in "ab"]
    for file in files:
        asks = [str(tmp_path / "run"), str(cohort), "--out", str(file), "--words", "4", "--instances", "6"]
        assert main(asks) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "4 words in" in capsys.readouterr().out
    found = read_words(files[0])
    assert (found.words, json.loads(files[0].read_bytes())["split"]) == (4, "train")
    assert sum(len(v) for v in found.images.values()) == 24
    assert main([*asks[:2], "--out", str(files[0])]) == 2
    assert "there already" in capsys.readouterr().err
    words = ["method.words=file", f"method.words_file={files[0]}", "log.tensorboard=false", f"out={tmp_path / 'named'}"]
    ended = forks.launch(1, ["--method", "transvw", *short, *words])
    assert ended.codes == [0], ended.text
    assert '"words_file"' in (tmp_path / "named" / "method.json").read_text()
