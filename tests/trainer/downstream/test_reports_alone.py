"""A stage of reports alone, of a data set without an image, and what its weights are then good for."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.__main__ import main as shards
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.forking import Forks
from trainer.config.recipe import build_config
from trainer.pretrain import prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WORDS = ("--method", "biovil", "--recipe", "demo", "method.text_stage=only", "global_batch=8", "log.tensorboard=false")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 reports of two sections, packed without images."""
    folder = tmp_path_factory.mktemp("reports")
    lines = [
        f'r{i},p{i},"FINDINGS: There are {i} nodules in lobe {i % 5}. No effusion.\nIMPRESSION: {i} nodules."'
        for i in range(40)
    ]
    (folder / "reports.csv").write_text("\n".join(["sample,patient,text:report", *lines]) + "\n")
    data = folder / "data"
    assert shards(["pack", str(folder / "reports.csv"), "--out", str(data), "--split-fractions", "0.8,0.2"]) == 0
    assert shards(["tokenizer", str(data), "--size", "60"]) == 0
    return data


@pytest.fixture(scope="module")
def run(reports: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("text") / "run"
    ended = forks.launch(1, [*WORDS, f"data.path={reports}", f"out={out}", "stages.text.epochs=1"])
    assert ended.codes == [0], ended.text
    assert "stage pretrain: left out by the method's options" in ended.text
    return out


def test_its_weights_begin_another_systems_text(run: Path, reports: Path) -> None:
    begun = ["method.text.init=file", f"method.text.init_file={run / 'weights.safetensors'}"]
    words = [*begun, f"method.tokenizer={reports / 'vocab' / 'report.txt'}"]
    for method in ("convirt", "biovil"):
        config, _ = build_config(method, "demo", words)
        job = prepare(config, 1)
        job.data.close()
        assert [p.stage.name for p in job.plans] == ["pretrain"]
        assert ("stage text: left out" in job.plan_text) is (method == "biovil")


def test_its_image_encoder_is_nothing_to_start_from(run: Path, finetune: Finetune, tmp_path: Path) -> None:
    ended = finetune(tmp_path / "out", "--task", "demo_subtype", "--method", "biovil", "--init", str(run))
    assert ended.codes == [2]
    assert (
        f"{run}: its image encoder is as it began (method.text_stage=only): give its weights as method.text.init_file"
        in ended.text
    )


def test_a_system_of_images_says_that_the_reports_have_none(reports: Path) -> None:
    from models.contract import MethodError

    config, _ = build_config("biovil", "demo", [f"data.path={reports}"])
    with pytest.raises(MethodError, match="has no field 'image', which biovil reads"):
        prepare(config, 1)
