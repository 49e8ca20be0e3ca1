"""Indexing: offsets that are right, and every kind of broken or hostile tar refused with all its problems at once."""

from __future__ import annotations

import io
import mmap
import pickle
import re
import tarfile
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from builders import members_of, write_tar

from shards.errors import DataError
from shards.format import index as indexing
from shards.format.indexes import open_index


def test_offsets_sizes_and_checksums(tmp_path):
    members = [(f"k{i}.{name}", data) for i in range(6) for name, data in members_of(i).items()]
    path = write_tar(tmp_path / "shard-000000.tar", members)
    index = indexing.build(path)
    whole = path.read_bytes()
    assert len(index) == len(members)
    for row, (name, data) in zip(index, members, strict=True):
        assert f"{row['key'].decode()}.{row['field'].decode()}.{row['ext'].decode()}" == name
        assert whole[row["offset"] : row["offset"] + row["size"]] == data
        assert row["crc32"] == zlib.crc32(data)
        assert row["sample"] == int(name[1])


def test_saved_index_opens_mapped_and_equal(tmp_path):
    path = write_tar(tmp_path / "shard-000000.tar", [("a.rna.npy", b"1"), ("b.rna.npy", b"22")])
    saved = indexing.save(path, indexing.build(path))
    assert saved.name == "shard-000000.idx.npy"
    opened = open_index(path)
    assert isinstance(opened.base.obj, mmap.mmap)
    assert not opened.flags.writeable
    assert (opened == indexing.build(path)).all()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_dialects_and_long_names(tmp_path, form):
    path = tmp_path / "shard.tar"
    key = "k" * 150
    with tarfile.open(path, "w", format=form) as tar:
        entry = tarfile.TarInfo(f"{key}.rna.npy")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    index = indexing.build(path)
    assert index["key"][0].decode() == key
    assert path.read_bytes()[index["offset"][0] :][:3] == b"abc"


def problems_of(path) -> str:
    with pytest.raises(DataError) as caught:
        indexing.build(path)
    assert all(p.fix and p.where for p in caught.value.problems)
    return str(caught.value)


def test_all_problems_of_a_shard_come_at_once(tmp_path):
    members = [
        ("a.rna.npy", b"1"),
        ("a.rna.npy", b"2"),
        ("b.rna.npy", b"3"),
        ("a.image.jpg", b"4"),
        ("../evil.rna.npy", b"5"),
        ("/etc/passwd", b"6"),
        ("c.model.pkl", pickle.dumps({})),
        ("d.cls", b"7"),
        ("e.rna.npz", b"8"),
    ]
    text = problems_of(write_tar(tmp_path / "x.tar", members))
    assert "sample 'a' has field 'rna' twice" in text
    assert "key 'a' comes back" in text
    assert text.count("leaves the folder") == 2
    assert text.count("can carry code") == 2
    assert "'d.cls': the name is not KEY.FIELD.EXT" in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, r"a symbolic link to 'b.rna.npy'. Fix: .*--dereference"),
        (tarfile.LNKTYPE, r"a hard link to another member. Fix: .*--hard-dereference"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, said):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("a.rna.npy")
        entry.type, entry.linkname = kind, "b.rna.npy"
        tar.addfile(entry)
    assert re.search(r"x.tar: 'a.rna.npy': not a plain file: " + said, problems_of(path))


def test_every_truncation_is_found(tmp_path):
    path = write_tar(tmp_path / "x.tar", [(f"k{i}.rna.npy", bytes(700)) for i in range(4)])
    whole = path.read_bytes()
    last_member_ends = 4 * (512 + 1024)
    for size in [0, 1, 511, 512, 600, 1536, 2000, 3 * 1536, last_member_ends - 400, last_member_ends]:
        path.write_bytes(whole[:size])
        assert "truncated" in problems_of(path), size


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "x.tar", [(f"k{i}.rna.npy", bytes(100)) for i in range(4)])
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 3] ^= 0x55
    path.write_bytes(data)
    assert "damaged" in problems_of(path)


@pytest.mark.parametrize("odd", [ValueError("x"), RecursionError("x"), OverflowError("x")])
def test_headers_that_the_reader_of_tars_chokes_on_are_told(tmp_path, monkeypatch, odd):
    def ends(tar):
        raise odd

    path = write_tar(tmp_path / "x.tar", [(f"k{i}.rna.npy", bytes(100)) for i in range(2)])
    monkeypatch.setattr(tarfile.TarFile, "next", ends)
    assert "truncated, or not an uncompressed tar (x)" in problems_of(path)


def test_a_walk_goes_forward_alone(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "x.tar", [(f"k{i}.rna.npy", bytes(100)) for i in range(4)])
    proper, seen = tarfile.TarFile.next, []

    def back(tar):
        seen.append(proper(tar) if len(seen) < 2 else seen[0])
        return seen[-1]

    monkeypatch.setattr(tarfile.TarFile, "next", back)
    assert "the member at byte 0 ends before it begins" in problems_of(path)
    assert len(seen) == 3


def test_compressed_empty_and_foreign_files(tmp_path):
    (tmp_path / "gz.tar").write_bytes(b"\x1f\x8b\x08" + bytes(600))
    text = problems_of(tmp_path / "gz.tar")
    assert "is packed by gzip, not an uncompressed tar" in text
    assert "mv gz.tar gz.tar.gz && gunzip gz.tar.gz" in text
    (tmp_path / "text.tar").write_text("no tar at all\n" * 100)
    assert "not an uncompressed tar" in problems_of(tmp_path / "text.tar")
    assert "no member" in problems_of(write_tar(tmp_path / "none.tar", []))


def test_an_index_that_is_none_is_refused(tmp_path):
    shard = tmp_path / "shard-000000.tar"
    with pytest.raises(DataError, match="has no index"):
        open_index(shard)
    path = tmp_path / "shard-000000.idx.npy"
    for content in (np.zeros(3), np.zeros(2, [("key", "S3"), ("field", "S3")]), np.array([{}], object)):
        np.save(path, content, allow_pickle=True)
        with pytest.raises(DataError, match="not an index"):
            open_index(shard)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not an index"):
        open_index(shard)


@pytest.mark.slow
def test_a_member_costs_the_same_in_a_large_shard(tmp_path):
    def cost(members: int) -> float:
        """Processor time a member."""
        path = write_tar(tmp_path / "x.tar", [(f"k{i:06d}.rna.npy", b"x") for i in range(members)])
        times = []
        for _ in range(2):
            start = time.process_time()
            assert len(indexing.build(path)) == members
            times.append(time.process_time() - start)
        return min(times) / members

    assert cost(30_000) < 4 * cost(1_500)  # at the cost of all pairs it would be twenty times as much


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"S", b"5"])
@pytest.mark.parametrize(
    "size",
    [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80\0\0\0\x40" + bytes(7), b"00000010000\0"],
)
def test_sizes_in_headers_ask_for_no_memory_and_lead_nowhere(tmp_path, kind, size):
    """Every kind of header that has bytes of its own, with sizes up to 2 ** 88 and below zero."""
    path = write_tar(tmp_path / "x.tar", [(f"k{i}.rna.npy", bytes(700)) for i in range(3)])
    data = bytearray(path.read_bytes())
    header = data[1536 : 1536 + 512]
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1536 : 1536 + 512] = header
    path.write_bytes(data)
    tracemalloc.start()
    try:
        found = len(indexing.build(path))
    except DataError as e:
        found = 0 if "x.tar" in str(e) else -1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    # A size that stays inside of the tar swallows what follows; any other is refused.
    assert found in ((0, 1, 2) if size.startswith(b"0000001") else (0,))
