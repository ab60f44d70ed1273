"""GGM trees of all blocks at once, level by level: README section 4.

A level of `width` nodes is `uint64[width, blocks, 2]`. Its left children come first and its right children
after them (child p and child width + p of node p), so that each half is one contiguous AES call and nothing
is moved. The last right children are missing where `Shape.widths` says so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from protocols.labels import label
from protocols.ot.aes import Permutation, Words, public_key, room, with_room
from protocols.vole.kernels import add_sum
from protocols.vole.lpn import Shape

#: Bytes of a level that are encrypted and added at a time: what a core's second-level cache holds.
_CHUNK = 1 << 17

Index = npt.NDArray[np.int64]


class Trees:
    """The generator of one session: π(x) ⊕ x, with another AES key at each level and side."""

    def __init__(self, shape: Shape, session: bytes) -> None:
        self.shape = shape
        self._widths = shape.widths()
        self._keys = [
            [Permutation(public_key(label("vole", "both", f"tree {d} {side}", session))) for side in range(2)]
            for d in range(shape.depth + 1)
        ]

    def below(self, parents: Words, level: int) -> tuple[Words, Words]:
        """(the nodes of `level`, the sums of its left and of its right nodes: `uint64[2, blocks, 2]`)."""
        width, blocks = len(parents), self.shape.blocks
        right = self._widths[level] - width
        children = room((width + right, blocks, 2))
        flat = with_room(children)
        sums = np.zeros((2, blocks, 2), dtype=np.uint64)
        row = 16 * blocks
        step = max(1, _CHUNK // row)
        lines, above = children.reshape(-1, 2 * blocks), parents.reshape(-1, 2 * blocks)
        for side, start, count in ((0, 0, width), (1, width, right)):
            permutation, total = self._keys[level][side], sums[side].reshape(-1)
            for at in range(0, count, step):
                end = min(at + step, count)
                permutation.apply(parents[at:end], flat[(start + at) * row :])
                add_sum(lines[start + at : start + end], above[at:end], total)
        return children, sums

    def grow(self, roots: Words) -> Iterator[tuple[Words, Words]]:
        """The sender: level by level from `roots: uint64[blocks, 2]`."""
        level = roots.reshape(1, -1, 2)
        for d in range(1, self.shape.depth + 1):
            level, sums = self.below(level, d)
            yield level, sums

    def path(self, leaves: Index) -> tuple[npt.NDArray[np.uint8], Index]:
        """Which way the paths to `leaves: int64[blocks]` turn, and their nodes: `[depth, blocks]` each."""
        sides = np.zeros((self.shape.depth, len(leaves)), dtype=np.uint8)
        nodes = np.zeros((self.shape.depth, len(leaves)), dtype=np.int64)
        at = leaves.copy()
        for d in range(self.shape.depth, 0, -1):
            nodes[d - 1] = at
            sides[d - 1] = at >= self._widths[d - 1]
            at = np.where(at >= self._widths[d - 1], at - self._widths[d - 1], at)
        return sides, nodes

    def puncture(self, leaves: Index, sums: Words) -> tuple[Words, Words]:
        """The receiver: all leaves but its own, which are 0, from the sums of the sides that its paths leave.

        `sums: uint64[depth, blocks, 2]`. Gives the leaves and for each tree the sum of those that are known.
        """
        blocks = self.shape.blocks
        trees = np.arange(blocks)
        sides, nodes = self.path(leaves)
        level = np.zeros((1, blocks, 2), dtype=np.uint64)
        own = np.zeros((2, blocks, 2), dtype=np.uint64)
        for d in range(1, self.shape.depth + 1):
            width = len(level)
            level, own = self.below(level, d)
            side, node = sides[d - 1], nodes[d - 1]
            # What grew from the unknown node of the path is wrong. It is taken out of the sums; the sibling
            # of the path's next node is what the sender's sum has beyond the others of that side.
            sibling = np.where(side == 1, node - width, node + width)
            there = sibling < len(level)
            sibling = np.where(there, sibling, 0)
            wrong = np.where(there[:, None], level[sibling, trees], np.uint64(0))
            right = np.where(there[:, None], sums[d - 1] ^ own[1 - side, trees] ^ wrong, np.uint64(0))
            own[side, trees] ^= level[node, trees]
            own[1 - side, trees] ^= wrong ^ right
            level[node, trees] = 0
            level[sibling[there], trees[there]] = right[there]
        return level, own[0] ^ own[1]
