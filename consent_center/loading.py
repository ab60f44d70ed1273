"""Parts of scipy, imported where they are needed, by one thread at a time.

They take a while to load, and few requests need them. Two threads that import parts which use each other,
from two ends, would wait for each other; Python then lets one go on with a module that is not complete.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

_ONE = threading.RLock()


def part_of_scipy(name: str) -> Any:
    """The module scipy.`name`, such as "stats"."""
    with _ONE:
        return importlib.import_module(f"scipy.{name}")
