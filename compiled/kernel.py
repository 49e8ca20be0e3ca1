"""The decorator of every function that is compiled by numba and kept."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import config

from compiled.kept import NotKeptError, folder

F = TypeVar("F", bound=Callable[..., object])
_njit: Callable[..., Any] = njit
_lock = threading.Lock()


def kernel(signature: object = None, *, unkept: bool = False, **options: Any) -> Callable[[F], F]:
    """`numba.njit` without the GIL, whose machine code is kept on disk for as long as none of its sources changes.

    Args:
        signature: compiled for this one at once; None: for those it is called with, when it is.
        unkept: where it cannot be kept it is compiled in every process, which is said once.
        options: numba's.

    Raises:
        NotKeptError: no folder can be written, and not `unkept`.
    """

    def compile_(function: F) -> F:
        try:
            return _kept(function, signature, options)
        except NotKeptError as e:
            if not unkept:
                raise
            _say(f"{function.__module__} is compiled anew by every process, for some seconds: {e}")
            return cast(F, _njit(signature, nogil=True, **options)(function))

    return compile_


def _kept(function: F, signature: object, options: dict[str, Any]) -> F:
    """Compiled, or found in the folder of its module's sources: numba asks for a folder once for each function."""
    place = folder(function.__module__, function.__code__.co_filename)
    of_numba = vars(config)
    with _lock:
        before, of_numba["CACHE_DIR"] = of_numba["CACHE_DIR"], str(place)
        try:
            return cast(F, _njit(signature, nogil=True, cache=True, **options)(function))
        except OSError as e:  # a disk that has become full
            raise NotKeptError({place: e}) from e
        finally:
            of_numba["CACHE_DIR"] = before


@cache
def _say(text: str) -> None:
    warnings.warn(text, stacklevel=2)
