"""Conversions of a layout that were killed: the next command goes on after whole parts, and ends in the same data set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.layout import dicom, filling
from shards.layout.begun import converting
from shards.terminal import Progress
from tests.shards.kills import run_until
from tests.shards.layout import miniatures as mini
from tests.shards.layout.films import film, grey
from tests.shards.layout.test_layouts import find, made


def films(root: Path) -> Path:
    """RSNA's miniature with films as DICOM, of 12 bits without windows; every fifth is MONOCHROME1, of which one is padded."""
    root.mkdir(parents=True)
    mini.rsna(root, films=False)
    for i in range(mini.FILMS):
        header = {"PixelPaddingValue": 4095} if i == 5 else {}
        kind = "MONOCHROME2" if i % 5 else "MONOCHROME1"
        film(root / "stage_2_train_images" / f"{mini.rsna_name(i)}.dcm", grey(i), kind=kind, **header)
    return root


def words(root: Path) -> list[str]:
    given = ["--root", str(root), "--out", str(root.parent / "set"), "--shard-samples", "4"]
    return ["source", "rsna_pneumonia", *given, "--jobs", "1"]


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def parts_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PART", 3)


def test_killed_at_any_step_it_ends_in_the_same_set(tmp_path, parts_of_three, capfd):
    """From the first file in the folder of work to the last shard, at about fifty points; one life continues what all before it left."""
    whole = films(tmp_path / "whole" / "root")
    assert main(words(whole)) == 0
    right = content(tmp_path / "whole" / "set")
    again = films(tmp_path / "again" / "root")
    for path in again.rglob("*"):
        twin = whole / path.relative_to(again)
        os.utime(path, ns=(twin.stat().st_atime_ns, twin.stat().st_mtime_ns))
    step, kills = 0, 0
    while run_until(lambda: main(words(again)), step):
        step, kills = step + 7, kills + 1
    assert kills > 5
    assert content(tmp_path / "again" / "set") == right
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == ["root", "set"]
    assert "samples were converted by a killed command" in capfd.readouterr().out


def half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> Path:
    """A folder whose conversion an interrupt ended after so many samples."""
    root = films(tmp_path / "root")
    with monkeypatch.context() as patch:
        patch.setattr(
            Progress, "reached", lambda self, n: (_ for _ in ()).throw(KeyboardInterrupt) if n >= at else None
        )
        assert main(words(root)) == 130
    return root


def developed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the films that are developed from here on."""
    names: list[str] = []
    develop = dicom.Films.develop
    monkeypatch.setattr(
        dicom.Films, "develop", lambda self, file, png, shown: (names.append(shown), develop(self, file, png, shown))
    )
    return names


def test_whole_parts_are_not_converted_again(tmp_path, parts_of_three, monkeypatch, capsys):
    root = half_done(tmp_path, monkeypatch, 6)
    said = capsys.readouterr().err
    assert f"interrupted: converted images in {tmp_path / 'set'}-work are kept, and the same command goes on" in said
    names = developed(monkeypatch)
    assert main(words(root)) == 0
    assert len(names) == mini.FILMS - 6
    assert "6 of 12 samples were converted by a killed command" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda root: os.utime(root / "stage_2_train_images" / f"{mini.rsna_name(1)}.dcm"), 3),
        (lambda root: film(root / "stage_2_train_images" / f"{mini.rsna_name(4)}.dcm", grey(77)), 3),
        (lambda root: (root.parent / "set-work" / "image" / f"{mini.rsna_name(0)}.png").write_bytes(b"half"), 3),
        (lambda root: (root.parent / "set-work" / "begun" / "000001.json").write_text("{"), 3),
        (lambda root: (root.parent / "set-work" / ".medpair-work").write_text("of another layout"), 6),
    ],
)  # fmt: skip
def test_what_has_changed_is_converted_again(tmp_path, parts_of_three, monkeypatch, change, again):
    root = half_done(tmp_path, monkeypatch, 6)
    change(root)
    names = developed(monkeypatch)
    assert main(words(root)) == 0
    assert len(names) == mini.FILMS - 6 + again


def test_another_root_is_converted_anew(tmp_path, parts_of_three, monkeypatch):
    """Another release has files of the same names and sizes, and often of the same time."""
    root = half_done(tmp_path, monkeypatch, 6)
    names = developed(monkeypatch)
    assert main(words(root.rename(tmp_path / "other"))) == 0
    assert len(names) == mini.FILMS


def test_masks_from_run_lengths_go_on_too(tmp_path, parts_of_three, monkeypatch):
    root = made("siim_acr", tmp_path)
    right = find("siim_acr", root).manifest.entries
    masks = [np.fromfile(e.fields["mask"].path, np.uint8) for e in right]
    drawn: list[int] = []
    draw = filling.mask_of_runs
    monkeypatch.setattr(filling, "mask_of_runs", lambda cells, runs: (drawn.append(1), draw(cells, runs))[1])
    entries = find("siim_acr", root).manifest.entries
    assert not drawn, "the folder of work was left, as by a kill"
    assert all(
        np.array_equal(np.fromfile(e.fields["mask"].path, np.uint8), m) for e, m in zip(entries, masks, strict=True)
    )
    (root / "train-rle.csv").write_text((root / "train-rle.csv").read_text().replace(" -1", " 1 5", 1))
    assert find("siim_acr", root).manifest.entries[1].labels == {"pneumothorax": "present"}
    assert len(drawn) == 3, "the part whose cell has changed"


@pytest.mark.parametrize(("name", "every"), [("kaggle_lgg_mri", 45), ("uk_biobank_fundus", 45)])
def test_a_source_in_python_begins_anew(name, every, tmp_path):
    root = made(name, tmp_path)

    def command(out: str = "set") -> int:
        given = ["--root", str(root), "--out", str(tmp_path / out), "--split-fractions", "0.6,0.2,0.2", "--jobs", "1"]
        return main(["source", name, *given, "--name", "set"])

    assert command("whole") == 0
    step, kills = 0, 0
    while run_until(command, step):
        step, kills = step + every, kills + 1
    assert kills > 2
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set", "whole"]


@pytest.mark.parametrize("name", ["rsna_pneumonia", "kaggle_lgg_mri"])
def test_two_commands_do_not_share_a_folder_of_work(name, tmp_path, capsys):
    root = made(name, tmp_path)
    given = ["source", name, "--root", str(root), "--split-fractions", "0.6,0.2,0.2", "--jobs", "1"]
    work = ["--work", str(tmp_path / "work")]
    with converting(tmp_path / "work"):
        assert main([*given, *work, "--out", str(tmp_path / "one")]) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'work'}: another process is converting into this folder. Fix: wait for it" in said
        assert not (tmp_path / "work").exists()
        assert main([*given, "--out", str(tmp_path / "two")]) == 0
    assert main([*given, *work, "--out", str(tmp_path / "one")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "root", "two"]


@pytest.mark.parametrize("name", ["tcga_luad_lusc", "tcga_gbm_lgg", "kaggle_lgg_mri", "uk_biobank_fundus"])
def test_a_folder_that_is_no_folder_of_work_stays(name, tmp_path, capsys):
    """OUT-work is removed at the end, but never what somebody else has put there."""
    root, own = made(name, tmp_path), tmp_path / "set-work" / "notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    words = ["source", name, "--root", str(root), "--out", str(tmp_path / "set"), "--split-fractions", "0.6,0.2,0.2"]
    assert main(words) == 2
    assert "the folder for converted images is not empty" in capsys.readouterr().err
    assert own.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set-work"]
    assert main([*words, "--work", str(own)]) == 2
    assert f"{own}: the folder for converted images is not empty" in capsys.readouterr().err
    assert main([*words, "--work", str(tmp_path / "other")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root", "set", "set-work"]
