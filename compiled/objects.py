"""Machine code that is loaded without numba once it was compiled: numba takes 0.5 s to load, object code some 0.01 s.

numba compiles a module's functions of C (its `FUNCTIONS`, made by `numba.cfunc`) the first time; their object code is kept in a file
whose place and name tell which sources, versions and processor it is for. It is loaded by llvmlite, which comes with numba.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from compiled.kept import folder

if TYPE_CHECKING:
    from llvmlite.binding import TargetMachine

Functions = dict[str, Callable[..., int]]
Arguments = Mapping[str, Sequence[type[Any]]]

NEVER_CALLED = frozenset(
    (
        *("NRT_Free", "NRT_MemInfo_call_dtor", "numba_do_raise", "numba_gil_ensure", "numba_gil_release"),
        *("numba_runtime_build_excinfo_struct", "numba_unpickle"),
    )
)
"""Of numba's runtime: they stand in branches for Python's errors and for memory that the code has made, and it makes none."""
_alive: list[object] = []
"""What must live as long as its code."""


class Compiled(Protocol):
    """What numba's `cfunc` gives."""

    __name__: str
    address: int
    native_name: str

    def inspect_llvm(self) -> str: ...


def functions(module: str, arguments: Arguments) -> Functions:
    """A module's functions of C by name; each takes arguments of these types (ctypes) and returns an int64.

    Raises:
        NotKeptError: no folder can be written.
        Exception: whatever a package raises that does not fit the others.
    """
    path = object_file(module)
    if (found := _read(path)) is not None:
        addresses = _linked(*found)
    else:
        made = cast("tuple[Compiled, ...]", importlib.import_module(module).FUNCTIONS)
        _write(path, *object_code(made))
        _alive.extend(made)
        addresses = {f.__name__: f.address for f in made}
    return {name: ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(addresses[name]) for name, kinds in arguments.items()}


def object_file(module: str) -> Path:
    """Where the object code of a module is kept for this processor."""
    import llvmlite.binding as llvm

    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    target = repr((llvm.get_process_triple(), *processor()))
    return folder(module, spec.origin) / f"{module}-{hashlib.sha256(target.encode()).hexdigest()[:20]}.o"


def processor() -> tuple[str, str]:
    """Name and features of the processor that code is compiled for: this one, or what numba's own variables say."""
    import llvmlite.binding as llvm

    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = "" if name == "generic" else llvm.get_host_cpu_features().flatten()
    return name or llvm.get_host_cpu_name(), features


def object_code(compiled: Iterable[Compiled]) -> tuple[bytes, dict[str, str], list[str]]:
    """Object code of functions, what each is called in it, and names of others that it does not call.

    Raises:
        RuntimeError: it asks for what numba alone has.
    """
    import llvmlite.binding as llvm

    modules = [llvm.parse_assembly(f.inspect_llvm()) for f in compiled]
    names = {f.__name__: f.native_name for f in compiled}
    for other in modules[1:]:
        modules[0].link_in(other)
    modules[0].verify()
    outside = {f.name for f in modules[0].functions if f.is_declaration}
    never = {name for name in outside if name.startswith(("NRT_", "numba_"))}
    if not never <= NEVER_CALLED:
        raise RuntimeError(f"the code of {', '.join(names)} calls {sorted(never - NEVER_CALLED)}, which only numba has")
    return _machine().emit_object(modules[0]), names, sorted(never)


def _machine() -> TargetMachine:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = processor()
    return llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=3, jit=True)


def _linked(code: bytes, names: dict[str, str], never: Iterable[str]) -> dict[str, int]:
    """Addresses of the functions of object code."""
    import llvmlite.binding as llvm

    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value or 0
    for name in never:
        if llvm.address_of_symbol(name) is None:
            llvm.add_symbol(name, abort)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _alive.append(engine)
    return {name: engine.get_function_address(inner) for name, inner in names.items()}


def _write(path: Path, code: bytes, names: dict[str, str], never: Sequence[str]) -> None:
    """For other processes, which find all of it or nothing; a disk that is full keeps nothing."""
    head = {"sha256": hashlib.sha256(code).hexdigest(), "names": names, "never": never}
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as place:
        half = Path(place, path.name)
        half.write_bytes(json.dumps(head).encode() + b"\n" + code)
        os.replace(half, path)


def _read(path: Path) -> tuple[bytes, dict[str, str], list[str]] | None:
    """What `_write` wrote; None where there is none, or where it is damaged."""
    try:
        head, _, code = path.read_bytes().partition(b"\n")
        told = json.loads(head)
        names, never = told["names"], told["never"]
        return (code, names, never) if told["sha256"] == hashlib.sha256(code).hexdigest() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
