"""The brand's forest while it grows: rows in nodes, its shares, splits level by level, scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from protocols.boost import tree
from protocols.boost.messages import LEAF, OWN, THEIRS
from protocols.boost.model import BrandNode, BrandResult, Tree
from protocols.boost.people import Labels
from protocols.boost.routing import Nodes, Rows, slots_of, smaller
from protocols.boost.shares import U32
from protocols.boost.terms import Learning, Terms
from protocols.errors import LocalError, PeerError

#: Sums of a tree's gradients stay below this in fixed point (README, section 5).
ROOM = 1 << 30

#: Rows whose gradients are computed at a time.
PART = 1 << 20

#: Bins of the brand's own columns.
OWN_BINS = 256


class Forest:
    """See the module. The order of calls is that of the protocol's messages."""

    def __init__(
        self,
        labels: Labels,
        total: int,
        categorical: npt.NDArray[np.bool_],
        missing: npt.NDArray[np.bool_],
        terms: Terms,
        learning: Learning,
        rng: Callable[[int], bytes],
    ) -> None:
        self.columns = len(categorical)
        self.trees: list[Tree] = []
        self.level = 0
        self._labels, self._total, self._terms, self._learning, self._rng = (
            labels,
            total,
            terms,
            learning,
            rng,
        )
        own = labels.own
        wanted = ((own.categorical, learning.monotone_own), (categorical, learning.monotone_provider))
        for has_levels, signs in wanted:
            if bad := [c for c in signs if c < len(has_levels) and has_levels[c]]:
                raise LocalError("boost.monotone", f"column {bad[0]} has levels, and no order")
        self._own = tree.Columns(
            own.categorical, own.missing, _signs(learning.monotone_own, own.bins.shape[1])
        )
        self._theirs = tree.Columns(categorical, missing, _signs(learning.monotone_provider, self.columns))
        self._gains = np.zeros(own.bins.shape[1]), np.zeros(self.columns)
        self._g, self._h = np.zeros(len(labels.rows)), np.zeros(len(labels.rows))
        self._known = np.zeros(total, dtype=bool)  # rows of the brand's people
        self._known[labels.rows] = True
        self._unit = tree.unit(labels.y[labels.train], learning.objective)
        self._y = labels.y / self._unit  # exact; all that follows is in this unit, up to `result`
        self._start = tree.start(self._y[labels.train], learning.objective)
        self._margin = np.full(len(labels.rows), self._start)
        self._best_margin = self._margin  # of the least held-out loss
        self._losses = [self._held_loss()] if labels.held.any() else []
        self._first: npt.NDArray[np.float64] | None = None

    # ---- the forest ----------------------------------------------------------------------------------------

    @property
    def progress(self) -> tuple[int, int]:
        """Levels done, of all."""
        depth = self._terms.depth
        done = len(self.trees) * depth + (0 if self.finished else min(self.level, depth))
        return (self._terms.trees * depth if self.finished else done), self._terms.trees * depth

    @property
    def finished(self) -> bool:
        """All trees are grown, or the held-out loss has stopped falling."""
        patience, losses = self._learning.patience, self._losses
        stalled = bool(patience and losses and len(losses) - 1 - int(np.argmin(losses)) >= patience)
        # A tree that is a single leaf repeats for ever unless rows or columns are sampled anew.
        whole = self._learning.row_share == self._learning.column_share == 1
        stuck = bool(whole and self.trees and len(self.trees[-1].nodes) == 1)
        return len(self.trees) >= self._terms.trees or stalled or stuck

    @property
    def bits(self) -> npt.NDArray[np.uint8]:
        """uint8[m]: the side of every row at this level's splits."""
        return self._rows.bit

    @property
    def node_count(self) -> int:
        return len(self._nodes)

    def result(self) -> BrandResult:
        """With early stopping, only the trees up to the least held-out loss."""
        keep = len(self.trees)
        if self._learning.patience and self._losses:
            keep = int(np.argmin(self._losses))
        scores = self._margin if keep == len(self.trees) else self._best_margin
        unit, square = self._unit, self._unit**2
        trees = tuple(grown.scaled(unit) for grown in self.trees[:keep])
        own, theirs = np.zeros_like(self._gains[0]), np.zeros_like(self._gains[1])
        for grown in trees:
            for node in grown.nodes:
                if node.kind != LEAF:
                    (own if node.kind == OWN else theirs)[node.column] += node.gain
        first = None if self._first is None else self._first * (unit, 1.0)
        losses = tuple(square * loss for loss in self._losses)
        return BrandResult(unit * scores, trees, unit * self._start, losses, (own, theirs), first)

    def _held_loss(self) -> float:
        held = self._labels.held
        return tree.loss(self._margin[held], self._y[held], self._learning.objective)

    # ---- a tree --------------------------------------------------------------------------------------------

    def begin(self) -> npt.NDArray[np.int64]:
        """Start a tree; the provider's columns that it uses, int64[U] in rising order."""
        labels, learning = self._labels, self._learning
        used_rows = labels.train.copy()
        if learning.row_share < 1:
            used_rows &= self._draw(len(used_rows)) < learning.row_share
            if not used_rows.any():
                used_rows = labels.train.copy()
        for at in range(0, len(used_rows), PART):
            part = slice(at, at + PART)
            y = np.where(used_rows[part], self._y[part], 0.0)
            g, h = tree.gradients(self._margin[part], y, learning.objective)
            self._g[part], self._h[part] = np.where(used_rows[part], (g, h), 0.0)
        self._train = used_rows
        self._own_used = self._sample(labels.own.bins.shape[1])
        self._used = self._sample(self.columns)
        self._rows = Rows(self._total)
        self.level = 0
        self._sums: dict[int, npt.NDArray[np.int32]] = {}
        self._nodes: list[BrandNode | None] = [None]
        self._parents: dict[int, int] = {}
        total = float(self._g.sum()), float(self._h.sum())
        self._open = {0: tree.Node(*total, int(used_rows.sum()))}
        self.due = [0]
        return self._used

    def _draw(self, count: int) -> npt.NDArray[np.float64]:
        """Uniform in [0, 1), 32 bits."""
        return np.frombuffer(self._rng(4 * count), dtype=np.uint32) / 2.0**32

    def _sample(self, columns: int) -> npt.NDArray[np.int64]:
        if not columns:
            return np.zeros(0, dtype=np.int64)
        take = max(1, math.ceil(self._learning.column_share * columns))
        if take == columns:
            return np.arange(columns)
        return np.sort(np.argsort(self._draw(columns), kind="stable")[:take])

    def fixed_point(self) -> U32:
        """uint32[m, 2]: g and h of every row of the provider, 0 where the brand has no training row."""
        largest = max(float(np.abs(self._g).sum()), float(self._h.sum()), 2.0**-40)
        # One unit a row is what rounding can add to a sum.
        self._scale = 2.0 ** math.floor(math.log2((ROOM - len(self._g)) / largest))
        out = np.zeros((self._total, 2), dtype=np.uint32)
        for word, values in enumerate((self._g, self._h)):
            out[self._labels.rows, word] = np.rint(values * self._scale).astype(np.int32).view(np.uint32)
        return out

    # ---- a level -------------------------------------------------------------------------------------------

    def sums_shape(self) -> tuple[int, int, int]:
        return len(self.due), len(self._used), 2 * self._terms.bins

    def sums_bytes(self) -> int:
        return 4 * math.prod(self.sums_shape())

    def due_rows(self) -> tuple[Nodes, Nodes, int]:
        """(node of every row int16[m], slot of every node −1 if its sums are not due, how many are due)."""
        return self._rows.nodes, *slots_of(self.due, len(self._nodes))

    def take_sums(self, mine: U32) -> None:
        """This side's shares of the sums of the nodes that are due, uint32[due, U, 2B]."""
        self._mine = mine

    def split_level(self, theirs: U32) -> tuple[bytes, bytes]:
        """Open the sums and choose the splits: (heads, bits of the brand's own)."""
        opened = self._open_sums(theirs)
        if self._first is None:
            self._first = opened[0]
        open_nodes = sorted(self._open)
        slot, count = slots_of(open_nodes, len(self._nodes))
        own = tree.histogram(
            self._labels.own.bins,
            self._own_used,
            slot[self._rows.nodes[self._labels.rows]],
            (self._g, self._h),
            count,
            OWN_BINS,
        )
        self.chosen: dict[int, tuple[int, tree.Split]] = {}
        heads = bytearray()
        for number in open_nodes:
            found = self._best(self._open[number], own[slot[number]], opened[number])
            if found is None:
                heads += bytes(11)
                continue
            self.chosen[number] = found
            kind, split = found
            heads.append(kind)
            if kind == OWN:
                heads += bytes(10)  # which column it was stays with the brand
            else:
                mask = sum(1 << int(b) for b in np.flatnonzero(split.left))
                heads += split.column.to_bytes(2, "big") + mask.to_bytes(8, "big")
        self._mark_own()
        return bytes(heads), self._rows.pack(self._splits_of(OWN), len(self._nodes))

    def _open_sums(self, theirs: U32) -> dict[int, npt.NDArray[np.float64]]:
        """{node: float64[U, B, 2]} of all open nodes, siblings by subtraction."""
        exact: dict[int, npt.NDArray[np.int32]] = {}
        for position, number in enumerate(self.due):
            exact[number] = (self._mine[position] + theirs[position]).view(np.int32)
            sibling = self._sibling(number)
            if sibling is not None:
                parent = self._sums[self._parents[number]]
                exact[sibling] = (parent.view(np.uint32) - exact[number].view(np.uint32)).view(np.int32)
        if any((np.abs(s.astype(np.int64)) > ROOM).any() for s in exact.values()):
            # Sums of g and h can't be so large: the provider's shares are not of what it was sent.
            raise PeerError("boost.size", "the provider's sums are beyond what the sizes allow")
        self._sums = exact
        shape = (len(self._used), self._terms.bins, 2)
        return {n: exact[n].reshape(shape) / self._scale for n in self._open}

    def _sibling(self, number: int) -> int | None:
        if number == 0:
            return None
        return number + 1 if number % 2 else number - 1  # left children have odd numbers

    def _best(
        self, node: tree.Node, own: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]
    ) -> tuple[int, tree.Split] | None:
        if node.rows < self._learning.minimum_rows:
            return None
        found: tuple[int, tree.Split] | None = None
        for kind, sums, columns, used in (
            (OWN, own, self._own, self._own_used),
            (THEIRS, theirs, self._theirs, self._used),
        ):
            part = tree.Columns(columns.categorical[used], columns.missing[used], columns.monotone[used])
            split = tree.best(sums, part, node, self._learning)
            if split is not None and (found is None or split.gain > found[1].gain):
                named = tree.Split(split.gain, int(used[split.column]), split.left, split.sums, split.sign)
                found = kind, named
        return found

    def _splits_of(self, kind: int) -> list[int]:
        return [number for number, (k, _) in sorted(self.chosen.items()) if k == kind]

    def _mark_own(self) -> None:
        """Sides at the brand's splits: of its people by their bins, of all other rows by lot (README,
        section 6)."""
        splits, known = self._splits_of(OWN), len(self._nodes)
        if not splits:
            return
        columns, lefts = np.full(known, -1, dtype=np.int64), np.zeros((known, OWN_BINS), dtype=bool)
        for number in splits:
            split = self.chosen[number][1]
            columns[number], lefts[number] = split.column, split.left
        people = self._rows.mark_people(self._labels.rows, self._labels.own.bins, columns, lefts)
        shares = np.where(people.sum(axis=1) > 0, people[:, 1] / np.maximum(people.sum(axis=1), 1), 0.5)
        strangers = int(self._rows.sizes(known)[splits].sum() - people.sum())
        if strangers:
            self._rows.mark_strangers(self._known, columns, shares, self._draw(strangers))

    def bits_bytes(self) -> int:
        return self._rows.bytes_of(self._splits_of(THEIRS), len(self._nodes))

    def take_bits(self, data: bytes) -> None:
        self._rows.unpack(self._splits_of(THEIRS), len(self._nodes), data)

    def advance(self) -> bool:
        """Put rows into the children of this level's splits; whether another level of sums is due."""
        known, labels, l2 = len(self._nodes), self._labels, self._learning.l2
        left = np.full(known, -1, dtype=np.int16)
        following: dict[int, tree.Node] = {}
        pairs: list[tuple[int, int]] = []
        sums = self._rows.went_left(labels.rows, self._train, self._g, self._h, known)
        for number, node in sorted(self._open.items()):
            if number not in self.chosen:
                self._nodes[number] = BrandNode(
                    LEAF, node.rows, node.value(l2) * self._learning.learning_rate
                )
                continue
            kind, split = self.chosen[number]
            child = len(self._nodes)
            self._nodes += [None, None]
            self._parents[child] = self._parents[child + 1] = number
            left[number] = child
            bins = tuple(int(b) for b in np.flatnonzero(split.left)) if kind == OWN else ()
            self._nodes[number] = BrandNode(kind, node.rows, 0.0, split.column, bins, child, split.gain)
            exact, count = (float(sums[number, 0]), float(sums[number, 1])), int(sums[number, 2])
            pair = tree.children(node, split, (count, node.rows - count), exact, l2)
            following[child], following[child + 1] = pair
            pairs.append((child, child + 1))
        self._rows.advance(left)
        self._open, self.level = following, self.level + 1
        self.due = smaller(pairs, self._rows.sizes(len(self._nodes)))
        return bool(pairs) and self.level < self._terms.depth

    def end_tree(self) -> None:
        """What is still open becomes leaves; scores and the held-out loss follow."""
        for number, node in self._open.items():
            self._nodes[number] = BrandNode(
                LEAF, node.rows, node.value(self._learning.l2) * self._learning.learning_rate
            )
        nodes = tuple(node for node in self._nodes if node is not None)
        values = np.array([node.value for node in nodes])
        added = values[self._rows.nodes[self._labels.rows]]
        self._margin = self._margin + added
        self.trees.append(Tree(nodes))
        self._open = {}
        if self._labels.held.any():
            loss = self._held_loss()
            if loss < min(self._losses):
                self._best_margin = self._margin
            self._losses.append(loss)


def _signs(wanted: dict[int, int], columns: int) -> npt.NDArray[np.int8]:
    out = np.zeros(columns, dtype=np.int8)
    for column, sign in wanted.items():
        out[column] = sign
    return out
