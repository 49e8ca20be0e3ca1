"""Which code made a number: the files that a method's fine-tune imports, directly or through others, as one hash.

A change anywhere else (another method, a report's wording, a source of data) leaves results and unfinished trainings valid. What made the
data, the demo cohort included, is not counted here: the data's fingerprint says what came of it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("compiled", "models", "shards", "trainer")
RUNNER = "trainer.downstream.run"
BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a node of a syntax tree keeps statements."""
MAKES_DATA = frozenset({"shards.demo", "shards.pack.pack"})


@cache
def code_hash(method: str) -> str:
    """Of every file that could change a number of this method's fine-tunes.

    Raises:
        MethodError: no such method.
    """
    from models.registry import get_method

    return _hash_of(closure((RUNNER, get_method(method).__module__)))


@cache
def tree_hash() -> str:
    """Of all Python files of compiled/, models/, shards/ and trainer/, for information."""
    return _hash_of(sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py")))


def closure(modules: Iterable[str]) -> list[Path]:
    """Files of this project that the modules import, at any depth and inside functions too, themselves included; sorted."""
    found: set[Path] = set()
    waiting = list(modules)
    asked = set(waiting) | MAKES_DATA
    while waiting:
        path = _file(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            named = set(_imports(path.read_bytes())) - asked
            asked |= named
            waiting += named
    return sorted(found)


@cache
def _imports(content: bytes) -> tuple[str, ...]:
    """Names of modules, and of what is taken from them, which may be modules too. Reading them takes longer than all else here."""
    return tuple(_named(ast.parse(content)))


def _named(tree: ast.Module) -> Iterator[str]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)
        # Imports are statements, and those stand in lists of statements alone: a walk through all expressions takes five times as long.
        waiting += [n for field in BODIES for n in getattr(node, field, ())]


def _file(module: str) -> Path | None:
    if module.split(".")[0] not in ROOMS:
        return None
    place = ROOT.joinpath(*module.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


def _hash_of(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
