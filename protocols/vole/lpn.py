"""Sizes of the dual LPN instance and the public code that compresses it: README section 5."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np

from protocols.labels import label
from protocols.ot.aes import Words, keystream, public_key
from protocols.security import VOLE_LPN, Lpn
from protocols.vole.kernels import encode


@dataclass(frozen=True)
class Shape:
    """An instance for n outputs: `blocks` trees of `leaves` leaves, N = blocks · leaves, N / 2 ≥ n."""

    n: int
    lpn: Lpn
    leaves: int

    @classmethod
    def of(cls, n: int, lpn: Lpn = VOLE_LPN) -> Shape:
        return cls(n, lpn, max(lpn.floor, -(-2 * n // lpn.blocks)))

    @property
    def blocks(self) -> int:
        return self.lpn.blocks

    @property
    def size(self) -> int:
        """N, the length of the noise vector. Leaf j of tree i is its element j · blocks + i."""
        return self.blocks * self.leaves

    @property
    def depth(self) -> int:
        """Levels of a tree below its root."""
        return (self.leaves - 1).bit_length()

    def widths(self) -> list[int]:
        """Nodes of a tree at each level, root first: `leaves` at the last, above it half, rounded up."""
        return [-(-self.leaves >> (self.depth - d)) for d in range(self.depth + 1)]


class Code:
    """The linear map from N to n elements, the same for words of GF(2^64) and pairs of them. Public."""

    def __init__(self, shape: Shape, session: bytes) -> None:
        self._shape = shape
        size, lpn = shape.size, shape.lpn
        self._rows = isqrt(size - 1) + 1
        self._columns = -(-size // self._rows)
        key = public_key(label("vole", "both", "code", session))
        # Round functions of the permutations: uniform up to 2^-16 (32 bits scaled to the range).
        count = lpn.accumulations * lpn.feistel_rounds * self._rows
        drawn = keystream(key, 4 * count + 2 * size)
        wide = drawn[: 4 * count].view("<u4").astype(np.uint64)
        wide = wide.reshape(lpn.accumulations, lpn.feistel_rounds // 2, 2, self._rows)
        wide[:, :, 0] *= np.uint64(self._rows)
        wide[:, :, 1] *= np.uint64(self._columns)
        self._rounds = (wide >> np.uint64(32)).astype(np.uint16).reshape(lpn.accumulations, -1, self._rows)
        self._matrices = drawn[4 * count :].view("<u4").astype(np.uint32)

    def compress(
        self, wide: Words, narrow: Words | None = None, *, binary: bool = False
    ) -> tuple[Words, Words]:
        """n elements each of the images of `wide: uint64[N, 2]`, `narrow: uint64[N]` or `uint64[N, 2]`.

        Both are overwritten. `binary`: accumulators without the factor x, so that bits stay by themselves.
        """
        if narrow is None:
            narrow = np.empty(0, dtype=np.uint64)
        n = self._shape.n
        wide_out = np.empty((n, 2), dtype=np.uint64)
        narrow_out = np.empty((n if len(narrow) else 0, *narrow.shape[1:]), dtype=np.uint64)
        # Spares come from numpy, which asks the system for large pages; random access is slow without them.
        vectors = wide, np.empty_like(wide), wide_out, narrow, np.empty_like(narrow), narrow_out
        code = self._rows, self._columns, self._rounds, self._matrices, 0 if binary else 1
        encode(*vectors, *code)
        return wide_out, narrow_out
