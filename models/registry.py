"""Methods by name. A file in models/methods/FAMILY/ registers its class with `@register("name")`; nothing else lists it.
So does a file in models/baselines/, which is found by name and listed with no methods.

A method is NAME.py, or a folder NAME/ whose class stands in method.py. Files and folders that begin with _ are no methods.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from models.contract import Method, MethodError
from models.contract.joint import JointSpace

METHODS_DIR = Path(__file__).parent / "methods"
BASELINES_DIR = Path(__file__).parent / "baselines"
MOVED = {
    "tower": "image_encoder",
    "start_file": "the group of the encoder's options, StartedOptions",
    "encode_genes": "tokens of encode's Encoded",
}
"""What methods had once, and what is there instead: silently it would be called no more."""
_registered: dict[str, type[Method]] = {}
T = TypeVar("T", bound=type[Method])


class Place(NamedTuple):
    """Where a method stands: its family and its module."""

    family: str
    module: str


def register(name: str) -> Callable[[T], T]:
    """Class decorator: makes a method known as `name`."""

    def add(cls: T) -> T:
        left = [f"{old} ({new})" for old, new in MOVED.items() if hasattr(cls, old)]
        assert not left, f"{name}: these have left the contract of a method: {', '.join(left)}"
        assert name not in _registered or _registered[name].__module__ == cls.__module__, (
            f"two methods are called {name}"
        )
        cls.name = name
        _registered[name] = cls
        return cls

    return add


def places() -> dict[str, Place]:
    """Family and module of every method by its name, sorted; nothing is imported.

    Raises:
        MethodError: two methods of one name, or one outside the families; each with its files.
    """
    return dict(_places(METHODS_DIR))


@functools.cache
def _places(folder: Path) -> dict[str, Place]:
    """Read once a process: every look-up of a method asks, and a file that is written later would be half a method."""
    found: dict[str, list[Path]] = {}
    problems = []
    for path in sorted(folder.rglob("*.py")):
        family, *below = path.relative_to(folder).with_suffix("").parts
        if any(part.startswith("_") for part in (family, *below)):
            continue
        if not below:
            problems.append(f"models/methods/{path.name} is in no family; move it into one ({', '.join(_families())})")
        elif len(below) == 1 or below[-1] == "method":
            found.setdefault(below[0] if len(below) == 1 else below[-2], []).append(path)
        elif not (path.parent / "method.py").is_file():
            problems.append(f"{_told(path)} belongs to no method: its folder has no method.py")
    doubles = [
        f"two methods are called {n}: {' and '.join(map(_told, paths))}" for n, paths in found.items() if len(paths) > 1
    ]
    if problems or doubles:
        raise MethodError([*problems, *(f"{d}; rename one, names are unique over families" for d in doubles)])
    return {n: _place(paths[0]) for n, paths in sorted(found.items())}


def _place(path: Path) -> Place:
    parts = path.relative_to(METHODS_DIR).with_suffix("").parts
    return Place(parts[0], ".".join(("models", "methods", *parts)))


def _told(path: Path) -> str:
    return f"models/methods/{path.relative_to(METHODS_DIR).as_posix()}"


def _families() -> list[str]:
    return sorted(p.name for p in METHODS_DIR.iterdir() if p.is_dir() and not p.name.startswith("_"))


def families() -> dict[str, tuple[str, ...]]:
    """Names of the methods of each family; a family may have none yet."""
    by_name = places()
    return {f: tuple(n for n, place in by_name.items() if place.family == f) for f in _families()}


def method_names() -> list[str]:
    """All methods, by file name: a method's file is called as the method, so that listing imports nothing."""
    return list(places())


def pretrained_names() -> list[str]:
    """The methods that have something to pre-train; the others learn from a task's labels alone. Imports them all."""
    return [n for n in method_names() if get_method(n).outline]


def joint_names() -> list[str]:
    """The methods whose images and texts lie in one space (models/contract/joint.py). Imports them all."""
    return [n for n in method_names() if issubclass(get_method(n), JointSpace)]


def baseline_names() -> list[str]:
    """What stands beside systems in tables and is none: no weights, no pre-training, no page of its own. `method_names` leaves it out."""
    return sorted(p.stem for p in BASELINES_DIR.glob("*.py") if not p.stem.startswith("_"))


def get_method(name: str) -> type[Method]:
    """The class registered as `name`, a method or a baseline; only its own module is imported.

    Raises:
        MethodError: unknown name; the nearest one is named. Or a file that registers another name.
    """
    known = places() | {n: Place("baselines", f"models.baselines.{n}") for n in baseline_names()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(places())}"
        raise MethodError([f"no method '{name}'; {hint}"])
    importlib.import_module(known[name].module)
    if name not in _registered:
        raise MethodError(
            [f"{known[name].module} registers no method '{name}'; write @register(\"{name}\") above its class"]
        )
    return _registered[name]
