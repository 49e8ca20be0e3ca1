"""A fine-tune's export answers as the run did: the card's own code, run on files of test cases."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.export import main
from shards.read.dataset import Dataset
from tests.trainer.downstream.conftest import Finetune
from trainer.downstream.metrics.predictions import Predictions
from trainer.errors import UserError
from trainer.export import Case, load_tuned, scores

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Pretrained = Callable[[str], Path]
KINDS = [
    ("mgi", "demo_subtype", []),
    ("mrm_relation", "demo_severity", []),
    ("gimp", "demo_survival", ["inputs=multimodal"]),
]


def exported(out: Path, finetune: Finetune, method: str, task: str, run: Path, *words: str) -> str:
    """Fine-tunes and exports; the card."""
    ended = finetune(out / "run", "--task", task, "--method", method, "--init", str(run), "leak.accept=true", *words)
    assert ended.codes == [0], ended.text
    assert main([str(out / "run"), "--to", "safetensors", "--out", str(out / "whole")]) == 0
    return (out / "whole" / "README.md").read_text()


def put(folder: Path, data: Dataset, key: str, fields: list[str]) -> None:
    """A case as files of the names that the card reads."""
    (index,) = [i for i in range(len(data)) if data.keys_of(np.array([i]))[0] == key]
    for name in fields:
        value = np.asarray(data[index].read(name))
        if name == "image":
            Image.fromarray(value.squeeze()).save(folder / "image.png")
        else:
            np.save(folder / f"{name}.npy", value)


@pytest.mark.parametrize(("method", "task", "more"), KINDS, ids=[t for _, t, _ in KINDS])
def test_the_cards_code_gives_the_runs_answers(
    method: str, task: str, more: list[str], pretrained: Pretrained, finetune: Finetune, cohort: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    card = exported(tmp_path, finetune, method, task, pretrained(method), *more)
    (code,) = re.findall(r"## Answers\n\n```python\n(.*?)```", card, re.DOTALL)
    result = json.loads((tmp_path / "run/result.json").read_bytes())
    told = Predictions.load(tmp_path / "run" / result["predictions"][0])
    kept = tmp_path / "run/features.npz"
    monkeypatch.chdir(tmp_path / "whole")
    with Dataset.open(cohort) as data:
        for row in (0, len(told) - 1):
            put(tmp_path / "whole", data, told.keys_N[row], result["inputs"])
            names: dict[str, object] = {}
            exec(code, names)
            answer, features = (np.asarray(names[n])[0] for n in ("answer", "features"))
            np.testing.assert_allclose(
                np.atleast_1d(answer), told.scores[row][-np.size(answer) :], rtol=1e-4, atol=1e-5
            )
            if kept.exists():
                with np.load(kept) as arrays:
                    (at,) = np.flatnonzero(arrays["key_N"] == told.keys_N[row])
                    np.testing.assert_allclose(features, arrays["x_ND"][at], rtol=1e-4, atol=1e-5)


def test_masks_are_drawn_without_one(pretrained: Pretrained, finetune: Finetune, cohort: Path, tmp_path: Path) -> None:
    exported(tmp_path, finetune, "mgi", "demo_lesions", pretrained("mgi"), "output.width=16", "output.decoder=linear")
    with Dataset.open(cohort) as data:
        result = json.loads((tmp_path / "run/result.json").read_bytes())
        told = Predictions.load(tmp_path / "run" / result["predictions"][0])
        (index,) = [i for i in range(len(data)) if data.keys_of(np.array([i]))[0] == told.keys_N[0]]
        image = np.asarray(data[index].read("image"))
    model = load_tuned(tmp_path / "whole")
    drawn, _ = scores(model, [Case(image=image), Case(image=image.squeeze())])
    assert drawn.shape == (2, model.side, model.side)
    assert (drawn[0] == drawn[1]).all()
    assert abs(float((drawn[0] > 0.5).float().mean()) - told.score[0, 1] / image[..., 0].size) < 0.02


def test_what_has_no_head_says_so(pretrained: Pretrained, tmp_path: Path) -> None:
    assert main([str(pretrained("mgi")), "--to", "safetensors", "--out", str(tmp_path / "encoder")]) == 0
    assert "## Answers" not in (tmp_path / "encoder/README.md").read_text()
    with pytest.raises(UserError, match=r"is an encoder without a head .*: export a fine-tune, launch/export.py RUN"):
        load_tuned(tmp_path / "encoder")
    with pytest.raises(UserError, match="holds no export of a method"):
        load_tuned(tmp_path)


def test_a_fine_tune_of_before_says_that_its_head_is_not_exported(
    pretrained: Pretrained, finetune: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own command writes what is missing; nothing is trained again."""
    exported(tmp_path, finetune, "mgi", "demo_subtype", pretrained("mgi"))
    file = tmp_path / "run/trained.json"
    kept = json.loads(file.read_bytes())
    file.write_text(json.dumps({k: v for k, v in kept.items() if k != "head"}))
    assert main([str(tmp_path / "run"), "--to", "safetensors", "--out", str(tmp_path / "bare")]) == 0
    assert "without its head" in capsys.readouterr().out
    assert not (tmp_path / "bare/head.json").exists()
    assert "## Answers" not in (tmp_path / "bare/README.md").read_text()
    words = ("--task", "demo_subtype", "--method", "mgi", "--init", str(pretrained("mgi")), "leak.accept=true")
    again = finetune(tmp_path / "run", *words)
    assert "measured already" in again.text
    assert json.loads(file.read_bytes()) == kept
