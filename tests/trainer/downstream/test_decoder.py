"""Which decoder draws the masks: a system's own, or the one that is asked for; what is stored says which it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.downstream.planted import planted
from trainer.config.schema import by_todays_names, differences
from trainer.data import schema_of
from trainer.downstream.init import find_source
from trainer.downstream.results import hash_of
from trainer.downstream.run import _claim, _resolved
from trainer.downstream.setting import Setting, open_task_data, prepare
from trainer.downstream.task.read import build_task
from trainer.errors import UserError
from trainer.state.run_folder import RunFolder

OWN = ("unet", "resunet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("drawn") / "set")


@pytest.fixture
def setting(data: Path, tmp_path: Path) -> Any:
    def made(method: str, *words: str, task: str = "demo_lesions") -> Setting:
        asked, _ = build_task(task, [f"data.path={data}", *words])
        opened = open_task_data(asked)
        source = find_source(method, "scratch", "demo", asked, schema_of(opened), True)
        return prepare(asked, source, opened, tmp_path / "run", 1)

    return made


def written(found: Setting) -> str:
    return found.about()["task"]["output"]["decoder"]


@pytest.mark.parametrize("method", OWN)
def test_a_decoder_of_its_own_has_its_name(method: str, setting: Any) -> None:
    found = setting(method)
    assert (found.decoder, written(found)) == (method, method)
    assert f"output.width: left out, {method} draws masks with a decoder of its own" in found.targets.notes


def test_other_systems_have_the_default_of_before(setting: Any) -> None:
    """Nothing of their results' hashes moves, of tasks without masks neither."""
    plain, named = setting("mgi"), setting("mgi", "output.decoder=upernet")
    assert plain.decoder == named.decoder == written(plain) == "upernet"
    assert hash_of(plain.about()) == hash_of(named.about())
    assert not [n for n in plain.targets.notes if "output.width" in n]
    other = setting("mgi", "output.decoder=linear")
    assert other.decoder == written(other) == "linear"
    classes = setting("unet", task="demo_severity")
    assert (classes.decoder, written(classes)) == (None, "upernet")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["output.decoder=upernet"], r"unet has a decoder of its own for masks; set output\.decoder=auto, or take"),
        (["output.decoder=linear"], r"output\.decoder=linear: unet has a decoder of its own"),
        (["output.auxiliary=0.4"], r"output\.auxiliary: the decoder of unet is its own and has none; set output\.auxiliary=0"),
        (["output.mask_token=true"], r"output\.mask_token: only the two-way decoder .* leave it out"),
        (["output.queries=4", "output.mask_token=true"], r"output\.queries, output\.mask_token: only .* leave them out"),
    ],
)  # fmt: skip
def test_another_decoder_is_refused_not_ignored(words: list[str], said: str, setting: Any) -> None:
    with pytest.raises((UserError, ValueError), match=said):
        setting("unet", *words)


def test_keys_of_the_two_way_decoder_are_for_it_alone() -> None:
    with pytest.raises(UserError, match=r"output\.queries: only the two-way decoder"):
        build_task("demo_lesions", ["output.decoder=upernet", "output.queries=4"])
    assert build_task("demo_lesions", ["output.decoder=two_way", "output.queries=4"])[0].output.queries == 4


@pytest.mark.parametrize(("method", "then"), [("unet", "upernet"), ("resunet", "linear"), ("mgi", "upernet")])
def test_what_was_stored_before_is_the_same_configuration(method: str, then: str, setting: Any, tmp_path: Path) -> None:
    """The folder is claimed by the same command, and its result is known by the hash that was written then."""
    found = setting(method)
    resolved = json.loads(json.dumps(_resolved(found)))
    old = json.loads(json.dumps(resolved))
    old["about"]["task"]["output"]["decoder"] = then
    assert differences(by_todays_names(old), resolved) == []
    found.out.mkdir()
    (found.out / "config.json").write_text(json.dumps({"config": old}))
    folder = RunFolder(found.out)
    before = _claim(folder, found)
    folder.release()
    assert before == hash_of(old["about"])
    assert (before == found.hashes()["config"]) == (method == "mgi")
