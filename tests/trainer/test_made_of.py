"""Files of a method that were made of samples: of today's training samples, or the run is refused before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.pretrain import main
from shards.read.dataset import Dataset


@pytest.fixture(autouse=True)
def _cache(demo_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDPAIR_CACHE", str(demo_cohort.parent))


def begun(tmp_path: Path, keys: list[str]) -> int:
    """Exit status of a run whose words were found on these samples, as long as they were training samples."""
    file = tmp_path / "words.json"
    images = {k: [[0, 0.5, 0.5]] for k in keys}
    file.write_text(json.dumps({"format": "visual words 1", "split": "train", "words": 2, "images": images}))
    words = ["method.words=file", f"method.words_file={file}", f"out={tmp_path / 'run'}"]
    return main(["--method", "transvw", "--recipe", "demo", "--dry-run", *words])


def test_words_of_images_that_are_held_back_by_now(
    tmp_path: Path, demo_cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Dataset.open(str(demo_cohort)) as data:
        keys = {s: list(map(str, data.keys_of(data.subset(s).indices))) for s in ("train", "val", "test")}
    assert begun(tmp_path, keys["train"][:3]) == 0
    assert begun(tmp_path, [*keys["train"][:3], keys["test"][0], keys["val"][0]]) == 2
    said = capsys.readouterr().err
    assert "method.words_file: 2 of the 5 samples that it was made of are held back" in said
    assert f"{keys['test'][0]} in test" in said
    assert begun(tmp_path, ["elsewhere"]) == 2
    assert "none of the 1 samples that it was made of is in" in capsys.readouterr().err
