"""Options under the names that they had before they were groups: typed, in recipes, and in the folders of runs and results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.contract import MethodError
from models.registry import get_method
from trainer.build import resolve
from trainer.config.recipe import _note, build_config, todays_options
from trainer.config.schema import by_todays_names, differences
from trainer.errors import UserError
from trainer.state.finished import open_run
from trainer.state.run_folder import RunFolder

STORED = Path(__file__).parents[1] / "models" / "stored"
METHODS = ("gimp", "mgi", "mrm_record", "mrm_relation")


@pytest.fixture(autouse=True)
def _notes_anew() -> None:
    _note.cache_clear()


def then(method: str) -> dict[str, Any]:
    """The options of a run of the demo recipe, as they were written before they were groups."""
    return json.loads((STORED / f"{method}.json").read_bytes())["options"]


def test_old_names_are_understood_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = build_config("mgi", "demo", ["method.dim=24", "method.gene_dim=16", "method.image.depth=1"])
    assert (config.method["image"]["dim"], config.method["genes"]["dim"], config.method["image"]["depth"]) == (
        24,
        16,
        1,
    )
    assert config.method["image"]["patch"] == 6, "the rest is the recipe's"
    said = capsys.readouterr().err
    assert "note: method.dim is called method.image.dim today\n" in said
    assert "note: method.gene_dim is called method.genes.dim today\n" in said
    assert "depth" not in said


def test_words_of_before_too() -> None:
    config, _ = build_config("mrm_relation", "demo", ["method.init=imagenet_mae", "method.weights=a.pth"])
    assert config.method["image"]["init"] == "file"
    assert config.method["image"]["init_file"] == "a.pth"
    config, _ = build_config("mrm_record", "demo", ["method.init=published", "method.init_file=MRM.pth"])
    assert (config.method["published_file"], config.method["image"]["init"]) == ("MRM.pth", "scratch")
    config, _ = build_config("mrm_record", "demo", ["method.flip=true"])
    assert config.method["view"]["flip"] == 0.5


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(MethodError, match=r"method\.dim: is called method\.image\.dim today, which is given too"):
        build_config("mgi", "demo", ["method.dim=24", "method.image.dim=24"])


def test_a_recipe_of_before_lies_below_words_of_today(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("global_batch: 8\nsteps: 1\nmethod: {image_size: 48, patch: 6, dim: 48, gene_drop: 0.4}\n")
    config, _ = build_config("mgi", str(recipe), ["method.image.dim=24"])
    assert config.method == {"image": {"image_size": 48, "patch": 6, "dim": 24}, "genes": {"drop": 0.4}}


def test_what_is_unknown_is_told_its_place(tmp_path: Path) -> None:
    for word, hint in (
        ("method.image.dimm=3", r"method\.image\.dimm: unknown key; did you mean 'dim'"),
        ("method.patsh=3", r"method\.patsh: unknown key; did you mean 'image\.patch'"),
        ("method.image=3", r"method\.image: is a section with keys of its own"),
    ):
        config, _ = build_config("mgi", "demo", [word])
        with pytest.raises(MethodError, match=hint):
            resolve(config)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_before_goes_on(method: str, tmp_path: Path) -> None:
    """Its folder is claimed by the same command: nothing is another configuration; another value is refused by today's name."""
    config, _ = build_config(method, "demo", [f"out={tmp_path}"])
    resolved = json.loads(json.dumps(resolve(config)[2]))
    old = {**resolved, "method": then(method)}
    (tmp_path / "config.json").write_text(json.dumps({"config": old}))
    folder = RunFolder(tmp_path)
    folder.claim(config.resume, resolved)
    folder.release()
    assert differences(by_todays_names(old), resolved) == []
    key, today = ("dim", "dim") if method == "gimp" else ("dim", "image.dim")
    (tmp_path / "config.json").write_text(json.dumps({"config": {**old, "method": {**old["method"], key: 8}}}))
    with pytest.raises(UserError, match=rf"method\.{today}: 8 -> "):
        RunFolder(tmp_path).claim(config.resume, resolved)


@pytest.mark.parametrize("method", METHODS)
def test_a_fine_tune_of_before_goes_on(method: str) -> None:
    """Whole options of a run, or those of a recipe in part, are the same configuration today."""
    cls = get_method(method).Options
    whole = cls.parse(cls.stored(then(method))).model_dump(mode="json")
    changes = {} if method == "gimp" else {"drop_path": 0.1}
    today = {} if method == "gimp" else {"image": {"drop_path": 0.1}}
    about = {"method": method, "options": {**then(method), **changes}, "task": {"method": changes}}
    expected = {"method": method, "options": cls.over(whole, today), "task": {"method": today}}
    assert by_todays_names({"about": about})["about"] == expected
    assert by_todays_names({"about": expected})["about"] == expected


@pytest.mark.parametrize("method", ["porpoise", "mcat", "pathomic_fusion"])
def test_a_system_of_labels_alone_goes_on(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its fine-tune, which keeps options whole, and the words that were typed: options of genes were loose ones."""
    cls, old = get_method(method).Options, then(method)
    about = {"method": method, "options": old, "task": {"method": {"genes_top": 8}}}
    found = by_todays_names({"about": about})["about"]
    assert found["options"]["genes"] == {"normalise": "stats", "clip": 6.0, "top": 8, "act": "elu"}
    assert found["options"] == cls.parse(found["options"]).model_dump(mode="json")
    unsaid = {k: v for k, v in cls.unsaid.items() if "." not in k}
    assert {k: v for k, v in found["options"].items() if k != "genes"} == unsaid | {
        k: v for k, v in old.items() if k not in cls.renamed
    }
    assert found["task"]["method"] == {"genes": {"top": 8}}
    assert todays_options(method, {"snn_act": "elu"}) == {"genes": {"act": "elu"}}
    assert "note: method.snn_act is called method.genes.act today\n" in capsys.readouterr().err


def test_a_key_that_no_longer_exists_is_one_error(tmp_path: Path) -> None:
    config, _ = build_config("mgi", "demo", [f"out={tmp_path}"])
    card = {**json.loads((STORED / "mgi.json").read_bytes())}
    card["options"]["beta"] = 3
    for name, content in (
        ("config.json", {"config": resolve(config)[2]}), ("method.json", card), ("schema.npz", {}), ("weights.safetensors", {}),
    ):  # fmt: skip
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(
        MethodError, match=rf"(?s){tmp_path}: method\.beta: unknown key.*{tmp_path}: .*take the version that made it"
    ):
        open_run(tmp_path)
