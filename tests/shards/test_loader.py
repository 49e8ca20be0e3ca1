"""Loading: batches are a function of the data, the seed and the position alone; faults are counted, named or fatal."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from builders import KINDS, dataset

from models.contract import Batch, Method, Sample
from shards.arrays import WORTH_KEEPING, ArrayPool
from shards.errors import DataError
from shards.loader import Loader
from shards.mix import Mix, make_plan, open_data
from shards.reader import Dataset

STEPS = 12


def transform(record, rng: np.random.Generator) -> Sample:
    """A crop, a window of the bag, and a value of the record's own."""
    image, at = record.read("image"), rng.integers(0, 9, 2)
    start = int(rng.integers(0, record.shape("patches")[0] - 3))
    genes = record.read("rna") if record.has("rna") else np.zeros(12, np.float32)
    arrays = {
        "image": image[at[0] : at[0] + 16, at[1] : at[1] + 16],
        "patches": record.rows("patches", start, start + 4),
        "rna": genes,
        "index": np.array(record.index),
    }
    return Sample(arrays, {"rna": record.has("rna")})


def collate(samples) -> Batch:
    return Method.collate(None, samples)  # type: ignore[arg-type]


def take(loader: Loader, steps: int = STEPS, epoch: int = 0, step: int = 0) -> list:
    run = loader.iterate(epoch, step)
    out = list(itertools.islice(run, steps))
    run.close()  # type: ignore[attr-defined]
    return out


def content(steps: list) -> list:
    """All that a step holds, in plain bytes."""
    return [
        (s.epoch, s.step, s.consumed, s.keys_hash, [{n: t.numpy().tobytes() for n, t in b.items()} for b in s.micro],
         [b.keys_B for b in s.micro], [b.patients_B for b in s.micro], [b.present["rna"].tolist() for b in s.micro])
        for s in steps
    ]  # fmt: skip


@pytest.fixture
def data(tmp_path) -> Dataset:
    return dataset(tmp_path / "d", samples=60, patients=40)


def loader_of(data, strategy="shuffle", batch=8, call=transform, label=None, **options) -> Loader:
    return Loader(data, make_plan(data, None, strategy, 5, batch, label=label), call, collate, **options)


@pytest.mark.parametrize(
    ("strategy", "label"), [("shuffle", None), ("patient_unique", None), ("class_balanced", "kind")]
)
def test_batches_do_not_depend_on_workers_prefetch_or_micro_batches(data, strategy, label):
    batch = 12
    with loader_of(data, strategy, batch, label=label, workers=0) as loader:
        want = content(take(loader))
    for workers, prefetch in [(1, 0), (2, 2), (4, 5)]:
        with loader_of(data, strategy, batch, label=label, workers=workers, prefetch=prefetch) as loader:
            assert content(take(loader)) == want
    with loader_of(data, strategy, batch, label=label, micro_batch=3) as loader:
        steps = take(loader)
    assert [len(s.micro) for s in steps] == [4] * STEPS
    joined = [b"".join(b["image"].numpy().tobytes() for b in s.micro) for s in steps]
    assert joined == [w[4][0]["image"] for w in want]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_read_what_one_rank_reads(data, world):
    with loader_of(data) as loader:
        alone = take(loader)
    ranks = []
    for rank in range(world):
        with loader_of(data, rank=rank, world=world) as loader:
            ranks.append(take(loader))
    for step, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert {p.keys_hash for p in parts} == {step.keys_hash}
        assert {p.consumed for p in parts} == {step.consumed}
        for name, tensor in step.micro[0].items():
            assert torch.equal(torch.cat([p.micro[0][name] for p in parts]), tensor)


def test_a_restart_at_any_step_goes_on_as_if_nothing_had_happened(data):
    with loader_of(data) as loader:
        want = take(loader, 18)  # 7 steps an epoch
    assert [s.epoch for s in want] == [0] * 7 + [1] * 7 + [2] * 4
    for done in range(16):
        with loader_of(data) as loader:
            state = loader.state(want[done].consumed)
            assert set(state) == {"seed", "epoch", "consumed", "fingerprint"}
            assert content(take(loader, 2, *loader.resume(state))) == content(want[done + 1 : done + 3])


def test_resume_refuses_other_data_seed_and_position(data, tmp_path):
    other = dataset(tmp_path / "other", samples=24)
    with loader_of(data) as loader, loader_of(other) as stranger:
        state = loader.state(16)
        with pytest.raises(DataError, match="resume.accept_data=true") as caught:
            stranger.resume(state)
        assert data.fingerprint in str(caught.value)
        assert other.fingerprint in str(caught.value)
        assert stranger.resume(state, accept_data=True) == (0, 2)
        with pytest.raises(DataError, match="the run has seed 6, this is 5.*set seed=6"):
            loader.resume(state | {"seed": 6})
        with pytest.raises(DataError, match="no whole number of global batches of 8"):
            loader.resume(state | {"consumed": 13})


def test_the_arrays_are_the_records(data):
    with loader_of(data) as loader:
        for step in take(loader):
            batch = step.micro[0]
            assert batch.keys_B == tuple(data.keys.take(batch["index"].numpy()))
            assert batch.patients_B == tuple(data.patients_of(batch["index"].numpy()))
            assert step.index.tolist() == batch["index"].tolist()
            for i, genes, there in zip(batch["index"].tolist(), batch["rna"], batch.present["rna"], strict=True):
                assert there == data[i].has("rna")
                if there:
                    np.testing.assert_array_equal(genes.numpy(), data[i].read("rna"))


def test_ragged_arrays_reach_collate_as_they_are(data):
    seen = []

    def ragged(record, rng):
        return Sample({"bag": record.read("patches"), "index": np.array(record.index)})

    def pad(samples):
        seen.append("bag" in samples.stacked)
        longest = max(len(s.arrays["bag"]) for s in samples)
        bags = np.stack([np.pad(s.arrays["bag"], ((0, longest - len(s.arrays["bag"])), (0, 0))) for s in samples])
        return Batch({"bag": torch.from_numpy(bags), "index": torch.tensor([int(s.arrays["index"]) for s in samples])})

    with Loader(data, make_plan(data, None, "shuffle", 0, 8), ragged, pad, workers=3) as loader:
        for step in take(loader):
            for i, bag in zip(step.micro[0]["index"].tolist(), step.micro[0]["bag"], strict=True):
                want = data[i].read("patches")
                np.testing.assert_array_equal(bag.numpy()[: len(want)], want)
    assert not any(seen)


def test_batches_held_on_to_are_never_overwritten(data):
    """Large arrays are used again, but only those that nobody holds."""

    def large(record, rng):
        return Sample({"x": np.full(WORTH_KEEPING // 32, record.index, np.float32)})

    with Loader(data, make_plan(data, None, "shuffle", 0, 8), large, collate, prefetch=1) as loader:
        held = [step.micro[0] for step in take(loader, 10)]
    for batch in held:
        assert (
            data.keys.find(batch.keys_B).tolist()
            == batch["x"][:, 0].long().tolist()
            == batch["x"][:, -1].long().tolist()
        )


def test_the_pool_gives_again_only_what_is_free():
    pool = ArrayPool(keep=2)
    shape, dtype = (WORTH_KEEPING,), np.dtype(np.uint8)
    first = pool.empty(shape, dtype)
    address = first.ctypes.data
    tensor = torch.from_numpy(first)[5:]
    del first
    second = pool.empty(shape, dtype)
    assert second.ctypes.data != address
    del tensor
    assert pool.empty(shape, dtype).ctypes.data == address


# ---------------------------------------------------------------------------------------------------------------- faults


def failing(bad: set[int]):
    def call(record, rng):
        if record.index in bad:
            record.read("nothing")
        return transform(record, rng)

    return call


@pytest.mark.parametrize(
    ("strategy", "label"), [("shuffle", None), ("patient_unique", None), ("class_balanced", "kind")]
)
def test_bad_samples_are_named_and_replaced_by_rule(data, strategy, label):
    bad = {3, 17, 18, 44}
    runs = []
    for workers, world in [(0, 1), (3, 1), (2, 3)]:
        ranks = []
        for rank in range(world):
            options = {"workers": workers, "world": world, "rank": rank, "max_bad_samples": 4}
            with loader_of(data, strategy, 12, failing(bad), label, **options) as loader:
                ranks.append(take(loader))
        runs.append([np.concatenate([p.index for p in parts]).tolist() for parts in zip(*ranks, strict=True)])
        named = {key for steps in ranks for s in steps for key, _ in s.bad}
        assert named <= {f"s{i:04d}" for i in bad}
        assert named
        assert all("member nothing" in message for steps in ranks for s in steps for _, message in s.bad)
    assert runs[0] == runs[1] == runs[2]
    plan = make_plan(data, None, strategy, 5, 12, label=label)
    kinds = data.label_values["kind"]
    for number, index in enumerate(runs[0]):
        planned = plan.batch(*divmod(number, plan.steps_per_epoch)).index
        assert not bad & set(index)
        if strategy != "class_balanced":  # there, a class of six may stand twice in a batch by itself
            assert len(set(index)) == 12
        if strategy == "patient_unique":
            assert len(set(data.patient_codes[index])) == 12
        if strategy == "class_balanced":
            assert (kinds[index] == kinds[planned]).all()
        assert [i for i, p in zip(index, planned, strict=True) if p not in bad] == [p for p in planned if p not in bad]


def test_the_planned_keys_hash_does_not_change_with_faults(data):
    with loader_of(data, call=failing({3, 17}), max_bad_samples=2) as one, loader_of(data) as two:
        assert [s.keys_hash for s in take(one)] == [s.keys_hash for s in take(two)]


def test_too_many_bad_samples_are_fatal_and_all_listed(data):
    with loader_of(data, call=failing(set(range(0, 60, 6))), max_bad_samples=3) as loader:
        with pytest.raises(DataError, match="4 bad samples, data.max_bad_samples allows 3") as caught:
            take(loader, 100)
        assert len(caught.value.problems) >= 5
    with loader_of(data, call=failing({3, 17})) as loader, pytest.raises(DataError, match="allows 0"):
        take(loader)
    with loader_of(data, call=failing({3, 17}), max_bad_samples=2) as loader:
        assert len(take(loader, 70)) == 70  # ten epochs: the same two samples count once


def test_a_flipped_byte_in_a_shard_is_a_bad_sample(data):
    shard = data.path / "shard-000002.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with loader_of(data, max_bad_samples=1) as loader:
        found = [b for s in take(loader, 14) for b in s.bad]
    assert {key for key, _ in found} == {"s0014"}
    assert "shard-000002.tar: sample 's0014', member image: its bytes changed" in found[0][1]


def test_no_stand_in_left_is_an_error(data):
    with loader_of(data, batch=60, call=failing({3}), max_bad_samples=9) as loader:
        with pytest.raises(DataError, match="s0003") as caught:
            take(loader)
    assert any("smaller global batch" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("workers", [0, 2])
def test_another_error_reaches_the_consumer_with_its_sample(data, workers):
    def broken(record, rng):
        return 1 / 0 if record.index == 17 else transform(record, rng)

    with loader_of(data, call=broken, workers=workers, max_bad_samples=9) as loader:
        with pytest.raises(ZeroDivisionError) as caught:
            take(loader, 7)
    assert "in sample 's0017' (index 17), epoch 0" in caught.value.__notes__[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_collate_reaches_the_consumer(data, workers):
    def broken(samples):
        raise KeyError("width")

    with Loader(data, make_plan(data, None, "shuffle", 0, 8), transform, broken, workers=workers) as loader:
        with pytest.raises(KeyError, match="width"):
            take(loader)


# --------------------------------------------------------------------------------------------------------------- closing


def threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("loader-")}


def test_closing_leaves_no_thread(data):
    before = threads()
    loader = loader_of(data, workers=4, prefetch=8)
    run = loader.iterate()
    next(run)
    assert len(threads() - before) == 4
    loader.close()
    assert threads() == before
    with pytest.raises(RuntimeError, match="closed"):
        next(run)
    loader.close()


def test_a_dropped_loader_ends_its_threads(data):
    before = threads()
    loader = loader_of(data, workers=2)
    next(loader.iterate())
    mine = threads() - before
    del loader
    gc.collect()
    for thread in mine:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_consumer_that_dies_is_not_held_back(data):
    code = f"""
import sys
sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
from test_loader import loader_of, transform
from shards.reader import Dataset
loader = loader_of(Dataset.open({str(data.path)!r}), workers=3, prefetch=50)
next(loader.iterate())
raise SystemExit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 7


# ------------------------------------------------------------------------------------------------------- evaluation, mixes


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("batch", [12, 6])
def test_an_evaluation_sees_every_sample_once(data, world, batch):
    seen, counts = [], set()
    for rank in range(world):
        with loader_of(data, "sequential", batch, rank=rank, world=world) as loader:
            batches = list(loader.evaluate())
        counts.add(len(batches))
        for b in batches:
            assert b.size == batch // world
            seen += [k for k, w in zip(b.keys_B, b.weight_B.tolist(), strict=True) if w]
            assert set(b.weight_B.tolist()) <= {0.0, 1.0}
    assert len(counts) == 1
    assert sorted(seen) == list(data.keys)


def test_a_bad_sample_is_fatal_in_an_evaluation(data):
    with loader_of(data, call=failing({9}), max_bad_samples=5) as loader, pytest.raises(DataError, match="s0009"):
        list(loader.evaluate())


def test_a_mix_loads_from_all_its_parts(tmp_path):
    for name, samples in (("a", 30), ("b", 20)):
        dataset(tmp_path / name, samples=samples, prefix=name)
    mix = open_data([tmp_path / "a", tmp_path / "b"])
    assert isinstance(mix, Mix)
    plan = make_plan(mix, "train", "shuffle", 0, 8, weights=[1, 3])
    runs = []
    for workers in (0, 2):
        with Loader(mix, plan, transform, collate, workers=workers) as loader:
            steps = take(loader, 10)
            assert loader.resume(loader.state(steps[3].consumed)) == (0, 4)
        runs.append(content(steps))
        assert sum(k.startswith("a") for s in steps for k in s.micro[0].keys_B) == 20
        for s in steps:
            assert s.micro[0].keys_B == tuple(mix[i].key for i in s.index)
            assert s.index.tolist() == s.micro[0]["index"].tolist()
    assert runs[0] == runs[1]
    with pytest.raises(DataError, match="order patient_unique over several data sets"):
        make_plan(mix, "train", "patient_unique", 0, 8)
    with pytest.raises(DataError, match="named twice"):
        open_data([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(DataError, match="2 problems"):
        open_data([tmp_path / "x", tmp_path / "y", tmp_path / "a"])


def test_wrong_divisions_are_refused_at_once(data):
    with pytest.raises(DataError, match="3 ranks do not divide"):
        loader_of(data, world=3)
    with pytest.raises(DataError, match="micro batch of 3"):
        loader_of(data, micro_batch=3)


def test_classes_are_those_of_the_data(data):
    assert data.info.labels["kind"].classes == KINDS


# ------------------------------------------------------------------------------------------- images decoded into the batch


def as_decoded(record, rng):
    return Sample({"view": record.read("image"), "index": np.array(record.index)})


def flipped_beside_as_decoded(record, rng):
    """The name that a field was learnt to end in sometimes gets something else, while the image goes elsewhere."""
    image = record.read("image")
    first, second = (image, image[::-1]) if rng.random() < 0.5 else (image[::-1], image)
    return Sample({"view": first, "other": second, "index": np.array(record.index), "again": record.read("image")})


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("call", [as_decoded, flipped_beside_as_decoded])
def test_images_decoded_in_place_equal_those_read_alone(data, call, workers):
    with loader_of(data, call=call, workers=workers, max_bad_samples=0) as loader:
        steps = take(loader)
    assert loader._recipe.direct, "nothing was decoded in place"
    for s in steps:
        batch = s.micro[0]
        for j, i in enumerate(batch["index"].tolist()):
            want = data[i].read("image")
            if call is as_decoded:
                np.testing.assert_array_equal(batch["view"][j].numpy(), want)
                continue
            pair = {batch["view"][j].numpy().tobytes(), batch["other"][j].numpy().tobytes()}
            assert pair == {want.tobytes(), want[::-1].tobytes()}
            np.testing.assert_array_equal(batch["again"][j].numpy(), want)
