"""Conversions on a disk without room (RLIMIT_FSIZE: the system itself refuses the write): what to free is said, and the next command
goes on after what was converted."""

from __future__ import annotations

import shutil

import pytest

from shards.__main__ import main
from tests.disk_full import with_no_room
from tests.shards.layout import miniatures as mini
from tests.shards.layout.test_begun import content, developed, films, half_done, parts_of_three, words  # noqa: F401
from tests.shards.layout.test_layouts import made


def said_without_room(given: list[str], limit: int = 64) -> str:
    said = with_no_room(lambda: print("status", main(given)), limit)
    assert "status 2" in said, said
    assert "Traceback" not in said
    return said


def test_what_was_converted_is_kept(tmp_path, parts_of_three, monkeypatch, capsys):  # noqa: F811
    whole = films(tmp_path / "whole" / "root")
    assert main(words(whole)) == 0
    root = half_done(tmp_path, monkeypatch, 6)
    said = said_without_room(words(root))
    assert f"{tmp_path / 'set'}-work: no room for converted images: File too large" in said
    assert "MB are taken by the images that are converted, which are kept" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set-work", "whole"]
    moved = tmp_path / "elsewhere" / "work"
    shutil.move(tmp_path / "set-work", moved)
    names = developed(monkeypatch)
    assert main([*words(root), "--work", str(moved)]) == 0
    assert len(names) == mini.FILMS - 6
    assert content(tmp_path / "set") == content(tmp_path / "whole" / "set")
    assert not moved.exists()


def test_they_are_kept_where_packing_has_no_room_either(tmp_path, parts_of_three, monkeypatch):  # noqa: F811
    root = films(tmp_path / "root")
    said = said_without_room(words(root), 12_000)
    assert f"{tmp_path / 'set'}: cannot write: File too large" in said
    assert f"; converted images in {tmp_path / 'set'}-work are kept, and the same command goes on after them" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set-work"]
    names = developed(monkeypatch)
    assert main(words(root)) == 0
    assert len(names) == mini.FILMS - 3, "those of parts with films that are turned over when all are known"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set"]


@pytest.mark.parametrize("name", ["palm", "kaggle_lgg_mri", "uk_biobank_fundus", "tcga_gbm_lgg"])
def test_a_first_picture_without_room(name, tmp_path):
    """A bitmap that was read is not called unreadable, and of a source in Python nothing is kept."""
    root = made(name, tmp_path)
    said = said_without_room(["source", name, "--root", str(root), "--out", str(tmp_path / "set"), "--jobs", "1"])
    assert "no room for converted images" in said
    assert "nothing that was converted is kept" in said
    assert [p.name for p in tmp_path.iterdir()] == ["root"]
