"""DICOM films: what their values become, what is refused, and that no header enters a data set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset as Header
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from shards.__main__ import main
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.sources import Found
from tests.shards.layout import miniatures as mini
from tests.shards.layout.films import SECRETS, film, grey
from tests.shards.layout.test_layouts import find

LAYOUT = """
about: "films of a clinic"
licence: internal
citation: none
rows:
  - {files: "*.dcm", pattern: "(?P<name>\\\\w+)\\\\.dcm$"}
sample: "{name}"
patient: "{name}"
fields:
  image: {path: "{path}"}
"""


def layout(tmp_path: Path, more: str = "") -> str:
    path = tmp_path / "clinic.yaml"
    path.write_text(LAYOUT + more)
    return str(path)


def pixels(found: Found, at: int = 0) -> np.ndarray:
    return np.asarray(Image.open(found.manifest.entries[at].fields["image"].path))


def found(tmp_path: Path, *words: str, more: str = "") -> Found:
    return find(layout(tmp_path, more), tmp_path / "root", *words)


def refused(tmp_path: Path, *words: str, more: str = "") -> str:
    with pytest.raises(DataError) as caught:
        found(tmp_path, *words, more=more)
    assert not (tmp_path / "out-work").exists()
    return str(caught.value)


def test_nothing_of_a_header_enters_a_data_set_but_what_is_chosen(tmp_path, capsys):
    for i in range(10):
        film(tmp_path / "root" / f"f{i}.dcm", grey(i), ViewPosition=("PA", "AP")[i % 2])
    chosen = "header: {labels: {ViewPosition: view}}\n"
    out = tmp_path / "set"
    assert main(["source", layout(tmp_path, chosen), "--root", str(tmp_path / "root"), "--out", str(out)]) == 0
    assert "header fields kept: ViewPosition" in capsys.readouterr().out
    files = [p.read_bytes() for p in out.rglob("*") if p.is_file()]
    assert not [s for s in SECRETS if any(s in content for content in files)]
    assert any(s in (tmp_path / "root" / "f0.dcm").read_bytes() for s in SECRETS), "the films have them"
    with Dataset.open(out) as data:
        assert set(data.info.labels) == {"view"}
        assert {r.labels["view"] for r in (data[i] for i in range(len(data)))} == {"PA", "AP"}
        assert data.info.fields["image"].meaning["bits"] == "12"
    assert not (tmp_path / "set-work").exists()


@pytest.mark.parametrize(
    "keyword", ["PatientName", "PatientBirthDate", "StudyDate", "PatientID", "StudyInstanceUID", "ViewPositon"]
)
def test_names_dates_and_numbers_cannot_be_chosen(tmp_path, keyword):
    film(tmp_path / "root" / "f.dcm", grey(0))
    assert f"header field '{keyword}'" in refused(tmp_path, more=f"header: {{labels: {{{keyword}: x}}}}\n")


def test_values_stay_and_bits_are_those_of_all_films(tmp_path):
    """16 bits are stored, 12 are used; MONOCHROME1 is turned over by 12, whatever its own film holds."""
    dim_HW = grey(1) // 4
    film(tmp_path / "root" / "a.dcm", grey(0), bits=16)
    film(tmp_path / "root" / "b.dcm", dim_HW, bits=16, kind="MONOCHROME1")
    made = found(tmp_path)
    assert np.array_equal(pixels(made, 0), grey(0))
    assert np.array_equal(pixels(made, 1), 4095 - dim_HW)
    assert any("2 DICOM films with their values as they are; header fields kept: none" in n for n in made.notes)


def test_bits_are_stated_where_the_brightest_were_turned_over(tmp_path):
    """All bright films become dark ones, of which one could think that they use fewer bits."""
    film(tmp_path / "root" / "a.dcm", grey(0, 10) + 3000, kind="MONOCHROME1")
    made = found(tmp_path)
    assert made.pack["meanings"]["image"] == {"bits": "12"}
    assert int(pixels(made).max()) == 1095
    film(tmp_path / "root" / "a.dcm", grey(0), WindowCenter=6000, WindowWidth=9000)
    assert found(tmp_path).pack["meanings"]["image"] == {"bits": "16"}


def test_films_without_an_ending_are_known_by_their_beginning(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0)).rename(tmp_path / "root" / "a.film")
    text = layout(tmp_path)
    Path(text).write_text(Path(text).read_text().replace(".dcm", ".film"))
    assert np.array_equal(pixels(find(text, tmp_path / "root")), grey(0))


def test_eight_bits_are_turned_over_by_255(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0, 8), bits=8, kind="MONOCHROME1")
    assert np.array_equal(pixels(found(tmp_path)), 255 - grey(0, 8))


@pytest.mark.parametrize("form", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_those_of_the_standard(tmp_path, form, kind):
    """Against pydicom's own, whose output spans the stored bits; rescaled first."""
    header = {
        "WindowCenter": 900,
        "WindowWidth": 1201,
        "VOILUTFunction": form,
        "RescaleSlope": 1,
        "RescaleIntercept": -1000,
    }
    film(tmp_path / "root" / "a.dcm", grey(0), kind=kind, **header)
    said = Header()
    for keyword, value in {
        **header,
        "BitsStored": 12,
        "PixelRepresentation": 0,
        "PhotometricInterpretation": kind,
    }.items():
        setattr(said, keyword, value)
    out_HW = apply_voi_lut(grey(0).astype(np.float64) - 1000, said)
    low, high = -1000, 4095 - 1000
    right_HW = (out_HW - low) / (high - low)
    right_HW = 1 - right_HW if kind == "MONOCHROME1" else right_HW
    np.testing.assert_allclose(pixels(found(tmp_path)) / 65535, right_HW, atol=1e-5)


def test_a_window_of_width_one_is_a_threshold(tmp_path):
    values_HW = np.array([[9, 10], [11, 12]], np.uint16)
    film(tmp_path / "root" / "a.dcm", values_HW, WindowCenter=10.5, WindowWidth=1)
    assert pixels(found(tmp_path)).tolist() == [[0, 0], [65535, 65535]]


def test_tables_of_modality_and_display(tmp_path):
    def lut(first: int, values: list[int], bits: int) -> Sequence:
        item = Header()
        item.LUTDescriptor, item.ModalityLUTType = [len(values), first, bits], "US"
        item.LUTData = np.array(values, np.uint16).tobytes()
        return Sequence([item])

    values_HW = np.array([[0, 1], [2, 3]], np.uint8)
    film(
        tmp_path / "root" / "a.dcm", values_HW, bits=8, ModalityLUTSequence=lut(0, [30, 20, 10, 0], 8),
        VOILUTSequence=lut(0, [min(8 * v, 255) for v in range(31)], 8),
    )  # fmt: skip
    assert pixels(found(tmp_path)).tolist() == [[240, 160], [80, 0]]


def test_padding_is_black_and_counts_for_no_bits(tmp_path):
    values_HW = grey(0)
    values_HW[:3] = 65535
    film(tmp_path / "root" / "a.dcm", values_HW, bits=16, kind="MONOCHROME1", PixelPaddingValue=65535)
    right_HW = 4095 - values_HW.astype(np.int64)
    right_HW[:3] = 0
    assert np.array_equal(pixels(found(tmp_path)), right_HW)


def test_padding_below_zero_is_no_value_of_the_film(tmp_path):
    values_HW = grey(0).astype(np.int16)
    values_HW[2:5] = -2000
    film(tmp_path / "root" / "a.dcm", values_HW, bits=16, PixelPaddingValue=-2000)
    assert np.array_equal(pixels(found(tmp_path)), np.maximum(values_HW, 0))


def test_a_range_of_padding(tmp_path):
    values_HW = grey(0)
    film(
        tmp_path / "root" / "a.dcm",
        values_HW,
        PixelPaddingValue=100,
        PixelPaddingRangeLimit=200,
        WindowCenter=2048,
        WindowWidth=4096,
    )
    black_HW = pixels(found(tmp_path)) == 0
    assert black_HW[(values_HW >= 100) & (values_HW <= 200)].all()
    assert not black_HW[values_HW > 200].any()


def test_jpeg_and_jpeg_2000_are_decoded(tmp_path):
    smooth_HW = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    film(tmp_path / "root" / "a.dcm", smooth_HW, bits=8, syntax=JPEGBaseline8Bit)
    film(tmp_path / "root" / "b.dcm", grey(1, 8), bits=8, syntax=JPEG2000Lossless)
    film(tmp_path / "root" / "c.dcm", grey(2, 16), bits=16, syntax=JPEG2000Lossless)
    made = found(tmp_path)
    assert np.abs(pixels(made, 0).astype(int) - smooth_HW).max() <= 6
    assert np.array_equal(pixels(made, 1), grey(1, 8))
    assert np.array_equal(pixels(made, 2), grey(2, 16))


def test_what_is_refused_is_named_by_kind_and_counted(tmp_path):
    root = tmp_path / "root"
    for i in range(4):
        film(root / f"frames{i}.dcm", np.concatenate([grey(i), grey(i + 1)]), NumberOfFrames=2, Rows=16)
    for i in range(2):
        film(root / f"colour{i}.dcm", np.zeros((8, 8, 3), np.uint8), bits=8, kind="RGB", PlanarConfiguration=0)
    film(root / "flat.dcm", grey(0), PixelSpacing=[0.1, 0.2])
    film(root / "enhanced.dcm", grey(0), NumberOfFrames=1, SharedFunctionalGroupsSequence=[])
    film(root / "wide.dcm", grey(0), PixelAspectRatio=[1, 2])
    film(root / "written.dcm", grey(0), BurnedInAnnotation="YES")
    film(root / "deeper.dcm", grey(0, 14), bits=12)
    film(root / "below.dcm", grey(0), RescaleSlope=1, RescaleIntercept=-1024)
    film(root / "none.dcm", grey(0), WindowCenter=5, WindowWidth=0)
    odd = film(root / "odd.dcm", grey(0), NumberOfFrames=1234)
    odd.write_bytes(odd.read_bytes().replace(b"1234", b"none"))
    (root / "text.dcm").write_text("no film")
    whole = film(root / "cut.dcm", grey(1, 8), bits=8, syntax=JPEG2000Lossless)
    whole.write_bytes(whole.read_bytes()[:-150])
    empty = film(root / "empty.dcm", grey(1))
    data = empty.read_bytes()
    empty.write_bytes(data[: data.rindex(b"\xe0\x7f\x10\x00")])
    said = refused(tmp_path)
    for words in (
        "4 files of 'image' cannot be taken: several frames in one file (multi-frame) (frames0.dcm, frames1.dcm, frames2.dcm, ...)",
        "an enhanced object, which keeps rescaling and window by frame (functional groups) (enhanced.dcm)",
        "2 files of 'image' cannot be taken: a colour film (RGB)", "pixels that are not square (PixelSpacing) (flat.dcm)",
        "pixels that are not square (PixelAspectRatio) (wide.dcm)", "writing burned into the picture", "deeper.dcm", "(BitsStored)",
        "values below 0, over 65535 or with fractions, and no window in use (below.dcm)", "a window without a centre or a width (none.dcm)",
        "no DICOM file (text.dcm)", "a header with values that mean nothing (odd.dcm)", "cut.dcm", "empty.dcm",
    ):  # fmt: skip
        assert words in said, words


def test_films_with_and_without_a_window_do_not_mix(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0), WindowCenter=2048, WindowWidth=4096)
    film(tmp_path / "root" / "b.dcm", grey(1))
    assert "1 films have a window or VOI table (a.dcm), 1 have none (b.dcm)" in refused(tmp_path)
    assert np.array_equal(pixels(found(tmp_path, "--window", "none")), grey(0))


def several_depths(tmp_path: Path) -> None:
    """Two films of the same brightness by detectors of 10 and 14 bits, and one of 12 bits whose black is high."""
    film(tmp_path / "root" / "a.dcm", grey(0, 10), bits=10)
    film(tmp_path / "root" / "b.dcm", grey(0, 10) * 16 + 15, bits=14)
    film(tmp_path / "root" / "c.dcm", 4095 - grey(0, 10) * 4, bits=12, kind="MONOCHROME1")


def test_detectors_of_several_depths_are_refused_or_warned_of(tmp_path):
    several_depths(tmp_path)
    said = refused(tmp_path)
    assert "1 of up to 10 bits (a.dcm); 1 of up to 12 bits (c.dcm), in a set that uses 14" in said
    notes = found(tmp_path, "--window", "none").notes
    assert any(n.startswith("WARNING: detectors of several depths: 1 of up to 10 bits (a.dcm)") for n in notes)


def test_a_film_is_spread_by_the_bits_that_it_stores(tmp_path):
    several_depths(tmp_path)
    film(
        tmp_path / "root" / "d.dcm",
        grey(0, 10).astype(np.int16) * 4 - 2048,
        bits=12,
        RescaleSlope=1,
        RescaleIntercept=-5,
    )
    film(tmp_path / "root" / "e.dcm", grey(0, 10) // 4, bits=8)
    made = found(tmp_path, "--window", "stored")
    assert made.pack["meanings"]["image"] == {"bits": "16"}
    want_HW = grey(0, 10) / 1023
    for at in range(4):
        assert np.abs(pixels(made, at) / 65535 - want_HW).max() < 1e-3, at
    assert pixels(made, 4).dtype == np.uint8
    assert np.array_equal(pixels(made, 4), grey(0, 10) // 4)
    assert "5 DICOM films by all that the stored bits of each can hold; header fields kept: none" in made.notes
    assert not [n for n in made.notes if "WARNING" in n]


def test_half_a_rescaling_counts_neither_for_values_nor_for_their_range(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0), bits=12, RescaleSlope=4)
    assert np.abs(pixels(found(tmp_path, "--window", "stored")) / 65535 - grey(0) / 4095).max() < 1e-3


def test_a_rescaling_that_makes_all_values_one_is_refused(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0), bits=12, RescaleSlope=0, RescaleIntercept=5)
    assert "makes all values one" in refused(tmp_path, "--window", "stored")


def test_bits_that_are_stored_and_not_used_are_warned_of(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0), bits=16)
    film(tmp_path / "root" / "b.dcm", grey(1), bits=12)
    notes = found(tmp_path, "--window", "stored").notes
    assert any(n.startswith("WARNING: of 1 films of up to 16 bits (a.dcm) none uses more than 12") for n in notes)
    assert np.array_equal(pixels(found(tmp_path)), grey(0)), "both use 12: nothing differs as they are"


def test_of_several_windows_the_first_is_taken_and_said(tmp_path):
    windows = {"WindowCenter": [1000, 2048], "WindowWidth": [500, 4096]}
    film(tmp_path / "root" / "a.dcm", grey(0), **windows)
    film(tmp_path / "root" / "b.dcm", grey(1), WindowCenter=1000, WindowWidth=500)
    film(tmp_path / "root" / "c.dcm", grey(0), WindowCenter=1000, WindowWidth=500)
    made = found(tmp_path)
    assert np.array_equal(pixels(made, 0), pixels(made, 2))
    assert "1 films offer several windows or VOI tables, of which the first is taken (a.dcm)" in made.notes
    assert not [n for n in found(tmp_path, "--window", "none").notes if "several windows" in n]


def test_writing_that_is_burned_in_can_be_meant(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(0), BurnedInAnnotation="YES")
    assert np.array_equal(pixels(found(tmp_path, "--burned-in")), grey(0))


def test_without_pydicom_it_is_said_what_to_install(tmp_path, monkeypatch):
    film(tmp_path / "root" / "a.dcm", grey(0))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install 'medpair[dicom]'" in refused(tmp_path)


def test_the_public_sets_are_read_from_their_own_folders(tmp_path):
    """RSNA's films beside their boxes; SIIM's in a folder of study and series each, of which one has no row."""
    rsna = tmp_path / "rsna" / "root"
    rsna.mkdir(parents=True)
    mini.rsna(rsna, films=False)
    for i in range(mini.FILMS):
        film(rsna / "stage_2_train_images" / f"{mini.rsna_name(i)}.dcm", grey(i, 8), bits=8)
    film(rsna / "stage_2_train_images" / "stranger.dcm", grey(99, 8), bits=8)
    made = find("rsna_pneumonia", rsna)
    assert len(made.manifest.entries) == mini.FILMS
    assert ("stage_2_train_images/stranger.dcm", "a file for 'image' that the tables do not list") in made.unmatched
    siim = tmp_path / "siim" / "root"
    siim.mkdir(parents=True)
    mini.siim(siim)
    shutil.rmtree(siim / "train")
    for i in range(mini.SIIM_FILMS):
        film(siim / "dicom-images-train" / f"1.2.{i}" / f"1.3.{i}" / f"{mini.siim_name(i)}.dcm", grey(i, 8), bits=8)
    made = find("siim_acr", siim)
    assert np.array_equal(pixels(made, 3), grey(3, 8))


def test_a_folder_that_a_decoder_takes_for_a_module_is_named(tmp_path):
    """GDCM looks for a module `dl`; `python -m` looks for modules in the folder that it is called in."""
    (tmp_path / "root").mkdir()
    for i in range(10):
        film(tmp_path / "root" / f"{i}.dcm", grey(i))
    (tmp_path / "here" / "dl").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    command = [sys.executable, "-m", "shards", "source", layout(tmp_path), "--root", str(tmp_path / "root")]
    command += ["--out", str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    here, there = (
        subprocess.run(command, cwd=tmp_path / n, env=env, capture_output=True, text=True, timeout=120, check=False)
        for n in ("here", "there")
    )
    assert here.returncode == 2
    assert f"GDCM takes the folder {tmp_path / 'here' / 'dl'} for a module" in here.stdout + here.stderr
    assert f"call the command in another folder than {tmp_path / 'here'}" in here.stdout + here.stderr
    assert there.returncode == 0, there.stderr
