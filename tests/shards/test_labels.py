"""Labels from cells: words for "not known", numbers and classes, the same in a manifest and in every source."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.format.info import load_info
from shards.pack.labels import LabelRule, Settled, label_rule, settle
from shards.pack.manifest import Entry
from shards.read.dataset import Dataset
from shards.tables.unknown import UNKNOWN, Words, is_unknown, words_of

GRADED = ["None", "Mild", "Severe", "Mild", "None", ""]


def entries(cells: list[str], name: str = "x") -> list[Entry]:
    return [Entry(f"t line {i}", f"s{i}", f"p{i}", labels={name: c}) for i, c in enumerate(cells, 2)]


def settled(cells: list[str], rule: LabelRule | None = None, **more: object) -> tuple[Settled, list]:
    made = entries(cells)
    found = settle(made, ["x"], rule, **more)  # type: ignore[arg-type]
    return found, [e.labels.get("x") for e in made]


LISTED = [
    "NA",
    "N/A",
    "nan",
    "NaN",
    "'--",
    "[Not Available]",
    "Not Reported",
    "#N/A",
    "<NA>",
    ".",
    "NULL",
    "unknown",
    " NA ",
]


@pytest.mark.parametrize("word", LISTED)
def test_words_for_unknown_in_numbers_and_in_classes(word):
    found, values = settled(["61", word, "58.5"])
    assert (found.kinds, values, found.problems) == ({"x": "number"}, [61.0, None, 58.5], [])
    assert f"label 'x': 1 x '{word.strip()}' taken as unknown" in found.notes[0]
    found, values = settled(["II", word, "I"])
    assert (found.kinds, values) == ({"x": "class"}, ["II", None, "I"])


def test_the_words_are_those_of_the_documentation():
    said = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [w for w in sorted(UNKNOWN) if w and f"`{w}`" not in said] == []


def test_none_is_a_grade_where_the_others_are():
    found, values = settled(GRADED)
    assert values == ["None", "Mild", "Severe", "Mild", "None", None]
    assert found.notes == ["label 'x': 2 x 'None' kept as a class beside mild, severe (--unknown None if not)"]
    found, values = settled(GRADED, LabelRule(Words(unknown=frozenset({"none"}))))
    assert values == [None, "Mild", "Severe", "Mild", None, None]
    found, values = settled(["None", "LUAD", "LUSC"])
    assert values == [None, "LUAD", "LUSC"]
    assert "1 x 'None' taken as unknown (--known WORD" in found.notes[0]
    _, values = settled(["None", "LUAD", "LUSC"], LabelRule(Words(known=frozenset({"none"}))))
    assert values == ["None", "LUAD", "LUSC"]
    found, values = settled(["+", "-", "+", "NA", "--"])
    assert values == ["+", "-", "+", None, "--"]
    assert "1 x '-' kept as a class beside + (--unknown - if not)" in found.notes[1]
    assert settled(["2", "-", "3"])[1] == [2.0, None, 3.0]
    assert settled(["None", "1", "2"])[1] == [None, 1.0, 2.0]


def test_a_word_among_numbers_is_refused_until_somebody_says_what_it_is():
    found, _ = settled(["61", "n.d.", "58", "n.d."])
    assert found.kinds == {"x": "number"}
    assert len(found.problems) == 1
    said = str(found.problems[0])
    assert said.startswith("t line 3: label 'x' is 'n.d.', not a number like the 2 others (in 2 samples)")
    assert "--unknown 'n.d.'" in said
    assert "--label-kind x=class" in said
    assert settled(["61", "n.d.", "58"], LabelRule(Words(unknown=frozenset({"n.d."}))))[1] == [61.0, None, 58.0]
    found, values = settled(["61", "n.d.", "58"], LabelRule(kinds={"x": "class"}))
    assert (found.kinds, values, found.problems) == ({"x": "class"}, ["61", "n.d.", "58"], [])


def test_many_words_among_numbers_are_told_in_few_lines():
    found, _ = settled(["1", *"abcdefgh"])
    assert len(found.problems) == 4
    assert "5 more words" in str(found.problems[-1])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["61,5", "58,0", "60,2"], "label 'x' is '61,5', which holds a comma where a number has its point"),
        (["61,5", "58", "60"], "Fix: write numbers as 61.5"),
        (["LUAD", "luad", "LUSC"], "differ in case or blanks alone: 'LUAD' (t line 2), 'luad' (t line 3)"),
        (["Edema", "Edema|Mass", "Mass"], "lists several classes in a cell: 'Edema|Mass' (t line 3)"),
    ],
)
def test_doubtful_classes_are_refused_unless_they_are_declared(cells, message):
    assert message in "".join(map(str, settled(cells)[0].problems))
    found, values = settled(cells, LabelRule(kinds={"x": "class"}))
    assert (values, found.problems) == (cells, [])


@pytest.mark.parametrize(
    ("name", "why"), [("sample", "is the column of samples"), (" ", "is empty"), ("a\tb", "control character")]
)
def test_names_that_cannot_head_a_column_of_labels(name, why):
    found = settle(entries(["a", "b"], name), [name])
    assert why in "".join(map(str, found.problems))
    assert "control character (U+000D)" in "".join(map(str, settled(["a", "b\rc"])[0].problems))


def test_underscores_make_no_numbers():
    assert settled(["3_3", "3_4", "4_3"])[0].kinds == {"x": "class"}


def test_codes_of_classes_have_one_name_however_they_are_spelt():
    found, values = settled(["1.0", "2", "2.0", "1"], of_numbers=lambda v: "class")
    assert (found.kinds, values) == ({"x": "class"}, ["1", "2", "2", "1"])


def test_a_label_without_any_value_is_refused_where_it_was_asked_for():
    found, values = settled(["", "NA"])
    assert (found.kinds, values, found.problems) == ({}, [None, None], [])
    assert found.notes[-1] == "label 'x' has no known value in any sample: left out"
    found, _ = settled(["", "NA"], asked=["x"])
    assert "label 'x' has no known value" in str(found.problems[0])


def test_what_the_options_say():
    given = argparse.Namespace(unknown=["N.D."], known=["NA"], label_kind=["stage=class"])
    assert label_rule(given) == LabelRule(Words(frozenset({"n.d."}), frozenset({"na"})), {"stage": "class"})
    words = words_of(given)
    assert [words(c) for c in ("n.d.", "NA", "nan", "", None)] == [True, False, True, True, True]
    assert is_unknown("x", ["X "])
    found, _ = settled(["1"], LabelRule(kinds={"y": "class"}))
    assert "no label 'y'" in str(found.problems[0])


# ---------------------------------------------------------------------------------------------------- in every reader


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for i in range(24):
        Image.fromarray(np.full((12, 12, 3), 3 * i, np.uint8)).save(tmp_path / "img" / f"e{i}.png")
        np.save(tmp_path / f"x{i}.npy", np.full((2, 4), i, np.float32))
    return tmp_path


def written(folder: Path, name: str, header: str, row) -> Path:
    (folder / name).write_text("\n".join([header, *(row(i) for i in range(24))]) + "\n")
    return folder / name


def odd(word: str, i: int) -> str:
    """Cells of stage and age, one of each being the word."""
    return f"{word if i == 3 else 'I' * (1 + i % 2)},{word if i == 4 else 40.5 + i}"


def of_manifest(folder: Path, word: str, *more: str) -> int:
    path = written(
        folder,
        "m.csv",
        "sample,patient,label:stage,label:age,field:patches",
        lambda i: f"s{i},p{i},{odd(word, i)},x{i}.npy",
    )
    return main(["pack", str(path), "--out", str(folder / "out"), *more])


def of_fundus(folder: Path, word: str, *more: str) -> int:
    path = written(folder, "f.csv", "image,patient,stage,age", lambda i: f"img/e{i}.png,p{i},{odd(word, i)}")
    return main(
        ["source", "fundus_genotypes", "--images", str(path), "--quality", "none", "--out", str(folder / "out"), *more]
    )


def of_radiographs(folder: Path, word: str, *more: str) -> int:
    path = written(
        folder,
        "r.csv",
        "image,patient,text,stage,age",
        lambda i: f"img/e{i}.png,p{i},{word if i == 5 else 'clear lungs'},{odd(word, i)}",
    )
    return main(
        [
            "source",
            "cxr_reports",
            "--csv",
            str(path),
            "--label-columns",
            "stage,age",
            "--out",
            str(folder / "out"),
            *more,
        ]
    )


def of_lung(folder: Path, word: str, *more: str) -> int:
    import h5py

    (folder / "h5").mkdir(exist_ok=True)
    cases = [f"TCGA-05-{4000 + i}" for i in range(24)]
    for i, case in enumerate(cases):
        with h5py.File(folder / "h5" / f"{case}-01Z-00-DX1.h5", "w") as f:
            f["features"], f["coords"] = np.full((2, 4), i, np.float32), np.zeros((2, 2), np.int32)
    rna = written(folder, "rna.csv", "case,A,B", lambda i: f"{cases[i]}-01A,{i}.5,{i}.25")
    labels = written(folder, "l.csv", "case,stage,age", lambda i: f"{cases[i]},{odd(word, i)}")
    flags = ["--features", str(folder / "h5"), "--expression", str(rna), "--labels", str(labels)]
    return main(["source", "tcga_nsclc", *flags, "--out", str(folder / "out"), *more])


@pytest.mark.parametrize("reader", [of_manifest, of_fundus, of_radiographs, of_lung])
@pytest.mark.parametrize("word", ["NA", "'--", "[Not Available]", "n.d."])
def test_every_reader_has_the_same_words(images, reader, word, capsys):
    listed = word != "n.d."
    if not listed:
        assert reader(images, word) == 2
        assert "--unknown 'n.d.'" in capsys.readouterr().err
    assert reader(images, word, *([] if listed else ["--unknown", word])) == 0
    assert f"label 'age': 1 x '{word}' taken as unknown" in capsys.readouterr().out
    labels = load_info(images / "out").labels
    assert (labels["age"].kind, labels["age"].missing) == ("number", 1)
    assert (labels["stage"].classes, labels["stage"].missing) == (("I", "II"), 1)


def test_reports_that_only_say_nan_are_empty(images, capsys):
    assert of_radiographs(images, "nan") == 0
    assert "23 images with a report" in capsys.readouterr().out
    path = written(
        images,
        "t.csv",
        "sample,patient,text:report,field:image",
        lambda i: f"s{i},p{i},{'nan' if i % 3 else 'clear'},img/e{i}.png",
    )
    assert main(["pack", str(path), "--out", str(images / "t")]) == 0
    with Dataset.open(images / "t") as data:
        assert sum(r.has("report") for r in data) == 8


def test_a_patient_called_nan_is_no_patient(images, capsys):
    path = written(
        images, "t.csv", "sample,patient,field:image", lambda i: f"s{i},{'nan' if i == 7 else f'p{i}'},img/e{i}.png"
    )
    assert main(["pack", str(path), "--out", str(images / "t")]) == 2
    assert "sample 's7' has no patient" in capsys.readouterr().err


@pytest.mark.parametrize("reader", [of_manifest, of_radiographs])
def test_an_empty_label_column_that_was_asked_for(images, reader, capsys):
    def empty(text: str) -> str:
        head, *lines = text.splitlines()
        at = [c.rpartition(":")[2] for c in head.split(",")].index("stage")
        return "\n".join([head, *(",".join("" if k == at else c for k, c in enumerate(r.split(","))) for r in lines)])

    assert reader(images, "NA") == 0
    path = images / {of_manifest: "m.csv", of_radiographs: "r.csv"}[reader]
    path.write_text(empty(path.read_text()))
    words = (
        ["pack", str(path)]
        if reader is of_manifest
        else ["source", "cxr_reports", "--csv", str(path), "--label-columns", "stage"]
    )
    assert main([*words, "--out", str(images / "again")]) == 2
    assert "label 'stage' has no known value in any sample" in capsys.readouterr().err
