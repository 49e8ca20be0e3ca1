"""Values on the command line and in YAML files: what a person means by them is what is read, or the message says what to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from launch.finetune import main as finetune
from launch.pretrain import main as pretrain
from models.contract.options import several
from models.registry import get_method, method_names
from trainer.config import yaml_text
from trainer.config.recipe import RECIPES, build_config
from trainer.config.schema import Config
from trainer.downstream.task.read import build_task
from trainer.downstream.task.schema import Task
from trainer.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("3E2", 300.0), (".5", 0.5), ("-2", -2), ("010", 10), ("0x10", "0x10"), ("1_000", "1_000"), ("1:30", "1:30"),
        ("3_3", "3_3"), ("yes", "yes"), ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("null", None), ("~", None),
        ("", None),         ('"12"', "12"), ("2026-01-01", "2026-01-01"), ("[1, 2e3]", [1, 2000.0]), ("{a: 1}", {"a": 1}), ("-inf", "-inf"),
        ("-.inf", float("-inf")),         ("1.e3", 1000.0), ("e5", "e5"), ("1e", "1e"), ("=", "="), ("/a/b", "/a/b"),
    ],
)  # fmt: skip
def test_a_word_is_read_as_it_is_meant(text: str, value: Any) -> None:
    found = yaml_text.parse(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"optim:\n  lr: 1\n  lr: 2\n", "key 'lr' stands in line 2 and in line 3"),
        (b"a: 1\nb: {c: 1, c: 1}\n", "key 'c' stands in line 2 and in line 2"),
        (b"steps: 3\n\xff\xfe\n", "not UTF-8 (byte 9)"),
        ("steps: 3".encode("utf-16"), "not UTF-8"),
        (b"- 1\n- 2\n", "a recipe is a mapping of keys to values, this is a list"),
        (b"3\n", "this is a int"),
        (b"a: [1\n", "not YAML"),
        (b"1: 2\n", "keys are words, 1 is none"),
        (b"a: !!python/object:os.system {}\n", "not YAML"),
        (b"? [1, 2]\n: 3\n", "a key must be a word or a number"),
        (b"steps: " + b"9" * 5000 + b"\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as e:
        yaml_text.read(path)
    assert str(path) in str(e.value)
    assert message in str(e.value)


def test_a_byte_order_mark_anchors_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbfbase: &b {lr: 1e-3, clip: 1}\noptim:\n  <<: *b\n  clip: 2\n")
    assert yaml_text.read(path)["optim"] == {"lr": 1e-3, "clip": 2}
    assert yaml_text.read(path.with_name("empty.yaml")) == {} if path.with_name("empty.yaml").write_bytes(b"") else True


def test_every_shipped_file_says_the_same_as_before() -> None:
    """Under both sets of rules, so that no recipe changed its meaning; words for truth are read by typed keys."""
    for path in sorted(RECIPES.parent.rglob("*.yaml")):
        assert plain(yaml_text.read(path)) == plain(yaml.safe_load(path.read_text())), path


def plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(k): plain(v) for k, v in values.items()}
    if isinstance(values, list):
        return [plain(v) for v in values]
    words = {"yes": True, "no": False, "on": True, "off": False}
    try:
        return words.get(str(values).lower(), float(values) if not isinstance(values, bool) else values)
    except (TypeError, ValueError):
        return values


def takes_several(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """(key, model, name) of every key that takes a list of words or numbers, in nested sections too."""
    for name, info in model.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from takes_several(kind, f"{prefix}{name}.")
            elif getattr(kind, "__origin__", None) is tuple and not isinstance(get_args(kind)[0], type(BaseModel)):
                yield f"{prefix}{name}", model, name


KEYS = [
    *(("Config", *k) for k in takes_several(Config)), *(("Task", *k) for k in takes_several(Task)),
    *((m, *k) for m in method_names() for k in takes_several(get_method(m).Options)),
]  # fmt: skip


@pytest.mark.parametrize(("key", "model", "name"), [k[1:] for k in KEYS], ids=[f"{k[0]}-{k[1]}" for k in KEYS])
def test_every_key_that_takes_several_takes_them_with_commas(key: str, model: type[BaseModel], name: str) -> None:
    assert several(model, {name: "3,4"})[name] == ["3", "4"], key
    assert several(model, {name: "3, 4"})[name] == ["3", "4"]
    assert several(model, {name: ["3"]})[name] == ["3"]


def test_they_are_enough_to_be_a_test() -> None:
    keys = {k[1] for k in KEYS}
    assert {"optim.betas", "protocol.seeds", "protocol.lr", "controls", "label", "genetics", "view.crop_scale"} <= keys


def test_seeds_and_the_like_are_typed_without_brackets() -> None:
    task, _ = build_task(
        "demo_subtype", ["protocol.seeds=0,1", "protocol.lr=1e-3,3e-4", "metrics=auc,accuracy", "leave_out=-1"]
    )
    assert task.protocol.seeds == (0, 1)
    assert task.protocol.lr == (1e-3, 3e-4)
    assert task.metrics == ("auc", "accuracy")
    assert task.leave_out == ("-1",)
    one, _ = build_task("demo_subtype", ["protocol.seeds=4", "protocol.lr=1e-3"])
    assert (one.protocol.seeds, one.protocol.lr) == ((4,), (1e-3,))
    config, _ = build_config("gimp", None, ["optim.betas=0.9,0.99"])
    assert config.optim.betas == (0.9, 0.99)
    with pytest.raises(UserError, match=r"protocol\.seeds"):
        build_task("demo_subtype", ["protocol.seeds=0;1"])
    with pytest.raises(UserError, match=r"optim\.betas"):
        build_config("gimp", None, ["optim.betas=0.9,0.99,0.999"])


@pytest.mark.parametrize(
    ("wrong", "right", "value"),
    [
        ("optim.betas=0.9 0.95", "optim.betas=0.9,0.95", [0.9, 0.95]), ("optim.betas=(0.9, 0.95)", "optim.betas=0.9,0.95", [0.9, 0.95]),
        ("steps=None", "steps=null", None), ("title=", "title=\"''\"", ""), ("stages.joint.steps=none", "stages.joint.steps=null", None),
        ("protocol.seeds=0;1", "protocol.seeds=0,1,2", [0, 1, 2]), ("metrics=", "metrics=[]", []), ("controls=a b", "controls=A,B", None),
        ("output.mask_weights=none", "output.mask_weights=null", None), ("uncertain=none", "uncertain=null", None),
    ],
)  # fmt: skip
def test_a_value_that_is_written_otherwise_is_told_how(
    wrong: str, right: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy is typed as it stands there, quotes of the shell read by a shell."""
    tuned = wrong.startswith(("protocol", "metrics", "controls", "output", "uncertain"))
    main = finetune if tuned else pretrain
    words = ["--method", "gimp", "--print-config", *(["--task", "demo_subtype"] if tuned else [])]
    assert main([*words, wrong]) == 2
    said = capsys.readouterr().err
    assert f"{right}" in said, said
    if "A,B" in right:  # of a key that holds nothing at first: which values it takes is said beside it
        return
    assert main([*words, *shlex.split(right)]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    for key in right.partition("=")[0].split("."):
        found = found[key]
    assert found == value


def test_a_wrong_value_is_not_told_to_be_written_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(["--method", "gimp", "--print-config", "optim.betas=0.9,1.5", "steps=few"]) == 2
    assert "write" not in capsys.readouterr().err


@pytest.mark.parametrize("word", ["stages=3", "data=3", "optim=3", "stages.pretrain=3"])
def test_a_value_for_a_section_is_one_error(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(["--method", "gimp", "--dry-run", word, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert word.partition("=")[0] in said
    assert "Traceback" not in said


@pytest.mark.parametrize("content", ["stages: 3", "data: [1]", "method: 3", "stages: {pretrain: 3}"])
def test_a_section_of_a_recipe_that_is_a_value_is_one_error(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(content + "\n")
    words = ["stages.pretrain.steps=2", f"out={tmp_path / 'run'}"]
    assert pretrain(["--method", "gimp", "--recipe", str(recipe), *words]) == 2
    assert content.partition(":")[0] in capsys.readouterr().err
    task = ["--task", "demo_subtype", "--method", "gimp", "--init", "scratch", "--recipe", str(recipe)]
    if content == "method: 3":
        assert finetune([*task, f"out={tmp_path / 'run'}"]) == 2
        assert "method is a section" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
