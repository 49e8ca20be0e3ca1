"""Where a run meets data: what the numbers mean is kept by the run and must agree, whatever else was accepted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.contract import Field, Schema
from trainer.config.recipe import build_config
from trainer.data import merged_schema, open_data, schema_of
from trainer.downstream.init import Init, check_fields
from trainer.errors import UserError
from trainer.run.restore import progress_of
from trainer.state.finished import read_schema, schema_bytes


def schema(source: str, **meaning: str) -> Schema:
    field = Field("patches", "array", "float16", (None, 8), meaning=meaning)
    return Schema({"patches": field, "rna": Field("rna", "array", "float16", (5,))}, source=source)


def test_a_run_keeps_the_meaning_of_its_fields(tmp_path: Path) -> None:
    (tmp_path / "schema.npz").write_bytes(schema_bytes(schema("A", encoder="uni_v1", magnification="20x")))
    kept = read_schema(tmp_path / "schema.npz").fields
    assert kept["patches"].meaning == {"encoder": "uni_v1", "magnification": "20x"}
    assert kept["rna"].meaning == {}


def test_data_sets_together_know_what_any_of_them_knows() -> None:
    both = merged_schema([schema("A", encoder="uni_v1"), schema("B", magnification="20x")])
    assert both.fields["patches"].meaning == {"encoder": "uni_v1", "magnification": "20x"}


def test_a_fine_tune_is_of_the_run_s_encoder() -> None:
    source = Init("gimp", {}, schema("the data of runs/a", encoder="uni_v1"), None, True, None)
    with pytest.raises(
        UserError, match=r"field 'patches': encoder is 'uni_v1' in the data of runs/a and 'resnet50' in data/b"
    ):
        check_fields(source, ("patches", "rna"), schema("data/b", encoder="resnet50"))
    check_fields(source, ("rna",), schema("data/b", encoder="resnet50"))  # it does not read them
    (line,) = check_fields(source, ("patches", "rna"), schema("data/b"))
    assert "encoder is 'uni_v1' in the data of runs/a and not stored in data/b" in line
    assert check_fields(source, ("patches", "rna"), schema("data/b", encoder="UNI v1")) == []


def test_data_of_a_folder_bring_theirs(demo_cohort: Path) -> None:
    data = open_data(build_config("gimp", None, [f"data.path={demo_cohort}"])[0])
    assert data.meanings["patches"]["encoder"] == "demo"
    assert data.schema.fields["patches"].meaning == data.meanings["patches"]
    assert schema_of(data.datasets[0]).fields["rna"].meaning == {"transform": "z"}
    assert data.meaning_notes() == []
    data.close()


def run_on(fingerprint: str, accept: bool, said: list[str], **meaning: str) -> Any:
    """As much of a run as a resume looks at before anything is loaded."""
    config = {"method_name": "gimp", "zero": {"stage": 1}, "precision": "fp32"}
    data = SimpleNamespace(fingerprint=fingerprint, meanings={"patches": meaning}, paths=["data/b"])
    resume = SimpleNamespace(accept_data=accept)
    return SimpleNamespace(
        resolved=config, data=data, config=SimpleNamespace(resume=resume), runtime=SimpleNamespace(say=said.append)
    )


def state(run: Any, **meaning: str) -> dict[str, Any]:
    found = {"config": run.resolved, "loader": {"fingerprint": "one"}, "progress": {}}
    return found | ({"meanings": {"patches": meaning}} if meaning else {})


@pytest.mark.parametrize("accept", [False, True])
def test_no_resume_on_numbers_that_mean_something_else(accept: bool) -> None:
    run = run_on("two", accept, [], encoder="resnet50")
    with pytest.raises(UserError) as caught:
        progress_of(run, Path("run/checkpoints/step-2"), state(run, encoder="uni_v1"))
    assert "encoder is 'uni_v1' in run/checkpoints/step-2 and 'resnet50' in data/b" in str(caught.value)
    assert ("accept_data=true" in str(caught.value)) == (not accept)


def test_other_data_of_the_same_meaning_may_be_accepted() -> None:
    said: list[str] = []
    run = run_on("two", True, said, encoder="uni_v1")
    for known in ({"encoder": "UNI v1"}, {}):  # a checkpoint from before meanings were kept
        assert progress_of(run, Path("step-2"), state(run, **known)).step == 0
    assert len(said) == 2
