"""Loading: batches are a function of the data, the seed and the position alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import KINDS, dataset
from loading import STEPS, collate, content, failing, loader_of, take, transform

from models.contract import Batch, Sample
from shards.errors import DataError
from shards.load.loader import Loader
from shards.load.position import place_of
from shards.order.mix import Mix, make_plan, open_data
from shards.order.streams import sample_rng
from shards.read.arrays import WORTH_KEEPING, ArrayPool
from shards.read.dataset import Dataset


@pytest.fixture
def data(tmp_path) -> Dataset:
    return dataset(tmp_path / "d", samples=60, patients=40)


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


def test_randomness_inside_a_sample_is_that_of_its_place(data):
    def draw(record, rng):
        return Sample({"index": np.array(record.index), "drawn": rng.random(2)})

    with loader_of(data, "class_balanced", 12, draw, "kind") as loader:
        for s in take(loader):
            repeat = loader.plan.batch(s.epoch, s.step).repeat
            for i, again, drawn in zip(s.index.tolist(), repeat.tolist(), s.micro[0]["drawn"], strict=True):
                np.testing.assert_array_equal(drawn.numpy(), sample_rng(5, s.epoch, i, again).random(2))


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


def goes_on_at(loader, state, accept_data=False):
    return place_of(loader.data, loader.plan, state, accept_data, "resume.accept_data=true")


def test_a_restart_at_any_step_goes_on_as_if_nothing_had_happened(data):
    with loader_of(data) as loader:
        want = take(loader, 18)  # 7 steps an epoch
    assert [s.epoch for s in want] == [0] * 7 + [1] * 7 + [2] * 4
    for done in range(16):
        with loader_of(data) as loader:
            state = loader.state(want[done].consumed)
            assert set(state) == {"seed", "epoch", "consumed", "fingerprint", "order_version"}
            assert content(take(loader, 2, *goes_on_at(loader, state))) == content(want[done + 1 : done + 3])


def test_resume_refuses_other_data_seed_and_position(data, tmp_path):
    other = dataset(tmp_path / "other", samples=24)
    with loader_of(data) as loader, loader_of(other) as stranger:
        state = loader.state(16)
        with pytest.raises(DataError, match=r"resume.accept_data=true") as caught:
            goes_on_at(stranger, state)
        assert data.fingerprint in str(caught.value)
        assert other.fingerprint in str(caught.value)
        assert goes_on_at(stranger, state, accept_data=True) == (0, 2)
        with pytest.raises(DataError, match=r"the run has seed 6, this is 5.*set seed=6"):
            goes_on_at(loader, state | {"seed": 6})
        with pytest.raises(DataError, match="no whole number of global batches of 8"):
            goes_on_at(loader, state | {"consumed": 13})


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
            assert goes_on_at(loader, loader.state(steps[3].consumed)) == (0, 4)
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


def test_a_sample_of_a_mix_is_the_sample_of_its_part(tmp_path):
    """Parts of unequal sizes and other numbers of patients: a row of one read as a row of another would show."""
    parts = [
        dataset(tmp_path / name, samples=samples, patients=patients, prefix=name)
        for name, samples, patients in (("a", 24, 24), ("b", 60, 20), ("c", 7, 3))
    ]
    mix = Mix(parts)
    own = [(part, row) for part in parts for row in range(len(part))]
    assert len(mix) == len(own) == 91
    for i, (part, row) in enumerate(own):
        mixed, alone = mix[i], part[row]
        assert (mixed.key, mixed.patient, mixed.labels) == (alone.key, alone.patient, alone.labels)
        assert (mixed.index, mixed.own_index) == (i, row)
        assert mixed.read("report") == alone.read("report")
    every = np.arange(len(mix))
    assert mix.keys_of(every) == [part[row].key for part, row in own]
    assert mix.patients_of(every) == [part[row].patient for part, row in own]
    assert alone.index == alone.own_index == 6


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


def as_stored(record, rng):
    return Sample({"view": record.stored_image("image").pixels(), "index": np.array(record.index)})


def flipped_beside_as_decoded(record, rng):
    """The name that a field was learnt to end in sometimes gets something else, while the image goes elsewhere."""
    return flipped_beside(record.read("image"), record, rng)


def flipped_beside_as_stored(record, rng):
    return flipped_beside(record.stored_image("image").pixels(), record, rng)


def flipped_beside(image, record, rng):
    first, second = (image, image[::-1]) if rng.random() < 0.5 else (image[::-1], image)
    return Sample({"view": first, "other": second, "index": np.array(record.index)})


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("call", [as_decoded, flipped_beside_as_decoded, as_stored, flipped_beside_as_stored])
def test_images_decoded_in_place_equal_those_read_alone(data, call, workers):
    with loader_of(data, call=call, workers=workers, max_bad_samples=0) as loader:
        steps = take(loader)
    assert loader._recipe.direct, "nothing was decoded in place"
    for s in steps:
        batch = s.micro[0]
        for j, i in enumerate(batch["index"].tolist()):
            want = data[i].read("image")
            if call in (as_decoded, as_stored):
                np.testing.assert_array_equal(batch["view"][j].numpy(), want)
                continue
            pair = {batch["view"][j].numpy().tobytes(), batch["other"][j].numpy().tobytes()}
            assert pair == {want.tobytes(), want[::-1].tobytes()}
