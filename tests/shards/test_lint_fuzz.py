"""Lint on data sets that were damaged at random: never a traceback, never memory for a number that stands in a file."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manifests import sources

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.info import DatasetInfo, fingerprint_of
from shards.pack.options import PackOptions
from shards.read.dataset import Dataset

HUGE = (2**31, 2**40, 2**62, -1, 0)
MOST = 64_000_000  # bytes; the set has 50 kB


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("fuzz")
    made = sources(base / "in", count=6)
    made.rows[2]["field:rna"] = ""
    return made.pack(base / "set", PackOptions(shard_samples=3))


def flip(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def in_a_header(path: Path, rng: np.random.Generator) -> None:
    """Where numbers stand: the first 512 bytes of a tar, the header of an index."""
    data = bytearray(path.read_bytes())
    data[int(rng.integers(min(len(data), 512)))] = int(rng.integers(256))
    path.write_bytes(data)


def cut(path: Path, rng: np.random.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(len(data)))])


def foreign(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(rng.integers(0, 256, int(rng.integers(0, 3000)), dtype=np.uint8).tobytes())


def gone(path: Path, rng: np.random.Generator) -> None:
    path.unlink()


def number(path: Path, rng: np.random.Generator) -> None:
    """A number of dataset.json becomes another, with a fingerprint as if it had been packed so."""
    path = path.parent / "dataset.json" if path.parent.name != "vocab" else path.parent.parent / "dataset.json"
    content = json.loads(path.read_text())
    places = list(numbers(content))
    owner, key = places[int(rng.integers(len(places)))]
    owner[key] = int(rng.choice(np.array(HUGE, np.int64)))
    try:
        info = DatasetInfo.model_validate(content)
        content["fingerprint"] = fingerprint_of(info)
    except ValueError:
        pass
    path.write_text(json.dumps(content))


def numbers(content: Any) -> Any:
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict | list):
            yield from numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield content, key


DAMAGES: tuple[Callable[[Path, np.random.Generator], None], ...] = (flip, in_a_header, cut, foreign, gone, number)


def damaged(good: Path, folder: Path, seed: int) -> str:
    rng = np.random.default_rng(seed)
    shutil.copytree(good, folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = files[int(rng.integers(len(files)))]
    damage = DAMAGES[seed % len(DAMAGES)]
    damage(path, rng)
    return f"seed {seed}: {damage.__name__} of {path.name}"


def read_all(folder: Path) -> bool:
    """Whether a reader takes the set."""
    try:
        with Dataset.open(folder) as data:
            data.subset("train")
            assert data.label_values is not None
            data.stats()
            for record in data:
                for name in record.fields:
                    record.read(name)
            for name, field in data.info.fields.items():
                if field.vocab:
                    data.vocabulary(name)
    except DataError:
        return False
    return True


def run(good: Path, tmp_path: Path, seeds: range) -> Counter[str]:
    outcomes = Counter[str]()
    for seed in seeds:
        folder = tmp_path / str(seed)
        what = damaged(good, folder, seed)
        tracemalloc.start()
        report = lint(folder)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST, f"{what}: {peak:,} bytes"
        assert all(p.what and p.where and p.fix for p in report.problems), what
        taken = read_all(folder)
        # What lint calls clean a reader takes.
        assert taken or report.problems, f"{what}: refused by the reader, clean to lint\n{report}"
        outcomes[
            f"lint {'finds it' if report.problems else 'clean'}, reader {'takes it' if taken else 'refuses it'}"
        ] += 1
        shutil.rmtree(folder)
    return outcomes


def test_some_damages(good: Path, tmp_path: Path) -> None:
    assert not lint(good).problems
    outcomes = run(good, tmp_path, range(48))
    assert outcomes["lint finds it, reader refuses it"] > 24


@pytest.mark.slow
@pytest.mark.parametrize("many", [240, pytest.param(1_500, marks=pytest.mark.grid)])
def test_many_damages(good: Path, tmp_path: Path, many: int) -> None:
    outcomes = run(good, tmp_path, range(1_000, 1_000 + many))
    print(dict(outcomes))
    assert outcomes["lint clean, reader refuses it"] == 0
    assert outcomes["lint finds it, reader refuses it"] > 0.47 * many
