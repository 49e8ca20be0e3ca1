"""The house's rules: imports go down only, rooms stay small, nothing speaks of the machine it was written on."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.registry import method_names
from tests.diagonal import FIRST
from tests.rooms import FLOORS, UNTYPED, anything, arrows, circles, rooms, sources, upward
from trainer.downstream.metrics.table import METRICS

ROOT = Path(__file__).parent.parent
ROOMS = ("launch", "trainer", "models", "shards", "compiled")
BELOW = {
    "launch": set(ROOMS),
    "trainer": {"trainer", "models", "shards", "compiled"},
    "models": {"models", "compiled"},
    "shards": {"shards", "compiled"},
    "compiled": {"compiled"},
}
REASON = "Long because:"
MODULE = re.compile(rf"({'|'.join(ROOMS)})\.[\w.]*$")


def files() -> list[Path]:
    return sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield (node.module or "").split(".")[0]


def named(tree: ast.AST) -> Iterator[str]:
    """Rooms whose modules a file names in text, to import them by: "launch.finetune", or the beginning of such a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.match(node.value):
            yield node.value.split(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_only(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        tree = ast.parse(path.read_text())
        up = {*imported(tree), *named(tree)} & (set(ROOMS) - BELOW[room])
        assert not up, f"{path.relative_to(ROOT)} imports {', '.join(up)}"


@pytest.mark.parametrize(
    ("code", "rooms"),
    [
        ("import_module(f'launch.{name}').main()", {"launch"}), ("for n in ('torch', 'launch.finetune'): import_module(n)", {"launch"}),
        ("start('python launch/words.py')", set()), ("raise E('see launch.words of it')", set()), ("x = 'launch'", set()),
    ],
)  # fmt: skip
def test_an_import_by_name_is_seen(code: str, rooms: set[str]) -> None:
    assert set(named(ast.parse(code))) == rooms


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_of_a_package_stand_on_floors(package: str) -> None:
    leads = arrows(ROOT, package)
    known = [room for floor in FLOORS[package] for room in floor]
    assert sorted(known) == sorted(rooms(ROOT, package)), "each room has one floor, given in tests/rooms.py"
    assert not circles(leads)
    assert not upward(package, leads), "a room imports from the floors below it, never from its own or a higher one"


@pytest.mark.parametrize("package", FLOORS)
def test_the_page_of_the_house_names_every_room_on_its_floor(package: str) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    _, _, after = page.partition(f"\n| {package.replace('.', '/')}/ | |\n|---|---|\n")
    rows = [line.split("|")[1] for line in after.partition("\n\n")[0].splitlines()]
    assert [sorted(re.findall(r"`(\w+)`", row)) for row in rows] == [
        sorted(floor) for floor in reversed(FLOORS[package])
    ]


def test_a_circle_is_seen() -> None:
    leads = {("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}
    assert circles(leads) == [["b", "c"]]


def test_no_two_loose_test_files_share_a_name() -> None:
    """A folder of tests without `__init__.py` is no package: pytest knows its files by their bare names and stops at a second
    one of a name, but only where both are collected."""
    loose = [p for p in (ROOT / "tests").rglob("test_*.py") if not (p.parent / "__init__.py").exists()]
    names = [p.name for p in loose]
    assert loose
    assert not [str(p.relative_to(ROOT)) for p in loose if names.count(p.name) > 1], "rename one of them"


UNCHECKED = {"launch": 0, "trainer": 13, "models": 2, "shards": 17, "compiled": 0}
"""Seams of each package that only a look at the value tells the type of; fewer is better."""


@pytest.mark.parametrize("package", ROOMS)
def test_seams_have_types(package: str) -> None:
    bare = {str(p.relative_to(ROOT)): n for p in sources(ROOT, package) if (n := anything(p))}
    assert not bare, f"give the type, a protocol or `object`; what is read and not checked yet is one of {UNTYPED}"
    named = sum(anything(p, UNTYPED) for p in sources(ROOT, package))
    assert named <= UNCHECKED[package], (
        f"{named} seams of {package}/ are unchecked: check what is read where it is read"
    )


def test_an_untyped_seam_is_seen(tmp_path: Path) -> None:
    bare = ["def f(x: Any): ...", "def f() -> list[Any]: ...", "class A:\n    x: Any = 0", "def f(x: Any | None): ..."]
    typed = ["def f(x: dict[str, Any]): ...", "def f(x: object) -> Anything: ...", "x: Any = 0"]
    for i, text in enumerate([*bare, *typed]):
        (tmp_path / f"{i}.py").write_text(text)
        assert anything(tmp_path / f"{i}.py") == (text in bare), text
    (tmp_path / "named.py").write_text("def f(x: Json) -> list[Json]: ...")
    assert anything(tmp_path / "named.py", UNTYPED) == 2
    assert anything(tmp_path / "named.py") == 0


def test_no_grab_bags() -> None:
    assert not [p for p in files() if p.stem in ("utils", "util", "helpers", "misc", "common")]


def test_rooms_stay_small() -> None:
    lengths, functions, long_ = [], [], []
    for path in files():
        text = path.read_text()
        tree = ast.parse(text)
        lines = len(text.splitlines())
        if text.strip():
            lengths.append(lines)
        spans = [
            (n.name, (n.end_lineno or 0) - n.lineno + 1)
            for n in ast.walk(tree)
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        functions += [s for _, s in spans]
        excused = REASON in (ast.get_docstring(tree) or "")
        if not excused:
            long_ += [f"{path.relative_to(ROOT)}: {lines} lines"] * (lines > 400)
            long_ += [f"{path.relative_to(ROOT)}: {name} has {s} lines" for name, s in spans if s > 60]
    assert not long_, f"split them, or give the reason in the module's docstring ('{REASON} ...'):\n" + "\n".join(long_)
    assert statistics.median(lengths) < 200
    assert statistics.median(functions) < 15


def test_nothing_but_the_project_is_spoken_of() -> None:
    tracked = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    )
    homes = ("/" + "work/", "/" + "root/", "/" + "home/")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", "") and path.is_file() and path.stat().st_size < 500_000:
            text = path.read_text(errors="replace")
            assert not [h for h in homes if h in text], f"{name} names a path of some machine"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_cheap_to_enter(room: str) -> None:
    code = f"import sys, {room}; assert not {{'torch', 'matplotlib', 'pyarrow', 'deepspeed'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_doors_for_others_stay_where_they_are() -> None:
    """Scripts outside this repository come in by these names."""
    from trainer.downstream.targets import read_targets
    from trainer.downstream.task import build_task
    from trainer.export import load_exported

    task, path = build_task("demo_subtype", [])
    assert task.name == path.stem == "demo_subtype"
    assert callable(read_targets)
    assert callable(load_exported)


OWN = (
    "models/methods",
    "models/encoders",
    "models/heads",
    "models/decoders",
    "models/losses",
    "models/transforms",
    "models/layers",
)
"""Where a system's own code may stand, and be spoken of."""


def test_a_system_is_its_own_files_and_nothing_else() -> None:
    """No code outside its rooms knows a system by name: what it needs from the house is asked for through the contract.

    Apart from the first four, whose names some defaults and examples give. A name that is a metric's (mae) or a word's (refers) as well
    says nothing.
    """
    names = set(method_names()) - FIRST - set(METRICS) - {"refers"}
    assert len(names) >= 3
    word = re.compile(rf"\b({'|'.join(sorted(names))})\b")
    outside = [p for p in files() if not str(p.relative_to(ROOT)).startswith(OWN)]
    assert {str(p.relative_to(ROOT)): found for p in outside if (found := word.findall(p.read_text()))} == {}
    for name in method_names():
        recipes = {p.name for p in (ROOT / "configs/methods" / name).iterdir()}
        assert {"recommended.yaml", "paper.yaml", "demo.yaml"} <= recipes, name
        assert (ROOT / "docs/methods" / f"{name}.md").is_file()
        assert list((ROOT / "tests/models").glob(f"test_{name}*.py")), f"{name} has no test of its equations"
