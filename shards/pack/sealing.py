"""`python -m shards seal`: gives a data set the seals of this version, and builds again what can be told from its tars.

Tars, splits, labels and vocabularies stay as they are, and must be those that dataset.json was sealed with. Indexes, statistics and counts
follow from them.
"""

from __future__ import annotations

from pathlib import Path

from shards.errors import DataError, Problem
from shards.format import index
from shards.format.info import DatasetInfo, ShardInfo, index_path, load_info, save_info, sha256_of
from shards.format.members import Rule, rule_of
from shards.format.seal import describe, read_rows
from shards.format.staging import rewriting, settle
from shards.read.stats import write_stats

FIX_COPY = "copy it again from its source, or pack again"
FIX_SIDE = "restore it; if the change is meant, run `python -m shards split` (or `index`) on the folder"


def seal(folder: Path) -> tuple[DatasetInfo, list[str]]:
    """Seals a data set anew, in one step; returns its description, and what was not as it had to be.

    Raises:
        DataError: tars or side files that are not those of dataset.json, or with problems of their own.
    """
    settle(Path(folder))
    load_info(Path(folder))  # a folder that is no data set is not worth a lock
    with rewriting(Path(folder)) as staging:
        info = load_info(staging)
        notes: list[str] = []
        problems = [
            Problem("not the file that the data set was sealed with (hash mismatch)", str(staging / name), FIX_SIDE)
            for name, sha in info.files.items()
            if name != "stats.npz" and (not (staging / name).is_file() or sha256_of(staging / name) != sha)
        ]
        shards = [_shard(staging / s.name, s, rule_of(info.adopted), notes, problems) for s in info.shards]
        if problems:
            raise DataError(problems)
        return _described(staging, info.model_copy(update={"shards": tuple(shards)}), notes), notes


def _shard(path: Path, shard: ShardInfo, rule: Rule, notes: list[str], problems: list[Problem]) -> ShardInfo:
    if not path.is_file() or sha256_of(path) != shard.sha256:
        problems.append(Problem("not the shard that the data set was sealed with (sha256)", str(path), FIX_COPY))
        return shard
    try:
        built = index.build(path, rule)
    except DataError as e:
        problems += e.problems
        return shard
    stored = index_path(path).read_bytes() if index_path(path).is_file() else b""
    if stored != index.to_bytes(built):
        index.save(path, built)
        notes.append(f"{index_path(path).name} was not the index of its tar: built anew")
    return shard.model_copy(update={"index_sha256": index.seal_of(built)})


def _described(folder: Path, info: DatasetInfo, notes: list[str]) -> DatasetInfo:
    rows = read_rows(folder, info.labels)
    stats = folder / "stats.npz"
    before = stats.read_bytes() if stats.is_file() else b""
    write_stats(folder, info, rows)
    after = stats.read_bytes() if stats.is_file() else b""
    if before != after:
        notes.append("stats.npz was not that of the training split: fitted anew")
    labels = {n: i.model_copy(update={"missing": sum(n not in r.labels for r in rows)}) for n, i in info.labels.items()}
    found = describe(info.model_copy(update={"labels": labels}), folder, rows)
    for name in ("patients", "splits", "leaking_splits", "labels"):
        if getattr(found, name) != getattr(info, name):
            notes.append(f"{name} in dataset.json were not those of the tables: counted anew")
    return save_info(folder, found)
