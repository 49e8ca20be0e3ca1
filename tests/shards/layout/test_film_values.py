"""What stored values of DICOM films mean, in the forms that scanners and programs write them, against values computed here."""

from __future__ import annotations

from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset as Header
from pydicom.sequence import Sequence

from shards.layout import film_values
from tests.shards.layout.films import film, grey
from tests.shards.layout.test_dicom_films import found, pixels, refused

WINDOW = {"WindowCenter": 0, "WindowWidth": 801}
SIGNED_HW = (grey(1).astype(np.int32) - 2048).astype(np.int16)


def by_window(values_HW: np.ndarray) -> np.ndarray:
    """PS3.3, C.11.2.1.2.1 with the centre 0 and the width 801, in 16 bits."""
    return np.round(np.clip((values_HW + 0.5) / 800 + 0.5, 0, 1) * 65535).astype(np.uint16)


def edited(path: Path, *elements: tuple[int, str, object]) -> None:
    """Elements written as their kind says, whatever pydicom would make of their keyword."""
    data = pydicom.dcmread(path)
    for tag, kind, value in elements:
        data.add_new(tag, kind, value)
    data.save_as(path)


def recoded(path: Path, kind: int) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def table_of(values_N: np.ndarray, first: int, bits: int, kind: str = "US") -> Sequence:
    item = Header()
    item.add_new(0x00283002, kind, [len(values_N), first, bits])
    item.add_new(0x00283006, "OW", values_N.astype("<u2").tobytes())
    return Sequence([item])


@pytest.mark.parametrize(
    "kind",
    [
        gdcm.TransferSyntax.RLELossless, gdcm.TransferSyntax.JPEGLSLossless, gdcm.TransferSyntax.JPEG2000Lossless,
        gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    ],
)  # fmt: skip
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_values_of_every_lossless_coding(tmp_path, kind, bits):
    recoded(film(tmp_path / "root" / "a.dcm", SIGNED_HW, bits=bits, **WINDOW), kind)
    assert np.array_equal(pixels(found(tmp_path)), by_window(SIGNED_HW))


@pytest.mark.parametrize("unused", [0xF000, 0])
def test_negative_values_with_the_bits_above_them_set_or_not(tmp_path, unused):
    """PS3.5, 8.1.1: what stands above the stored bits is not said, and programs write either."""
    stored_HW = SIGNED_HW.view(np.uint16) & 0x0FFF
    stored_HW |= np.where(stored_HW & 0x0800, unused, 0).astype(np.uint16)
    film(tmp_path / "root" / "a.dcm", stored_HW.view(np.int16), bits=12, **WINDOW)
    assert np.array_equal(pixels(found(tmp_path)), by_window(SIGNED_HW))


def test_a_padding_value_without_its_sign(tmp_path):
    values_HW = np.abs(SIGNED_HW)
    values_HW[:3] = -2000
    edited(film(tmp_path / "root" / "a.dcm", values_HW, bits=16), (0x00280120, "US", 65536 - 2000))
    assert np.array_equal(pixels(found(tmp_path)), np.where(values_HW == -2000, 0, values_HW))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_display_table_of_many_entries(tmp_path, bits):
    """pydicom looks a table of 8 bits up by 8 bits: of 4,096 entries only 256 would count."""
    top = (1 << bits) - 1
    table_N = np.arange(4096) * top // 4095
    film(tmp_path / "root" / "a.dcm", grey(1), VOILUTSequence=table_of(table_N, 0, bits))
    assert np.array_equal(pixels(found(tmp_path)), np.round(table_N[grey(1)] / top * 65535))


@pytest.mark.parametrize(("first", "kind"), [(-2048, "SS"), (65536 - 2048, "US")])
def test_a_display_table_that_begins_below_zero(tmp_path, first, kind):
    table_N = np.arange(4096) * 65535 // 4095
    rescaled = {"RescaleSlope": 1, "RescaleIntercept": -2048}
    film(tmp_path / "root" / "a.dcm", grey(1), VOILUTSequence=table_of(table_N, first, 16, kind), **rescaled)
    assert np.array_equal(pixels(found(tmp_path)), table_N[grey(1)])


def test_a_window_beside_an_empty_list_of_tables(tmp_path):
    film(tmp_path / "root" / "a.dcm", SIGNED_HW, bits=16, VOILUTSequence=Sequence([]), **WINDOW)
    assert np.array_equal(pixels(found(tmp_path)), by_window(SIGNED_HW))


def test_what_would_show_wrong_is_refused(tmp_path):
    root = tmp_path / "root"
    table = table_of(np.arange(9), 0, 16)
    table[0].LUTDescriptor[0] = 12
    film(root / "short.dcm", grey(1), VOILUTSequence=table)
    film(root / "beside.dcm", grey(1), WindowCenter=9000, WindowWidth=10)
    film(root / "dark.dcm", grey(1, 6), bits=6)
    film(root / "inverse.dcm", grey(1), PresentationLUTShape="INVERSE")
    film(root / "scanned.dcm", grey(1), NominalScannedPixelSpacing=[0.1, 0.2])
    recoded(film(root / "deep.dcm", grey(1, 16), bits=16), gdcm.TransferSyntax.JPEG2000Lossless)
    edited(root / "deep.dcm", (0x00280101, "US", 12), (0x00280102, "US", 11))
    said = refused(tmp_path)
    for words in (
        "a table that is shorter, or of more bits, than its LUTDescriptor says (short.dcm)",
        "a window or VOI table that all values lie outside of (--window none leaves it out) (beside.dcm)",
        "values of fewer than 8 bits (BitsStored)", "(MONOCHROME2, but PresentationLUTShape INVERSE) (inverse.dcm)",
        "pixels that are not square (NominalScannedPixelSpacing) (scanned.dcm)",
        "values that need more bits than the header says are stored (BitsStored) (deep.dcm)",
    ):  # fmt: skip
        assert words in said, words


def test_fractions_without_the_window_are_told_apart(tmp_path):
    film(tmp_path / "root" / "a.dcm", grey(1), RescaleSlope=0.5, RescaleIntercept=0, **WINDOW)
    assert "and its window is left out" in refused(tmp_path, "--window", "none")


@pytest.mark.parametrize(
    ("signed", "bits", "value", "means"),
    [(1, 16, 32767, 32767), (1, 16, 32768, -32768), (1, 16, 63536, -2000), (1, 8, 128, -128), (0, 16, 63536, 63536)],
)
def test_padding_values_are_read_as_the_pixels_are(signed: int, bits: int, value: int, means: int) -> None:
    """The lowest value among them, which many scanners pad with."""
    header = Header()
    header.PixelRepresentation, header.BitsAllocated = signed, bits
    assert film_values._signed(header, value) == means
