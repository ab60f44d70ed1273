"""Shares of one-hot histograms: from leaves to words of 32 bits, and their sums by node. README, section 2.

A share is uint32[rows, columns, 2B]: of bin j the words 2j (of g) and 2j + 1 (of h); all sums modulo 2^32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.boost.ggm import Bins, Permutation, Words
from protocols.boost.messages import PIECE
from protocols.parallel import compiled

U32 = npt.NDArray[np.uint32]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Rows `start` … `stop` − 1: the unit of messages and of work."""

    number: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def blocks(rows: int, columns: int, bits: int) -> Iterator[Block]:
    """Blocks whose corrections, shares and leaves fit one message each and the processor's cache."""
    each = max(1, PIECE // (16 * max(bits - 1, 1) * columns))
    for number, start in enumerate(range(0, rows, each)):
        yield Block(number, start, min(rows, start + each))


#: Instances of the oblivious transfer in one segment, about.
SEGMENT = 1 << 20


def segments(rows: int, columns: int, bits: int) -> Iterator[list[Block]]:
    """Blocks in groups of some `SEGMENT` instances of the oblivious transfer; a group has one Δ."""
    group: list[Block] = []
    for block in blocks(rows, columns, bits):
        group.append(block)
        if sum(b.rows for b in group) * columns * bits >= SEGMENT:
            yield group
            group = []
    if group:
        yield group


@compiled
def _gather(leaves: Any, used: Any, out: Any) -> None:
    """σ of the leaves of the used columns: leaves uint64[R, F, B, 2], out uint64[R, U, B, 2]."""
    for i in range(leaves.shape[0]):
        for u in range(used.shape[0]):
            f = used[u]
            for j in range(leaves.shape[2]):
                left = leaves[i, f, j, 0]
                out[i, u, j, 0] = left ^ leaves[i, f, j, 1]
                out[i, u, j, 1] = left


@compiled
def _brand(s: Any, e: Any, values: Any, share: Any, c: Any) -> None:
    """share = R; c = values − Σ_j R_j. s, e uint64[R, U, B, 2]; values uint32[R, 2]; c uint32[R, U, 2]."""
    for i in range(s.shape[0]):
        for u in range(s.shape[1]):
            g, h = values[i, 0], values[i, 1]
            for j in range(s.shape[2]):
                word = e[i, u, j, 0] ^ s[i, u, j, 0]
                low, high = np.uint32(word & np.uint64(0xFFFFFFFF)), np.uint32(word >> np.uint64(32))
                share[i, u, 2 * j], share[i, u, 2 * j + 1] = low, high
                g, h = np.uint32(g - low), np.uint32(h - high)
            c[i, u, 0], c[i, u, 1] = g, h


@compiled
def _provider(s: Any, e: Any, bins: Any, used: Any, c: Any, share: Any) -> None:
    """share = −R_j off the own bin b, and c + Σ_{j≠b} R_j at it; bins uint8[R, F]."""
    for i in range(s.shape[0]):
        for u in range(s.shape[1]):
            own = np.int64(bins[i, used[u]])
            g, h = c[i, u, 0], c[i, u, 1]
            for j in range(s.shape[2]):
                word = e[i, u, j, 0] ^ s[i, u, j, 0]
                low, high = np.uint32(word & np.uint64(0xFFFFFFFF)), np.uint32(word >> np.uint64(32))
                if j != own:
                    g, h = np.uint32(g + low), np.uint32(h + high)
                share[i, u, 2 * j] = np.uint32(np.uint32(0) - low)
                share[i, u, 2 * j + 1] = np.uint32(np.uint32(0) - high)
            share[i, u, 2 * own], share[i, u, 2 * own + 1] = g, h


@compiled
def _accumulate(share: Any, nodes: Any, slots: Any, sums: Any) -> None:
    """sums[slots[nodes[i]]] += share[i] where the slot is not −1; sums uint32[S, U · 2B]."""
    for i in range(share.shape[0]):
        slot = slots[nodes[i]]
        if slot < 0:
            continue
        row, to = share[i], sums[slot]
        for j in range(row.shape[0]):
            to[j] += row[j]


def brand_share(leaves: Words, used: Index, values: U32, pi: Permutation) -> tuple[U32, U32]:
    """(share uint32[R, U, 2B], c uint32[R, U, 2]) of a block; values uint32[R, 2] are g and h."""
    rows, count = len(leaves), leaves.shape[2]
    s = np.empty((rows, len(used), count, 2), dtype=np.uint64)
    _gather(leaves, used, s)
    share = np.empty((rows, len(used), 2 * count), dtype=np.uint32)
    c = np.empty((rows, len(used), 2), dtype=np.uint32)
    _brand(s, pi(s), values, share, c)
    return share, c


def provider_share(leaves: Words, used: Index, bins: Bins, c: U32, pi: Permutation) -> U32:
    """uint32[R, U, 2B] of a block; bins uint8[R, F] are the provider's, c what the brand sent."""
    rows, count = len(leaves), leaves.shape[2]
    s = np.empty((rows, len(used), count, 2), dtype=np.uint64)
    _gather(leaves, used, s)
    share = np.empty((rows, len(used), 2 * count), dtype=np.uint32)
    _provider(s, pi(s), bins, used, c, share)
    return share


def accumulate(share: U32, nodes: npt.NDArray[np.int16], slots: npt.NDArray[np.int16], sums: U32) -> None:
    """Add a block's share to sums uint32[S, U, 2B]: row i to slot slots[nodes[i]], none if that is −1."""
    _accumulate(share.reshape(len(share), -1), nodes, slots, sums.reshape(len(sums), -1))
