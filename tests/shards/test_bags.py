"""Bags as TRIDENT, CLAM, STAMP and HIPT write them: one bag a slide, of one encoder, from the member that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from models.contract import MethodError
from models.methods.slides.gimp import Gimp
from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.format.info import load_info
from shards.read.dataset import Dataset
from shards.sources._bags import Bags, find_bags
from shards.sources._barcode import no_diagnostic_slide, no_tumour, section, slide_of
from trainer.data import schema_of

CASES = [f"TCGA-{10 + i // 3}-{2000 + i}" for i in range(8)]
SLIDES = [f"{c}-01Z-00-DX1.AA{i}" for i, c in enumerate(CASES)]
JOB = "20x_256px_0px_overlap"


def bag(seed: int = 0, rows: int = 5, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def write(
    folder: Path,
    slides: Sequence[str] = SLIDES,
    member: str | None = "features",
    about: dict[str, object] | None = None,
    of_file: dict[str, object] | None = None,
    lead: bool = False,
    **arrays: np.ndarray,
) -> Path:
    """An .h5 a slide; `about` are attributes of the coordinates, `of_file` of the file; `lead`: with a batch's axis of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, slide in enumerate(slides):
        with h5py.File(folder / f"{slide}.h5", "w") as f:
            if member:
                f[member] = bag(i)[None] if lead else arrays.get("features", bag(i))
            coords = arrays.get("coords", np.arange(10).reshape(5, 2) + i)
            f["coords"] = coords[None] if lead else coords
            f["coords"].attrs.update(about or {})
            f.attrs.update(of_file or {})
    return folder


def find(folder: Path, member: str | None = None, frozen: bool = False) -> Bags:
    return find_bags(folder, member, no_tumour if frozen else no_diagnostic_slide)


def refused(folder: Path, member: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        find(folder, member)
    return str(caught.value)


def tables(folder: Path, cases: Sequence[str] = CASES, sample: str = "") -> list[str]:
    lines = [f"{c}{sample},{i}.5,{i * i % 7}.25" for i, c in enumerate(cases)]
    (folder / "rna.csv").write_text("case,A,B\n" + "\n".join(lines) + "\n")
    kinds = [f"{c},{('LUAD', 'LUSC')[i % 2]}" for i, c in enumerate(cases)]
    (folder / "labels.csv").write_text("case,subtype\n" + "\n".join(kinds) + "\n")
    return [f"--expression={folder / 'rna.csv'}", f"--labels={folder / 'labels.csv'}"]


def source(tmp_path: Path, features: Path, *more: str, sample: str = "") -> tuple[int, Path]:
    words = [f"--features={features}", *tables(tmp_path, sample=sample), f"--out={tmp_path / 'out'}", *more]
    return main(["source", "tcga_nsclc", *words]), tmp_path / "out"


# ------------------------------------------------------------------------------------------------------------------- layouts


def test_trident_s_folders_and_attributes(tmp_path: Path) -> None:
    about = {"patch_size": 256, "target_magnification": 20, "level0_magnification": 40}
    write(tmp_path / JOB / "features_conch_v15", about=about)
    write(tmp_path / JOB / "patches", [f"{s}_patches" for s in SLIDES], member=None, about=about)
    write(tmp_path / JOB / "slide_features_titan", features=np.ones(768, np.float32))
    found = find(tmp_path)
    assert found.meanings == {
        "patches": {"encoder": "conch_v15", "magnification": "20x", "patch_size": "256"},
        "coords": {"unit": "px"},
    }
    assert [b.name for b in found.bags] == SLIDES
    assert all(b.coords and b.features.path.parent.name == "features_conch_v15" for b in found.bags)
    reasons = dict(found.unmatched)
    assert reasons[f"{JOB}/patches/{SLIDES[0]}_patches.h5"] == "coordinates without features"
    assert reasons[f"{JOB}/slide_features_titan/{SLIDES[0]}.h5"].startswith("one vector of the whole slide")
    same = find(tmp_path / JOB / "features_conch_v15")
    assert same.meanings == found.meanings, "the names above the folder that was given count too"


def test_the_folder_s_name_alone_tells(tmp_path: Path) -> None:
    write(tmp_path / "10x_512px_0px_overlap" / "features_uni_v1")
    assert find(tmp_path).meanings["patches"] == {"encoder": "uni_v1", "magnification": "10x", "patch_size": "512"}
    write(tmp_path / "other" / "features_2024")
    assert find(tmp_path / "other").meanings == {}, "no job of TRIDENT, so no encoder called 2024"


def test_clam_s_two_folders_are_one_set(tmp_path: Path) -> None:
    write(tmp_path / "h5_files")
    (tmp_path / "pt_files").mkdir()
    for i, slide in enumerate([*SLIDES, f"{CASES[0]}-01Z-00-DX2.BB"]):
        torch.save(torch.from_numpy(bag(i)), tmp_path / "pt_files" / f"{slide}.pt")
    found = find(tmp_path)
    assert [b.features.path.suffix for b in found.bags] == [".h5", ".pt", *[".h5"] * 7]
    assert "bags: 8 slides have a .h5 and a .pt; the .h5 is read, which has the coordinates" in found.notes
    assert all(b.coords is None for b in find(tmp_path / "pt_files").bags)


def test_stamp_s_names_attributes_and_micrometres(tmp_path: Path) -> None:
    of_file = {"extractor": "mahmood-uni", "tile_size_px": 224, "tile_size_um": 256.0, "unit": "um"}
    coords = np.arange(10, dtype=np.float32).reshape(5, 2) * 25.6
    write(tmp_path / "feats", member="feats", of_file=of_file, coords=coords)
    status, out = source(tmp_path, tmp_path / "feats")
    assert status == 0
    fields = load_info(out).fields
    assert fields["patches"].meaning == {"encoder": "mahmood-uni", "patch_size": "224", "mpp": "1.1429"}
    assert (fields["coords"].meaning, fields["coords"].dtype) == ({"unit": "um"}, "float32")
    with Dataset.open(out) as data:
        np.testing.assert_array_equal(data[0].read("coords"), coords)
        np.testing.assert_allclose(data[0].read("patches"), bag(0), atol=2e-3)


def test_hipt_s_tensors_and_dictionaries(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "dict").mkdir()
    for i, slide in enumerate(SLIDES):
        tensor = torch.from_numpy(bag(i)).requires_grad_()
        torch.save(tensor, tmp_path / "bare" / f"{slide}.pt")
        torch.save({"z": tensor.bfloat16(), "coords": torch.zeros(5, 2), "n": 3}, tmp_path / "dict" / f"{slide}.pt")
    for name in ("bare", "dict"):
        status, out = source(tmp_path, tmp_path / name, "--overwrite")
        said = capsys.readouterr().out
        assert status == 0
        with Dataset.open(out) as data:
            np.testing.assert_allclose(data[2].read("patches"), bag(2), atol=2e-2)
            assert data[0].has("coords") == (name == "dict")
    assert "'z' is read of 8 files, the only member with two axes (--member names another)" in said


def test_an_npz_of_all_slides(tmp_path: Path) -> None:
    rows = np.concatenate([bag(i) for i in range(3)])
    good = {"features": rows, "offsets": np.array([0, 5, 10, 15]), "slide": np.array(SLIDES[:3])}
    np.savez(tmp_path / "a.npz", **good)
    assert [b.features.rows for b in find(tmp_path / "a.npz").bags] == [(0, 5), (5, 10), (10, 15)]
    np.savez(tmp_path / "b.npz", feats=rows, offsets=good["offsets"], slide=good["slide"])
    assert "has no features" in refused(tmp_path / "b.npz")
    assert len(find(tmp_path / "b.npz", "feats").bags) == 3
    for name, wrong in (
        ("short", [0, 5, 10, 12]),
        ("late", [1, 5, 10, 15]),
        ("empty", [0, 5, 5, 15]),
        ("half", [0, 5.5, 10, 15]),
    ):
        np.savez(tmp_path / f"{name}.npz", **(good | {"offsets": np.array(wrong)}))
        assert "offsets must be whole numbers that rise from 0 to the rows of features" in refused(
            tmp_path / f"{name}.npz"
        )
    np.savez(tmp_path / "object.npz", **(good | {"slide": np.array(SLIDES[:3], dtype=object)}))
    assert "names of slides as text: slide=np.array(names, dtype=str)" in refused(tmp_path / "object.npz")


# --------------------------------------------------------------------------------------------------- one bag, of one encoder


def test_two_encoders_in_one_job_are_refused_by_folder(tmp_path: Path) -> None:
    write(tmp_path / JOB / "features_resnet50", SLIDES[:5])
    write(tmp_path / JOB / "features_uni_v1")
    text = refused(tmp_path)
    assert (
        f"5 slides have a bag in several folders, {JOB}/features_resnet50 and {JOB}/features_uni_v1: {SLIDES[0]}"
        in text
    )
    assert f"--features {tmp_path / JOB / 'features_resnet50'}" in text
    assert len(find(tmp_path / JOB / "features_uni_v1").bags) == 8


def test_two_files_of_a_slide_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [*(f"{s}_20x" for s in SLIDES), *(f"{s}_40x" for s in SLIDES[:2])])
    text = refused(tmp_path)
    assert f"2 slides have several files: {SLIDES[0]}_20x.h5, {SLIDES[0]}_40x.h5, {SLIDES[1]}_20x.h5, ..." in text
    rows = np.concatenate([bag(0), bag(1)])
    np.savez(tmp_path / "a.npz", features=rows, offsets=np.array([0, 5, 10]), slide=np.array([SLIDES[0]] * 2))
    assert f"1 slides stand twice: {SLIDES[0]}" in refused(tmp_path / "a.npz")


def test_an_h5_of_coordinates_beside_a_pt_of_features(tmp_path: Path) -> None:
    write(tmp_path / "h5_files", member=None)
    (tmp_path / "pt_files").mkdir()
    for i, slide in enumerate(SLIDES):
        torch.save(torch.from_numpy(bag(i)), tmp_path / "pt_files" / f"{slide}.pt")
    found = find(tmp_path)
    assert [b.features.path.suffix for b in found.bags] == [".pt"] * 8
    assert {why for _, why in found.unmatched} == {"coordinates without features"}


def test_two_encoders_of_different_slides_are_refused_too(tmp_path: Path) -> None:
    write(tmp_path / JOB / "features_resnet50", SLIDES[:5])
    write(tmp_path / JOB / "features_uni_v1", SLIDES[5:])
    assert f"encoder is 'resnet50' in {JOB}/features_resnet50 and 'uni_v1' in {JOB}/features_uni_v1" in refused(
        tmp_path
    )


def test_widths_are_told_by_folder(tmp_path: Path) -> None:
    write(tmp_path / "a", SLIDES[:5])
    write(tmp_path / "b", SLIDES[5:], features=bag(0, width=12))
    assert "bags of differing width: 6 wide in a, 12 wide in b" in refused(tmp_path)


def test_bags_of_classes_in_folders_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "LUAD", SLIDES[:5])
    write(tmp_path / "LUSC", SLIDES[5:])
    found = find(tmp_path)
    assert len(found.bags) == 8
    assert "bags: 8 in LUAD, LUSC; nothing told of encoder and patches" in found.notes


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"target_magnification": 20}, {"target_magnification": 10}, "magnification is '20x' in .* and '10x' in"),
        ({"extractor": "uni"}, {"extractor": b"conch"}, "encoder is 'uni' in .* and 'conch' in"),
        ({"patch_size": 256}, {"patch_size": 512}, "patch_size is '256' in .* and '512' in"),
    ],
)
def test_attributes_must_agree(tmp_path: Path, first: dict, second: dict, message: str) -> None:
    write(tmp_path, SLIDES[:5], about=first)
    write(tmp_path, SLIDES[5:], about=second)
    with pytest.raises(DataError, match=message) as caught:
        find(tmp_path)
    assert len(caught.value.problems) == 1, "grouped"


def test_a_folder_s_name_and_its_files_must_agree(tmp_path: Path) -> None:
    write(tmp_path / JOB / "features_uni_v1", about={"target_magnification": 40, "patch_size": 256})
    assert f"magnification is '20x' in {JOB}/features_uni_v1 and '40x' in" in refused(tmp_path)


def manifest(folder: Path, cells: Sequence[str]) -> list[str]:
    lines = [f"s{i},p{i},{'train' if i else 'test'},{c}#features,{c}#coords" for i, c in enumerate(cells)]
    (folder / "m.csv").write_text("sample,patient,split,field:patches,field:coords\n" + "\n".join(lines) + "\n")
    return ["pack", str(folder / "m.csv"), "--out", str(folder / "out"), "--overwrite"]


def test_a_manifest_s_bags_say_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one, other = (tmp_path / JOB / f"features_{e}" for e in ("uni_v1", "conch_v15"))
    write(one, about={"target_magnification": 20, "patch_size": 256})
    write(other)
    cells = [f"{JOB}/features_uni_v1/{s}.h5" for s in SLIDES]
    assert main(manifest(tmp_path, cells)) == 0
    fields = load_info(tmp_path / "out").fields
    assert fields["patches"].meaning == {"encoder": "uni_v1", "magnification": "20x", "patch_size": "256"}
    assert fields["coords"].meaning == {"unit": "px"}
    mixed = [*cells[:5], *(f"{JOB}/features_conch_v15/{s}.h5" for s in SLIDES[5:])]
    assert main(manifest(tmp_path, mixed)) == 2
    said = capsys.readouterr().err
    assert f"encoder is 'uni_v1' in {cells[0]}#features and 'conch_v15' in {mixed[5]}#features and 2 more" in said
    assert main([*manifest(tmp_path, cells), "--meaning", "patches.encoder=conch_v15"]) == 2
    assert "patches.encoder is stated as 'conch_v15' and is 'uni_v1'" in capsys.readouterr().err


def test_what_is_stated_must_agree_with_the_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / JOB / "features_uni_v1")
    status, out = source(tmp_path, tmp_path / JOB, "--meaning", "patches.encoder=resnet50")
    assert status == 2
    assert "patches.encoder is stated as 'resnet50' and is 'uni_v1'" in capsys.readouterr().err
    status, out = source(tmp_path, tmp_path / JOB, "--meaning", "patches.mpp=0.5")
    assert status == 0
    assert load_info(out).fields["patches"].meaning == {
        "encoder": "uni_v1", "magnification": "20x", "patch_size": "256", "mpp": "0.5",
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------------- members


def test_a_choice_of_members_is_asked_for_once(tmp_path: Path) -> None:
    for i, slide in enumerate(SLIDES):
        with h5py.File(tmp_path / f"{slide}.h5", "w") as f:
            f["uni"], f["conch"], f["coords"] = bag(i), bag(i + 100), np.zeros((5, 2), int)
    text = refused(tmp_path)
    assert "8 files: which of conch, uni holds the features?" in text
    assert "--member NAME" in text
    assert len(text.splitlines()) == 1
    assert {b.features.member for b in find(tmp_path, "uni").bags} == {"uni"}
    assert "8 files: no member 'virchow'; they have conch, coords, uni" in refused(tmp_path, "virchow")


def test_features_and_feats_in_one_file(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / f"{SLIDES[0]}.h5", "a") as f:
        f["feats"] = bag(7)
    assert "1 files: which of features, feats holds the features?" in refused(tmp_path)


def test_members_inside_groups(tmp_path: Path) -> None:
    for i, slide in enumerate(SLIDES):
        with h5py.File(tmp_path / f"{slide}.h5", "w") as f:
            f["20x/features"], f["20x/coords"], f["10x/features"] = bag(i), np.zeros((5, 2), int), bag(i)
    assert "8 files: which of 10x/features, 20x/features holds the features?" in refused(tmp_path)
    assert find(tmp_path, "20x/features").bags[0].features.member == "20x/features"


def test_files_that_are_no_bags(tmp_path: Path) -> None:
    write(tmp_path, SLIDES[:6])
    (tmp_path / f"{SLIDES[6]}.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    torch.save([torch.ones(2, 3)], tmp_path / f"{SLIDES[7]}.pt")
    text = refused(tmp_path)
    assert "1 files: cannot be read as HDF5" in text
    assert "1 files: holds a list, not a tensor" in text


@pytest.mark.parametrize("suffix", [".h5", ".pt"])
def test_a_batch_s_axis_of_one_is_taken_away(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "lead"
    if suffix == ".h5":
        write(folder, lead=True)
    else:
        folder.mkdir()
        for i, slide in enumerate(SLIDES):
            torch.save(torch.from_numpy(bag(i))[None], folder / f"{slide}.pt")
    status, out = source(tmp_path, folder)
    assert status == 0
    assert "patches: 8 bags had a leading axis of one, [1, N, D], and are stored as [N, D]" in capsys.readouterr().out
    assert load_info(out).fields["patches"].shape == (5, 6)
    with Dataset.open(out) as data:
        np.testing.assert_allclose(data[3].read("patches"), bag(3), atol=2e-3)
    assert not lint(out).problems


def test_a_batch_s_axis_in_data_sets_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "lead", lead=True)
    with monkeypatch.context() as earlier:
        for place in ("shards.pack.survey.bag_shape", "shards.pack.sample.bag_shape"):
            earlier.setattr(place, lambda name, shape: shape)
        earlier.setattr("shards.format.describe.is_bag", lambda name: False)
        _, out = source(tmp_path, tmp_path / "lead")
    problems = [str(p) for p in lint(out).problems]
    assert any("field 'patches': arrays of 3 axes" in p for p in problems)
    with (
        Dataset.open(out) as data,
        pytest.raises(MethodError, match=r"'patches' of .* has shape \(1, 5, 6\), 3 axes for 2: pack it again"),
    ):
        Gimp(Gimp.Options(), schema_of(data))


def test_regions_of_patches_are_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """HIPT's [regions, patches, features]: refused, and with --regions flatten the bag of all patches."""
    (tmp_path / "hipt").mkdir()
    for i, slide in enumerate([*SLIDES, f"{CASES[0]}-01Z-00-DX2.BB"]):
        torch.save(torch.from_numpy(bag(i, rows=12).reshape(3, 4, 6)), tmp_path / "hipt" / f"{slide}.pt")
    assert source(tmp_path, tmp_path / "hipt")[0] == 2
    said = capsys.readouterr().err
    assert "9 files: regions of patches, such as (3, 4, 6), no patches. Fix: --regions flatten" in said
    status, out = source(tmp_path, tmp_path / "hipt", "--regions=flatten", "--slides=all", "--per=patient")
    assert status == 0
    with Dataset.open(out) as data:
        np.testing.assert_allclose(data[3].read("patches"), bag(3, rows=12), atol=2e-3)
        both = np.concatenate([bag(0, rows=12), bag(8, rows=12)])
        np.testing.assert_allclose(data[0].read("patches"), both, atol=2e-3)
        assert data[0].shape("coords_slide") == (24, 1)


def alone(folder: Path, cell: str) -> int:
    """Packs one sample whose patches a manifest names so."""
    (folder / "one.csv").write_text(f"sample,patient,field:patches\ns0,p0,{cell}\n")
    return main(["pack", str(folder / "one.csv"), "--out", str(folder / "one")])


def test_regions_in_a_manifest_are_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save(torch.ones(3, 4, 6), tmp_path / "a.pt")
    assert alone(tmp_path, "a.pt") == 2
    assert "regions of patches (HIPT's [M, 256, 384]) reshaped" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- coordinates of a folder of their own

CLAM_PATCHES = {"patch_size": 256, "patch_level": 1, "downsample": np.array([4.0, 4.0]), "level_dim": (9, 9)}


def test_clam_s_patches_say_where_and_at_which_level(tmp_path: Path) -> None:
    """Features of CLAM say nothing of their patches, and its .pt have no coordinates; its folder `patches` has both."""
    write(tmp_path / "f" / "h5_files", SLIDES[:7])
    (tmp_path / "f" / "pt_files").mkdir()
    torch.save(torch.from_numpy(bag(7)), tmp_path / "f" / "pt_files" / f"{SLIDES[7]}.pt")
    write(tmp_path / "patches", member=None, about=CLAM_PATCHES)
    assert find(tmp_path / "f").meanings == {}
    status, out = source(tmp_path, tmp_path / "f", f"--coords={tmp_path / 'patches'}")
    assert status == 0
    fields = load_info(out).fields
    assert fields["patches"].meaning == {"patch_size": "256", "patch_level": "1"}
    assert fields["coords"].meaning == {"unit": "px"}
    with Dataset.open(out) as data:
        assert data[7].read("coords").tolist() == (np.arange(10).reshape(5, 2) + 7).tolist()
        assert data[7].read("meta")["provenance"]["coords"] == f"{SLIDES[7]}.h5#coords"


def test_trident_s_patches_of_a_folder_without_attributes(tmp_path: Path) -> None:
    write(tmp_path / "f")
    about = {"patch_size": 512, "target_magnification": 20}
    write(tmp_path / "p", [f"{s}_patches" for s in SLIDES[:6]], member=None, about=about)
    found = find_bags(tmp_path / "f", None, no_diagnostic_slide, tmp_path / "p")
    assert found.meanings == {"patches": {"magnification": "20x", "patch_size": "512"}, "coords": {"unit": "px"}}
    assert "bags: coordinates of 6 of 8 slides are those in p" in found.notes
    assert any(n.startswith("bags: no coordinates there of 2 slides") for n in found.notes)


@pytest.mark.parametrize(
    ("slides", "about", "coords", "message"),
    [
        (SLIDES, {"patch_size": 512}, 5, "the coordinates say other things than"),
        (SLIDES, {"patch_size": 256}, 4, "5 patches in"),
        ([f"{s}_a" for s in SLIDES] + [f"{s}_b" for s in SLIDES], {}, 5, "a slide has 2 files"),
        (["TCGA-99-9999-01Z-00-DX1"], {}, 5, "no coordinates of any of 8 slides"),
    ],
)
def test_coordinates_that_are_not_those_of_the_features(
    tmp_path: Path, slides: list[str], about: dict, coords: int, message: str
) -> None:
    write(tmp_path / "f", about={"patch_size": 256})
    write(tmp_path / "p", slides, member=None, about=about, coords=np.zeros((coords, 2), int))
    with pytest.raises(DataError, match=message):
        find_bags(tmp_path / "f", None, no_diagnostic_slide, tmp_path / "p")


def test_slides_cut_at_two_levels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "f", SLIDES[:4], about=CLAM_PATCHES)
    write(tmp_path / "f", SLIDES[4:], about=CLAM_PATCHES | {"patch_level": 0})
    assert "patch_level is '1' in" in refused(tmp_path / "f")


def test_stamp_s_features_of_whole_slides_are_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """[1, D] with feat_type slide has the form of a bag with one patch; files before 2.0 do not say their unit."""
    tiles = {"extractor": "uni", "tile_size_um": 256.0, "feat_type": "tile"}
    write(tmp_path / "s", SLIDES[:6], member="feats", of_file=tiles)
    whole = {"extractor": "titan", "feat_type": "slide"}
    write(tmp_path / "s", SLIDES[6:], member="feats", of_file=whole, features=bag(0, rows=1))
    found = find(tmp_path / "s")
    assert [b.name for b in found.bags] == SLIDES[:6]
    assert {why for _, why in found.unmatched} == {"features of a whole slide, not a bag"}
    assert found.meanings == {"patches": {"encoder": "uni"}, "coords": {"unit": "um"}}
    assert alone(tmp_path, f"s/{SLIDES[7]}.h5#feats") == 2
    assert "holds features of a whole slide, not of patches" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- which slides count


def test_normal_and_frozen_tissue_is_left_out_and_listed(tmp_path: Path) -> None:
    write(tmp_path / "h5", SLIDES[:6])
    normal = [f"{CASES[0]}-11A-01-TS1.N", f"{CASES[6]}-11A-01-BS1.N", f"{CASES[7]}-20A-01-DX1.N"]
    frozen = [f"{CASES[1]}-01A-01-TS1.F", f"{CASES[6]}-01A-01-BS1.F"]
    write(tmp_path / "h5", normal + frozen)
    found = find(tmp_path / "h5")
    assert [b.name for b in found.bags] == SLIDES[:6]
    why = dict(found.unmatched)
    assert why[f"{normal[0]}.h5"] == why[f"{normal[1]}.h5"] == "normal tissue, not tumour"
    assert why[f"{normal[2]}.h5"] == "sample type 20, not tumour"
    assert why[f"{frozen[0]}.h5"].startswith("frozen section (TS), not a diagnostic slide")
    assert {b.name for b in find(tmp_path / "h5", frozen=True).bags} == {*SLIDES[:6], *frozen}


def test_the_slide_of_a_patient_is_chosen_by_tumour_then_by_number(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = [
        f"{CASES[0]}-06Z-00-DX1.A",
        f"{CASES[0]}-01Z-00-DX2.A",
        f"{CASES[1]}-01Z-00-DX1.A",
        f"{CASES[1]}-01A-01-TS1.F",
    ]
    write(tmp_path / "h5", [*SLIDES, *more])
    status, out = source(tmp_path, tmp_path / "h5", "--frozen")
    assert status == 2, "two scans of one slide: their names alone are no choice"
    said = capsys.readouterr().err
    assert f"which of '{CASES[1]}' is meant: '{more[2]}', '{SLIDES[1]}'. Fix: leave one of them there" in said
    assert not out.exists()
    status, out = source(tmp_path, tmp_path / "h5", "--frozen", "--replicates", "first")
    assert status == 0
    listed = (out / "unmatched.csv").read_text()
    for name in more[:2]:
        assert f"{name},another slide of the patient was taken ({SLIDES[0]}; --slides all takes every one)" in listed
    assert f"{SLIDES[1]},another slide of the patient was taken ({more[2]};" in listed, (
        "of equals the first by name, and it is said"
    )
    assert f"{more[3]},another slide of the patient was taken ({more[2]};" in listed


def test_a_slide_beside_another_tumour_s_genes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path / "h5")
    assert source(tmp_path, tmp_path / "h5", sample="-06A")[0] == 0
    said = capsys.readouterr().out
    assert "8 samples pair a slide with the expression of another tumour of the patient: " in said
    assert f"{CASES[0]} (slide 01, expression 06)" in said
    assert source(tmp_path, tmp_path / "h5", "--overwrite", sample="-01A")[0] == 0
    assert "another tumour of the patient" not in capsys.readouterr().out


def test_the_slide_in_a_file_s_name() -> None:
    uuid = "0bf8a2f5-6e07-4c67-a0f2-1d7e0d0c1a11"
    for name in (
        "TCGA-10-2000-01Z-00-DX1",
        "tcga_10_2000_01z_00_dx1",
        "TCGA-10-2000-01Z-00-DX1_20x",
        "TCGA_10_2000_01Z_00_DX1_20x",
    ):
        assert slide_of(name) == "TCGA-10-2000-01Z-00-DX1"
    assert slide_of(f"TCGA-10-2000-01Z-00-DX1.{uuid}_20x") == slide_of(f"TCGA-10-2000-01Z-00-DX1.{uuid.upper()}")
    assert slide_of(f"TCGA_10_2000_01Z_00_DX1_{uuid}") != slide_of("TCGA_10_2000_01Z_00_DX1")
    assert slide_of("TCGA-10-2000-01Z-00-DX1.AA") != slide_of("TCGA-10-2000-01Z-00-DX1.BB")
    assert slide_of("TCGA-10-2000_a") != slide_of("TCGA-10-2000_b"), "no slide is named"


def test_slides_written_with_underscores(tmp_path: Path) -> None:
    slides = [f"TCGA_{c[5:7]}_{c[8:]}_01Z_00_DX1_x" for c in CASES]
    write(tmp_path / "h5", slides)
    status, out = source(tmp_path, tmp_path / "h5")
    assert status == 0
    assert len(Dataset.open(out)) == 8


def test_kinds_of_slides() -> None:
    assert section("TCGA-10-2000-01Z-00-DX2.A") == ("DX", 2)
    assert section("TCGA-10-2000-01Z-00-DX.A") == ("DX", 99)
    assert section("TCGA-10-2000-01A-01-MS1") == ("MS", 1)
    assert section("TCGA-10-2000_r0c1-TS1") is None
    assert no_diagnostic_slide("TCGA-10-2000") is None
