"""Where the keys of all instances lie between two trees: in memory, or where the caller has room for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from protocols.boost.hashing import Words


class Store(Protocol):
    """So many 64-bit words. Only this side's machine writes and reads them; they are secret."""

    def write(self, at: int, words: Words) -> None:
        """Put the contiguous `words` at position `at`."""
        ...

    def read(self, at: int, count: int) -> Words:
        """uint64[count] from position `at` on; not to be changed, and good until the next call."""
        ...


#: Gives a store of so many words.
Room = Callable[[int], Store]


class Memory:
    """A store in memory: the default."""

    def __init__(self, count: int) -> None:
        self._words = np.empty(count, dtype=np.uint64)

    def write(self, at: int, words: Words) -> None:
        self._words[at : at + words.size] = words.reshape(-1)

    def read(self, at: int, count: int) -> Words:
        return self._words[at : at + count]
