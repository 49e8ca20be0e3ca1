"""Planted near-equal contents: films encoded anew, bags cut; how many are found, and how many are found that are none."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.check.near import NEAR, Signatures, film_hash, near_pairs, row_hashes
from shards.demo import image, latent, slide

PLANTED = 100


def jpeg(x: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def half(x: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(x).resize((x.shape[1] // 2, x.shape[0] // 2), Image.Resampling.BILINEAR))


def brighter(x: np.ndarray) -> np.ndarray:
    return np.clip(x * 0.9 + 15, 0, 255).astype(np.uint8)


def trimmed(x: np.ndarray) -> np.ndarray:
    h, w = (max(1, n // 100) for n in x.shape)
    return x[h:-h, w:-w]


CHANGES = (jpeg, half, brighter)


def of_films(films: list[np.ndarray]) -> Signatures:
    none = np.empty(0, np.int64)
    return Signatures(np.array([film_hash(x) for x in films]), np.arange(len(films)), none.astype(np.uint64), none)


def of_bags(bags: list[np.ndarray]) -> Signatures:
    rows = [row_hashes(b) for b in bags]
    sample_M = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return Signatures(np.empty((0, 4), np.uint64), np.empty(0, np.int64), np.concatenate(rows), sample_M)


def counted(films: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
    """How many of the first PLANTED films are found in all of them after a change, and how many others are taken for one."""
    whole = of_films(films)
    changed = of_films([change(x) for x in films[:PLANTED]])
    right = {p.mine for p in near_pairs(changed, whole) if p.mine == p.theirs}
    return len(right), len(near_pairs(whole, whole, whole.film_M))


def test_the_hash_is_imagehashs() -> None:
    """pHash at 16 x 16 of 64 x 64, of a picture that is that large already: what is averaged before differs."""
    import imagehash

    small = np.asarray(Image.fromarray(image(latent(3), 0)[0]).resize((64, 64), Image.Resampling.BOX))
    theirs = imagehash.phash(Image.fromarray(small), hash_size=16, highfreq_factor=4).hash
    mine = np.unpackbits(film_hash(small).view(np.uint8)).reshape(16, 16).astype(bool)
    assert (mine != theirs).sum() <= 1, "the mean is left out of our median"


@functools.cache
def demo_films() -> list[np.ndarray]:
    return [image(latent(i), 0)[0] for i in range(160)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_films_of_the_demo_cohort_are_found(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert counted(demo_films(), change) == (PLANTED, 0)


@pytest.mark.real
@pytest.mark.skipif("MEDPAIR_REAL_DATA" not in os.environ, reason="needs the real samples")
@pytest.mark.parametrize(("change", "least"), [*((c, 100) for c in CHANGES), (trimmed, 80)])
def test_changed_real_films_are_found(change: Callable[[np.ndarray], np.ndarray], least: int) -> None:
    """304 chest radiographs of different patients, and none of them is like another."""
    folder = Path(os.environ["MEDPAIR_REAL_DATA"]) / "mrm_cxr"
    films = [np.asarray(Image.open(p).convert("L")) for p in sorted(folder.rglob("*.jpg"))]
    assert len(films) > 250
    found, false = counted(films, change)
    assert found >= least
    assert false == 0


def cuts() -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    yield "a corner", lambda b: b[len(b) // 2 :]
    yield "one in ten, in another order", lambda b: np.random.default_rng(0).permutation(b)[: max(4, len(b) // 10)]


@pytest.mark.parametrize(("name", "cut"), cuts(), ids=[n for n, _ in cuts()])
def test_cut_bags_are_found(name: str, cut: Callable[[np.ndarray], np.ndarray]) -> None:
    """All of them, by patches of equal bytes; no bag is taken for another."""
    bags = [slide(latent(i), 0)[0] for i in range(PLANTED)]
    whole = of_bags(bags)
    found = near_pairs(of_bags([cut(b) for b in bags]), whole)
    assert [(p.mine, p.theirs) for p in found] == [(i, i) for i in range(PLANTED)]
    assert not near_pairs(whole, whole, np.arange(PLANTED))


def test_a_large_bag_is_found_by_its_sketch() -> None:
    """A tenth of 20,000 patches shares about a tenth of the sketch."""
    rng = np.random.default_rng(1)
    bag = rng.normal(size=(20_000, 32)).astype(np.float16)
    (pair,) = near_pairs(of_bags([bag[rng.permutation(20_000)[:2_000]]]), of_bags([bag]))
    assert 10 < pair.how < 50


def test_patches_of_many_people_are_background() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(4, 8)).astype(np.float16)
    bags = [np.concatenate([shared, rng.normal(size=(20, 8)).astype(np.float16)]) for _ in range(12)]
    assert not near_pairs(of_bags(bags), of_bags(bags), np.arange(12))
    few = near_pairs(of_bags(bags[:5]), of_bags(bags[:5]), np.arange(5))
    assert [p.how for p in few] == [4] * 5


def test_rows_without_variation_tell_nothing() -> None:
    assert not len(row_hashes(np.zeros((9, 4), np.float32)))
    assert len(row_hashes(np.array([[0, 1], [0, 1], [2, 1]], np.int16))) == 2


def test_one_patients_films_are_no_pair() -> None:
    film = demo_films()[0]
    both = of_films([film, brighter(film)])
    assert not near_pairs(both, both, np.array([7, 7]))
    pairs = near_pairs(both, both, np.array([7, 8]))
    assert [(p.mine, p.theirs) for p in pairs] == [(0, 1), (1, 0)]
    assert all(p.how <= NEAR for p in pairs)


def test_a_hundred_renamed_patients_of_a_packed_set(tmp_path: Path) -> None:
    """Byte-equal contents are told from near-equal ones: all of the first by their codes, all of the others by what they look like."""
    from shards.check.near import signatures
    from shards.check.witness import contents_of
    from shards.read.dataset import Dataset
    from tests.trainer.downstream.planted import pixels, planted, png

    def again(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
        file = BytesIO()
        bag = np.load(BytesIO(given["patches", "npy"]))
        np.save(file, bag[len(bag) // 3 :])
        coords = BytesIO()
        np.save(coords, np.load(BytesIO(given["coords", "npy"]))[len(bag) // 3 :])
        changed = {("image", "png"): png(half(pixels(given["image", "png"]))), ("patches", "npy"): file.getvalue()}
        return {**given, **changed, ("coords", "npy"): coords.getvalue()}

    def renamed(name: str) -> str:
        return f"other-{name}"

    first = planted(tmp_path / "a", patients=PLANTED)
    equal = planted(tmp_path / "b", patients=PLANTED, rename=renamed)
    near = planted(tmp_path / "c", patients=PLANTED, rename=renamed, members=again)
    with Dataset.open(first) as a, Dataset.open(equal) as b, Dataset.open(near) as c:
        codes = np.unique(contents_of(a).code_M)
        for data, found in ((b, len(b)), (c, 0)):
            theirs = contents_of(data)
            witness_M = np.isin([theirs.fields[f] for f in theirs.field_M], ["image", "patches"])
            hits = np.unique(theirs.sample_M[witness_M & np.isin(theirs.code_M, codes)])
            assert len(hits) == found
        whole = np.arange(len(a))
        pairs = near_pairs(signatures(c, whole), signatures(a, whole))
        for what in ("film", "bag"):
            found = [(p.mine, p.theirs) for p in pairs if p.what == what]
            assert found == [(i, i) for i in range(len(a))], what


def test_a_large_set_is_looked_at_when_asked(demo_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """leak.near: none looks up to a limit, true beyond it, false at nothing."""
    from shards.read.dataset import Dataset
    from trainer.downstream.task import near

    with Dataset.open(demo_cohort) as data:
        some = np.arange(6)
        found, why = near.looked_for(data, some, None)
        assert found is not None
        assert not why
        assert len(found.film_MW) == 6
        monkeypatch.setattr(near, "MOST_FILMS", 5)
        found, why = near.looked_for(data, some, None)
        assert found is None
        assert "there are 6 films" in why
        assert near.looked_for(data, some, True)[0] is not None
        assert near.looked_for(data, some, False)[0] is None
