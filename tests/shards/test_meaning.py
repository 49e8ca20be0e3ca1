"""What numbers mean: stated, found, stored, shown, and refused where two data sets do not agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from manifests import sources

from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.format.canonical import canonical, same
from shards.format.info import load_info
from shards.format.meaning import WANTED, check_agreement, disagreements, joined, one_sided, parse_meanings
from shards.order.mix import Mix, open_data
from shards.pack.adopt import adopt
from shards.pack.options import PackOptions
from shards.pack.split import resplit
from shards.read.dataset import Dataset

UNI = {"patches": {"encoder": "uni_v1"}}


@pytest.mark.parametrize(
    ("key", "spellings"),
    [
        ("magnification", ["20x", "20X", "20", "20.0x", " 20 x "]),
        ("patch_size", ["256", "256px", "256 px", "256.0", "256x256", "256 x 256 px"]),
        ("build", ["hg38", "GRCh38", "grch38.p13", "GRCh 38"]),
        ("transform", ["log2p1", "log2(x + 1)", "LOG2P1", "log2(TPM+1)", "log2(1 + FPKM)"]),
    ],
)
def test_one_spelling_of_a_value(key: str, spellings: list[str]) -> None:
    assert len({canonical(key, s) for s in spellings}) == 1


def test_what_is_not_the_same() -> None:
    assert canonical("transform", "log(x+1)") not in ("log2p1", "log1p"), "of an unknown base"
    assert canonical("transform", "ln(x+1)") == "log1p"
    assert canonical("patch_size", "256x512") != canonical("patch_size", "256")
    assert same("mpp", "0.5", "0.5023")
    assert not same("mpp", "0.5", "0.25")


def test_encoders_are_told_apart_but_not_by_spelling() -> None:
    def differ(a: str, b: str) -> bool:
        return bool(disagreements({"patches": {"encoder": a}}, "A", {"patches": {"encoder": b}}, "B"))

    assert not differ("conch_v15", "CONCH v1.5")
    assert differ("conch_v15", "conch_v1")
    assert differ("uni_v1", "resnet50")


def test_forms_of_the_option() -> None:
    assert parse_meanings(["patches.encoder=uni_v1", "patches.magnification=20X", "rna.transform=z-score"]) == {
        "patches": {"encoder": "uni_v1", "magnification": "20x"},
        "rna": {"transform": "z"},
    }
    assert parse_meanings(["rna.own_key=seven"]) == {"rna": {"own_key": "seven"}}
    wrong = [
        "patches.encoder",
        "patches.encoder=",
        "encoder=uni",
        "patches.encodr=uni",
        "rna.unit=TPM",
        "rna.unit=FPKM",
    ]
    with pytest.raises(DataError) as caught:
        parse_meanings(wrong)
    said = [str(p) for p in caught.value.problems]
    assert len(said) == 5
    assert "did you mean 'encoder'?" in said[3]
    assert "rna.unit is both 'TPM' and 'FPKM'" in said[4]


def test_packing_stores_what_it_did_and_what_was_stated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = sources(tmp_path / "in")
    for row in made.expression.values():
        row[:] = [abs(float(v)) * 100 for v in row]
    command = ["pack", str(made.write()), "--meaning", "patches.encoder=uni_v1", "--out"]
    assert main([*command, str(tmp_path / "raw")]) == 0
    assert "look like counts, FPKM or TPM: --transform rna=log2p1" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "log"), "--transform", "rna=log2p1"]) == 0
    assert "look like" not in capsys.readouterr().out
    raw, log = (load_info(tmp_path / n).fields for n in ("raw", "log"))
    assert raw["patches"].meaning == log["patches"].meaning == {"encoder": "uni_v1"}
    assert (raw["rna"].meaning, log["rna"].meaning) == ({"transform": "none"}, {"transform": "log2p1"})
    assert main(["info", str(tmp_path / "log")]) == 0
    shown = capsys.readouterr().out
    assert "encoder uni_v1" in shown
    assert "transform log2p1" in shown
    assert "not stored: patches: magnification, patch_size" in shown


def test_logarithms_are_said_and_stated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = str(sources(tmp_path / "in").write())  # normal draws: some below zero
    assert main(["pack", manifest, "--out", str(tmp_path / "a")]) == 0
    assert "look like logarithms or z-scores: state what was done: --meaning rna.transform=" in capsys.readouterr().out
    assert main(["pack", manifest, "--out", str(tmp_path / "b"), "--meaning", "rna.transform=z"]) == 0
    assert "look like" not in capsys.readouterr().out
    assert load_info(tmp_path / "b").fields["rna"].meaning == {"transform": "z"}


def test_a_second_logarithm_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = sources(tmp_path / "in")
    for row in made.expression.values():
        row[:] = [abs(float(v)) * 3 for v in row]
    assert main(["pack", str(made.write()), "--out", str(tmp_path / "a"), "--transform", "rna=log2p1"]) == 0
    assert "if they were logarithms already, pack without --transform" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PackOptions(meanings={"patchs": {"encoder": "x"}}), "--meaning: no field 'patchs'"),
        (
            PackOptions(meanings={"rna": {"transform": "z"}}, transforms={"rna": "log2p1"}),
            "rna.transform is stated as 'z' and is 'log2p1'",
        ),
    ],
)
def test_what_cannot_be_so_is_refused(tmp_path: Path, options: PackOptions, message: str) -> None:
    made = sources(tmp_path / "in")
    for row in made.expression.values():
        row[:] = [abs(float(v)) for v in row]
    with pytest.raises(DataError, match=message):
        made.pack(tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_the_fingerprint_covers_it_and_old_sets_keep_theirs(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    a, b = made.pack(tmp_path / "a", PackOptions(meanings=UNI)), made.pack(tmp_path / "b")
    assert load_info(a).fingerprint != load_info(b).fingerprint
    old = forget_all(b)
    assert "meaning" not in json.loads((b / "dataset.json").read_text())["fields"]["patches"]
    assert Dataset.open(b).fingerprint == old
    warned = [w for w in lint(b).warnings if "not stored" in w.what]
    assert [w.where for w in warned] == ["field 'patches'", "field 'rna'"]
    assert not lint(b).problems


def forget_all(folder: Path) -> str:
    """A data set as it was before meanings were kept; its fingerprint."""
    from shards.format.info import save_info

    info = load_info(folder)
    fields = {n: f.model_copy(update={"meaning": {}}) for n, f in info.fields.items()}
    return save_info(folder, info.model_copy(update={"fields": fields})).fingerprint


def test_a_packed_set_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = str(sources(tmp_path / "in").pack(tmp_path / "a"))
    assert main(["meaning", folder, "patches.encoder=uni_v1", "patches.magnification=20"]) == 0
    assert "patches: encoder uni_v1, magnification 20x" in capsys.readouterr().out
    assert not lint(Path(folder)).problems
    assert main(["meaning", folder, "patches.encoder=UNI v1"]) == 0, "the same word, spelt otherwise"
    before = (tmp_path / "a" / "dataset.json").read_bytes()
    assert main(["meaning", folder, "patches.encoder=resnet50", "gone.unit=TPM"]) == 2
    said = capsys.readouterr().err
    assert "patches.encoder is 'UNI v1', not 'resnet50'. Fix: give --overwrite" in said
    assert "no field 'gone'" in said
    assert (tmp_path / "a" / "dataset.json").read_bytes() == before
    assert main(["meaning", folder, "patches.encoder=resnet50", "patches.magnification=", "--overwrite"]) == 0
    assert load_info(tmp_path / "a").fields["patches"].meaning == {"encoder": "resnet50"}


def test_split_and_index_keep_it(tmp_path: Path) -> None:
    folder = sources(tmp_path / "in").pack(tmp_path / "a", PackOptions(meanings=UNI))
    assert resplit(folder, {"train": 0.5, "test": 0.5}).fields["patches"].meaning == UNI["patches"]
    assert adopt(folder).fields["patches"].meaning == UNI["patches"]
    told = adopt(folder, meanings={"patches": {"encoder": "", "magnification": "20x"}})
    assert told.fields["patches"].meaning == {"magnification": "20x"}
    text = (folder / "dataset.json").read_text().replace('"20x"', '"40x"')
    (folder / "dataset.json").write_text(text)  # by hand, which `index` is the remedy for
    assert adopt(folder).fields["patches"].meaning == {"magnification": "40x"}
    with pytest.raises(DataError, match="--meaning: no field 'patchs'"):
        adopt(folder, meanings={"patchs": {"encoder": "x"}})


def test_a_mix_must_agree(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    words = {"a": {"encoder": "uni_v1", "magnification": "20x"}, "b": {"encoder": "resnet50", "magnification": "40"}}
    for name, meaning in words.items():
        made.pack(tmp_path / name, PackOptions(meanings={"patches": meaning}))
    forget_all(made.pack(tmp_path / "old"))
    with pytest.raises(DataError) as caught:
        open_data([tmp_path / "a", tmp_path / "old", tmp_path / "b"])
    first, second = map(str, caught.value.problems)
    assert f"field 'patches': encoder is 'uni_v1' in {tmp_path / 'a'} and 'resnet50' in {tmp_path / 'b'}" in first
    assert "python -m shards meaning DIR patches.encoder=VALUE --overwrite" in first
    assert "magnification is '20x'" in second
    with open_data([tmp_path / "a", tmp_path / "old"]).parts[0] as a, Dataset.open(tmp_path / "old") as old:
        assert isinstance(Mix([a, old]), Mix)


def test_another_transform_is_refused(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    for row in made.expression.values():
        row[:] = [abs(float(v)) * 100 for v in row]
    made.pack(tmp_path / "raw")
    made.pack(tmp_path / "log", PackOptions(transforms={"rna": "log2p1"}))
    with pytest.raises(
        DataError, match=r"transform is 'none' in .*raw and 'log2p1' in .*log. Fix: pack both with the same --transform"
    ):
        open_data([tmp_path / "raw", tmp_path / "log"])


def test_what_one_side_alone_knows_is_said() -> None:
    sets = [("A", {"patches": {"encoder": "x"}, "rna": {"unit": "TPM"}}, ["patches", "rna"]), ("B", {}, ["patches"])]
    (line,) = one_sided(sets)
    assert line.startswith("field 'patches': encoder is 'x' in A and not stored in B")
    check_agreement([(p, m) for p, m, _ in sets])
    assert one_sided([sets[0], sets[0]]) == []


def test_stated_and_found_are_joined_unless_they_contradict() -> None:
    assert joined({"a": {"unit": "um"}}, {"a": {"mpp": "0.5"}}, "here", "mend") == {"a": {"mpp": "0.5", "unit": "um"}}
    with pytest.raises(DataError, match=r"a.unit is stated as 'um' and is 'px'"):
        joined({"a": {"unit": "um"}}, {"a": {"unit": "px"}}, "here", "mend")


def test_a_word_of_packing_that_was_never_said(tmp_path: Path) -> None:
    """Codes have no transform."""
    made = sources(tmp_path / "in")
    for i, row in enumerate(made.rows):
        row["field:snp"] = f"snp.csv#p{i}"
    lines = [",".join(["id", "rs1", "rs2"])] + [f"p{i},{i % 3},{(i + 1) % 3}" for i in range(len(made.rows))]
    (made.folder / "snp.csv").write_text("\n".join(lines) + "\n")
    options = replace(PackOptions(), meanings={"snp": {"build": "hg19"}})
    assert load_info(made.pack(tmp_path / "a", options)).fields["snp"].meaning == {"build": "hg19"}


def test_the_docs_name_every_key_that_is_wanted() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    table = docs.partition("## What a field's numbers mean")[2].partition("## ")[0]
    assert all(f"`{key}`" in table for keys in WANTED.values() for key in keys)
