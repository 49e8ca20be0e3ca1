"""The rooms of the house, and what there is to count in them: `python tests/rooms.py [ROOT]`.

A room of a package is a folder or a loose file directly in it; an arrow leads from a room to another one of the same package that it
imports from, at the top of a module, inside a function or for types alone. A circle is a set of rooms of which each leads to each other.
An upward arrow leads to a room that stands higher in `FLOORS`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("launch", "trainer", "trainer.downstream", "models", "shards", "compiled")
FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "models": (
        ("contract", "parallel"),
        ("claims", "init", "losses", "pictures", "registry", "transforms"),
        ("describe", "layers", "view"),
        ("encoders", "heads"),
        ("decoders",),
        ("baselines", "finetuned", "methods"),
    ),
    "trainer": (
        ("errors",),
        ("config", "rendezvous"),
        ("health", "runtime"),
        ("engine",),
        ("data", "plan"),
        ("build", "state"),
        ("tracking",),
        ("export", "loop", "probe", "sweep"),
        ("run",),
        ("downstream", "pretrain"),
        ("cluster", "embedding", "reporting", "runs"),
        ("gwas",),
    ),
    "trainer.downstream": (
        ("code", "metrics", "samples", "task"),
        ("init", "maps", "targets"),
        ("predict",),
        ("probes", "results", "trial"),
        ("joint", "sites"),
        ("setting",),
        ("build",),
        ("external", "measured"),
        ("run",),
    ),
    "shards": (
        ("errors", "untyped"),
        ("jobs", "resident", "tables", "terminal", "yaml_text"),
        ("format",),
        ("read",),
        ("order", "pack", "reader"),
        ("layout",),
        ("check", "demo", "load", "sources"),
        ("chip", "command_line"),
        ("packing",),
    ),
    "compiled": (("kept",), ("kernel", "loading", "objects"), ("vectors", "wide"), ("lanes",)),
}
"""By package its rooms from the ground up; rooms of one floor know nothing of each other."""
LONG_FILE, LONG_FUNCTION, MANY = 250, 40, 8
UNTYPED = ("Json", "Decoded", "FieldValue")
"""Names for `Any` where only a look at the value tells its type: shards/untyped.py, models/contract/batch.py."""
WELL_SAID = ("loop.py", "engine.py", "checkpoint.py", "losses")
MARKS = ("type:", "noqa", "fmt:", "---")
"""Comments that are for tools, or are rules between sections."""


def sources(root: Path, package: str) -> list[Path]:
    return sorted(root.joinpath(*package.split(".")).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports; of `from a import b` both `a` and `a.b`, which may be a module too."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)


def rooms(root: Path, package: str) -> dict[str, list[Path]]:
    """Name -> files; `__init__` and `__main__` of the package itself are no rooms."""
    place, found = root.joinpath(*package.split(".")), {}
    for path in sorted(place.iterdir()):
        if path.suffix == ".py" and not path.stem.startswith("__"):
            found[path.stem] = [path]
        elif path.is_dir() and (files := sorted(path.rglob("*.py"))):
            found[path.name] = files
    return found


def arrows(root: Path, package: str) -> set[tuple[str, str]]:
    inside = rooms(root, package)
    names = {
        (room, name.removeprefix(f"{package}.").split(".")[0])
        for room, files in inside.items()
        for path in files
        for name in imported(path)
        if name.startswith(f"{package}.")
    }
    return {(a, b) for a, b in names if a != b and b in inside}


def circles(leads: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Rooms that reach each other, largest circle first."""
    to: dict[str, set[str]] = {}
    for a, b in leads:
        to.setdefault(a, set()).add(b)
    reach = {a: _reached(a, to) for a in to}
    found = {frozenset({a, *(b for b in reach[a] if a in reach.get(b, ()))}) for a in to if a in reach[a]}
    return sorted((sorted(c) for c in found), key=len, reverse=True)


def _reached(start: str, to: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [*to.get(start, ())]
    while waiting:
        if (room := waiting.pop()) not in seen:
            seen.add(room)
            waiting += to.get(room, ())
    return seen


def upward(package: str, leads: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Arrows that lead to the same floor or a higher one; of rooms that have a floor."""
    floor = {room: i for i, on in enumerate(FLOORS.get(package, ())) for room in on}
    return sorted((a, b) for a, b in leads if a in floor and b in floor and floor[b] >= floor[a])


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    yield from (n for n in ast.walk(ast.parse(path.read_bytes())) if isinstance(n, Function))


def _parameters(f: Function) -> list[ast.arg]:
    given = [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
    return [a for a in given if a.arg not in ("self", "cls")]


def anything(path: Path, names: Collection[str] = ("Any",)) -> int:
    """Parameters, results and fields whose type is `Any`, or holds one otherwise than as the values of a mapping by name.

    names: what to count in its place, such as the names for it that say why (`UNTYPED`).
    """
    text = path.read_bytes()
    if not any(name.encode() in text for name in names):
        return 0
    given: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            given += [a.annotation for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            given.append(node.returns)
        elif isinstance(node, ast.ClassDef):
            given += [n.annotation for n in node.body if isinstance(n, ast.AnnAssign)]
    return sum(_holds(a, names) for a in given if a is not None)


def _holds(annotation: ast.expr, names: Collection[str]) -> bool:
    text = ast.unparse(annotation)
    for plain in ("dict", "Mapping"):
        text = text.replace(f"{plain}[str, Any]", plain)
    return not set(names).isdisjoint(re.split(r"\W+", text))


def comments(paths: Iterable[Path]) -> tuple[int, int]:
    """(comments, lines of code): docstrings and empty lines are neither, nor are marks for tools."""
    count = lines = 0
    for path in paths:
        text = path.read_text()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            count += token.type == tokenize.COMMENT and not token.string.lstrip("# ").startswith(MARKS)
        quoted = {
            i
            for n in ast.walk(ast.parse(text))
            if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
            for i in range(n.lineno, (n.end_lineno or n.lineno) + 1)
        }
        lines += sum(
            bool(line.strip()) and i not in quoted and not line.lstrip().startswith("#")
            for i, line in enumerate(text.splitlines(), 1)
        )
    return count, lines


def _package(root: Path, package: str) -> Iterator[str]:
    inside, leads = rooms(root, package), arrows(root, package)
    loose = sum(files[0].parent == root.joinpath(*package.split(".")) for files in inside.values())
    yield f"{package}: {len(inside)} rooms ({loose} loose files), {len(leads)} arrows"
    yield from (f"  circle: {', '.join(c)}" for c in circles(leads))
    yield from (f"  upward: {a} -> {b}" for a, b in upward(package, leads))
    if package in FLOORS:
        known = {r for floor in FLOORS[package] for r in floor}
        yield from (f"  without a floor: {r}" for r in sorted(inside.keys() - known))


def _sizes(root: Path) -> Iterator[str]:
    files = [p for package in ("launch", "trainer", "models", "shards", "compiled") for p in sources(root, package)]
    length = {p: len(p.read_text().splitlines()) for p in files}
    spans = [(p, f, (f.end_lineno or f.lineno) - f.lineno + 1) for p in files for f in functions(p)]
    name = lambda p: p.relative_to(root)  # noqa: E731
    long = sorted(((n, p) for p, n in length.items() if n > LONG_FILE), reverse=True)
    yield f"files over {LONG_FILE} lines: {len(long)} of {len(files)}"
    yield from (f"  {n} {name(p)}" for n, p in long)
    yield f"functions over {LONG_FUNCTION} lines: {sum(s > LONG_FUNCTION for _, _, s in spans)} of {len(spans)}"
    yield from (f"  {s} {name(p)}: {f.name}" for p, f, s in spans if s > LONG_FUNCTION)
    many = [(p, f) for p, f, _ in spans if len(_parameters(f)) > MANY]
    yield f"functions of over {MANY} parameters: {len(many)}"
    yield from (f"  {len(_parameters(f))} {name(p)}: {f.name}" for p, f in many)
    for package in ("launch", "trainer", "models", "shards", "compiled"):
        bare, named = (sum(anything(p, names) for p in sources(root, package)) for names in (("Any",), UNTYPED))
        yield f"Any at seams of {package}/: {bare}, and {named} by a name that says why ({', '.join(UNTYPED)})"


def report(root: Path = ROOT) -> Iterator[str]:
    """Lines of text: rooms, arrows and circles of each package, then sizes, types and comments."""
    for package in PACKAGES:
        yield from _package(root, package)
    yield from _sizes(root)
    everything = sources(root, "trainer") + sources(root, "models")
    for name in WELL_SAID:
        found = [
            p for p in everything if p.name == name or (p.parent.name == name and p.parent.parent.name == "models")
        ]
        count, lines = comments(found)
        yield f"comments per 100 lines of code in {name}: {100 * count / max(lines, 1):.1f} ({count} of {lines})"


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT)))
