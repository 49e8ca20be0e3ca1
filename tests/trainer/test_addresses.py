"""Training from an object store is training from the folder; secrets in an address go nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import DataError
from tests.shards.servers import s3_server
from tests.trainer.launching import TINY, launch, series
from trainer.config.recipe import build_config
from trainer.errors import UserError
from trainer.pretrain import plan_elsewhere, prepare


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_gimp_from_an_object_store_has_the_losses_of_the_folder(tmp_path: Path, demo_cohort: Path) -> None:
    """Two ranks share a cache that holds three quarters of the shards."""
    pytest.importorskip("s3fs")
    gb = 0.75 * sum(p.stat().st_size for p in demo_cohort.glob("*.tar")) / 1e9
    words = [*TINY, "steps=12", "data.split=train"]
    near = launch(2, [*words, f"data.path={demo_cohort}", f"out={tmp_path / 'near'}"], demo_cohort)
    assert near.codes == [0, 0], near.text
    with s3_server(demo_cohort, "bucket"):
        cache = [f"data.cache={tmp_path / 'cache'}", f"data.cache_gb={gb}"]
        path = f"data.path=s3://bucket/{demo_cohort.name}"
        far = launch(2, [*words, path, *cache, f"out={tmp_path / 'far'}"], demo_cohort)
    assert far.codes == [0, 0], far.text
    assert "stage pretrain reads" in far.outputs[0], "its order goes everywhere"
    assert "shards will be fetched again and again" in far.outputs[0]
    what = ("step", "loss", "keys", "grad_norm")
    assert series(tmp_path / "far", *what) == series(tmp_path / "near", *what)
    held = sum(p.stat().st_size for p in (tmp_path / "cache").glob("*/*.tar"))
    assert 0 < held <= gb * 1e9


def test_a_plan_for_other_machines_does_not_want_their_cache_here(demo_cohort: Path) -> None:
    words = [*TINY[2:], "steps=1", f"data.path={demo_cohort}", "data.cache=/proc/nothing"]
    config, recipe = build_config("gimp", None, words)
    assert "cache: /proc/nothing" in plan_elsewhere(config, recipe, 4)
    with pytest.raises(DataError, match=r"data.cache=/proc/nothing: cannot be written"):
        prepare(config, 4)


@pytest.mark.parametrize(
    "given",
    ["data.path=https://me:hunter2@host/set", 'data.path=["s3://a/b?key=hunter2"]', "data.path=[s3://a/b?key=hunter2]"],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(UserError) as e:
        build_config("gimp", None, [given])
    assert "hunter2" not in str(e.value)
    assert "leave them out of the address" in str(e.value) or "quote it" in str(e.value)
