"""Numba loops that run on every core, one at a time in a process.

Where neither OpenMP nor TBB is installed, numba falls back on its own work queue, which ends the process
when two threads start parallel loops at once. A node runs several jobs in one process, so every parallel
loop of this package takes `ONE_LOOP`. A loop uses all cores anyway; waiting costs nothing.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from numba import njit


def _load_numba_without_scipy() -> None:
    """Import the part of numba that looks for BLAS while scipy can't be found.

    Numba does so when the first kernel is compiled or read from disk, and imports all of `scipy.linalg` for
    it, about 0.3 s of every process's start. No kernel here needs BLAS. Later imports of scipy are as ever.
    """
    if "scipy" not in sys.modules:
        sys.modules["scipy"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            del sys.modules["scipy"]


_load_numba_without_scipy()

_F = TypeVar("_F", bound=Callable[..., Any])

#: Held while a parallel loop runs.
ONE_LOOP = threading.Lock()

#: Sums may be reordered for vector units; NaN and infinity keep their meaning.
REORDER = frozenset({"reassoc", "contract", "nsz", "arcp"})


def compiled(function: _F) -> _F:
    """A kernel for one core, cached on disk, that lets other Python threads run."""
    return cast(_F, njit(cache=True, nogil=True)(function))


def parallel(function: _F) -> _F:
    """A kernel over `prange`; callable from any thread, not from another kernel."""
    return _locked(function, njit(cache=True, nogil=True, parallel=True)(function))


def parallel_reordering(function: _F) -> _F:
    """The same with floating-point sums in any order; its last digits depend on the machine."""
    return _locked(function, njit(cache=True, nogil=True, parallel=True, fastmath=set(REORDER))(function))


def _locked(function: _F, kernel: Any) -> _F:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        with ONE_LOOP:
            return kernel(*arguments)

    return cast(_F, call)
