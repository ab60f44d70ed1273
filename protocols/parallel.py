"""Compiled loops, on one core or on all: numba's, or those that `pec warmup` has put into the pack.

A kernel is compiled at its first call, not at import; numba is not imported before. In a process that has
called `packs.enable`, a kernel that is in the pack is taken from there, and numba never loads (`packs.py`);
in a node that holds for small arrays (`packs.enable_for_small`).

Where neither OpenMP nor TBB is installed, numba falls back on its own work queue, which ends the process
when two threads start parallel loops at once. A node runs several jobs in one process, so every parallel
loop of this package takes `ONE_LOOP`. A loop uses all cores anyway; waiting costs nothing.

OpenMP's threads go round in a loop while they wait for the next one, unless they are told to sleep. Where two
nodes, or a node and anything else, share a machine, that takes the core from whoever has work to do: a job of
many short loops took three times as long. So they sleep, unless OMP_WAIT_POLICY says otherwise.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from functools import cached_property, update_wrapper
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from protocols import packs

_F = TypeVar("_F", bound=Callable[..., Any])

#: Held while a parallel loop runs.
ONE_LOOP = threading.Lock()

#: Sums may be reordered for vector units; NaN and infinity keep their meaning.
REORDER = frozenset({"reassoc", "contract", "nsz", "arcp"})

#: Called when numba has been imported, before it compiles: for whoever wants to hear its events.
when_numba_loads: list[Callable[[], None]] = []

#: In a kernel: a loop that `parallel` spreads over the cores. Becomes numba's own when a kernel is compiled.
prange = range


def _load_numba_without_scipy() -> None:
    """Import the part of numba that looks for BLAS while `scipy.linalg` can't be found.

    Numba does so when the first kernel is compiled or read from disk, and importing `scipy.linalg` for it is
    about 0.3 s of every process's start. No kernel here needs BLAS. Other threads, and later imports, find
    it.
    """
    if "scipy.linalg" not in sys.modules:
        hidden = _Hidden("scipy.linalg")
        sys.meta_path.insert(0, hidden)
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            sys.meta_path.remove(hidden)


class _Hidden:
    """A finder that says of one module, and only to the thread that made it, that it is not there."""

    def __init__(self, name: str) -> None:
        self._name, self._thread = name, threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self._name and threading.get_ident() == self._thread:
            raise ImportError(f"{name} is not looked for here")


class Inline:
    """A function that emits code by itself (numba's `intrinsic`), made when a kernel that calls it is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self._function.__name__} exists in compiled code only")

    @cached_property
    def numba(self) -> Any:
        from numba.extending import intrinsic

        return intrinsic(self._function)


class Kernel:
    """One compiled loop. `parallel` ones are called from Python only, others from kernels as well."""

    def __init__(self, function: Any, **options: Any) -> None:
        update_wrapper(self, function)
        self.py_func, self._options = function, options

    @property
    def name(self) -> str:
        return f"{self.py_func.__module__}.{self.py_func.__qualname__}"

    def source(self) -> Any:
        """The function with numba's own objects in the place of ours."""
        import numba

        own = self.py_func.__globals__
        swapped = {k: v.numba for k, v in own.items() if isinstance(v, Inline)}
        if own.get("prange") is range:
            swapped["prange"] = numba.prange
        if not swapped:
            return self.py_func
        made = FunctionType(self.py_func.__code__, {**own, **swapped}, self.py_func.__name__)
        return update_wrapper(made, self.py_func)

    @cached_property
    def jitted(self) -> Any:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the first parallel loop starts
        from numba import njit

        _load_numba_without_scipy()
        while when_numba_loads:
            when_numba_loads.pop()()
        return njit(nogil=True, **self._options)(self.source())

    @property
    def _numba_type_(self) -> Any:
        """What numba asks a global for when another kernel calls this one."""
        return self.jitted._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        if packs.active and (native := packs.find(self.name, arguments)) is not None:
            return native(arguments)
        if packs.recording is not None:
            packs.record(self, arguments)
        if self._options.get("parallel"):
            with ONE_LOOP:
                return self.jitted(*arguments)
        return self.jitted(*arguments)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, contiguous, for a kernel that only reads it: numba compiles anew for what may be written."""
    seen = np.ascontiguousarray(array).view()
    seen.flags.writeable = False
    return seen


def compiled(function: _F) -> _F:
    """A kernel for one core, cached on disk, that lets other Python threads run."""
    return cast(_F, Kernel(function, cache=True))


def compiled_reordering(function: _F) -> _F:
    """The same with floating-point sums in any order; its last digits depend on the machine."""
    return cast(_F, Kernel(function, cache=True, fastmath=set(REORDER)))


def inlined(function: _F) -> _F:
    """A part of kernels that is compiled into each of them, and not called from Python."""
    return cast(_F, Kernel(function))


def parallel(function: _F) -> _F:
    """A kernel over `prange`; callable from any thread, not from another kernel."""
    return cast(_F, Kernel(function, cache=True, parallel=True))


def parallel_reordering(function: _F) -> _F:
    """The same with floating-point sums in any order; its last digits depend on the machine."""
    return cast(_F, Kernel(function, cache=True, parallel=True, fastmath=set(REORDER)))
