"""Codes of JPEGs that are read at many places at once: what they say is what those say that are read at a few in turns."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.format.codecs import eighth
from shards.format.jpeg_codes import ColourPlan, _plan_of, _segments, why_not_quick
from shards.format.jpeg_huffman import LOOK, PAD, STRIDE, codes_of

if find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)
from compiled.wide import is_wide

wide = pytest.mark.skipif(not is_wide(), reason="needs a processor with AVX-512 and VBMI2")
SIDE = 240
"""Of pictures of enough blocks."""
KINDS: dict[str, dict[str, object]] = {
    "4:2:0": {}, "4:2:2": {"subsampling": 1}, "4:4:4": {"subsampling": 0}, "grey": {"mode": "L"}, "own tables": {"optimize": True},
    "fine": {"quality": 100, "subsampling": 0}, "coarse": {"quality": 5}, "grey, fine": {"mode": "L", "quality": 100},
}  # fmt: skip


def picture(seed: int, mode: str = "RGB", grain: float = 9, side: int = SIDE, **more: object) -> bytes:
    """A disc with grain on black: codes of many lengths, and blocks of nothing."""
    rng, middle, out = np.random.default_rng(seed), np.mgrid[:side, :side] - side / 2, io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse, np.float32) + rng.normal(0, grain, (side, side, 3))
    pixels *= (np.hypot(*middle) < 0.46 * side)[..., None]
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode).save(out, "JPEG", **{"quality": 88, **more})
    return out.getvalue()


def parts(data: bytes) -> tuple[bytes, int, ColourPlan] | None:
    if (found := _segments(data)) is None or (plan := _plan_of(found[0])) is None:
        return None
    return data, found[1], plan


def said(data: bytes) -> tuple[bool | None, bool]:
    """Of many places, and of few."""
    from shards.format import jpeg_whole, jpeg_wide

    of = parts(data)
    assert of is not None
    return jpeg_wide.whole(*of), jpeg_whole.in_turns(*of)


def test_where_numba_is_it_works() -> None:
    """All other tests of machine code are left out where it does not."""
    assert why_not_quick() in ("", "NUMBA_DISABLE_JIT is set")


NARROW = """
from compiled.wide import is_wide
assert not is_wide()
try:
    import compiled.lanes
except ImportError as e:
    print(e)
"""
IN_TURNS = """
from tests.shards.test_jpeg_wide import parts, picture
from shards.format import jpeg_whole
assert jpeg_whole._wide is None
data, begin, plan = parts(picture(1))
assert jpeg_whole.whole(data, begin, plan) and not jpeg_whole.whole(data[:-40] + data[-2:], begin, plan)
"""
OLD = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}


@pytest.mark.parametrize(("code", "env"), [(NARROW + IN_TURNS, OLD), (NARROW, {"NUMBA_ENABLE_AVX": "0"})])
def test_a_processor_that_is_not_wide(code: str, env: dict[str, str]) -> None:
    """There the codes are read in turns, and what LLVM could not compile is refused before."""
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.returncode) == ("needs a processor with AVX-512 and VBMI2\n", 0), done.stderr


@wide
@pytest.mark.parametrize("kind", KINDS)
def test_whole_files(kind: str) -> None:
    for seed in range(6):
        assert said(picture(seed, side=SIDE + 24 * seed, **KINDS[kind])) == (True, True)  # type: ignore[arg-type]


@wide
@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_codes_of_every_length(sampling: str) -> None:
    for quality in (1, 50, 98, 100):
        pixels = np.random.default_rng(quality).integers(0, 256, (180, 200, 3), np.uint8)
        assert said(simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=sampling)) == (True, True)


@wide
@pytest.mark.parametrize("sampling", ["444", "420"])
def test_places_that_never_find_back(sampling: str) -> None:
    """Bits that repeat: their parts are read again, at one place."""
    for side in (200, 333, 512):
        for value in (0, 77, 255):
            pixels = np.full((side, side, 3), value, np.uint8)
            assert said(simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling=sampling)) == (True, True)
            pixels[: side // 2] = np.random.default_rng(side).integers(0, 256, (side // 2, side, 3))
            for image in (pixels, pixels[::-1].copy()):
                assert said(simplejpeg.encode_jpeg(image, quality=90, colorsubsampling=sampling)) == (True, True)


@wide
@pytest.mark.parametrize("kind", KINDS)
def test_of_damaged_files_both_say_the_same(kind: str) -> None:
    """Bits turned, bytes lost or doubled, everywhere among the codes and in their last bytes."""
    data, rng, told = picture(3, grain=5, **KINDS[kind]), np.random.default_rng(1), [0, 0]  # type: ignore[arg-type]
    of = parts(data)
    assert of is not None
    for i in range(500):
        damaged = bytearray(data)
        at = int(rng.integers(of[1], len(data) - 2)) if i % 3 else len(data) - 3 - i // 3 % 40
        if i % 5 == 0:
            del damaged[at : at + int(rng.integers(1, 4))]
        elif i % 5 == 1:
            damaged[at:at] = damaged[at : at + int(rng.integers(1, 3))]
        else:
            damaged[at] ^= 1 << int(rng.integers(8))
        many, few = said(bytes(damaged))
        assert many == few
        told[few] += 1
        if many:
            eighth(bytes(damaged))
    assert min(told) > 20


@wide
def test_fewer_and_more_blocks_than_there_are() -> None:
    of = parts(picture(5))
    assert of is not None
    from shards.format import jpeg_wide

    data, begin, plan = of
    for mcus in (plan.mcus - 1, plan.mcus + 1, plan.mcus // 2, 2 * plan.mcus):
        assert jpeg_wide.whole(data, begin, ColourPlan(mcus, plan.blocks, plan.pairs)) is False


@wide
def test_files_that_are_read_otherwise() -> None:
    from shards.format import jpeg_wide

    small = parts(picture(1, side=64))
    assert small is not None
    assert jpeg_wide.whole(*small) is None
    data, begin, plan = parts(picture(1)) or (b"", 0, small[2])
    assert jpeg_wide.whole(data, begin, ColourPlan(plan.mcus, plan.blocks * 2, plan.pairs)) is None  # 12 blocks a MCU
    odd = bytes([0] * 15 + [255]) + bytes(range(255))  # a code of ones
    assert jpeg_wide.whole(data, begin, ColourPlan(plan.mcus, plan.blocks, ((odd, odd), plan.pairs[1]))) is None


def table(*codes: tuple[int, int]) -> bytes:
    """16 counts and symbols, of (length, symbol)."""
    counts = bytes(sum(n == length for n, _ in codes) for length in range(1, 17))
    return counts + bytes(symbol for _, symbol in sorted(codes))


@wide
def test_bits_that_are_no_codes() -> None:
    """Nothing is found, and nothing goes on beyond the end, whatever the tables."""
    from shards.format import jpeg_whole, jpeg_wide

    rng = np.random.default_rng(0)
    few = table((1, 0)), table((1, 1))  # blocks that never end, and bits that are no code
    long = table((16, 11)), table(*((16, s) for s in range(1, 120)))
    zeros = table((1, 0), (2, 3)), table((1, 0), (2, 0xF0), (3, 0x15))
    for dc, ac in (few, long, zeros):
        for blocks in ((0,), (0, 0, 0)):
            plan = ColourPlan(2000, blocks, ((dc, ac),))
            for bits in (
                *(bytes([b]) * 20_000 for b in (0, 0x55, 0x80, 0xFE)),
                rng.bytes(20_000),
                rng.bytes(700),
                b"",
                b"\0",
            ):
                data = bits.replace(b"\xff", b"\xff\0") + b"\xff\xd9"
                assert jpeg_wide.whole(data, 0, plan) == jpeg_whole.in_turns(data, 0, plan)


@wide
@pytest.mark.parametrize("kind", ["fine", "grey", "grey, fine"])
def test_places_find_back(kind: str) -> None:
    """No part is read again, which would be as right and take longer."""
    from shards.format import jpeg_wide
    from shards.format.jpeg_states import BEGAN, CAME

    for seed in range(4):
        assert said(picture(seed, side=400, **KINDS[kind])) == (True, True)  # type: ignore[arg-type]
        kept = jpeg_wide._room._kept
        assert (kept[BEGAN, 1:] == kept[CAME, :-1]).mean() > 0.9


@wide
def test_nothing_goes_on_beyond_the_end() -> None:
    """Where no MCU is found before it: what follows the bits here would be one."""
    from compiled.wide import LANES
    from shards.format.jpeg_lanes import NEVER, all_there_in_lanes
    from shards.format.jpeg_rows import fill_rows
    from shards.format.jpeg_states import BEGAN, KEPT, MOST_ROWS, POS, SIZE, states

    codes = codes_of(table((1, 0)), table((1, 1)))
    assert codes is not None
    rows, size = np.zeros((MOST_ROWS + 1, SIZE), np.uint32), 20_000
    fill_rows(codes, np.empty((2, 1 << LOOK), np.int32), np.empty((3, 2 * SIZE), np.int32), rows[:MOST_ROWS])
    bits = np.concatenate([np.full(size + 200, 0xDB, np.uint8), np.zeros(4000, np.uint8)])
    bits[size : size + 200] = 255
    kept = np.zeros((KEPT, LANES), np.uint64)
    assert not all_there_in_lanes(bits, 8 * size, 2000, 1, rows, states((0,)), kept)
    assert (kept[POS] <= 8 * size + 64).all()
    assert set(kept[BEGAN].tolist()) == {NEVER}


@wide
def test_tables_that_change_from_file_to_file() -> None:
    """More than are kept, each of them met again."""
    from shards.format.jpeg_wide import KEPT_ROWS

    files = [picture(s, optimize=True) for s in range(KEPT_ROWS + 3)]
    assert len({plan.pairs for _, _, plan in filter(None, map(parts, files))}) > KEPT_ROWS
    for data in files * 2:
        assert said(data) == (True, True)
        assert said(data[:-40] + data[-2:]) == (False, False)


@wide
def test_tables_of_more_rows_than_there_is_room_for() -> None:
    from shards.format.jpeg_rows import fill_rows
    from shards.format.jpeg_states import MOST_ROWS, SIZE

    of = parts(picture(1))
    assert of is not None
    codes = np.concatenate([c for pair in of[2].pairs if (c := codes_of(*pair)) is not None])
    first, scratch = np.empty((2, 1 << LOOK), np.int32), np.empty((3, 2 * SIZE), np.int32)
    used = fill_rows(codes, first, scratch, np.zeros((MOST_ROWS, SIZE), np.uint32))
    assert 10 < used < MOST_ROWS
    for room in range(10, used):
        rows = np.full((room + 1, SIZE), 7, np.uint32)
        assert fill_rows(codes, first, scratch, rows[:room]) == -1
        assert (rows[room] == 7).all()


@wide
def test_zeros_behind_marks() -> None:
    """Wherever they stand within the 64 bytes that are taken at once, and at the end."""
    from shards.format.jpeg_lanes import unstuffed_wide
    from shards.format.jpeg_scan import unstuffed

    rng = np.random.default_rng(0)
    for size in [*range(130), 1000]:
        for share in (0, 0.1, 0.6):
            plain = np.where(rng.random(size) < share, 255, rng.integers(0, 255, size)).astype(np.uint8).tobytes()
            stuffed = plain.replace(b"\xff", b"\xff\0")
            for codes, found in ((stuffed, len(plain)), (stuffed + b"\xff", -1), (stuffed + b"\xff\x01", -1)):
                outs = [np.zeros(len(codes) + PAD + STRIDE, np.uint8) for _ in range(2)]
                lengths = [
                    f(np.frombuffer(codes, np.uint8), out)
                    for f, out in zip((unstuffed, unstuffed_wide), outs, strict=True)
                ]
                assert lengths == [found, found]
                assert found < 0 or all(out[:found].tobytes() == plain for out in outs)
