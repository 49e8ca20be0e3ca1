"""Runs of pre-training that are there already, in place of those that a table would make again: its rows start from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from models.contract.assets import asset_digests, asset_problems
from trainer.build import resolve
from trainer.config.schema import Config, differences
from trainer.data import open_data
from trainer.errors import UserError
from trainer.state.finished import Finished, open_run
from trainer.sweep.points import Sweep

CODE = ("about.code",)
OTHER = "method_name"
PLACES = (".", "*", "pretrain/*")
"""Where runs lie below a folder that is given: itself a run, a folder of runs, or what a sweep made."""


def with_pretrained(
    sweep: Sweep, folders: Sequence[Path], wanted: Mapping[str, Config]
) -> tuple[Sweep, dict[str, Path]]:
    """The sweep with rows that start from runs below `folders`, and which run stands for which entry of `pretrain`.

    A run stands for an entry that has the same configuration (all keys that decide a result; code may be another version) and the
    same data (by fingerprint). What is left of `pretrain` is made as ever.

    Args:
        wanted: the configuration of each entry, by the name of its point.

    Raises:
        UserError: folders without a finished run; entries that several runs of different weights stand for; none that any run
            stands for, with what differs.
    """
    if sweep.first is None:
        raise UserError(f"--pretrained: no row of {sweep.file} starts from a run of pre-training; leave it out")
    runs = list(_finished(folders))
    found: dict[str, Path] = {}
    differing, problems, fingerprint = [], [], _fingerprints()
    for point in sweep.first.points:
        lines = {run.path: _differences(run, wanted[point.name], fingerprint) for run in runs}
        same = [run for run in runs if not lines[run.path]]
        if len({run.sha256() for run in same}) > 1:
            several = ", ".join(str(run.path) for run in same)
            problems.append(
                f"--pretrained: {point.name} is the configuration of {several}, whose weights differ; give one of them"
            )
        elif same:
            found[point.name] = same[0].path
        differing += [
            f"{point.name}: {p}: {some[0]}" for p, some in lines.items() if some and not some[0].startswith(OTHER)
        ]
    if problems:
        raise UserError(problems)
    if not found:
        none = f"--pretrained: no run below {', '.join(map(str, folders))} is one that {sweep.file} starts from; leave it out to make them"
        raise UserError([none, *differing])
    return _starting_from(sweep, found), found


def _finished(folders: Sequence[Path]) -> Iterator[Finished]:
    problems = []
    for folder in folders:
        paths = [p.parent for place in PLACES for p in sorted(folder.glob(f"{place}/weights.safetensors"))]
        runs = [p for p in dict.fromkeys(paths) if (p / "method.json").is_file() and (p / "config.json").is_file()]
        if not runs:
            problems.append(
                f"--pretrained {folder}: no finished run of pre-training here, nor in its folders or its pretrain/; give one"
            )
        yield from map(open_run, runs)
    if problems:
        raise UserError(problems)


def _differences(run: Finished, wanted: Config, fingerprint: Callable[[Config], str]) -> list[str]:
    """Why a run is not the one that `wanted` would be; the method alone, where it is another one."""
    if run.method_name != wanted.method_name:
        return [f"{OTHER}: {run.method_name} -> {wanted.method_name}"]
    cls, _, resolved = resolve(wanted)
    made = {**run.config.model_dump(mode="json"), "method": cls.Options.parse(run.options).model_dump(mode="json")}
    lines = differences(made, resolved, CODE)
    lines += asset_problems(cls.Options, resolved["method"], asset_digests(cls.Options, run.options), str(run.path))
    if not lines and run.fingerprint != fingerprint(wanted):
        where = ", ".join(p for p, _ in run.sources)
        lines = [f"its data ({where}) are not those of this table, or were packed anew since"]
    return lines


def _fingerprints() -> Callable[[Config], str]:
    """Of the data that a configuration names, opened once for all that name the same."""
    known: dict[str, str] = {}

    def of(config: Config) -> str:
        key = config.data.model_dump_json()
        if key not in known:
            data = open_data(config)
            known[key] = data.fingerprint
            data.close()
        return known[key]

    return of


def _starting_from(sweep: Sweep, found: Mapping[str, Path]) -> Sweep:
    assert sweep.first is not None
    instead = {str(sweep.first.folder(p)): str(found[p.name]) for p in sweep.first.points if p.name in found}
    points = tuple(replace(p, words=tuple(instead.get(w, w) for w in p.words)) for p in sweep.points)
    left = tuple(p for p in sweep.first.points if p.name not in found)
    return replace(sweep, points=points, first=replace(sweep.first, points=left) if left else None)
