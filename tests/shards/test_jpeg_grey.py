"""Grey films decoded by medpair itself: the library's pixels to the last bit, or nothing, and nothing of what the library refuses."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import jpeg_coder
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from compiled import loading
from shards.errors import DataError
from shards.format.codecs import Jpeg
from shards.format.jpeg_own import Own, why_not_own

needs_numba = pytest.mark.skipif(bool(why_not_own()), reason="needs numba")
DIVISORS = (1, 2, 4, 8)
SIZES = [(1, 1), (2, 1), (8, 8), (7, 130), (9, 9), (64, 40), (131, 513), (90, 8 * 65)]


def own(
    data: bytes, divisor: int = 1, box: tuple[int, int, int, int] | None = None
) -> tuple[np.ndarray, int, int] | None:
    from shards.format.jpeg_grey import decode

    return decode(data, divisor, box)


def library(data: bytes, divisor: int = 1) -> np.ndarray:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    size = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)}
    return simplejpeg.decode_jpeg(data, "GRAY", min_factor=divisor, **size)


def pictures(rng: np.random.Generator, height: int, width: int) -> dict[str, np.ndarray]:
    """uint8 [H, W]: grain, noise, saturated noise, flat, edges as hard as they come."""
    rows, columns = np.mgrid[:height, :width]
    shapes = 120 + 60 * np.sin(rows / 17) * np.cos(columns / 23)
    return {
        "grain": np.clip(shapes + rng.normal(0, 4, (height, width)), 0, 255).astype(np.uint8),
        "noise": rng.integers(0, 256, (height, width), np.uint8),
        "black and white": rng.integers(0, 2, (height, width)).astype(np.uint8) * 255,
        "flat": np.full((height, width), 77, np.uint8),
        "stripes": ((rows // 3 + columns // 5) % 2 * 255).astype(np.uint8),
    }


def coded(pixels_HW: np.ndarray, quality: int) -> bytes:
    whole = np.ascontiguousarray(pixels_HW[..., None])
    return simplejpeg.encode_jpeg(whole, quality=quality, colorspace="GRAY", colorsubsampling="Gray")


def same(data: bytes, divisor: int, box: tuple[int, int, int, int] | None = None) -> bool:
    """Whether it is decoded; what is, must be what the library gives."""
    found = own(data, divisor, box)
    if found is None:
        return False
    part, top, left = found
    whole = library(data, divisor)
    h, w, _ = part.shape
    np.testing.assert_array_equal(part, whole[top : top + h, left : left + w])
    if box is not None:
        assert max(left - box[0] // divisor, top - box[1] // divisor) <= 0
        assert min(left + w - -(-box[2] // divisor), top + h - -(-box[3] // divisor)) >= 0
    else:
        assert part.shape == whole.shape
    return True


@needs_numba
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_the_library(size: tuple[int, int]) -> None:
    rng, decoded = np.random.default_rng(0), []
    for name, pixels_HW in pictures(rng, *size).items():
        for quality in (1, 10, 50, 75, 90, 95, 98, 100):
            data = coded(pixels_HW, quality)
            decoded += [same(data, d) for d in DIVISORS]
            if name in ("grain", "flat"):
                assert decoded[-4:] == ([True] * 4 if min(size) > 8 else [True, False, False, False]), (name, quality)
    assert min(size) <= 8 or np.mean(decoded) > 0.9


@needs_numba
def test_any_box_of_any_scale() -> None:
    rng = np.random.default_rng(1)
    data = coded(pictures(rng, 301, 700)["grain"], 95)
    for _ in range(40):
        left, top = int(rng.integers(700)), int(rng.integers(301))
        right, bottom = int(rng.integers(left + 1, 701)), int(rng.integers(top + 1, 302))
        for d in DIVISORS:
            assert same(data, d, (left, top, right, bottom))


def pillow(pixels_HW: np.ndarray, **more: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels_HW).save(out, "JPEG", **more)
    return out.getvalue()


@needs_numba
def test_own_tables_and_samplings_of_one_channel() -> None:
    pixels_HW = pictures(np.random.default_rng(2), 120, 200)["grain"]
    assert all(same(pillow(pixels_HW, optimize=True, quality=q), d) for q in (30, 97) for d in DIVISORS)
    plain = coded(pixels_HW, 95)
    at = plain.index(b"\xff\xc0") + 11
    assert plain[at] == 0x11
    for sampling in (0x22, 0x21, 0x12, 0x44):
        assert all(same(plain[:at] + bytes([sampling]) + plain[at + 1 :], d) for d in DIVISORS)


@needs_numba
def test_any_tables_and_coefficients() -> None:
    """Codes and values of all lengths in any order: two codes a look-up, one, or none; blocks that end with their last coefficient."""
    rng, decoded = np.random.default_rng(7), 0
    for turn in range(40):
        blocks, most = np.zeros((4 * 11, 64), np.int64), int(rng.choice([2, 8, 40, 300, 1000]))
        for block in blocks:
            at = rng.choice(64, int(rng.integers(65)), replace=False)
            block[at] = rng.integers(-most, most + 1, len(at))
            block[0] = rng.integers(-20, 21)
        data = jpeg_coder.coded(blocks, 11, 1, rng, shortest=(1, 2, 5, 8)[turn % 4])
        decoded += sum(same(data, d) for d in DIVISORS)
    assert decoded > 80


def given(home: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    return home if shape == home.shape else None


@needs_numba
@pytest.mark.parametrize("size", [(64, 128), (60, 128), (64, 127)])
@pytest.mark.parametrize("worth", [0, 1 << 60])
def test_it_is_decoded_into_an_array_that_is_there(
    size: tuple[int, int], worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.format.codecs.own", Own(worth=worth))
    data = coded(pictures(np.random.default_rng(8), *size)["grain"], 95)
    for d in DIVISORS:
        home = np.zeros((-(-size[0] // d), -(-size[1] // d), 1), np.uint8)
        found = Jpeg(data).decode(d, partial(given, home))
        np.testing.assert_array_equal(found, library(data, d))
        assert found is home or (worth == 0 and size != (64, 128))


@needs_numba
def test_other_files_are_left_to_the_library() -> None:
    pixels_HW = pictures(np.random.default_rng(2), 120, 200)["grain"]
    for data in (
        pillow(pixels_HW, progressive=True),
        pillow(pixels_HW, restart_marker_blocks=2),
        pillow(np.repeat(pixels_HW[..., None], 3, -1)),
        coded(pixels_HW, 95) + b"\0",
        b"",
        b"\xff\xd8 and no more",
    ):
        assert own(data) is None


@needs_numba
def test_numbers_that_decoders_could_differ_in_are_left_to_the_library() -> None:
    """Quanta of 255 for values made with quanta of 1: coefficients and pixels far outside of what a picture has."""
    data = coded(pictures(np.random.default_rng(3), 64, 64)["noise"], 100)
    at = data.index(b"\xff\xdb") + 5
    found = [same(data[:at] + bytes([q]) * 64 + data[at + 64 :], d) for q in (1, 2, 4, 40, 255) for d in DIVISORS]
    assert any(found)
    assert not any(found[-4:])


def is_grey(data: bytes) -> bool:
    """Whether a reader comes to its pixels, and to those of one channel."""
    try:
        return Jpeg(data).channels == 1
    except DataError:
        return False


@needs_numba
def test_nothing_of_a_damaged_file_that_the_library_refuses() -> None:
    """Bits turned, bytes lost, doubled or cut off, in the header too; what is left whole has the library's pixels."""
    rng, told = np.random.default_rng(4), [0, 0]
    kinds = [coded(p, q) for p, q in zip(pictures(rng, 56, 72).values(), (95, 60, 100, 95, 5), strict=True)]
    for data in (*kinds, pillow(pictures(rng, 40, 40)["grain"], optimize=True)):
        for turn in range(500):
            damaged, at, how = bytearray(data), int(rng.integers(2, len(data))), rng.random()
            if how < 0.2:
                del damaged[at : at + int(rng.integers(1, 4))]
            elif how < 0.3:
                damaged[at:at] = damaged[at : at + 3]
            elif how < 0.4:
                damaged[at : len(damaged) - 2] = b""
            else:
                damaged[at] ^= 1 << int(rng.integers(8))
            if is_grey(bytes(damaged)):
                # Raises where the library refuses what was decoded.
                told[same(bytes(damaged), DIVISORS[turn % 4])] += 1
    assert min(told) > 500, told


@needs_numba
def test_it_is_loaded_when_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = coded(pictures(np.random.default_rng(5), 64, 64)["grain"], 95)
    twice = Own(worth=2 * len(data))
    assert twice.decode(data, 1, None) is None
    found = twice.decode(data, 1, None)
    assert found is not None
    np.testing.assert_array_equal(found[0], library(data))
    monkeypatch.setattr(loading, "why_not", lambda module: loading.NOT_INSTALLED)
    assert Own(worth=0).decode(data, 1, None) is None


@needs_numba
@pytest.mark.parametrize("worth", [0, 1 << 60])
def test_parts_are_the_same_whoever_decodes(worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = coded(pictures(np.random.default_rng(6), 300, 500)["grain"], 95)
    monkeypatch.setattr("shards.format.codecs.own", Own(worth=worth))
    part, top, left = Jpeg(data).part(2, (100, 50, 300, 200))
    np.testing.assert_array_equal(part[25 - top : 100 - top, 50 - left : 150 - left], library(data, 2)[25:100, 50:150])
    assert part.shape == ((76, 104, 1) if worth == 0 else (150, 250, 1))
    assert Jpeg(data).decode(2).flags.c_contiguous


@needs_numba
@pytest.mark.real
def test_real_films() -> None:
    """Every tenth film of the real sets, as grey JPEGs."""
    paths = sorted(p for e in ("jpg", "png") for p in Path(os.environ["MEDPAIR_REAL_DATA"]).rglob(f"*.{e}"))[::10]
    assert paths
    for path in paths:
        with Image.open(path) as image:
            data = coded(np.asarray(image.convert("L")), 95)
        assert all(same(data, d) for d in DIVISORS)


_AVX2 = """
import numpy as np
from test_jpeg_grey import DIVISORS, coded, pictures, same
from shards.format.jpeg_grey import _region
assert "zmm" not in next(iter(_region.inspect_asm().values()))
data = coded(pictures(np.random.default_rng(0), 90, 520)["grain"], 95)
assert all(same(data, d) for d in DIVISORS)
"""


@needs_numba
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86 processor")
def test_the_same_pixels_from_a_processor_with_avx2_alone(tmp_path: Path) -> None:
    kind = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+bmi,+bmi2,+lzcnt,+movbe,+popcnt,+sse4.2"}
    path = os.pathsep.join(str(p) for p in (Path(__file__).parents[2], Path(__file__).parent))
    env = {**os.environ, **kind, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", _AVX2], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
