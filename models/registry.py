"""Methods by name. A file in models/methods/ registers its class with `@register("name")`; nothing else lists it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from models.contract import Method, MethodError

METHODS_DIR = Path(__file__).parent / "methods"
_registered: dict[str, type[Method]] = {}
T = TypeVar("T", bound=type[Method])


def register(name: str) -> Callable[[T], T]:
    """Class decorator: makes a method known as `name`."""

    def add(cls: T) -> T:
        assert name not in _registered or _registered[name].__module__ == cls.__module__, (
            f"two methods are called {name}"
        )
        cls.name = name
        _registered[name] = cls
        return cls

    return add


def method_names() -> list[str]:
    """All methods, by file name: a method's file is called as the method, so that listing imports nothing."""
    return sorted(p.stem for p in METHODS_DIR.glob("*.py") if not p.stem.startswith("_"))


def get_method(name: str) -> type[Method]:
    """The class registered as `name`.

    Raises:
        MethodError: unknown name; the nearest one is named.
    """
    if name not in method_names():
        near = difflib.get_close_matches(name, method_names(), n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(method_names())}"
        raise MethodError([f"no method '{name}'; {hint}"])
    importlib.import_module(f"models.methods.{name}")
    return _registered[name]
