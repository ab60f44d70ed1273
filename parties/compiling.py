"""Whether this process is compiling kernels, and how long it has: numba says so by its events.

A node's first job waits for it unless `pec warmup` has compiled them; whoever waits should know what for.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from protocols import parallel

_LOCK = threading.Lock()
_depth, _began, _total = 0, 0.0, 0.0


def watch() -> None:
    """Hear of what numba compiles from now on; numba is not imported for it."""
    parallel.when_numba_loads.append(_listen)


def running() -> bool:
    """A kernel is being compiled now."""
    return _depth > 0


def seconds() -> float:
    """How long at least one kernel was being compiled, since `watch`."""
    with _LOCK:
        return _total + (time.monotonic() - _began if _depth else 0.0)


def _listen() -> None:
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            _change(1)

        def on_end(self, event: Any) -> None:
            _change(-1)

    event.register("numba:compile", Listener())  # type: ignore[no-untyped-call]


def _change(by: int) -> None:
    """One kernel more or less; a kernel that calls others waits for them, and several threads may compile."""
    global _depth, _began, _total
    with _LOCK:
        now = time.monotonic()
        if _depth == 0:
            _began = now
        _depth += by
        if _depth == 0:
            _total += now - _began
