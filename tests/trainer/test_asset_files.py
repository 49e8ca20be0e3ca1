"""What becomes of a file that an option names: kept as a digest by a run, refused when it is gone or changed, copied by an export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.contract import MethodError, Schema
from models.contract.assets import Asset, sha256_of
from models.registry import get_method
from tests.trainer.test_export import RUNS
from trainer.build import resolve
from trainer.config.schema import by_todays_names, parse
from trainer.downstream.init import Init
from trainer.errors import UserError
from trainer.export.export import export
from trainer.export.opened import load_exported
from trainer.state.finished import open_run
from trainer.state.run_folder import RunFolder

BASE = get_method("mrm_record").Options


class WithAsset(BASE):  # type: ignore[misc,valid-type]
    """The method's tokenizer as an asset."""

    tokenizer: Asset = None


@pytest.fixture
def asset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(get_method("mrm_record"), "Options", WithAsset)
    return


def claimed(out: Path, words: Path) -> None:
    """What a command does with its folder before it trains."""
    config = parse({"method_name": "mrm_record", "out": str(out), "method": {"tokenizer": str(words)}})
    resolved = resolve(config)[2]
    folder = RunFolder(out)
    try:
        folder.claim(config.resume, resolved)
        folder.record(resolved, {})
    finally:
        folder.release()


@pytest.mark.usefixtures("asset")
def test_a_run_does_not_go_on_with_another_file(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("lung")
    claimed(tmp_path / "run", words)
    claimed(tmp_path / "run", words)
    words.write_text("heart")
    with pytest.raises(
        UserError, match=r"method\.tokenizer: .*words\.txt holds something else .* give another out=FOLDER"
    ):
        claimed(tmp_path / "run", words)
    words.unlink()
    with pytest.raises(MethodError, match=r"method\.tokenizer: .*no such file"):
        claimed(tmp_path / "run", words)


def options_of(sets: Path) -> dict[str, Any]:
    """What decides a result of mcat from scratch."""
    return Init("mcat", {"gene_sets": str(sets)}, Schema({}), None, False, None).hashed_options()


def test_a_result_keeps_what_the_file_held_not_where_it_lay(tmp_path: Path) -> None:
    sets, moved = tmp_path / "sets.gmt", tmp_path / "moved.gmt"
    sets.write_text("a\t\tG1\n")
    told = [options_of(sets)]
    sets.rename(moved)
    told.append(options_of(moved))
    assert told[0] == told[1]
    assert told[0]["gene_sets"].startswith("sha256:")
    moved.write_text("a\t\tG2\n")
    assert options_of(moved) != told[0]
    about = {"method": "mcat", "options": told[0], "task": {}}
    assert by_todays_names({"about": about})["about"]["options"]["gene_sets"] == told[0]["gene_sets"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, demo_cohort: Path) -> Path:
    from tests.trainer.launching import launch

    out = tmp_path_factory.mktemp("assets") / "record"
    ended = launch(1, [*RUNS["record"], f"out={out}"], demo_cohort)
    assert ended.codes == [0], ended.text
    return out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("asset")
def test_an_export_takes_the_file_along(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    card = json.loads((run / "method.json").read_text())
    assert card["assets"] == {}
    words = tmp_path / "words.txt"
    words.write_text("\n".join(open_run(run).schema.need("report").vocabulary or ()))
    card["options"]["tokenizer"], card["assets"] = str(words), {"tokenizer": sha256_of(words)}
    (run / "method.json").write_text(json.dumps(card))
    folder, _ = export(run, "safetensors", tmp_path / "out")
    kept = words.read_text()
    assert (folder / "tokenizer.txt").read_text() == kept
    words.write_text(f"{kept}\nother")
    with pytest.raises(
        MethodError, match=r"method\.tokenizer: .*words\.txt holds something else .* than the run was made with"
    ):
        open_run(run)
    words.unlink()
    with pytest.raises(
        MethodError, match=r"method\.tokenizer: .*words\.txt: no such file, and the run was made with it"
    ):
        open_run(run)
    assert load_exported(folder).tokenizer.words  # the export needs neither the run nor its file
    (folder / "tokenizer.txt").write_text("other")
    with pytest.raises(MethodError, match="than the export was made with"):
        load_exported(folder)
