"""The messages of the code that name something to type: every string that is no docstring, no help and not printed as a result.

A flag or key that a message begins with is what is wrong, not the remedy: `--jobs 0: at least 1`.

In `FILES` every remedy counts, also one that tells in words what to do with a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SILENT = {"add_argument", "add_parser", "print", "ArgumentParser", "fullmatch", "compile", "sub", "findall"}
WORDS = {"help", "epilog", "description", "usage", "metavar", "where"}
PLACE = re.compile(r"--[a-z][\w-]*( \x00)*")  # of a problem: `--labels FILE`
SUBJECT = re.compile(r"--?[a-z][\w-]*|[\w.]+=?|,|\x00")
TYPED = re.compile(
    r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]|python -m shards [a-z]+|launch/\w+\.py"
    r"|(?<![\w.\x00/])[a-z_]+(?:\.[a-z_]+)+=|(?<![\w.\x00\"' <-])(?:(?<=[ (`])|^)(?:[a-z_]{3,})=(?=[\w\[{'])"
)
# Whose problems are mended in files as often as by options, and which argument of a call is the remedy.
FILES = (
    "shards/sources/",
    "shards/layout/",
    "shards/tables/joins.py",
    "shards/tables/keyed.py",
    "shards/tables/table_file.py",
)
REMEDY = {"bad": 2, "Problem": 2, "HeaderError": 1, "_Why": 1, "_refuse": 2, "partners": 3, "read_rows": 2}
PAGES = ("export_card.py", "page.py")  # what they write is no message


@cache
def said() -> tuple[tuple[str, int, str], ...]:
    """(file, line, text) of each message with something to type; \\x00 stands where a value is put in."""
    found = []
    for room in ("launch", "trainer", "models", "shards", "compiled"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name not in PAGES:
                name = str(path.relative_to(ROOT))
                tree = ast.parse(path.read_text())
                found += [(name, line, t) for line, t in _strings(tree) if names_a_remedy(t)]
                found += [(name, line, t) for line, t in fixes(tree)] if name.startswith(FILES) else []
    return tuple(dict.fromkeys(found))


def names_a_remedy(text: str) -> bool:
    if PLACE.fullmatch(text):
        return False
    subject, colon, rest = text.partition(":")
    if (
        colon
        and all(SUBJECT.fullmatch(word) or "=" in word for word in subject.split()[:6])
        and len(subject.split()) <= 6
    ):
        text = rest
    return " " in text.strip() and bool(TYPED.search(text))


def fixes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The remedies of problems: what stands in the call, and what is assigned to the name that does."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    given = [(c, REMEDY.get(getattr(c.func, "attr", getattr(c.func, "id", "")))) for c in calls]
    fixes: list[ast.AST] = [c.args[at] for c, at in given if at is not None and len(c.args) > at]
    names = {n.id for fix in fixes for n in ast.walk(fix) if isinstance(n, ast.Name)} | {"FIXES"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                fixes += _assigned(target, node.value, names)
    for fix in fixes:
        for part in fix.values if isinstance(fix, ast.Dict) else [fix]:
            yield from ((line, t) for line, t in _strings(part) if " " in t.strip())


def _assigned(target: ast.AST, value: ast.AST, names: set[str]) -> list[ast.AST]:
    """The value of a name, of one among several too."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [v for t, e in zip(target.elts, value.elts, strict=True) for v in _assigned(t, e, names)]
    return [value] if isinstance(target, ast.Name) and target.id in names else []


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    skipped: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                skipped.add(id(statement.value))
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            silent = [k.value for k in node.keywords if k.arg in WORDS] + (node.args if name in SILENT else [])
            skipped |= {id(part) for one in silent for part in ast.walk(one)}
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(v) for v in node.values if isinstance(v, ast.Constant)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "\x00" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
