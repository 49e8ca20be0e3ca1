"""Several structures in a segmentation: a channel each, whatever the files look like; metrics of each and of all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from launch.compare import main as compare
from models.contract.masks import MaskField
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.drawn import SAMPLES, SIDE, folder_of_masks, masks, numbered_masks
from tests.trainer.launching import series
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.table import DEFAULTS, METRICS
from trainer.downstream.setting import open_task_data
from trainer.downstream.targets.read import read_targets
from trainer.downstream.task.read import parse_task
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

Pretrained = Callable[[str], Path]
TWO = {"mask": ["mask_disc", "mask_atrophy"], "mask_values": [0], "mask_missing": "empty"}
ONE = {"mask": "mask", "mask_values": {"disc": 1, "atrophy": 2}}
NAMES = [*DEFAULTS["segmentation"], "dice_contig"]


def task_of(**content: Any) -> Task:
    return parse_task({"name": "drawn", "kind": "segmentation", **content})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_masks(tmp_path_factory.mktemp("files") / "set")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_masks(tmp_path_factory.mktemp("numbered") / "set")


def test_structures_by_fields_and_by_values() -> None:
    assert task_of().masks == (MaskField("mask", "mask"),)
    assert task_of(mask_values=0).masks == (MaskField("mask", "mask", (0,)),)
    assert task_of(**TWO).masks == (MaskField("disc", "mask_disc", (0,)), MaskField("atrophy", "mask_atrophy", (0,)))
    assert task_of(**ONE).masks == (MaskField("disc", "mask", (1,)), MaskField("atrophy", "mask", (2,)))
    own = task_of(mask=["disc", "atrophy"], mask_values={"atrophy": [3, 4]})
    assert own.masks == (MaskField("disc", "disc"), MaskField("atrophy", "atrophy", (3, 4)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"mask": ["disc", "mask_disc"]}, "give each field once"),
        ({"mask": ["disc", "cup"], "mask_values": {"cap": 1}}, "mask_values: cap: the structures of several fields are disc, cup"),
        ({"mask_values": {"disc": []}}, "mask_values: disc: name one value or more"),
        ({"mask_values": {"a/b": 1, "c": 2}}, "has no slash"),
        ({"mask": []}, "needs one structure or more"),
        ({"mask_missing": "leave_out"}, "with one mask field that is so anyway"),
    ],
)  # fmt: skip
def test_structures_that_cannot_be_meant(content: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        task_of(**content)


def test_what_an_absent_mask_means_is_for_the_task_to_say(files: Path) -> None:
    lacking = sum(not masks(i)[1].any() for i in range(SAMPLES))
    assert 0 < lacking < SAMPLES

    def asked(**content: Any) -> Any:
        task = task_of(**{**TWO, **content, "data": {"path": str(files)}})
        data = open_task_data(task)
        try:
            return read_targets(task, data, ("image",))
        finally:
            data.close()

    with pytest.raises(UserError, match=f"{lacking} samples have some of the masks .*{lacking} lack mask_atrophy"):
        asked(mask_missing="refuse")
    found = asked(mask_missing="leave_out")
    assert (int(found.used_N.sum()), found.left_out) == (SAMPLES - lacking, {"no mask_disc or mask_atrophy": lacking})
    found = asked()
    assert (int(found.used_N.sum()), found.left_out) == (SAMPLES, {})
    assert found.notes == (f"{lacking} samples without mask_atrophy: taken as empty masks (mask_missing=empty)",)


def test_metrics_are_means_over_structures_and_of_each() -> None:
    rng = np.random.default_rng(0)
    true_NK, said_NK = rng.integers(1, 30, (12, 2)) * rng.integers(0, 2, (12, 2)), rng.integers(0, 30, (12, 2))
    both_NK = np.minimum(true_NK, said_NK) // 2
    keys = [f"k{i}" for i in range(12)]
    patients = [f"p{i // 2}" for i in range(12)]
    p = Predictions("segmentation", keys, patients, true_NK, np.hstack([both_NK, said_NK]), ("disc", "cup"))  # type: ignore[arg-type]
    for name in DEFAULTS["segmentation"]:
        alone = []
        for k, part in enumerate(("disc", "cup")):
            score = np.stack([both_NK[:, k], said_NK[:, k]], 1)
            one = Predictions("segmentation", keys, patients, true_NK[:, k], score)  # type: ignore[arg-type]
            alone.append(METRICS[name].compute(one))
            assert METRICS[f"{name}/{part}"].compute(p) == pytest.approx(alone[-1], abs=1e-12)
        assert METRICS[name].compute(p) == pytest.approx(np.mean(alone), abs=1e-12)
        assert alone[0] != alone[1]
    assert "dice_patient/disc" in METRICS
    assert "auc/disc" not in METRICS


def test_a_structure_that_there_is_not(
    finetune: Finetune, numbered: Path, pretrained: Pretrained, tmp_path: Path
) -> None:
    words = _words(tmp_path, ONE, numbered, pretrained, "metric=dice_patient/cup")
    ended = finetune(tmp_path / "run", *words)
    assert ended.codes == [2], ended.text
    assert "no structure 'cup' (it has: disc, atrophy)" in ended.text


def _words(folder: Path, content: dict[str, Any], data: Path, pretrained: Pretrained, *more: str) -> list[str]:
    (folder / "drawn.yaml").write_text(
        yaml.safe_dump({"kind": "segmentation", **content, "metrics": NAMES}, sort_keys=False)
    )
    return [
        "--task", str(folder / "drawn.yaml"), "--method", "mgi", "--init", str(pretrained("mgi")), f"data.path={data}",
        "output.width=16", "augment.rotate=20", "augment.crop=0.6", "protocol.eval_batch=2", *more,
    ]  # fmt: skip


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("decoder", ["linear", "upernet", "two_way"])
def test_from_masks_to_a_report(
    decoder: str, files: Path, numbered: Path, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    """Files a structure, inverted, some absent, give bit for bit what numbers in one mask do; two ranks measure as one."""
    more = [f"output.decoder={decoder}", "output.mask_weights=[0.2, 0.8]"]
    found = {}
    for name, content, data in (("files", TWO, files), ("numbered", ONE, numbered)):
        (tmp_path / name).mkdir()
        ended = finetune(tmp_path / name / "run", *_words(tmp_path / name, content, data, pretrained, *more))
        assert ended.codes == [0], ended.text
        found[name] = json.loads((tmp_path / name / "run" / "result.json").read_bytes())
    out = tmp_path / "files" / "run"
    assert (
        "taken as empty masks"
        in finetune(out, *_words(tmp_path / "files", TWO, files, pretrained, *more, "--dry-run")).text
    )
    lines = [series(tmp_path / n / "run" / "seed-0" / "lr-0.001", "loss", "keys") for n in found]
    assert lines[0] == lines[1]
    assert found["files"]["metrics"] == found["numbered"]["metrics"]
    measured = found["files"]["metrics"]
    assert list(measured) == [*NAMES, *(f"{n}/{s}" for n in NAMES[:-1] for s in ("disc", "atrophy"))]
    told = Predictions.load(out / "predictions" / "seed-0.npz")
    assert told.classes == ("disc", "atrophy")
    numbers = [int(k[1:]) for k in told.keys_N]
    assert told.target.tolist() == [[int(m.sum()) for m in masks(i)] for i in numbers], "at the masks' own size"
    case = _first(out, found["files"]["examples"])
    assert case["truth_KHW"].shape == case["predicted_KHW"].shape == (2, SIDE, SIDE)
    assert case["names"].tolist() == ["disc", "atrophy"]
    assert (case["truth_KHW"] == np.stack(masks(int(str(case["key"])[1:])))).all()
    again = Path(shutil.copytree(out, tmp_path / "files" / "two"))
    (again / "result.json").unlink()
    shutil.rmtree(again / "predictions")
    ended = finetune(again, *_words(tmp_path / "files", TWO, files, pretrained, *more), world=2)
    assert ended.codes == [0, 0], ended.text
    assert json.loads((again / "result.json").read_bytes())["metrics"] == measured, "dice_contig among them"
    assert compare([str(out), "--out", str(tmp_path / "report"), "--draws", "100"]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "dice_patient/atrophy" in page
    assert "Examples" in page


def _first(out: Path, names: list[str]) -> dict[str, Any]:
    assert names
    with np.load(out / names[0]) as stored:
        return dict(stored)


def test_any_field_names_will_do(tmp_path: Path) -> None:
    path = folder_of_masks(tmp_path / "set", ("disc", "atrophy"))
    task = task_of(mask=["disc", "atrophy"], mask_values=0, mask_missing="empty", data={"path": str(path)})
    data = open_task_data(task)
    found = read_targets(task, data, ("image",))
    assert (found.question.outputs, found.question.classes) == (2, ("disc", "atrophy"))
    data.close()
