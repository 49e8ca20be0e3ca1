"""Files that options name: where they stand, what they hold, and what is said when they are gone or changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models.contract import MethodError, Options
from models.contract.assets import Asset as AssetOption
from models.contract.assets import asset_digests, asset_problems, assets, copy_assets, hashed, with_assets


class Words(Options):
    file: AssetOption = None
    """Words."""


class Whole(Options):
    sets: AssetOption = None
    """Sets."""
    words: Words = Words()
    """A group."""
    name: str = "x"
    """No asset."""


@pytest.fixture
def given(tmp_path: Path) -> dict:
    (tmp_path / "a.gmt").write_text("a")
    (tmp_path / "w.txt").write_text("w")
    return {"sets": str(tmp_path / "a.gmt"), "words": {"file": str(tmp_path / "w.txt")}, "name": "here/there"}


def test_assets_are_found_in_every_group_and_nothing_else_is(given):
    assert assets(Whole, given) == {"sets": given["sets"], "words.file": given["words"]["file"]}
    assert assets(Whole, {"sets": None}) == {}
    sha256 = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in (("sets", "a"), ("words.file", "w"))}
    assert asset_digests(Whole, given) == sha256
    found = hashed(Whole, given)
    assert found == {
        "sets": f"sha256:{sha256['sets']}", "words": {"file": f"sha256:{sha256['words.file']}"}, "name": "here/there",
    }  # fmt: skip
    assert Whole.parse(found).sets == found["sets"], "what a result keeps of them is read again"


def test_copies_stand_under_the_options_names(given, tmp_path):
    (tmp_path / "to").mkdir()
    named = copy_assets(Whole, given, tmp_path / "to")
    assert named == {"sets": "sets.gmt", "words.file": "words.file.txt"}
    assert (tmp_path / "to" / "words.file.txt").read_text() == "w"
    assert with_assets(Whole, given, named)["words"] == {"file": "words.file.txt"}
    assert given["words"]["file"].endswith("w.txt"), "the options themselves stay"


def test_what_is_gone_or_changed_is_said_together(given, tmp_path):
    kept = asset_digests(Whole, given)
    assert list(asset_problems(Whole, given, kept, "the run")) == []
    Path(given["sets"]).unlink()
    Path(given["words"]["file"]).write_text("other")
    gone, changed = asset_problems(Whole, given, kept, "the run")
    assert f"method.sets: {given['sets']}: no such file, and the run was made with it; bring it back" in gone
    assert "method.words.file" in changed
    assert "holds something else" in changed
    assert kept["words.file"][:12] in changed
    [unnamed] = asset_problems(Whole, {**given, "words": {}}, {"words.file": kept["words.file"]}, "the run")
    assert "its options do not name" in unnamed


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(MethodError) as told:
        Whole.parse({"sets": "no.gmt", "words": {"file": str(tmp_path)}})
    assert len(told.value.problems) == 2
    assert "method.sets: " in told.value.problems[0]
    assert "no such file" in told.value.problems[0]
    assert "method.words.file: " in told.value.problems[1]
