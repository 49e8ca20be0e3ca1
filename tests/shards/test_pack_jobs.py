"""Packing and linting by several processes: the same bytes for any number of them, in the order of the manifest; killed, pack goes on."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from manifests import Sources, snapshot, sources
from PIL import Image

from compiled import loading
from launch import doctor
from shards import jobs
from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.format import image_tally, jpeg_codes
from shards.format.codecs import check_jpeg, decode, eighth
from shards.format.image_tally import ImageTally
from shards.format.jpeg import pixels_begin
from shards.jobs import in_order, usable, waiting
from shards.pack import chunks, pack, write
from shards.pack.options import PackOptions
from shards.terminal import Progress


def jpeg(seed: int, mode: str = "RGB", side: int = 48, **more: object) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(
        (side + 7, side), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    coarse.convert(mode).save(buffer, "JPEG", **more)
    return buffer.getvalue()


def films(folder: Path, count: int = 11) -> Sources:
    """Bags, genes, reports; JPEGs in colour and grey, some with an EXIF orientation; masks of two values."""
    made = sources(folder, count)
    for i, row in enumerate(made.rows):
        exif = Image.Exif()
        exif[0x0112] = 6
        more = {"exif": exif} if i % 4 == 3 else {}
        (folder / f"p{i}.jpg").write_bytes(jpeg(i, "L" if i % 2 else "RGB", **more))
        side = (55, 48) if more else (48, 55)
        Image.fromarray((np.arange(side[0] * side[1]).reshape(side) % 7 == i % 7).astype(np.uint8)).save(
            folder / f"m{i}.png"
        )
        row |= {"field:image": f"p{i}.jpg", "field:mask": f"m{i}.png"}
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three samples, of which one in a while has no room in the shared memory."""
    monkeypatch.setattr(chunks, "CHUNK_SAMPLES", 3)
    monkeypatch.setattr(chunks, "SLOT_BYTES", 12_000)


OPTIONS = PackOptions(name="set", shard_samples=4)


def packed(made: Sources, out: Path, jobs: int) -> dict[str, bytes]:
    pack.pack(made.manifest, out, PackOptions(name="set", shard_samples=4, jobs=jobs))
    return snapshot(out)


def test_the_same_bytes_for_any_number_of_processes(tmp_path: Path, small: None) -> None:
    made = films(tmp_path / "in")
    made.write()
    one = packed(made, tmp_path / "one", 1)
    assert len([n for n in one if n.endswith(".tar")]) == 3
    for n in (2, 3):
        assert packed(made, tmp_path / str(n), n) == one
    assert [str(lint(tmp_path / "one", jobs=n)) for n in (1, 2)] == [str(lint(tmp_path / "one"))] * 2


def test_all_that_is_wrong_is_told_in_the_same_order(tmp_path: Path, small: None) -> None:
    made = films(tmp_path / "in")
    made.write()
    for i in (1, 4, 9):
        path = tmp_path / f"in/p{i}.jpg"
        path.write_bytes(path.read_bytes()[:-90])
    told = []
    for n in (1, 3):
        with pytest.raises(DataError) as caught:
            packed(made, tmp_path / "out", n)
        told.append(caught.value.problems)
    assert told[0] == told[1]
    assert [p.where.split("'")[1] for p in told[0]] == ["s01", "s04", "s09"]
    assert {p.name for p in tmp_path.iterdir()} == {"in"}, "nothing is left"


def test_a_killed_worker_ends_the_command_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = films(tmp_path / "in", 4)
    manifest, parent, real = made.write(), os.getpid(), chunks.members_of

    def dies(entry, *more):  # type: ignore[no-untyped-def]
        if entry.sample == "s02" and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(entry, *more)

    monkeypatch.setattr(chunks, "members_of", dies)
    words = ["pack", str(manifest), "--out", str(tmp_path / "out")]
    assert main([*words, "--jobs", "2"]) == 2
    said = capsys.readouterr().err
    assert "a worker process ended before its work was done" in said
    assert "--jobs 1" in said
    assert {p.name for p in tmp_path.iterdir()} == {"in"}
    assert main([*words, "--jobs", "1"]) == 0, "the remedy works"


@pytest.mark.timeout(60)
def test_workers_end_with_a_killed_parent() -> None:
    code = (
        "import os, signal; from shards.jobs import in_order\n"
        "def work(n):\n    os.write(1, b'%d\\n' % os.getpid())\n    signal.pause()\n"
        "list(in_order(work, [1, 2], 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert len({parent.stdout.readline() for _ in range(2)}) == 2
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == "", "the pipe closes when the last of them has ended"
    parent.stdout.close()


def test_results_come_in_order_and_no_faster_than_they_are_used() -> None:
    begun: list[int] = []
    for i in in_order(lambda n: begun.append(n) or n, range(5), 1):  # type: ignore[func-returns-value]
        assert begun[-1] == i
    assert list(in_order(lambda n: n * n, range(20), 3)) == [n * n for n in range(20)]
    assert waiting(1) == 1
    assert (usable(7, 1), usable(None, 10)) == (7, 1)
    assert usable(None, 10**6) == min(len(os.sched_getaffinity(0)), jobs.MOST)


# ------------------------------------------------------------------------------------------------------------- going on


class Stopped(BaseException):
    """What no code of a command catches."""


def killed(made: Sources, out: Path, after: int, monkeypatch: pytest.MonkeyPatch, number: int = 1) -> None:
    """A packing that ends as by a kill when it has put so many samples: nothing of its folder is tidied up."""
    left, real = [after], write.DatasetWriter.put

    def put(self, laid):  # type: ignore[no-untyped-def]
        if not left[0]:
            raise Stopped
        left[0] -= 1
        real(self, laid)

    with monkeypatch.context() as m:
        m.setattr(write.DatasetWriter, "put", put)
        m.setattr(write.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(Stopped):
            packed(made, out, number)


@pytest.mark.parametrize("after", [3, 4, 5, 8, 10])
def test_a_killed_packing_goes_on(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: int
) -> None:
    made = films(tmp_path / "in")
    made.write()
    whole = packed(made, tmp_path / "whole", 1)
    killed(made, tmp_path / "out", after, monkeypatch, 1 + after % 2)
    reads: list[str] = []
    real = chunks.members_of
    monkeypatch.setattr(chunks, "members_of", lambda e, *more: reads.append(e.sample) or real(e, *more))  # type: ignore[func-returns-value]
    assert packed(made, tmp_path / "out", 1) == whole
    shards = max(0, after - 1) // 4  # a shard is closed by the sample after it
    said = capsys.readouterr().err
    assert (f"goes on after {4 * shards} samples in {shards} whole shards" in said) == bool(shards)
    assert len(reads) <= 11 - 4 * shards + 3, "no more than a chunk is read again"
    assert {p.name for p in tmp_path.iterdir()} == {"in", "whole", "out"}


@pytest.mark.parametrize("change", ["a file", "an option", "a label", "a damaged shard"])
def test_what_has_changed_begins_anew_and_says_so(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    made = films(tmp_path / "in")
    made.write()
    killed(made, tmp_path / "out", 9, monkeypatch)
    options = OPTIONS
    if change == "a file":
        (tmp_path / "in/p0.jpg").write_bytes(jpeg(77))
    elif change == "an option":
        options = PackOptions(name="set", shard_samples=5)
    elif change == "a label":
        made.rows[0]["label:subtype"] = "LUAD"
        made.write()
    else:
        tar = tmp_path / ".out.packing/shard-000001.tar"
        tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    pack.pack(made.manifest, tmp_path / "out", options)
    said = capsys.readouterr().err
    told = {
        "a file": "its files differed",
        "an option": "its options differed",
        "a label": "its manifest",
        "a damaged shard": "4 samples",
    }
    assert told[change] in said
    pack.pack(made.manifest, tmp_path / "fresh", options)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_an_interrupt_keeps_whole_shards(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = films(tmp_path / "in")
    manifest = made.write()
    monkeypatch.setattr(
        Progress, "reached", lambda self, n: (_ for _ in ()).throw(KeyboardInterrupt) if n >= 9 else None
    )
    words = ["pack", str(manifest), "--out", str(tmp_path / "out"), "--shard-samples", "4"]
    assert main(words) == 130
    assert (tmp_path / ".out.packing/shard-000000.tar").exists()
    monkeypatch.undo()
    assert main(words) == 0
    assert not (tmp_path / ".out.packing").exists()
    assert not lint(tmp_path / "out").problems


# --------------------------------------------------------------------------------------------------------- what is looked at


def test_an_eighth_and_codes_alone_refuse_what_a_whole_decoding_refuses() -> None:
    rng, outcomes = np.random.default_rng(0), set()
    kinds = [
        jpeg(1),
        jpeg(2, "L"),
        jpeg(3, progressive=True),
        jpeg(4, subsampling=0),
        jpeg(5, "CMYK"),
        jpeg(6, restart_marker_blocks=2),
    ]
    for data in kinds:
        for _ in range(150):
            damaged = bytearray(data)
            at = int(rng.integers(2, len(damaged)))
            if rng.random() < 0.3:
                del damaged[at:]
            elif rng.random() < 0.5:
                del damaged[at : at + int(rng.integers(1, 30))]
            else:
                damaged[at] ^= 1 << int(rng.integers(8))
            both = [
                _refused(lambda d=bytes(damaged), f=f: f(d)) for f in (lambda d: decode("jpg", d), eighth, check_jpeg)
            ]
            assert both[0] == both[1] == both[2]
            outcomes.add(both[0])
    assert outcomes == {False, True}


def test_files_told_by_their_codes_are_packed_and_refused_as_others(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = films(tmp_path / "in")
    made.write()
    one, asked = packed(made, tmp_path / "one", 1), []
    monkeypatch.setattr(chunks, "BY_CODES", 1)
    monkeypatch.setattr(image_tally, "check_jpeg", lambda data: (asked.append(1), check_jpeg(data)))
    assert packed(made, tmp_path / "two", 1) == one
    assert len(asked) > 4, "all but the first of a chunk"
    assert packed(made, tmp_path / "three", 2) == one
    path = tmp_path / "in" / "p4.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"p4.jpg: cannot be decoded as jpg"):
        packed(made, tmp_path / "four", 1)


def test_which_way_files_are_looked_at_is_said_once_with_the_reason(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    jpeg_codes.why_not_quick()  # numba is loaded before what loads it is replaced
    made = films(tmp_path / "in")
    made.write()
    one = packed(made, tmp_path / "one", 1)
    assert "JPEGs" not in capfd.readouterr().err, "a small set: there is nothing to choose"
    monkeypatch.setattr(chunks, "BY_CODES", 1)
    for name, why in (("broken", "needs NumPy 2.9 or less"), ("there", "")):
        monkeypatch.setattr(loading.importlib, "import_module", partial(_loaded, why))
        loading.why_not.cache_clear()
        assert packed(made, tmp_path / name, 2) == one
        said = [line for line in capfd.readouterr().err.splitlines() if "JPEGs" in line]
        assert said == [chunks.how_checked(f"numba does not work here (ImportError: {why})" if why else "")]
        assert said[0] in doctor.jpegs_of_packs()
    loading.why_not.cache_clear()


def _loaded(why: str, name: str) -> None:
    """Stands in for loading the compiled reader."""
    if why:
        raise ImportError(why)


def _refused(read) -> bool:  # type: ignore[no-untyped-def]
    try:
        read()
    except DataError:
        return True
    return False


def test_a_tally_in_parts_is_the_tally_of_all() -> None:
    files = [("image", "jpg", jpeg(i, "L" if i % 2 else "RGB")) for i in range(6)]
    deep = [("deep", "png", _png((np.arange(64).reshape(8, 8) * (i + 1) * 9).astype(np.uint16))) for i in range(4)]
    masks = [("mask", "png", _png((np.arange(64).reshape(8, 8) % (2 + i % 2)).astype(np.uint8))) for i in range(4)]
    whole, parts = ImageTally(), [ImageTally(), ImageTally()]
    for i, (name, ext, data) in enumerate([*files, *deep, *masks]):
        whole.add(f"s{i}", name, ext, data)
        parts[i % 3 == 2].add(f"s{i}", name, ext, data)
    parts[0].merge(ImageTally.load(parts[1].dump()))
    assert parts[0].settle() == whole.settle()
    assert whole.seen["deep"].deep == 4
    assert whole.seen["image"].largest >= image_tally.FEW_LEVELS


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_where_the_pixels_of_a_jpeg_begin() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(1, exif=exif, comment=b"\xff\xda")
    at = pixels_begin(data)
    assert data[at : at + 2] == b"\xff\xda"
    assert b"Exif\0" in data[:at]
    assert at > data.index(b"\xff\xfe") + 6, "not the one in the comment"
    assert pixels_begin(data[:at]) == 0
    assert pixels_begin(b"") == 0


def test_progress_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("packed", 10_000, "samples", 1_000) as progress:
        progress.reached(1_500)
        now[0] += 61
        progress.reached(4_050)
        now[0] += 1
        progress.reached(4_100)
    said = capsys.readouterr().err.splitlines()
    assert said == ["packed 4,050 of 10,000 samples, 50/s, 1:59 left"]
