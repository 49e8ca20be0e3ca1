"""Sets that are half there, packed, of another release or contradict themselves: told by kind, counted, and nothing is left behind."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from shards.errors import DataError
from shards.layout.drawn import Drawing, boxes_of, mask_of_runs
from shards.layout.files import load
from shards.layout.join import join
from shards.layout.lines import Lines
from shards.layout.schema import Boxes, Runs, Table
from shards.tables.column_table import read_columns
from shards.tables.columns import Column
from tests.shards.layout import miniatures as mini
from tests.shards.layout.test_layouts import find, made


def refused(name: str, root: Path, *words: str) -> str:
    with pytest.raises(DataError) as caught:
        find(name, root, *words)
    assert not Path(f"{root.parent / 'out'}-work").exists()
    return str(caught.value)


def test_half_a_download_is_refused_or_meant(tmp_path):
    root = made("aptos2019", tmp_path)
    for path in sorted((root / "train_images").iterdir())[:3]:
        path.unlink()
    mini.picture(root / "train_images" / "stranger.png", 50)
    said = refused("aptos2019", root)
    assert "3 of 12 rows have no file for 'image' (such as 'train_images/0000ab12cd34.png'" in said
    assert "--partial" in said
    found = find("aptos2019", root, "--partial")
    assert len(found.manifest.entries) == 9
    assert ("train_images/0000ab12cd34.png", "no such file (--partial)") in found.unmatched
    assert ("train_images/stranger.png", "a file for 'image' that the tables do not list") in found.unmatched
    assert "1 files for 'image' are in no table, such as train_images/stranger.png" in found.notes


def test_archives_that_lie_there_packed_are_named(tmp_path):
    root = made("aptos2019", tmp_path)
    shutil.make_archive(str(root / "train_images"), "zip", root, "train_images")
    shutil.rmtree(root / "train_images")
    said = refused("aptos2019", root)
    assert "12 of 12 rows have no file" in said
    assert "unpack the 1 archives that lie there (train_images.zip)" in said
    assert "--partial" not in said, "there is nothing to go on with"
    (root / "train.csv").unlink()
    assert "no table train.csv" in refused("aptos2019", root)


def test_tables_of_another_release_name_what_they_lack(tmp_path):
    root = made("rsna_pneumonia", tmp_path)
    path = root / "stage_2_train_labels.csv"
    path.write_text(path.read_text().replace("Target", "Label"))
    said = refused("rsna_pneumonia", root)
    assert "no column Target" in said
    assert "another release" in said


def test_rows_of_one_film_must_agree_and_words_be_known(tmp_path):
    root = made("rsna_pneumonia", tmp_path)
    path = root / "stage_2_train_labels.csv"
    text = path.read_text()
    path.write_text(text.replace("2.0,3.0,5.0,8.0,1\n", "2.0,3.0,5.0,8.0,0\n", 2))
    assert "has rows that differ in patient, label or split" in refused("rsna_pneumonia", root)
    path.write_text(text.replace(",1\n", ",2\n"))
    assert "column 'Target' is '2' in 12 rows" in refused("rsna_pneumonia", root)
    path.write_text(text.replace("5.0,8.0", "-5.0,8.0"))
    said = refused("rsna_pneumonia", root)
    assert "a box of 2, 3, -5, 8 (x y width height) has no area" in said


def test_a_joined_table_that_contradicts_itself_or_joins_nobody(tmp_path):
    root = made("rsna_pneumonia", tmp_path)
    path = root / "stage_2_detailed_class_info.csv"
    text = path.read_text()
    path.write_text(text + f"{mini.rsna_name(0)},Lung Opacity\n")
    assert "1 x a row on two lines" in refused("rsna_pneumonia", root)
    path.write_text("patientId,class\nsomebody,Normal\n")
    assert "joined nobody: it has somebody" in refused("rsna_pneumonia", root)
    path.unlink()
    found = find("rsna_pneumonia", root)
    assert "finding" not in found.manifest.label_kinds


def test_lists_that_leak_or_name_no_image(tmp_path):
    root = made("nih_chestxray14", tmp_path)
    training, test = root / "train_val_list.txt", root / "test_list.txt"
    names = training.read_text()
    training.write_text(f"{names}\n{test.read_text().splitlines()[0]}")
    assert "1 images are in two lists" in str(find("nih_chestxray14", root).manifest.problems[0])
    training.write_text(names.replace("00000009_001.png", "00000013_000.png"))
    found = find("nih_chestxray14", root)
    assert ("00000009_001", "in no published list of splits") in found.unmatched
    assert "the lists name 1 images more, such as 00000013_000" in found.notes
    training.write_text(names + "\n00000010_000.png")
    test.write_text("00000010_001.png")
    assert any("patient '10' is in" in p.what for p in find("nih_chestxray14", root).manifest.problems)
    test.unlink()
    assert "no list of splits test_list.txt" in str(find("nih_chestxray14", root).manifest.problems[0])


def test_two_files_of_a_row_and_paths_that_leave_the_root(tmp_path):
    root = made("nih_chestxray14", tmp_path)
    mini.picture(root / "images_012" / "images" / "00000001_000.png", 1)
    assert "1 rows have two files for 'image'" in refused("nih_chestxray14", root)
    root = made("covid19_image_collection", tmp_path / "b")
    path = root / "metadata.csv"
    path.write_text(path.read_text().replace("1-s2.0-S0929664620300000", "../../1-s2.0-S0929664620300000"))
    said = refused("covid19_image_collection", root)
    assert "1 rows name a file outside the root" in said


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("5", "pairs"),
        ("1 2 3", "pairs"),
        ("1 -2", "pairs"),
        ("", "pairs"),
        ("10 20 a b", "pairs"),
        ("90 20", "leaves"),
        ("-1", None),
    ],
)
def test_run_lengths(cell, why):
    runs = Runs(column="c", form="relative", order="columns", empty=["-1"], height=8, width=12)
    if why is None:
        assert not mask_of_runs([cell], runs).any()
    else:
        with pytest.raises(Drawing, match=why):
            mask_of_runs([cell], runs)


def test_run_lengths_in_each_form_and_order():
    mask_HW = np.zeros((8, 12), np.uint8)
    mask_HW[2:5, 3], mask_HW[1:7, 4] = 1, 1
    relative = Runs(column="c", form="relative", order="columns", height=8, width=12)
    assert np.array_equal(mask_of_runs([mini.runs_of(mask_HW)], relative), mask_HW)
    rows = Runs(column="c", form="relative", order="rows", height=8, width=12)
    assert np.array_equal(mask_of_runs([mini.runs_of(mask_HW.T)], rows), mask_HW)
    absolute = Runs(column="c", form="absolute", order="columns", height=8, width=12)
    assert np.array_equal(mask_of_runs(["27 3 34 6"], absolute), mask_HW), "the first pixel is 1"


def test_boxes_by_corners_must_have_an_area():
    corners = Boxes(columns=["a", "b", "c", "d"], form="x0 y0 x1 y1")
    assert boxes_of([["1", "2", "3.5", "4"], [""] * 4], corners).tolist() == [[1, 2, 3.5, 4]]
    assert boxes_of([[""] * 4], corners) is None
    for cells in (["3", "2", "1", "4"], ["1", "", "3", "4"], ["1", "2", "x", "4"]):
        with pytest.raises(Drawing):
            boxes_of([cells], corners)


OWN = """
about: "my films"
licence: internal
citation: none
tables:
  films: {file: films.csv, columns: [film, person]}
rows: [films]
sample: "{film}"
patient: "{person}"
fields:
  image: {path: "{film}.png"}
  patches: {reference: "bags/{film}.npz#features", meaning: {encoder: uni_v1}}
  rna: {reference: "rna.csv#{person}"}
labels:
  - {column: grade, kind: number}
"""


def own(tmp_path: Path, text: str = OWN) -> tuple[Path, Path]:
    root = tmp_path / "root"
    rows = [{"film": f"f{i}", "person": f"p{i // 2}", "grade": i % 3} for i in range(8)]
    for i, row in enumerate(rows):
        mini.picture(root / f"{row['film']}.png", i)
        (root / "bags").mkdir(exist_ok=True)
        np.savez(
            root / "bags" / f"{row['film']}.npz",
            features=np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32),
        )
    mini.table(root / "films.csv", rows)
    mini.table(root / "rna.csv", [{"case": f"p{i}", "TP53": i * 1.5, "EGFR": 2 - i} for i in range(4)])
    layout = tmp_path / "mine.yaml"
    layout.write_text(text)
    return root, layout


def test_a_layout_of_ones_own_with_bags_and_genes(tmp_path, capsys):
    from shards.__main__ import main
    from shards.read.dataset import Dataset

    root, layout = own(tmp_path)
    assert main(["source", str(layout), "--root", str(root), "--out", str(tmp_path / "set")]) == 0
    with Dataset.open(tmp_path / "set") as data:
        assert set(data.info.fields) - {"meta"} == {"image", "patches", "rna"}
        assert data.info.fields["patches"].meaning["encoder"] == "uni_v1"
        assert data.vocabulary("rna") == ("TP53", "EGFR")
        assert data.info.labels["grade"].kind == "number"
        assert data.info.patients == 4


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("citation:", "citaton:", "unknown key 'citaton'; did you mean 'citation'?"),
        ("columns: [film", "columnz: [film", "tables.films: unknown key 'columnz'; did you mean 'columns'?"),
        ("kind: number", "kind: digits", "labels.0.kind"),
        ("{reference: \"rna.csv#{person}\"}", "{reference: a, text: b}", "fields.rna: has reference and text of"),
        ("rows: [films]", "rows: [film]", "'film' is no table without a join"),
        ("patient: \"{person}\"", "patient: {value: a, pattern: '('}", "is no regular expression"),
        ("column: grade", "column: grades", "labels speaks of a column 'grades', which not all rows have"),
        ("  rna:", "  RNA:", "field 'RNA'"),
        ("rows: [films]", "rows: [films", "is no YAML"),
        ("file: films.csv", "file: /films.csv", "tables.films.file: '/films.csv' is no pattern of files below the root"),
        ("file: films.csv", "file: films**.csv", "tables.films.file: 'films**.csv' is no pattern of files"),
        ("rows:", "  people: {file: rna.csv, join: {case: '{names}'}}\nrows:", "tables.people joins by a column 'names', which neither"),
        ("rows:", "  people: {file: rna.csv, join: {id: '{person}'}}\nrows:", "no column id (it is comma-separated and has 'case'"),
    ],
)  # fmt: skip
def test_what_a_layout_cannot_say_is_refused(tmp_path, old, new, says):
    assert old in OWN
    root, layout = own(tmp_path, OWN.replace(old, new))
    assert says in refused(str(layout), root)


def test_a_star_may_stand_beside_a_column(tmp_path):
    root, layout = own(tmp_path, OWN.replace('path: "{film}.png"', 'path: "{film}*.png"'))
    assert [e.fields["image"].text for e in find(str(layout), root).manifest.entries] == [f"f{i}.png" for i in range(8)]


def test_rows_without_a_key_are_not_joined(tmp_path):
    joined = "  people: {file: people.csv, columns: [name, sex], join: {name: '{name}'}}\nrows:"
    root, layout = own(
        tmp_path, OWN.replace("rows:", joined).replace("kind: number}", "kind: number}\n  - {column: sex}")
    )
    rows = [{"film": f"f{i}", "person": f"p{i // 2}", "grade": 1, "name": "" if i == 3 else f"n{i}"} for i in range(8)]
    mini.table(root / "films.csv", rows)
    mini.table(root / "people.csv", [{"name": f"n{i}" if i else "", "sex": "fm"[i % 2]} for i in range(3)])
    found = find(str(layout), root)
    assert [e.labels.get("sex") for e in found.manifest.entries] == [None, "m", "f", *[None] * 5]
    assert "people.csv: 2 of 8 rows joined; 1 of its 3 are of no row" in found.notes


def test_a_reference_outside_the_root_is_not_read(tmp_path):
    root, layout = own(tmp_path, OWN.replace("bags/{film}", "../bags/{film}"))
    assert "'../bags/f0.npz#features' lies outside the root" in refused(str(layout), root)


def test_names_that_become_one_key_stay_two_samples(tmp_path):
    root, layout = own(tmp_path, OWN.replace('patient: "{person}"', 'patient: "p1"\nseveral: true'))
    (root / "f0.png").rename(root / "f.7.png")
    (root / "f1.png").rename(root / "f_7.png")
    path = root / "films.csv"
    path.write_text(path.read_text().replace("f0,p0,0", "f.7,p0,1").replace("f1,", "f_7,"))
    assert "sample 'f_7' stands twice" in str(find(str(layout), root).manifest.problems[0])


def test_rows_that_each_lack_something_are_not_an_empty_set(tmp_path):
    root, layout = own(tmp_path, OWN.replace("  rna:", '  mask: {path: "{film}.gif"}\n  rna:'))
    (root / "f0.gif").touch()
    for i in range(0, 1):
        (root / f"f{i}.png").unlink()
    assert "each of 8 samples lacks a file" in refused(str(layout), root, "--partial")


def test_a_layout_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load(str(tmp_path / "no.yaml"))


def test_a_folder_of_work_is_not_emptied_unless_it_is_ours(tmp_path):
    root, layout = own(tmp_path)
    work = tmp_path / "out-work"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        find(str(layout), root)
    assert (work / "thesis.txt").read_text() == "mine"
    (work / ".medpair-work").touch()
    assert find(str(layout), root).manifest.entries, "what a run left that was killed"


def test_two_files_for_one_table_are_not_chosen_from(tmp_path):
    """The set unpacked twice: which of them is meant is not taken from an order of names."""
    root = made("rfmid", tmp_path)
    table = next(root.rglob("RFMiD_Training_Labels.csv"))
    (root / "again").mkdir()
    shutil.copy(table, root / "again")
    said = refused("rfmid", root)
    assert (
        "2 files could be one table: Training_Set/Training_Set/RFMiD_Training_Labels.csv, again/RFMiD_Training_Labels.csv"
        in said
    )
    assert "keep one of each" in said
    shutil.rmtree(root / "again")
    assert find("rfmid", root).manifest.entries


def steps_of(work: Callable[[], object]) -> int:
    """Lines of shards/layout and shards/tables that run."""
    ran, rooms = Counter[str](), ("shards/layout/", "shards/tables/")

    def trace(frame: FrameType, event: str, _: object) -> Any:
        ran[event] += 1
        return trace if any(room in frame.f_code.co_filename for room in rooms) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return ran["line"]


def test_a_join_takes_work_in_proportion_to_its_rows(tmp_path):
    """Half a million films are joined with their splits and findings."""

    def steps(count: int) -> int:
        path = mini.table(tmp_path / "splits.csv", [{"id": i, "split": "train"} for i in range(count)])
        lines, table = Lines(), Table(file=["splits.csv"], join={"id": "{film}"})
        lines.add({"film": Column(map(str, range(count)))}, count, str)
        read = read_columns(path, key=["id"])
        steps = steps_of(lambda: join("splits", table, read, lines, {"split"}, [], []))
        assert all(line.cells["split"] == "train" for line in lines)
        return steps

    assert steps(1600) < 9 * steps(200)
