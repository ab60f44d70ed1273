"""Keeps pyarrow from importing pandas, in processes that never use it: half a second of every start.

pyarrow's first `pa.array` of anything but a numpy array imports pandas to ask whether it is a Series.
"""

from __future__ import annotations

import sys


class _Nowhere:
    """A finder that says of pandas, and of nothing else, that it is not there."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError("this process does without pandas")


def keep_out() -> None:
    """Pandas can't be imported by this process any more. For commands, which end with their process."""
    if "pandas" not in sys.modules and _Nowhere not in sys.meta_path:
        sys.meta_path.insert(0, _Nowhere)


def settle() -> None:
    """Let pyarrow look for it now and not find it: it looks once. Importing pandas stays possible."""
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _Nowhere)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_Nowhere)
