"""Reading by offset: the same bytes as the webdataset library, only the bytes asked for, and damage named."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
import webdataset
from builders import dataset, jpeg, members_of, npy, reseal, write_tar

from shards.errors import DataError
from shards.format import index as indexing
from shards.format.indexes import open_index
from shards.format.info import DatasetInfo, FieldInfo, ShardInfo, load_info, save_info, sha256_of
from shards.pack.write import tar_header
from shards.read.dataset import Dataset


def test_bytes_equal_those_of_the_webdataset_library(tmp_path):
    data = dataset(tmp_path / "d")
    urls = [str(data.path / s.name) for s in data.info.shards]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(theirs) == len(data)
    for i, sample in enumerate(theirs):
        assert sample["__key__"] == data.keys[i] == data[i].key
        names = [k for k in sample if not k.startswith("__")]
        assert {n.split(".")[0] for n in names} == set(data[i].fields)
        assert data.raw(i, [n.split(".")[0] for n in names]) == [sample[n] for n in names]


def test_fields_decode(tmp_path):
    data = dataset(tmp_path / "d")
    rec = data[9]
    assert rec.read("image").shape == rec.shape("image") == (24, 24, 3)
    assert rec.read("report") == "Befund 9: unauffällig."
    assert rec.read("meta") == {"patient": "p9"}
    want = np.random.default_rng(9).normal(size=(6, 8)).astype(np.float16)
    np.testing.assert_array_equal(rec.read("patches"), want)
    np.testing.assert_array_equal(rec.rows("patches", 2, 5), want[2:5])
    assert rec.rows("patches", 3, 3).shape == (0, 8)
    assert rec.shape("patches") == (6, 8)
    assert rec.has("patches")
    assert not rec.has("rna")
    assert rec.patient == "p9"
    assert rec.labels == {"kind": "gamma", "grade": 0.9}
    assert data[5].labels["grade"] is None


def test_reading_what_is_not_there_names_sample_and_field(tmp_path):
    data = dataset(tmp_path / "d")
    for read in (lambda: data[4].read("rna"), lambda: data[4].shape("rna"), lambda: data.raw(4, ["rna"])):
        with pytest.raises(
            DataError, match=r"shard-000000.tar: sample 's0004', member rna: the sample has no such field"
        ):
            read()
    with pytest.raises(DataError, match=r"rows 4\.\.9 of 5"):
        data[0].rows("patches", 4, 9)
    with pytest.raises(DataError, match="no array"):
        data[0].rows("report", 0, 1)
    with pytest.raises(IndexError):
        data[40]


def test_a_window_of_a_huge_bag_reads_its_rows_only(tmp_path):
    rows, width, want = 148_569, 1024, 6_000
    folder = tmp_path / "big"
    folder.mkdir()
    shard = folder / "shard-000000.tar"
    # The bag is a hole in a sparse file: only its header and the tar's frame are ever written.
    head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    head += f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {width}), }}".encode().ljust(117) + b"\n"
    size = len(head) + rows * width * 2
    with open(shard, "wb") as f:
        f.write(tar_header("bag.patches.npy", size))
        f.write(head)
        f.seek(512 + len(head) + 70_000 * width * 2)
        f.write(np.arange(width, dtype=np.float16).tobytes())
        f.truncate(512 + size)
    indexing.save(shard, indexing.from_rows([(0, "bag", "patches", "npy", 512, size, 0)]))
    info = ShardInfo(name=shard.name, samples=1, bytes=shard.stat().st_size, sha256="0" * 64)
    (folder / "splits.csv").write_text("sample,patient,split\nbag,p,train\n")
    files = {"splits.csv": sha256_of(folder / "splits.csv")}
    fields = {"patches": FieldInfo(ext="npy", count=1)}
    save_info(folder, DatasetInfo(name="big", fields=fields, samples=1, patients=1, shards=(info,), files=files))
    data = Dataset.open(folder)
    window = data[0].rows("patches", 69_000, 69_000 + want)
    assert window.shape == (want, width)
    np.testing.assert_array_equal(window[1000], np.arange(width, dtype=np.float16))
    assert window[999].sum() == 0
    assert data.bytes_read <= 1.05 * want * width * 2


def test_column_order_has_no_rows_to_cut(tmp_path):
    data = dataset(tmp_path / "d", samples=1)
    members = [("s0000.patches.npy", npy(np.asfortranarray(np.arange(12.0).reshape(3, 4))))]
    repacked(data, members)
    rec = Dataset.open(data.path)[0]
    assert rec.read("patches")[1].tolist() == [4, 5, 6, 7]
    with pytest.raises(DataError, match="column order"):
        rec.rows("patches", 0, 1)


def repacked(data: Dataset, members: list[tuple[str, bytes]]) -> None:
    """Replaces the only shard."""
    path = write_tar(data.path / "shard-000000.tar", members)
    indexing.save(path, indexing.build(path))
    info = ShardInfo(name=path.name, samples=1, bytes=path.stat().st_size, sha256=sha256_of(path))
    reseal(data.path, [info], 1, 1)


def test_every_flipped_byte_of_a_member_is_found(tmp_path):
    data = dataset(tmp_path / "d", samples=3)
    shard = data.path / "shard-000000.tar"
    whole = shard.read_bytes()
    index = open_index(shard)
    for row in index[index["sample"] == 1]:
        flipped = bytearray(whole)
        flipped[int(row["offset"]) + int(row["size"]) // 2] ^= 1
        shard.write_bytes(flipped)
        with pytest.raises(
            DataError, match=rf"shard-000000.tar: sample 's0001', member {row['field'].decode()}: .*checksum"
        ):
            Dataset.open(data.path)[1].read(row["field"].decode())


def test_a_cut_shard_or_foreign_index_is_found_when_opened(tmp_path):
    data = dataset(tmp_path / "d", samples=20)
    shard = data.path / "shard-000001.tar"
    os.truncate(shard, shard.stat().st_size - 512)
    with pytest.raises(DataError, match=r"shard-000001.tar: \d+ bytes, dataset.json says"):
        data[8].read("image")
    shard.unlink()
    with pytest.raises(DataError, match="restore the shard"):
        data[8].read("image")
    (data.path / "shard-000000.idx.npy").write_bytes((data.path / "shard-000001.idx.npy").read_bytes())
    with pytest.raises(DataError, match=r"not those of splits.csv|does not describe"):
        data[0].read("image")


def edited(data: Dataset, name: str, old: str, new: str, seal: bool) -> None:
    path = data.path / name
    path.write_text(path.read_text().replace(old, new))
    if seal:
        info = load_info(data.path)
        files = {n: sha256_of(data.path / n) for n in info.files}
        save_info(data.path, info.model_copy(update={"files": files}))


def test_side_files_are_hash_checked(tmp_path):
    data = dataset(tmp_path / "d")
    edited(data, "splits.csv", "s0003,p3,train", "s0003,p3,test", seal=False)
    edited(data, "labels.csv", "alpha", "beta", seal=False)
    with pytest.raises(DataError) as caught:
        Dataset.open(data.path)
    assert len(caught.value.problems) == 2
    assert "hash mismatch" in str(caught.value)
    (data.path / "stats.npz").write_bytes(b"x")
    (data.path / "vocab" / "rna.txt").write_text("G\n")
    for ask in (data.stats, lambda: data.vocabulary("rna")):
        with pytest.raises(DataError, match="hash mismatch"):
            ask()
    with pytest.raises(DataError, match="has no vocabulary"):
        data.vocabulary("image")


def test_vocabulary_and_statistics(tmp_path):
    data = dataset(tmp_path / "d")
    assert data.vocabulary("rna") == tuple(f"G{j}" for j in range(12))
    assert data.stats()["rna.std"].tolist() == [1] * 12


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("splits.csv", "s0003,p3,train", "s0003,p3,learn", "unknown split 'learn'"),
        ("splits.csv", "s0003,p3,train", "s0002,p3,train", r"1 samples stand twice \(s0002\)"),
        ("splits.csv", "s0003,p3,train", "s0003,,train", "without a patient"),
        ("splits.csv", "s0003,p3,train", "s0003,p2,test", r"1 patients stand in two splits \(p2\)"),
        ("splits.csv", "s0003,p3,train\n", "", "39 rows for 40 samples"),
        ("splits.csv", "patient", "person", "no column patient"),
        ("labels.csv", "s0003,alpha", "s0003,delta", "not classes: delta"),
        ("labels.csv", "s0003,alpha,0.3", "s0003,alpha,high", "not numbers: high"),
        ("labels.csv", "s0003,", "s9999,", "its samples are not those"),
    ],
)
def test_wrong_tables_are_refused_before_training(tmp_path, name, old, new, words):
    data = dataset(tmp_path / "d")
    edited(data, name, old, new, seal=True)
    with pytest.raises(DataError, match=words):
        Dataset.open(data.path).subset("train")


def test_subsets(tmp_path):
    data = dataset(tmp_path / "d", patients=20, splits={"train": 0.5, "val": 0.5})
    train, everything = data.subset("train"), data.subset()
    assert train.indices.tolist() == [i for i in range(40) if i % 20 < 10]
    assert len(np.unique(train.patients)) == 10
    assert train.labels["kind"].tolist() == everything.labels["kind"][train.indices].tolist()
    assert np.isnan(everything.labels["grade"][5])
    assert train.keep(train.labels["kind"] == 0).labels["kind"].tolist() == [0] * 12
    with pytest.raises(DataError, match="split 'test' is empty"):
        data.subset("test")
    with pytest.raises(DataError, match="no split 'dev'"):
        data.subset("dev")
    with pytest.raises(DataError, match="no sample is left"):
        train.keep(train.patients < 0)


def test_names_find_their_positions(tmp_path):
    data = dataset(tmp_path / "d")
    assert data.keys.find(["s0007", "nobody", "s0001"]).tolist() == [7, -1, 1]
    assert data.patients[3] == "p3"
    assert data.patients_of(np.array([3, 1])) == ["p3", "p1"]


def test_few_shards_stay_open_and_threads_agree(tmp_path):
    data = dataset(tmp_path / "d", samples=60, per_shard=3)
    few = Dataset.open(data.path, open_shards=2)
    before = len(os.listdir("/proc/self/fd"))
    wrong: list[int] = []

    def read(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 60, 200):
            if few.raw(int(i), ["image"])[0] != jpeg(int(i)):
                wrong.append(int(i))

    threads = [threading.Thread(target=read, args=(s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert len(few._shelf) <= 2
    # A descriptor for each open tar and, mapped, its index.
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert few.bytes_read == sum(
        len(jpeg(int(i))) for s in range(4) for i in np.random.default_rng(s).integers(0, 60, 200)
    )
    few.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_meta_is_plain_json(tmp_path):
    data = dataset(tmp_path / "d", samples=2)
    assert data[1].read("meta") == json.loads(members_of(1)["meta.json"])
