"""Files that are told whole by their Huffman codes: what nearly all JPEGs are, and nothing that a decoder would refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg

from shards.errors import DataError
from shards.format.codecs import check_jpeg, eighth
from shards.format.jpeg_codes import is_quick, surely_whole
from tests.shards.test_pack_jobs import jpeg

pytestmark = pytest.mark.skipif(not is_quick(), reason="needs numba")

PLAIN = {
    "colour": {}, "grey": {"mode": "L"}, "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "own tables": {"optimize": True},
    "fine": {"quality": 100, "subsampling": 0}, "coarse": {"quality": 1}, "comment": {"comment": b"\xff\xd9 is no end here"},
}  # fmt: skip
OTHERS = {
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 2},
    "four colours": {"mode": "CMYK"},
}


def grain(colours: str, sampling: str, quality: int = 98) -> bytes:
    """Long codes, of all lengths."""
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 1 if colours == "GRAY" else 3), np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace=colours, colorsubsampling=sampling)


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_files_are_whole(kind: str) -> None:
    assert surely_whole(jpeg(1, side=90, **PLAIN[kind]))  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_every_sampling_and_every_length_of_code(sampling: str) -> None:
    assert surely_whole(grain("RGB", sampling))
    assert surely_whole(grain("RGB", sampling, 100))


@pytest.mark.parametrize("sampling", ["444", "420"])
def test_the_second_place_may_never_find_back(sampling: str) -> None:
    """Bits that repeat let it go on in step with them, and blocks of one colour alone let it take one for another."""
    for side in (8, 24, 100, 333):
        for value in (0, 77, 255):
            pixels = np.full((side, side, 3), value, np.uint8)
            assert surely_whole(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling=sampling))
            pixels[: side // 2] = np.random.default_rng(side).integers(0, 256, (side // 2, side, 3))
            for image in (pixels, pixels[::-1].copy()):  # nearly all bits are those of one half
                assert surely_whole(simplejpeg.encode_jpeg(image, quality=90, colorsubsampling=sampling))


def test_a_head_that_is_cut_off_is_not_plain() -> None:
    data = jpeg(1, side=40)
    at = data.index(b"\xff\xc0")
    assert not surely_whole(data[: at + 2] + b"\0\2" + data[at + 19 :])


@pytest.mark.parametrize("kind", OTHERS)
def test_of_other_files_nothing_is_said(kind: str) -> None:
    data = jpeg(1, side=90, **OTHERS[kind])  # type: ignore[arg-type]
    eighth(data)
    assert not surely_whole(data)


def refused(read: Callable[[bytes], object], data: bytes) -> bool:
    try:
        read(data)
    except DataError:
        return True
    return False


def test_nothing_that_a_decoder_refuses_is_told_whole() -> None:
    """Bits turned, bytes lost, doubled or cut off, in the header too; much of it leaves a file that is whole."""
    rng, told = np.random.default_rng(0), [0, 0]
    kinds = [*(jpeg(2, side=40, **more) for more in PLAIN.values()), grain("RGB", "420"), grain("GRAY", "Gray")]
    for data in kinds:
        for _ in range(400):
            damaged, at, how = bytearray(data), int(rng.integers(2, len(data))), rng.random()
            if how < 0.2:
                del damaged[at : at + int(rng.integers(1, 4))]
            elif how < 0.3:
                damaged[at:at] = damaged[at : at + 3]
            elif how < 0.4:
                damaged[at : len(damaged) - 2] = b""
            else:
                damaged[at] ^= 1 << int(rng.integers(8))
            told[surely_whole(bytes(damaged))] += 1
            assert refused(check_jpeg, bytes(damaged)) == refused(eighth, bytes(damaged))
    assert min(told) > 500, told
