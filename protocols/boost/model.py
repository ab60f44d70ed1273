"""A forest as each side keeps it: the brand the shape, its own splits and the leaves; the provider its
splits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from protocols.boost.messages import THEIRS


@dataclass(frozen=True)
class BrandNode:
    """kind LEAF: `value` is added to the score; OWN: `column` and `left` bool[B] of the brand; THEIRS: only
    the column.

    `child` is the number of the left child, the right one follows it; −1 for a leaf. `gain` of a split,
    `rows` of
    the brand's training rows.
    """

    kind: int
    rows: int
    value: float = 0.0
    column: int = -1
    left: tuple[int, ...] = ()
    child: int = -1
    gain: float = 0.0


@dataclass(frozen=True)
class Tree:
    nodes: tuple[BrandNode, ...]

    def scaled(self, unit: float) -> Tree:
        """The same tree for labels `unit` times as large; a power of two, so that nothing is rounded."""
        return Tree(tuple(replace(n, value=n.value * unit, gain=n.gain * unit**2) for n in self.nodes))

    @property
    def theirs(self) -> list[int]:
        """Numbers of the nodes that the provider splits."""
        return [number for number, node in enumerate(self.nodes) if node.kind == THEIRS]


@dataclass(frozen=True)
class BrandResult:
    """What the brand has in the end.

    scores   float64[k], the margin (log-odds for logistic) of each of its rows, trees kept and start included
    trees    those kept; `start` is the margin before the first
    losses   held-out loss before the first tree and after each one grown; empty without held-out rows
    first    float64[U, B, 2]: sums of g and h by column and bin over all rows of the first tree
    gains    float64[F_own], float64[F]: total gain by column, of its own and of the provider's
    """

    scores: npt.NDArray[np.float64]
    trees: tuple[Tree, ...]
    start: float
    losses: tuple[float, ...]
    gains: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    first: npt.NDArray[np.float64] | None = None

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; `forest_of` reads it back."""
        trees = [[list(_plain(node)) for node in tree.nodes] for tree in self.trees]
        return {"start": self.start, "trees": trees, "losses": list(self.losses)}


def _plain(node: BrandNode) -> tuple[Any, ...]:
    return node.kind, node.rows, node.value, node.column, list(node.left), node.child, node.gain


def forest_of(document: dict[str, Any]) -> tuple[float, tuple[Tree, ...]]:
    """(start, trees) of a `to_document`."""
    return float(document["start"]), tuple(
        Tree(
            tuple(BrandNode(k, r, v, c, tuple(left), child, gain) for k, r, v, c, left, child, gain in nodes)
        )
        for nodes in document["trees"]
    )


@dataclass(frozen=True)
class ProviderSplit:
    """Of node `node` in tree `tree`: rows whose bin of `column` is in the set `mask` (bit j: bin j) go
    left."""

    tree: int
    node: int
    column: int
    mask: int


@dataclass(frozen=True)
class ProviderResult:
    """`splits` in the order of trees and nodes, of all trees that were grown: a brand that stopped early
    keeps the first of them. `rows` are m."""

    splits: tuple[ProviderSplit, ...]
    trees: int
    rows: int


def own_sides(node: BrandNode, bins: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """bool[n]: which rows of the brand's bins uint8[n, F] go left at a split of its own."""
    table = np.zeros(256, dtype=bool)
    table[list(node.left)] = True
    return table[bins[:, node.column]]
