"""Features: each sample once, in order, for any world size; a cache that is used when everything matches and never else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.contract import MethodError
from shards.errors import DataError
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from tests.shards.builders import dataset
from tests.trainer.downstream import extract_ranks
from tests.trainer.downstream.extract_ranks import BATCH, ONE, encoder
from trainer.downstream.probes.features import Extracted, extract, identity_of
from trainer.errors import UserError

SPLITS = {"train": 0.7, "val": 0.23, "test": 0.07}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 samples: 31 to train on, 9 and 3 to test on. Every fifth has no genes."""
    path = tmp_path_factory.mktemp("set") / "d"
    dataset(path, samples=43, splits=SPLITS)
    return path


@pytest.fixture
def data(folder: Path) -> Dataset:
    return Dataset.open(folder)


def made(data: Dataset, cache: Path | None = None, split: str = "val", method=None, **options) -> Extracted:
    return extract(method or encoder(data), data, split, ONE, batch=BATCH, workers=0, cache=cache, **options)


def test_each_sample_has_its_own_features_in_the_splits_order(data: Dataset) -> None:
    method = encoder(data)
    found = made(data, split="train", method=method)
    indices = data.subset("train").indices
    assert found.keys_N.tolist() == data.keys_of(indices)
    assert found.x_ND.dtype == np.float32
    for i, x_D in zip(indices.tolist(), found.x_ND, strict=True):
        alone = method.collate([method.sample(data[i], sample_rng(0, 0, i))])
        with torch.no_grad():
            np.testing.assert_allclose(method.encode(alone)["pooled_BD"][0].numpy(), x_D, atol=1e-5)
    assert np.unique(found.x_ND, axis=0).shape == found.x_ND.shape


def test_threads_and_large_batches_change_nothing_but_rounding(data: Dataset) -> None:
    method, one = encoder(data), made(data)
    threads = extract(method, data, "val", ONE, batch=BATCH, workers=3)
    np.testing.assert_array_equal(threads.x_ND, one.x_ND)
    np.testing.assert_allclose(extract(method, data, "val", ONE, batch=500).x_ND, one.x_ND, atol=1e-5)
    assert len(extract(method, data, None, ONE, batch=16).x_ND) == len(data)


@pytest.mark.ranks
def test_two_and_four_ranks_give_the_same_bits(folder: Path, data: Dataset, tmp_path: Path) -> None:
    """The smallest split has fewer samples than four ranks, and two of three have fewer than ranks x batch."""
    splits = ["train", "val", "test"]
    alone = {split: made(data, split=split) for split in splits}
    found = extract_ranks.run(folder, splits, tmp_path, [2, 4])
    assert len(found) == 3 * 2 * (2 + 4)
    for split, again, arrays in found:
        assert arrays["keys"].tolist() == alone[split].keys_N.tolist(), split
        np.testing.assert_array_equal(arrays["x"], alone[split].x_ND)
        assert arrays["cached"] == again
    # Another world size uses what these have kept.
    assert made(data, tmp_path / "4" / "cache").cached


def test_dropout_is_off_and_inputs_are_the_tasks(data: Dataset) -> None:
    method = encoder(data, dropout=0.5)
    method.train()
    both = made(data, method=method)
    np.testing.assert_array_equal(both.x_ND, made(data, method=method).x_ND)
    method.inputs = ("patches",)
    assert made(data, method=method).x_ND.shape != both.x_ND.shape or not np.allclose(
        made(data, method=method).x_ND, both.x_ND
    )


# ------------------------------------------------------------------------------------------------------------------ cache


class Unread(torch.nn.Module):
    """Planted in an encoder's place: nobody may encode."""

    def forward(self, *args: object, **words: object) -> None:
        raise AssertionError("encoded again")


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_the_second_time_nothing_is_encoded(data: Dataset, tmp_path: Path, store: str) -> None:
    method = encoder(data)
    first = made(data, tmp_path, method=method, store=store)
    weights = identity_of(method)
    method.aggregator = Unread()
    second = made(data, tmp_path, method=method, identity=weights, store=store)
    assert (first.cached, second.cached) == (False, True)
    np.testing.assert_array_equal(first.x_ND, second.x_ND)
    assert second.x_ND.dtype == np.float32
    assert first.keys_N.tolist() == second.keys_N.tolist()
    (kept,) = tmp_path.glob("*/features.npy")
    assert np.load(kept).dtype == np.dtype(store)


def test_features_of_anything_else_are_not_used(data: Dataset, tmp_path: Path) -> None:
    made(data, tmp_path)
    assert made(data, tmp_path).cached
    with torch.no_grad():
        touched = encoder(data)
        next(touched.parameters()).view(-1)[0] += 1e-6
    images = encoder(data)
    images.inputs = ("patches",)
    half = encoder(data).to(torch.bfloat16)
    for other in (touched, images, half, encoder(data, seed=1), encoder(data, window=5)):
        assert not made(data, tmp_path, method=other).cached
    assert not made(data, tmp_path, split="test").cached
    assert not made(data, tmp_path, store="float16").cached
    data.info = data.info.model_copy(update={"fingerprint": "another"})
    assert not made(data, tmp_path).cached
    assert len(list(tmp_path.iterdir())) == 9


@pytest.mark.parametrize("name", ["features.npy", "keys.npy", "about.json", "manifest.json"])
def test_damaged_features_are_made_again(data: Dataset, tmp_path: Path, capsys, name: str) -> None:
    good = made(data, tmp_path)
    (path,) = tmp_path.glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    again = made(data, tmp_path)
    assert not again.cached
    assert "are not used" in capsys.readouterr().out
    np.testing.assert_array_equal(again.x_ND, good.x_ND)
    assert made(data, tmp_path).cached


def test_a_manifest_of_something_else_is_not_believed(data: Dataset, tmp_path: Path) -> None:
    """A folder under the wrong name, as after a copy by hand."""
    made(data, tmp_path, split="val")
    made(data, tmp_path, split="test")
    (val,), (test,) = tmp_path.glob("val-*"), tmp_path.glob("test-*")
    for path in val.iterdir():
        path.write_bytes((test / path.name).read_bytes())
    found = made(data, tmp_path)
    assert not found.cached
    assert len(found.x_ND) == 9


def test_a_killed_process_leaves_nothing_that_is_used(folder: Path, data: Dataset, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.trainer.downstream.extract_ranks import ONE, features_of\n"
        "from trainer.state import files\n"
        "files.publish = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"features_of(Path({str(folder)!r}), 'val', ONE, Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir())
    assert not made(data, tmp_path).cached
    assert made(data, tmp_path).cached


def test_about_says_what_the_features_are_of(data: Dataset, tmp_path: Path) -> None:
    method = encoder(data)
    made(data, tmp_path, method=method)
    (path,) = tmp_path.glob("*/about.json")
    about = json.loads(path.read_text())
    assert about["weights"] == identity_of(method)
    assert about["data"] == data.fingerprint
    assert about["inputs"] == ["patches", "rna"]
    assert about["options"]["dim"] == 16


def test_identity_is_that_of_the_weights(data: Dataset) -> None:
    assert identity_of(encoder(data)) == identity_of(encoder(data))
    assert identity_of(encoder(data)) != identity_of(encoder(data, seed=1))
    assert len(identity_of(encoder(data).to(torch.bfloat16))) == 64


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("factor", "store", "why"), [(np.nan, "float32", "diverged"), (1e9, "float16", "too large")])
def test_features_without_a_value_are_refused(
    data: Dataset, tmp_path: Path, factor: float, store: str, why: str
) -> None:
    method = encoder(data)
    encode = method.encode

    def scaled(batch):
        out = encode(batch)
        out["pooled_BD"] = out["pooled_BD"] * factor
        return out

    method.encode = scaled
    with pytest.raises(UserError, match=rf"9 samples are not finite \('s00.*{why}"):
        made(data, tmp_path, method=method, store=store)
    assert not list(tmp_path.iterdir())


def test_a_bad_sample_is_an_error(folder: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", samples=20)
    shard = data.path / data.info.shards[1].name
    content = bytearray(shard.read_bytes())
    with data:
        at = int(data._open_shard(1).table("rna").offset[0]) + 140
    content[at] ^= 0xFF
    shard.write_bytes(content)
    with Dataset.open(tmp_path / "d") as data, pytest.raises((DataError, MethodError)):
        made(data, split="train")
