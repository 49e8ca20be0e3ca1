"""When machine code is loaded: once a process has done so much that it is worth it, where it can be."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import warnings
from functools import cache

from compiled.kept import NotKeptError

NOT_INSTALLED = "numba is not installed (pip install -e '.[numba]', docs/install.md)"


@cache
def why_not(module: str) -> str:
    """Why a module of machine code (extra `numba`) cannot be used here; empty where it can, and then it is loaded."""
    if importlib.util.find_spec("numba") is None:
        return NOT_INSTALLED
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "NUMBA_DISABLE_JIT is set"
    try:
        importlib.import_module(module)
    except NotKeptError as e:
        return str(e)
    except Exception as e:  # whatever a package that does not fit the others raises
        return f"numba does not work here ({type(e).__name__}: {str(e)[:200]})"
    return ""


def warn_unless(module: str, instead: str) -> bool:
    """Whether a module can be used here; if not, `instead` says what happens in its place, unless numba is simply not there."""
    why = why_not(module)
    if why and why != NOT_INSTALLED:
        warnings.warn(f"{instead}: {why}", stacklevel=3)
    return not why


class Loading:
    """Loads a module once it is worth it; one object for all threads of a process."""

    def __init__(self, module: str, worth: int, instead: str):
        """`worth`: units of work, from which on it is loaded; `instead`: what happens where it cannot be, in words."""
        self._module, self._left, self._instead = module, worth, instead
        self._lock = threading.Lock()
        self._loaded: bool | None = None

    def __call__(self, work: int) -> bool:
        """Whether it is loaded now, before so much work is done.

        While one thread loads it, which may take a while, the others go on without it.
        """
        self._left -= work
        if self._loaded is None and self._left <= 0 and self._lock.acquire(blocking=False):
            try:
                self._loaded = warn_unless(self._module, self._instead)
            finally:
                self._lock.release()
        return bool(self._loaded)
