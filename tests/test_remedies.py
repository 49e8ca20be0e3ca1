"""What a message tells a person to type exists: flags, keys, commands, subcommands, extras and pages of the docs.

Every string of the code is searched, but docstrings; a flag is known where some parser of the project declares it.
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from models.registry import baseline_names, get_method, method_names
from shards.command_line import build_parser
from shards.sources import get_source, source_names
from trainer.config.schema import Config
from trainer.downstream.task.schema import Task

ROOT = Path(__file__).parent.parent
# Flags of other programs that messages and command lines name.
FOREIGN = {
    "--num_gpus", "--num_nodes", "--module", "--sort", "--make-bed", "--nv", "--version", "--requeue", "--kill-on-bad-exit",
    "--parsable", "--noheader", "--format", "--json", "--always", "--dirty", "--export", "--help", "--keep", "--double-id",
    "--logdir", "--signal", "--cpus-per-task", "--num_extract_workers", "--num_merge_workers", "--input_folder", "--output_folder",
    "--inject_missing_state", "--repair-ids", "--rm", "--dereference", "--hard-dereference", "--sparse",
}  # fmt: skip
SECTIONS = r"(?:data|optim|zero|checkpoint|health|log|resume|protocol|output|leak|augment|bootstrap|encoder)"


@cache
def strings() -> tuple[tuple[str, int, str], ...]:
    """(file, line, text) of every string constant that is no docstring and declares no flag; the parts of an f-string are joined."""
    found: list[tuple[str, int, str]] = []
    for room in ("launch", "trainer", "models", "shards"):
        for path in sorted((ROOT / room).rglob("*.py")):
            found += [(str(path.relative_to(ROOT)), *s) for s in _strings(ast.parse(path.read_text()))]
    return tuple(found)


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    skipped: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                skipped.add(id(statement.value))  # docstrings, of attributes too
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("add_argument", "add_parser"):
            skipped |= {id(a) for a in node.args}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "\x00" for v in node.values]
            skipped |= {id(v) for v in node.values}
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


@cache
def declared_flags() -> frozenset[str]:
    """Of the data sets' command line and every source, by asking their parsers; of the launch scripts by reading them."""
    found = set(_flags(build_parser()))
    for name in source_names():
        parser = argparse.ArgumentParser()
        get_source(name).options(parser)
        found |= set(_flags(parser))
    for room in ("launch", "trainer", "models"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                    found |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return frozenset(f for f in found if f.startswith("--"))


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _flags(below)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield prefix + name
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys(kind, f"{prefix}{name}.")


def misses(pattern: str, known: set[str] | frozenset[str]) -> list[str]:
    """`file:line what` for each match that is not known; a match that a placeholder completes cannot be judged."""
    return [
        f"{file}:{line} {m[1]}"
        for file, line, text in strings()
        for m in re.finditer(pattern, text)
        if m[1] not in known and text[m.end(1) : m.end(1) + 1] != "\x00"
    ]


def test_flags() -> None:
    assert len(declared_flags()) > 50
    assert not misses(r"(?<![\w-])(--[a-z][a-z0-9_-]*[a-z0-9])(?![\w-])", declared_flags() | FOREIGN | {"--flag"})


def test_keys_of_runs_and_tasks() -> None:
    known = {*keys(Config), *keys(Task)}
    stage = {f"{s}.{k}" for s in ("optim",) for k in ("lr", "weight_decay")}
    assert not misses(
        rf"(?<![\w./\x00-])({SECTIONS}\.[a-z_]+(?:\.[a-z_]+)*)(?=[\s=,;:)'\"]|$)(?!\()", known | stage | NOT_KEYS
    )


# Words that look like keys: files, modules and what a file holds.
NOT_KEYS = {"log.txt", "data.json", "encoder.norm", "encoder.pos_embed", "encoder.blocks", "data.csv"}


def test_options_of_methods() -> None:
    known = {
        f"method.{n}" for m in (*method_names(), *baseline_names()) for n in get_method(m).Options.model_fields
    } | {
        "method.json",
        "method.py",
    }
    found = misses(r"(?<![\w./-])(method\.[a-z_]+)(?=[\s=,;:)'\"]|$)", known)
    assert not [f for f in found if not f.endswith(("method.OPTION",))]


def test_commands_and_pages() -> None:
    assert not misses(
        r"(launch/\w+\.py)", {f"launch/{p.name}" for p in (ROOT / "launch").glob("*.py")} | {"launch/COMMAND.py"}
    )
    assert not misses(r"(docs/[\w/]+\.md)", {str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")})
    subcommands = set(re.findall(r"add_parser\(\s*\"(\w+)\"", (ROOT / "shards/command_line.py").read_text())) | {
        "source"
    }
    assert {"pack", "split", "lint"} <= subcommands
    assert not misses(r"python -m shards (\w+)", subcommands | {"COMMAND"})
    verbs = set(re.findall(r"add_parser\(\s*\"(\w+)\"", (ROOT / "models/__main__.py").read_text()))
    assert not misses(r"python -m models (\w+)", verbs)


def test_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not misses(r"\.\[(\w+)\]", set(project["optional-dependencies"]))


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("use --shares 0.8", test_flags), ("set optim.learning_rate=1", test_keys_of_runs_and_tasks),
        ("see docs/nothing.md", test_commands_and_pages), ("run launch/go.py", test_commands_and_pages),
        ("python -m shards lnit", test_commands_and_pages), ("python -m models lst", test_commands_and_pages),
        ("method.widht=3", test_options_of_methods),
        ("pip install '.[gpus]'", test_extras),
    ],
)  # fmt: skip
def test_these_tests_see_what_does_not_exist(
    text: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_remedies.strings", lambda: (("a.py", 1, text),))
    with pytest.raises(AssertionError):
        check()
