"""Numbers beyond any sense, sections that are no mapping, aliases without end: refused by name, in every kind of YAML file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from launch.pretrain import main as pretrain
from models.contract import MethodError
from models.contract.limits import limit_of
from models.registry import get_method, method_names
from trainer.cluster import profile
from trainer.config import yaml_text
from trainer.config.recipe import RECIPES, build_config, find_recipe
from trainer.config.schema import Config, parse
from trainer.downstream.task.read import PROTOCOLS, TASKS, build_task
from trainer.downstream.task.schema import Task
from trainer.engine import giants
from trainer.errors import UserError
from trainer.sweep.file import read_sweep

ROOTS: dict[str, type[BaseModel]] = {
    "recipe": Config,
    "task": Task,
    "profile": profile.Profile,
    **{name: get_method(name).Options for name in method_names()},
}


def numbers(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Keys that take a number, and whether several."""
    for name, info in model.model_fields.items():
        kinds = {info.annotation, *get_args(info.annotation)}
        inner = {a for k in kinds for a in get_args(k)}
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from numbers(info.annotation, (*path, name))
        elif kinds & {int, float} and bool not in kinds:
            yield (*path, name), False
        elif inner & {int, float} and "mask_values" not in name and "references" not in name:
            yield (*path, name), True


CASES = [(root, path, many) for root, model in ROOTS.items() for path, many in numbers(model)]


def errors(root: str, path: tuple[str, ...], value: Any) -> str:
    """What is said of a file with this value in it."""
    content: Any = value
    for name in reversed(path):
        content = {name: content}
    model = ROOTS[root]
    try:
        if root == "recipe":
            parse({"method_name": "gimp", **content})
        elif root == "task":
            Task.model_validate({"name": "t", "kind": "binary", "label": "y", **content})
        elif root == "profile":
            model.model_validate(content)
        else:
            model.parse(content)  # type: ignore[attr-defined]
    except ValueError as e:
        return str(e)
    return ""


@pytest.mark.parametrize(("root", "path", "many"), CASES, ids=lambda v: ".".join(v) if isinstance(v, tuple) else str(v))
def test_every_number_has_an_upper_limit(root: str, path: tuple[str, ...], many: bool) -> None:
    for value in (10**20, 10**400, math.inf, math.nan):
        said = errors(root, path, [value] * (2 if path[-1] in ("betas", "mask_weights") else 1) if many else value)
        assert path[-1] in said, f"{'.'.join(path)}={value}: {said or 'taken'}"


def test_limits_are_above_all_that_is_used() -> None:
    for file in sorted([*RECIPES.rglob("*.yaml"), *TASKS.glob("*.yaml"), *PROTOCOLS.glob("*.yaml")]):
        for name, value in leaves(yaml.safe_load(file.read_text())):
            assert abs(value) <= limit_of(name) / 10, f"{file.name}: {name}: {value}"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from leaves(v, str(k))
    elif isinstance(value, list):
        for v in value:
            yield from leaves(v, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def test_a_limit_is_told_with_its_key(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["method.dim=100000000", "method.depth=5000", "optim.lr=.inf", "global_batch=1000000000000"]
    assert pretrain(["--method", "gimp", *words, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "optim.lr: more than any use could want; at most 1,000 (got inf)" in said
    assert "global_batch: more than any use could want; at most 10,000,000 (got 1000000000000)" in said
    assert pretrain(["--method", "gimp", *words[:2], f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert "method.dim: more than any use could want; at most 65,536 (got 100000000)" in said
    assert "method.depth: more than any use could want; at most 1,000 (got 5000)" in said
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------- too large for a machine


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("gimp", ["method.dim=65536", "method.depth=1000"], r"parameters take [\d,]+ GB in float32, this machine has"),
        (
            "mrm_relation",
            ["method.image.dim=61440", "method.image.depth=900", "method.image.heads=1024"],
            r"parameters take",
        ),
        (
            "mgi",
            ["method.image.image_size=16384", "method.image.patch=2"],
            r"images of 16384 in patches of 2 are 67,108,864 tokens",
        ),
    ],
)
def test_what_no_machine_holds_is_refused_before_it_is_built(
    method: str, words: list[str], message: str, demo_cohort: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    import re
    import resource

    monkeypatch.setenv("MEDPAIR_CACHE", str(demo_cohort.parent))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert pretrain(["--method", method, *words, f"out={tmp_path / 'run'}", "--dry-run"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2_000_000, "kB: nothing of it was allocated"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [(n, "demo") for n in method_names()]
    + [pytest.param(n, "default", marks=[] if n == "mrm_relation" else [pytest.mark.grid]) for n in method_names()],
)
def test_what_fits_is_counted_without_memory(name: str, sizes: str, demo_cohort: Path) -> None:
    import torch

    from shards.read.dataset import Dataset
    from trainer.data import schema_of

    with Dataset.open(demo_cohort) as data:
        schema = schema_of(data)
    cls = get_method(name)
    given = (yaml_text.read(find_recipe(name, "demo", True)).get("method") or {}) if sizes == "demo" else {}
    if "genetics" in cls.Options.model_fields:
        given = {"genetics": ["snp", "pgs"], **given}
    options = cls.Options.parse(given)
    state = torch.get_rng_state()
    counted = giants._parameters(cls, options, schema)
    assert torch.equal(torch.get_rng_state(), state), "the draws that follow are the same"
    try:
        method = cls(options, schema)
    except MethodError:
        assert counted == 0, "what is wrong is told where it is built"
        return
    assert counted == sum(p.numel() for p in method.parameters())


# --------------------------------------------------------------------------------------------------------------- aliases


def bomb(levels: int) -> str:
    """Ten aliases of ten aliases ...: short to write, 10 ** levels long."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_aliases_without_end_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb(12))
    began = time.process_time()
    with pytest.raises(
        UserError, match=r"bomb.yaml: not YAML: more than 100,000 values, with those that \*aliases repeat"
    ):
        yaml_text.read(path)
    assert time.process_time() - began < 20
    path.write_text("a: &a [*a]\n")
    with pytest.raises(UserError, match="not YAML"):
        yaml_text.read(path)
    path.write_text(bomb(2))
    assert len(yaml_text.read(path)["a1"]) == 10
    path.write_text("# " + "x" * 5_000_000)
    with pytest.raises(UserError, match="more than 4,000,000 bytes"):
        yaml_text.read(path)


def test_a_sweep_of_too_many_points_is_refused_before_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    grid = "\n".join(f"  optim.k{i}: [{', '.join(map(str, range(50)))}]" for i in range(8))
    path.write_text(f"command: pretrain\nwords: [--method, gimp]\ngrid:\n{grid}\n")
    with pytest.raises(UserError, match=r"39,062,500,000,000 points, at most 10,000: give fewer values"):
        read_sweep(path)


# ---------------------------------------------------------------------------------------------- sections that are no mapping

READERS: dict[str, tuple[type[BaseModel], Callable[[Path], Any]]] = {
    "recipe": (Config, lambda path: build_config("gimp", str(path), [])),
    "task": (Task, lambda path: build_task(str(path), [], None)),
    "protocol": (Task, lambda path: build_task("demo_subtype", [f"recipe={path}"], None)),
    "profile": (profile.Profile, lambda path: profile.load(str(path), {})),
    "sweep": (Config, read_sweep),
}


@pytest.mark.parametrize(
    "value", [3, "word", [1, 2], [{"a": 1}], {"no_such_key": 1}, {"a": {"b": [1]}}, None, True, {1: 2}]
)
@pytest.mark.parametrize("kind", READERS)
def test_odd_values_of_every_key_end_in_a_named_refusal_or_are_read(kind: str, value: Any, tmp_path: Path) -> None:
    """No value of any key ends in a traceback, whatever the key takes."""
    model, read = READERS[kind]
    path = tmp_path / "file.yaml"
    keys = ["command", "words", "grid", "points"] if kind == "sweep" else list(model.model_fields)
    unsaid: list[str] = []
    for key in keys:
        content = {"command": "pretrain", "grid": {"seed": [1]}} if kind == "sweep" else {}
        if kind == "task":
            content = {"name": "t", "kind": "binary", "label": "y"}
        path.write_text(yaml.safe_dump({**content, key: value}))
        try:
            read(path)
        except (UserError, MethodError) as e:
            unsaid += [f"{key}: {value!r}" for p in e.problems if not str(p).strip()]
    assert not unsaid
