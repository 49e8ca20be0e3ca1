"""The machine code that reads JPEGs, loaded without numba once it was compiled: numba takes 0.5 s to load, its code some 0.01 s.

numba (extra `numba`) compiles jpeg_entry.py the first time; the object code is kept beside numba's own cache, in a file whose name tells
for which sources, versions and processor it was made. It is loaded by llvmlite, which comes with numba.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from shards.format.info import write_atomic

if TYPE_CHECKING:
    from llvmlite.binding import TargetMachine

SOURCES = ("jpeg_entry", "jpeg_huffman", "jpeg_mcus", "jpeg_scan", "jpeg_tables")
Functions = dict[str, Callable[..., int]]
ARGUMENTS = {"fill_tables": 4, "whole": 13}

NEVER_CALLED = frozenset(
    (
        *("NRT_Free", "NRT_MemInfo_call_dtor", "numba_do_raise", "numba_gil_ensure", "numba_gil_release"),
        *("numba_runtime_build_excinfo_struct", "numba_unpickle"),
    )
)
"""Of numba's runtime: they stand in branches for Python's errors and for memory that the code has made, and it makes none."""
_kept: list[object] = []
"""What must live as long as its code."""


class Compiled(Protocol):
    """What numba's `cfunc` gives."""

    __name__: str
    address: int
    native_name: str

    def inspect_llvm(self) -> str: ...


def functions() -> Functions:
    """The functions of jpeg_entry.py by name, taking addresses and whole numbers.

    Raises:
        Exception: whatever a package raises that does not fit the others.
    """
    paths = [folder / f"jpeg-{_key()}.o" for folder in folders()]
    return next(filter(None, map(_loaded, paths)), None) or _compiled(paths)


def folders() -> list[Path]:
    """Where object code is kept, in the first that can be written: where numba keeps its own, beside the sources or with the user."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(given)]
    users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [Path(__file__).with_name("__pycache__"), Path(users) / "medpair"]


def _key() -> str:
    """A digest of what decides the machine code."""
    import llvmlite.binding as llvm

    sha = hashlib.sha256()
    for source in SOURCES:
        sha.update(Path(__file__).with_name(f"{source}.py").read_bytes())
    machine = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    sha.update(repr((machine, version("numba"), version("llvmlite"))).encode())
    return sha.hexdigest()[:20]


def _loaded(path: Path) -> Functions | None:
    """The functions of a file; None where there is none, or where it is damaged."""
    try:
        head, _, code = path.read_bytes().partition(b"\n")
        told = json.loads(head)
        names, never = told["names"], told["never"]
        if told["sha256"] != hashlib.sha256(code).hexdigest():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _linked(code, names, never)


def _linked(code: bytes, names: dict[str, str], never: Iterable[str]) -> Functions:
    """The functions of object code: `names` are what they are called there, `never` what it names and does not call."""
    import llvmlite.binding as llvm

    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value or 0
    for name in never:
        if llvm.address_of_symbol(name) is None:
            llvm.add_symbol(name, abort)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return {name: _callable(name, engine.get_function_address(inner)) for name, inner in names.items()}


def _callable(name: str, address: int) -> Callable[..., int]:
    kinds = [ctypes.c_int64] * ARGUMENTS[name]
    if name == "whole":
        return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, *kinds[1:])(address)
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(address)


def _machine() -> TargetMachine:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def _compiled(paths: Iterable[Path]) -> Functions:
    """The functions as numba compiles them now, kept for other processes at the first of these places that can be written."""
    from shards.format import jpeg_entry

    compiled = cast("tuple[Compiled, ...]", jpeg_entry.FUNCTIONS)
    code, names, never = _object(compiled)
    head = {"sha256": hashlib.sha256(code).hexdigest(), "names": names, "never": never}
    for path in paths:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(head).encode() + b"\n" + code, again=True)
            break
    _kept.extend(compiled)
    return {f.__name__: _callable(f.__name__, f.address) for f in compiled}


def _object(compiled: Iterable[Compiled]) -> tuple[bytes, dict[str, str], list[str]]:
    """Object code of functions, what each is called in it, and names that it does not call."""
    import llvmlite.binding as llvm

    modules = [llvm.parse_assembly(f.inspect_llvm()) for f in compiled]
    names = {f.__name__: f.native_name for f in compiled}
    for other in modules[1:]:
        modules[0].link_in(other)
    modules[0].verify()
    outside = {f.name for f in modules[0].functions if f.is_declaration}
    never = {name for name in outside if name.startswith(("NRT_", "numba_"))}
    if not never <= NEVER_CALLED:
        raise RuntimeError(f"the code of jpeg_entry.py calls {sorted(never - NEVER_CALLED)}, which only numba has")
    return _machine().emit_object(modules[0]), names, sorted(never)
