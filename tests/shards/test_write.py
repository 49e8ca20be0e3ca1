"""The writer: same bytes, readable by others, and never half a data set."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from manifests import snapshot, sources

from shards.errors import DataError
from shards.format import index
from shards.format.indexes import open_index
from shards.format.info import load_info, sha256_of
from shards.pack.options import PackOptions
from shards.pack.write import DatasetWriter, npy_bytes, tar_header
from shards.read.dataset import Dataset


def test_same_input_same_bytes(tmp_path: Path) -> None:
    first = sources(tmp_path / "in").pack(tmp_path / "a", PackOptions(name="x"))
    second = sources(tmp_path / "in2").pack(tmp_path / "b", PackOptions(name="x"))
    assert snapshot(first) == snapshot(second)


def test_shards_read_back_with_webdataset_and_their_hashes_hold(tmp_path: Path) -> None:
    folder = sources(tmp_path / "in").pack(tmp_path / "out", PackOptions(shard_samples=5))
    info = load_info(folder)
    assert [s.samples for s in info.shards] == [5, 5, 2]
    for shard in info.shards:
        assert sha256_of(folder / shard.name) == shard.sha256
        assert (folder / shard.name).stat().st_size == shard.bytes
    urls = [str(folder / s.name) for s in info.shards]
    with Dataset.open(folder) as ours:
        theirs = list(wds.WebDataset(urls, shardshuffle=False))
        assert [t["__key__"] for t in theirs] == list(ours.keys)
        for i, them in enumerate(theirs):
            assert them["rna.npy"] == ours.raw(i, ["rna"])[0]
            assert them["report.txt"].decode() == ours[i].read("report")


def test_index_equals_one_built_by_walking_the_tar(tmp_path: Path) -> None:
    folder = sources(tmp_path / "in").pack(tmp_path / "out", PackOptions(shard_samples=5))
    for tar in sorted(folder.glob("*.tar")):
        assert np.array_equal(open_index(tar), index.build(tar))


keys = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,20}", fullmatch=True)
fields = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
contents = st.dictionaries(
    keys, st.dictionaries(fields, st.binary(max_size=1500), min_size=1, max_size=3), min_size=1, max_size=5
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents, st.integers(1024, 8192))
def test_any_content_comes_back_and_shards_stay_small(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, dict[str, bytes]], limit: int
) -> None:
    with DatasetWriter(tmp_path_factory.mktemp("w") / "out", shard_bytes=limit) as writer:
        for key, members in samples.items():
            writer.add(key, {(f, "txt"): data for f, data in members.items()})
        shards, read = writer.close_shards(), {}
        for shard in shards:
            assert shard.bytes <= limit or shard.samples == 1
            with tarfile.open(writer.staging / shard.name) as tar:
                for member in tar:
                    read[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
            for row in open_index(writer.staging / shard.name):
                name = f"{row['key'].decode()}.{row['field'].decode()}.txt"
                assert zlib.crc32(read[name]) == row["crc32"]
        assert read == {f"{k}.{f}.txt": d for k, m in samples.items() for f, d in m.items()}


@given(npst.arrays(st.sampled_from(["<f2", "<f4", "|i1", "<i4"]), npst.array_shapes(max_dims=3, min_side=0)))
def test_npy_bytes_load_without_pickle(array: np.ndarray) -> None:
    import io

    back = np.load(io.BytesIO(npy_bytes(array)), allow_pickle=False)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


def test_header_is_plain_ustar() -> None:
    block = tar_header("a.rna.npy", 7)
    assert len(block) == 512
    assert block[257:263] == b"ustar\0"
    assert block == tar_header("a.rna.npy", 7)


@pytest.mark.parametrize("size", [0, 7, 8, 150_000, (8 << 30) - 1])
@pytest.mark.parametrize("name", ["a.rna.npy", "x" * 90 + ".image.jpg"])
def test_header_is_that_of_tarfile(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    assert tar_header(name, size) == member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


@pytest.mark.parametrize("key", ["../x", "a/b", "", "a.b", "x" * 98, "-rf"])
def test_names_that_cannot_be_members_are_refused(tmp_path: Path, key: str) -> None:
    with (
        DatasetWriter(tmp_path / "out") as writer,
        pytest.raises(DataError, match=r"cannot be a member's name.*Fix: KEY.FIELD.EXT"),
    ):
        writer.add(key, {("rna", "npy"): b""})


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DatasetWriter(tmp_path / "out") as writer:
            writer.add("a", {("rna", "npy"): b"1"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    left = tmp_path / ".out.packing"
    left.mkdir()
    (left / "shard-000000.tar").write_bytes(b"half")
    folder = sources(tmp_path / "in").pack(tmp_path / "out")
    assert load_info(folder).samples == 12
    assert not left.exists()


def test_two_writers_of_one_folder(tmp_path: Path) -> None:
    with (
        DatasetWriter(tmp_path / "out"),
        pytest.raises(DataError, match="another process is writing"),
        DatasetWriter(tmp_path / "out"),
    ):
        pass


def test_used_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    before = snapshot(tmp_path / "out")
    with pytest.raises(DataError, match=r"not empty.*Fix: .*--overwrite"):
        sources(tmp_path / "in").pack(tmp_path / "out")
    with pytest.raises(DataError, match=r"replaces data sets only"):
        sources(tmp_path / "in").pack(tmp_path / "out", PackOptions(overwrite=True))
    assert snapshot(tmp_path / "out") == before


def test_overwrite_replaces_the_whole_folder_and_a_failure_keeps_the_old_one(tmp_path: Path) -> None:
    folder = sources(tmp_path / "in").pack(tmp_path / "out", PackOptions(shard_samples=3))
    before = snapshot(folder)
    broken = sources(tmp_path / "broken")
    broken.rows[3]["field:image"] = "absent.png"
    with pytest.raises(DataError):
        broken.pack(folder, PackOptions(overwrite=True))
    assert snapshot(folder) == before
    sources(tmp_path / "in2", count=8).pack(folder, PackOptions(overwrite=True))
    assert load_info(folder).samples == 8
    assert len(list(folder.glob("*.tar"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "in", "in2", "out"]


def test_everything_is_on_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, real_sync, real_replace = set[str](), os.fsync, os.replace
    unsynced: list[str] = []

    def sync(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        real_sync(fd)

    def replace(old: str, new: str) -> None:
        if Path(new).name == "out":
            large = [*Path(old).glob("*.tar"), *Path(old).glob("*.npy"), Path(old)]
            unsynced.extend(str(p) for p in large if str(p) not in synced)
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    sources(tmp_path / "in").pack(tmp_path / "out", PackOptions(shard_samples=5))
    assert len(synced) > 6
    assert not unsynced


def test_overwrite_where_folders_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sources(tmp_path / "in").pack(tmp_path / "out")
    monkeypatch.setattr("shards.format.staging.exchange", lambda a, b: False)
    sources(tmp_path / "in2", count=8).pack(folder, PackOptions(overwrite=True))
    assert load_info(folder).samples == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "in2", "out"]


def test_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "set")
    (tmp_path / "disk" / "set").mkdir()
    sources(tmp_path / "in").pack(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert load_info(tmp_path / "disk" / "set").samples == 12


def test_killed_pack_leaves_no_data_set_and_the_next_one_succeeds(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    made.write()
    # Killed without any chance to clean up, right before the folder gets its name.
    code = (
        "import os, shards.pack.write, shards.__main__ as m\n"
        "shards.pack.write.swap_in = lambda new, out: os.kill(os.getpid(), 9)\n"
        f"m.main(['pack', {str(made.manifest)!r}, '--out', {str(tmp_path / 'out')!r}])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == -9
    assert not (tmp_path / "out").exists()
    assert load_info(made.pack(tmp_path / "out")).samples == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    made = sources(tmp_path / "in", count=40)
    made.write()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the kernel refuses to let any file grow over this
    try:
        with pytest.raises(DataError, match=r"out: cannot write: .*Fix: "):
            made.pack(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_no_room_at_a_device_that_is_always_full() -> None:
    from shards.pack.write import disk_errors

    with (
        pytest.raises(DataError, match=r"No space left on device.*Fix: free space"),
        disk_errors(Path("out")),
        open("/dev/full", "wb", buffering=0) as f,
    ):
        f.write(b"x")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"cannot write: Not a directory.*Fix: "),
        DatasetWriter(tmp_path / "file" / "out"),
    ):
        pass
