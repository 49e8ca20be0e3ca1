"""Decoding: exact values for what is allowed, one clear error for everything else, and nothing ever run."""

from __future__ import annotations

import ast
import contextlib
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from builders import jpeg, npy, png
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from shards.errors import DataError
from shards.format import codecs
from shards.format.indexes import _rows, index_dtype
from shards.format.npy import NpyError, header_fields, header_length, parse_header

RNG = np.random.default_rng(0)


def refused(ext: str, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        codecs.decode(ext, data, "shard-000000.tar: sample 'a', member x")
    assert "shard-000000.tar: sample 'a'" in str(caught.value)
    assert "Fix:" in str(caught.value)


def test_jpeg_is_rgb_of_the_reference_decoder():
    data = jpeg(1, 40)
    pixels = codecs.decode("jpg", data)
    assert pixels.shape == (40, 40, 3)
    assert pixels.dtype == np.uint8
    other = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    assert np.abs(pixels - other).max() <= 4
    assert codecs.image_shape("jpg", data) == (40, 40, 3)


def test_grey_jpeg_has_three_equal_channels():
    grey = simplejpeg.encode_jpeg(RNG.integers(0, 256, (16, 16, 1), np.uint8), colorspace="GRAY")
    pixels = codecs.decode("jpeg", grey)
    assert pixels.shape == (16, 16, 3)
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (RNG.integers(0, 256, (5, 6), np.uint8), (5, 6, 1)),
        (RNG.integers(0, 256, (5, 6, 3), np.uint8), (5, 6, 3)),
        (RNG.integers(0, 256, (5, 6, 4), np.uint8), (5, 6, 4)),
        (RNG.integers(0, 256, (5, 6, 2), np.uint8), (5, 6, 2)),
        (RNG.integers(0, 65536, (5, 6)).astype(np.uint16), (5, 6, 1)),
    ],
)
def test_png_keeps_values_and_channels(array, shape):
    data = png(array)
    pixels = codecs.decode("png", data)
    assert pixels.dtype == array.dtype
    assert pixels.shape == shape == codecs.image_shape("png", data)
    assert (pixels.reshape(array.shape) == array).all()


def test_palette_png_is_rgb_or_its_indices():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([9, 8, 7, 1, 2, 3, 4, 5, 6])
    out = io.BytesIO()
    image.save(out, "PNG")
    assert codecs.decode("png", out.getvalue())[0, 1].tolist() == [1, 2, 3]
    assert codecs.decode("png", out.getvalue(), indexed=True)[..., 0].tolist() == [[0, 1], [2, 1]]


def test_sixteen_bit_colour_png_is_refused_rather_than_cut():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")
    refused("png", data, "16-bit colour")


def bomb_png() -> bytes:
    good = bytearray(png(np.zeros((4, 4), np.uint8)))
    good[16:24] = struct.pack(">II", 100_000, 100_000)
    return bytes(good)


def bomb_jpeg() -> bytes:
    good = bytearray(jpeg(0))
    at = good.index(b"\xff\xc0")
    good[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(good)


def test_bombs_are_refused_from_the_header():
    refused("png", bomb_png(), "100000 x 100000 pixels")
    refused("jpg", bomb_jpeg(), "60000 x 60000 pixels")
    with pytest.raises(DataError, match="pixels"):
        codecs.image_shape("png", bomb_png())


@pytest.mark.parametrize("ext", ["jpg", "png", "npy", "json"])
@pytest.mark.parametrize("data", [b"", b"\x00", b"not what it says", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\x01\x00"])
def test_garbage_is_a_data_error(ext, data):
    refused(ext, data, f"cannot be decoded as {ext}")


@pytest.mark.parametrize(
    ("ext", "data"), [("jpg", jpeg(3)), ("png", png(np.eye(30, dtype=np.uint8))), ("npy", npy(np.arange(9)))]
)
def test_cut_members_are_data_errors(ext, data):
    refused(ext, data[: len(data) // 2], f"cannot be decoded as {ext}")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a member was executed",))


def test_nothing_is_executed():
    for ext in ("pickle", "pkl", "pyd", "pth", "pt", "npz", "py"):
        refused(ext, pickle.dumps(Trap()), "never decoded")
    refused("npy", npy(np.array([Trap()], object)), "only numbers are allowed")
    refused("npy", npy(np.array(["text"])), "only numbers")
    refused("npy", npy(np.zeros(2, [("a", "i4")])), "only numbers")


def header(text: str) -> bytes:
    body = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


def test_an_array_that_claims_more_than_it_has_is_refused_before_allocation():
    huge = header("{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 4000000000)}") + bytes(64)
    refused("npy", huge, "the member has 193")
    refused("npy", npy(np.arange(4)) + b"x", "the header claims")
    refused("npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "shape")
    refused("npy", header("__import__('os').system('true')"), "cannot be read")
    refused("npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + bytes(50), "header of")


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(d) for d in ("f2", "f4", "f8", ">f4", "i1", "u1", "<i8", ">u2", "?")]),
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=5),
    ),
    st.booleans(),
)
def test_npy_round_trip(array, fortran):
    array = np.asfortranarray(array) if fortran else array
    for buffer in (npy(array), np.frombuffer(npy(array), np.uint8).copy()):
        back = codecs.decode("npy", buffer)
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype.newbyteorder("=")
        assert back.flags.writeable
        assert back.flags.aligned


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }",
        "{'shape': (3,), 'fortran_order': True, 'descr': '<i8'}",
        '{"descr": "|u1", "fortran_order": False, "shape": ()}',
        "{'descr': [('key', '|S16'), ('start', '<u8')], 'fortran_order': False, 'shape': (70,), }",
        "{ 'descr' : [ ( 'key' , '|S16' ) , ] , 'fortran_order':True,'shape':( 7 , 8, ) }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    ],
)
def test_a_header_means_what_the_literal_means(text):
    assert header_fields(header(text)) == ast.literal_eval(text)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 'x'}",
        "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, x)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 50 + ",)}",
        "['descr']",
    ],
)
def test_what_is_no_header_is_refused(text):
    with pytest.raises(NpyError, match="cannot be read"):
        header_fields(header(text))
    refused("npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (3)}"), "shape '3'")


def test_no_literal_is_evaluated_for_a_header(monkeypatch, tmp_path):
    """CPython 3.11 counts the depth of its syntax trees for all threads together: the loader's threads must build none."""

    def fail(*args, **kwargs):
        raise SystemError("AST constructor recursion depth mismatch (before=51, after=48)")

    array = np.arange(77.0).reshape(7, 11)
    data = npy(array)
    rows = np.zeros(3, index_dtype(7, 9))
    np.save(tmp_path / "x.npy", rows)
    monkeypatch.setattr(ast, "parse", fail)
    monkeypatch.setattr(ast, "literal_eval", fail)
    np.testing.assert_array_equal(codecs.decode("npy", data), array)
    np.testing.assert_array_equal(_rows((tmp_path / "x.npy").read_bytes()), rows)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data):
    with contextlib.suppress(NpyError):
        parse_header(data[: header_length(data)])


def test_text_and_json():
    assert codecs.decode("txt", "Lungenödem".encode()) == "Lungenödem"
    assert codecs.decode("json", b'{"a": [1, null]}') == {"a": [1, None]}
    refused("txt", "Lungenödem".encode("latin1"), "utf-8")
    refused("json", b"[" * 100_000, "json")
