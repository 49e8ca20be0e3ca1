"""`shards.stream`: a webdataset pipeline over it sees one order, whatever the workers, ranks and restarts."""

from __future__ import annotations

import itertools
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from builders import dataset, jpeg, members_of, write_tar
from loading import loader_of
from torch.utils.data import DataLoader

import shards
from shards.errors import BrokenSeal, DataError
from shards.pack.adopt import adopt
from shards.read.dataset import Dataset
from tests.shards.servers import http_server

SAMPLES, G, STEPS = 60, 12, 5
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("stream") / "d", samples=SAMPLES, patients=40).path


def loader(source: Any, workers: int = 0, **options: Any) -> DataLoader[Any]:
    """A pipeline as people write it: decoded, as tuples, put together by the DataLoader."""
    pipeline = wds.DataPipeline(source, wds.decode("rgb8"), wds.to_tuple("__key__", "image.jpg", "report.txt"))
    size = source.batch_size
    return DataLoader(pipeline, batch_size=size, num_workers=workers, collate_fn=list, **options)


def of(folder: Path | str, batch_size: int | None = 4, **options: Any) -> Any:
    return shards.stream(
        folder, **{"global_batch": G, "seed": 5, "rank": 0, "world": 1, "batch_size": batch_size, **options}
    )


def content(batches: Any) -> list[list[tuple[str, bytes, str]]]:
    """Batches in the order in which the DataLoader returned them."""
    return [[(key, image.tobytes(), report) for key, image, report in batch] for batch in batches]


def keys(batches: Any) -> list[str]:
    return [sample[0] for batch in batches for sample in batch]


def planned(folder: Path, epochs: range) -> list[str]:
    """Keys in the order that our own loader trains on."""
    with Dataset.open(folder) as data, loader_of(data, batch=G, workers=0) as ours:
        return [k for e in epochs for s in range(STEPS) for k in data.keys_of(ours.plan.batch(e, s).index)]


@pytest.mark.parametrize("batch_size", [4, 12])
def test_every_number_of_workers_returns_the_batches_of_our_own_order(folder: Path, batch_size: int) -> None:
    want = content(loader(of(folder, batch_size, epochs=2)))
    assert [k for b in want for k, _, _ in b] == planned(folder, range(2))
    for workers in (1, 2, 3):
        assert content(loader(of(folder, batch_size, epochs=2), workers)) == want


def test_samples_one_by_one_keep_their_order_too(folder: Path) -> None:
    source = of(folder, 1)
    pipeline = wds.DataPipeline(source, wds.to_tuple("__key__"))
    got = [key for (key,) in DataLoader(pipeline, batch_size=None, num_workers=3)]
    assert got == planned(folder, range(1))


def test_batches_made_inside_the_pipeline_keep_their_order_too(folder: Path) -> None:
    pipeline = wds.DataPipeline(of(folder, 6), wds.to_tuple("__key__"), wds.batched(6))
    got = [key for (batch,) in DataLoader(pipeline, batch_size=None, num_workers=2) for key in batch]
    assert got == planned(folder, range(1))


@pytest.mark.parametrize(("before", "after"), [(0, 2), (1, 3), (2, 1), (3, 0)])
def test_a_run_that_stops_in_mid_epoch_goes_on_with_other_workers(folder: Path, before: int, after: int) -> None:
    want = planned(folder, range(3))
    source = of(folder, epochs=None)
    batches = iter(loader(source, before))
    first = keys(itertools.islice(batches, 7 * G // 4))  # seven steps: the second epoch is in its middle
    del batches
    stored = json.loads(json.dumps(source.state(len(first))))
    resumed = of(folder, epochs=2)
    assert resumed.resume(stored) == (1, 2)
    assert first + keys(loader(resumed, after)) == want


def test_two_ranks_partition_every_step_and_a_resume_may_have_three(folder: Path) -> None:
    want, steps = planned(folder, range(1)), 2
    halves = [keys(loader(of(folder, 3, rank=r, world=2), 2)) for r in range(2)]
    parts = [[h[i : i + 6] for i in range(0, len(h), 6)] for h in halves]
    assert [k for step in zip(*parts, strict=True) for part in step for k in part] == want
    stored = of(folder, 3, rank=1, world=2).state(steps * G)
    thirds = [of(folder, 2, rank=r, world=3) for r in range(3)]
    for source in thirds:
        assert source.resume(stored) == (0, steps)
    rest = [keys(loader(s, w)) for s, w in zip(thirds, (0, 1, 2), strict=True)]
    assert [k for at in range(0, len(rest[0]), 4) for r in rest for k in r[at : at + 4]] == want[steps * G :]


def test_ranks_are_asked_of_the_launcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    source = of(folder, 6, rank=None, world=None)
    assert (source.rank, source.world) == (1, 2)


def test_raw_bytes_and_what_webdataset_makes_of_them(folder: Path) -> None:
    pipeline = wds.DataPipeline(of(folder, order="sequential"), wds.decode("rgb8"))
    for i, (raw, sample) in enumerate(zip(of(folder, order="sequential"), pipeline, strict=True)):
        own = members_of(i)
        assert {k: v for k, v in raw.items() if not k.startswith("__")} == own
        assert raw["__url__"] == str(folder / f"shard-{i // 7:06d}.tar")
        with Dataset.open(folder) as data:
            record = data[i]
        assert sample["__key__"] == record.key
        assert np.abs(sample["image.jpg"].astype(int) - record.read("image")).max() <= 4  # two JPEG decoders
        np.testing.assert_array_equal(sample["patches.npy"], record.read("patches"))
        assert sample["report.txt"] == record.read("report")
        assert sample["meta.json"] == json.loads(own["meta.json"])
        assert ("rna.npy" in sample) == record.has("rna")


def test_only_the_fields_asked_for_are_read(folder: Path) -> None:
    source = of(folder, fields=["report"])
    assert {frozenset(s) for s in source} == {frozenset({"__key__", "__url__", "report.txt"})}
    assert source._data.bytes_read < 60 * 40


def test_adopted_tars_give_the_names_of_their_fields(tmp_path: Path) -> None:
    made = tmp_path / "d"
    made.mkdir()
    members = [m for i in range(8) for m in ((f"s{i}.image.jpg", jpeg(i)), (f"s{i}.report.txt", b"film"),
                                             (f"s{i}.meta.json", json.dumps({"patient": f"p{i}"}).encode()))]  # fmt: skip
    write_tar(made / "a.tar", members)
    adopt(made)
    got = list(shards.stream(made, global_batch=8, rank=0, world=1))
    assert sorted(s["__key__"] for s in got) == [f"s{i}" for i in range(8)]
    assert {frozenset(s) for s in got} == {frozenset({"__key__", "__url__", "image.jpg", "report.txt", "meta.json"})}


def test_several_data_sets_are_mixed(folder: Path, tmp_path: Path) -> None:
    other = dataset(tmp_path / "o", samples=20, prefix="t").path
    got = [s["__key__"][0] for s in shards.stream([folder, other], global_batch=8, weights=[1, 1], rank=0, world=1)]
    assert len(got) == 80
    assert got.count("t") == 40


# ----------------------------------------------------------------------------------------------------- epochs and processes


def test_an_epoch_is_not_read_twice_by_mistake(folder: Path) -> None:
    for workers in (0, 2):
        source = of(folder)
        data = loader(source, workers)
        first = keys(data)
        with pytest.raises((DataError, RuntimeError), match=r"read to its end already.*set_epoch\(1\)"):
            keys(data)
        source.set_epoch(1)
        second = keys(data)
        assert first + second == planned(folder, range(2))
    validation = loader(of(folder, order="sequential"))
    assert keys(validation) == keys(validation)


def test_workers_that_live_on_see_the_epoch_that_is_set(folder: Path) -> None:
    source, got = of(folder), list[str]()
    data = loader(source, 2, persistent_workers=True)
    for epoch in range(3):
        source.set_epoch(epoch)
        got += keys(data)
    assert got == planned(folder, range(3))


def test_what_lies_far_away_is_read_through_a_cache_of_every_worker(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDPAIR_CACHE", str(tmp_path))
    with http_server(folder.parent) as server:
        assert keys(loader(of(f"{server.url}/{folder.name}"), 2)) == planned(folder, range(1))
        assert {n for name, n in server.gets.items() if name.endswith(".tar")} == {1}


def test_a_stream_reaches_a_process_that_is_spawned(folder: Path) -> None:
    source = of(folder)
    source.set_epoch(2)
    assert [s["__key__"] for s in pickle.loads(pickle.dumps(source))] == planned(folder, range(2, 3))


# ------------------------------------------------------------------------------------------------------------------ refused


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        of(folder, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "training"}, "no split 'training'"),
        ({"split": "val"}, "split 'val' is empty"),
        ({"world": 0}, "rank 0 of a world of 0"),
        ({"world": -1}, "rank 0 of a world of -1"),
        ({"rank": 2, "world": 2}, "rank 2 of a world of 2"),
        ({"world": None}, "give both"),
        ({"world": 5}, "5 ranks do not divide a global batch of 12"),
        ({"batch_size": 5}, "set batch_size to"),
        ({"batch_size": 0}, "set batch_size to"),
        ({"global_batch": 0}, "a global batch of 0"),
        ({"order": "random"}, "no strategy 'random'"),
        ({"fields": ["image", "imge"]}, "no field 'imge'"),
        ({"epochs": 0}, "0 epochs"),
    ],
)
def test_what_cannot_be_streamed(folder: Path, options: dict[str, Any], said: str) -> None:
    text = refused(folder, **options)
    assert said in text
    assert "Fix: " in text


def test_workers_must_know_what_is_put_together(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="2 workers, and no batch_size"):
        keys(loader_without_size(of(folder, None)))
    assert len(list(of(folder, None))) == SAMPLES


def loader_without_size(source: Any) -> Iterator[Any]:
    return iter(DataLoader(wds.DataPipeline(source, wds.to_tuple("__key__")), batch_size=4, num_workers=2))


def test_a_resume_names_all_that_changed(folder: Path, tmp_path: Path) -> None:
    stored = of(folder).state(2 * G)
    other = dataset(tmp_path / "other", samples=24).path
    with pytest.raises(DataError) as caught:
        of(other, order="sequential", seed=6, global_batch=8).resume(stored)
    text = str(caught.value)
    for said in ("was trained on data", "seed 5, this is 6", "order='shuffle'", "global_batch=12", "accept_data=True"):
        assert said in text
    assert of(other).resume(stored, accept_data=True) == (1, 0)
    with (
        Dataset.open(folder) as data,
        loader_of(data, batch=G) as ours,
        pytest.raises(DataError, match="no state of a stream"),
    ):
        of(folder).resume(ours.state(G))
    for consumed in (13, -12):
        with pytest.raises(DataError, match="consumed"):
            of(folder).state(consumed)


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_and_replacement_end_the_run(tmp_path: Path, workers: int) -> None:
    made = dataset(tmp_path / "d", samples=24).path
    source = of(made)
    tar = bytearray((made / "shard-000001.tar").read_bytes())
    at = tar.index(b"Befund 8")
    tar[at : at + 6] = b"BEFUND"
    (made / "shard-000001.tar").write_bytes(tar)
    with pytest.raises((DataError, RuntimeError), match=r"changed|replaced"):
        keys(loader(source, workers))
    dataset(tmp_path / "d", samples=36)
    with pytest.raises((BrokenSeal, RuntimeError), match="replaced"):
        keys(loader(source, workers))


# ------------------------------------------------------------------------------------------------------------ what docs show


def test_the_example_of_the_docs_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "webdataset.md").read_text()
    codes = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    dataset(tmp_path / "data" / "nsclc", samples=64)
    names: dict[str, Any] = {"train_step": lambda images, reports: seen.append(reports)}
    seen: list[Any] = []
    for code in codes:
        exec(code, names)
    assert torch.load("checkpoint.pt")["data"]["consumed"] > 0
    assert len({r for batch in seen for r in batch}) == 64
