"""Terms of a data set: stated when it is packed, adopted or later, without a change of what a run reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from manifests import sources

from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.format import terms
from shards.format.info import load_info, save_info
from shards.format.terms import Terms, restate_terms
from shards.pack.adopt import Titles, adopt
from shards.pack.options import PackOptions

ALL = ["--licence", "CC-BY-4.0", "--commercial", "yes", "--citation", "A et al., 2024"]


def words(folder: Path) -> tuple[str, str, str]:
    info = load_info(folder)
    return info.licence, info.commercial, info.citation


def test_terms_are_packed_kept_by_adoption_and_restated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = sources(tmp_path / "sources")
    folder, plain = tmp_path / "set", made.pack(tmp_path / "plain", PackOptions())
    assert main(["pack", str(made.manifest), "--out", str(folder), *ALL]) == 0
    assert words(folder) == ("CC-BY-4.0", "yes", "A et al., 2024")
    before = load_info(plain)
    assert words(plain) == ("", "", "")
    assert '"commercial"' not in (plain / "dataset.json").read_text(), "readers of before know no such key"
    capsys.readouterr()
    assert main(["terms", str(plain), "--commercial", "no", "--citation", "B"]) == 0
    assert capsys.readouterr().out == "licence: not stated\ncommercial: no\ncitation: B\n"
    assert load_info(plain).fingerprint == before.fingerprint
    assert not lint(plain).problems
    assert words_after_adoption(folder, Titles(commercial="unknown")) == ("CC-BY-4.0", "unknown", "A et al., 2024")


def words_after_adoption(folder: Path, titles: Titles) -> tuple[str, str, str]:
    adopt(folder, titles=titles)
    return words(folder)


def test_what_another_command_changed_in_between_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lock = sources(tmp_path / "sources").pack(tmp_path / "set", PackOptions()), terms.locked

    @contextmanager
    def late(place: Path) -> Iterator[None]:
        save_info(folder, load_info(folder).model_copy(update={"version": "2"}))
        with lock(place):
            yield

    monkeypatch.setattr(terms, "locked", late)
    found = restate_terms(folder, "internal", None, None)
    assert (found.version, found.licence) == ("2", "internal")


def test_what_is_missing_and_what_means_nothing(tmp_path: Path) -> None:
    assert Terms("CC0", "unknown").missing == ("citation",)
    assert Terms().missing == ("licence", "commercial", "citation")
    with pytest.raises(DataError, match="nothing is stated"):
        restate_terms(tmp_path, None, None, None)
    with pytest.raises(SystemExit):
        main(["terms", str(tmp_path), "--commercial", "perhaps"])
    assert main(["terms", str(tmp_path), "--commercial", "no"]) == 2
