"""Scoring rows that the forest was not grown on. README, section 8.

The provider sends, for every split of its own and every row, the side on which the row would go; the brand
walks
its trees with them. Rows travel in blocks, so memory is bounded by a block and the brand's own rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.boost.bins import Table
from protocols.boost.messages import LEAF, OWN, PIECE
from protocols.boost.model import ProviderSplit, Tree, own_sides
from protocols.codec import B32, U32, U64, Codec, array_of
from protocols.errors import LocalError, PeerError
from protocols.labels import label
from protocols.machine import Done, Machine, Step


@dataclass(frozen=True)
class Ask:
    """Brand: digest of session and of which nodes it takes for the provider's, and m."""

    digest: B32
    rows: U64


@dataclass(frozen=True)
class RowBits:
    """Provider: of the rows of block `block`, split after split, a bit a row (1: left), padded to a byte."""

    block: U32
    data: bytes


TO_PROVIDER = Codec(Ask)
TO_BRAND = Codec(RowBits)


def _digest(nodes: Sequence[tuple[int, int]], session: bytes) -> B32:
    text = ",".join(f"{tree}:{node}" for tree, node in nodes).encode()
    return B32(hashlib.sha256(label("boost", "both", "score", session) + text).digest())


def _kept(splits: Sequence[ProviderSplit], digest: bytes, session: bytes) -> int | None:
    """How many of the splits are those of the trees that the brand holds; None if it means others.

    A brand that stopped early keeps the forest's first trees, while the provider has the splits of all that
    were grown.
    """
    running = hashlib.sha256(label("boost", "both", "score", session))
    for count in range(len(splits) + 1):
        ends = count in (0, len(splits)) or splits[count].tree != splits[count - 1].tree
        if ends and running.copy().digest() == digest:
            return count
        if count < len(splits):
            running.update(f"{',' if count else ''}{splits[count].tree}:{splits[count].node}".encode())
    return None


def _rows_each(splits: int) -> int:
    """Rows of a block: a multiple of eight."""
    return max(8, PIECE // max(splits, 1) * 8)


@dataclass(frozen=True)
class Sides:
    """What the provider learns: that so many rows were scored."""

    rows: int


class Answerer(Machine[Sides]):
    """The provider, with its model's splits and table.bins uint8[m, F] cut as they were for the fit."""

    def __init__(self, table: Table, splits: Sequence[ProviderSplit], session: bytes) -> None:
        table.check(64)
        for split in splits:
            if not 0 <= split.column < table.bins.shape[1]:
                raise LocalError(
                    "protocol.argument", f"the model splits column {split.column}, which is not there"
                )
        super().__init__(Step((), WaitAsk(table, splits, session)))


class WaitAsk:
    def __init__(self, table: Table, splits: Sequence[ProviderSplit], session: bytes) -> None:
        self._table, self._splits, self._session = table, splits, session

    def receive(self, message: bytes) -> Step[Sides]:
        ask, rows = TO_PROVIDER.decode(message, Ask), len(self._table.bins)
        kept = _kept(self._splits, ask.digest, self._session)
        if kept is None:
            # Another model, or another session: sides would be of splits that the brand doesn't mean.
            raise PeerError("protocol.binding", "the brand holds another model or another session")
        if ask.rows != rows:
            raise PeerError("boost.size", f"the brand counts on {ask.rows} rows, there are {rows}")
        return Step(self._bits(rows, self._splits[:kept]), Done(Sides(rows)), (rows, rows))

    def _bits(self, rows: int, splits: Sequence[ProviderSplit]) -> Iterator[bytes]:
        masks = np.array([[(s.mask >> b) & 1 for b in range(64)] for s in splits], dtype=bool).reshape(-1, 64)
        columns = [s.column for s in splits]
        each = _rows_each(len(columns))
        for number, start in enumerate(range(0, rows, each)):
            bins = self._table.bins[start : start + each]
            sides = [mask[bins[:, column]] for mask, column in zip(masks, columns, strict=True)]
            packed = np.packbits(np.array(sides, dtype=bool).reshape(len(columns), len(bins)), axis=1)
            yield TO_BRAND.encode(RowBits(U32(number), packed.tobytes()))


class Scorer(Machine[npt.NDArray[np.float64]]):
    """The brand: rows int64[k] of the provider, own bins of the same k people; gives margins float64[k]."""

    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        own: Table,
        total_rows: int,
        start: float,
        trees: Sequence[Tree],
        session: bytes,
    ) -> None:
        own.check(256)
        if len(own.bins) != len(rows) or (len(rows) and not 0 <= rows.min() <= rows.max() < total_rows):
            raise LocalError(
                "protocol.argument", f"{len(rows)} rows from 0 to {total_rows - 1} with their own bins"
            )
        nodes = [(t, n) for t, tree in enumerate(trees) for n in tree.theirs]
        ask = Ask(_digest(nodes, session), U64(total_rows))
        state = WaitBits(rows, own, total_rows, start, trees, len(nodes))
        super().__init__(Step((TO_PROVIDER.encode(ask),), state))


class WaitBits:
    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        own: Table,
        total: int,
        start: float,
        trees: Sequence[Tree],
        splits: int,
    ) -> None:
        self._rows, self._own, self._total, self._trees, self._splits = rows, own, total, trees, splits
        self._scores = np.full(len(rows), start)
        self._block = 0

    def receive(self, message: bytes) -> Step[npt.NDArray[np.float64]]:
        sent = TO_BRAND.decode(message, RowBits)
        if sent.block != self._block:
            raise PeerError("boost.order", f"block {sent.block} came where block {self._block} was due")
        each = _rows_each(self._splits)
        low = self._block * each
        count = min(each, self._total - low)
        packed = array_of(sent.data, "u1", self._splits, (count + 7) // 8)
        sides = np.unpackbits(packed, axis=1, count=count).astype(bool)
        mine = np.flatnonzero((self._rows >= low) & (self._rows < low + count))
        self._scores[mine] += self._walk(mine, sides[:, self._rows[mine] - low])
        self._block += 1
        done = low + count
        if done < self._total:
            return Step((), self, (done, self._total))
        return Step((), Done(self._scores), (done, self._total))

    def _walk(self, mine: npt.NDArray[np.int64], sides: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Sum of the leaves of these people; sides bool[splits, len(mine)] are the provider's."""
        added, at, bins = np.zeros(len(mine)), 0, self._own.bins[mine]
        for tree in self._trees:
            where = np.zeros(len(mine), dtype=np.int64)
            for number, node in enumerate(tree.nodes):  # children have higher numbers than their parents
                if node.kind == LEAF:
                    continue
                left = own_sides(node, bins) if node.kind == OWN else sides[at]
                at += node.kind != OWN
                here = where == number
                where[here] = np.where(left[here], node.child, node.child + 1)
            added += np.array([node.value for node in tree.nodes])[where]
        return added
