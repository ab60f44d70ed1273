"""A dealer's correlated OT for the tests of boost, and small random tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from protocols.boost import Labels, Table
from protocols.machine import Done, Machine, Step
from protocols.vole.chosen import Strings, Taker


class Dealer:
    """Gives both sides the strings of an ideal correlated OT: `sender` and `receiver` go into the
    machines."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._given: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]] | None = None

    def _words(self, what: str, count: int) -> np.ndarray:
        raw = hashlib.shake_256(f"{self._seed}/{what}".encode()).digest(16 * count)
        return np.frombuffer(raw, dtype=np.uint64).reshape(count, 2).copy()

    def sender(
        self, sizes: Sequence[int], session: bytes, rng: Callable[[int], bytes], take: Taker
    ) -> Machine[Strings]:
        dealer = self

        class Wait:
            def receive(self, message: bytes) -> Step[Strings]:
                deltas = tuple(dealer._words(f"delta {s}", 1)[0] for s in range(len(sizes)))
                words = tuple(dealer._words(f"q {s}", size) for s, size in enumerate(sizes))
                dealer._given = deltas, words
                for segment in zip(words, deltas, strict=True):
                    take(*segment)
                return Step((b"dealt",), Done(Strings((), ())))

        return Machine(Step((), Wait()))

    def receiver(
        self, choices: Sequence[np.ndarray], session: bytes, rng: Callable[[int], bytes], take: Taker
    ) -> Machine[Strings]:
        dealer = self

        class Wait:
            def receive(self, message: bytes) -> Step[Strings]:
                assert dealer._given is not None
                mine = tuple(
                    q ^ (c.astype(np.uint64)[:, None] * delta)
                    for delta, q, c in zip(*dealer._given, choices, strict=True)
                )
                for words in mine:
                    take(words, np.zeros(2, dtype=np.uint64))
                return Step((), Done(Strings((), ())))

        return Machine(Step((b"deal",), Wait()))


def random_table(rng: np.random.Generator, rows: int, columns: int, bins: int) -> Table:
    """Some columns categorical, some with missing values, some constant."""
    widths = rng.integers(1, bins + 1, columns)
    values = (rng.random((rows, columns)) * widths).astype(np.uint8)
    categorical = rng.random(columns) < 0.3
    return Table(np.ascontiguousarray(values), categorical, (rng.random(columns) < 0.3) & ~categorical)


def random_labels(rng: np.random.Generator, total: int, own_columns: int, theirs: Table) -> Labels:
    """People whose label depends on both tables, some held out, some only scored."""
    count = int(rng.integers(130, total + 1))
    rows = rng.permutation(total)[:count].astype(np.int64)
    own = random_table(rng, count, own_columns, 40)
    signal = theirs.bins[rows].sum(axis=1) + own.bins.sum(axis=1)
    y = (signal + rng.normal(0, signal.std() + 0.1, count) > np.median(signal)).astype(float)
    part = rng.random(count)
    train, held = part < 0.85, (part >= 0.85) & (part < 0.95)
    y[train & (np.cumsum(train) == 1)] = 0.0
    y[train & (np.cumsum(train) == 2)] = 1.0
    y[~train & ~held] = np.nan
    return Labels(rows, y, train, held, own)


def part_of(result: Any) -> Any:
    """What two runs of a forest must have in common."""
    return [[(n.kind, n.column, n.left, n.child, n.rows) for n in tree.nodes] for tree in result.trees]
