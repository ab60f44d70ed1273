"""The ideal functionality of boost: a trusted third party that sees both tables. The tests' oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from protocols.boost.bins import Table
from protocols.boost.growth import Forest
from protocols.boost.messages import THEIRS
from protocols.boost.model import BrandResult
from protocols.boost.people import Labels
from protocols.boost.terms import Learning, Terms


def boost(
    labels: Labels, table: Table, terms: Terms, learning: Learning, rng: Callable[[int], bytes]
) -> BrandResult:
    """The same forest from sums that are taken in the open, row by row in plain numpy, without shares."""
    rows, columns = table.bins.shape
    forest = Forest(labels, rows, table.categorical, table.missing, terms, learning, rng)
    while not forest.finished:
        used = forest.begin()
        values = forest.fixed_point()
        nodes = np.zeros(rows, dtype=np.int64)  # kept here, apart from the forest's own
        growing = True
        while growing:
            forest.take_sums(np.zeros(forest.sums_shape(), dtype=np.uint32))
            sums = np.zeros(forest.sums_shape(), dtype=np.uint32)
            for slot, number in enumerate(forest.due):
                here = np.flatnonzero(nodes == number)
                for u, column in enumerate(used):
                    for word in (0, 1):
                        place = 2 * table.bins[here, column].astype(np.int64) + word
                        np.add.at(sums[slot, u], place, values[here, word])
            forest.split_level(sums)
            bit = forest.bits
            for number, (kind, split) in forest.chosen.items():
                here = nodes == number
                if kind == THEIRS:
                    bit[here] = split.left[table.bins[here, split.column]]
            before = forest.node_count
            split_now = sorted(forest.chosen)
            growing = forest.advance()
            for position, number in enumerate(split_now):
                child = before + 2 * position
                here = nodes == number
                nodes[here] = np.where(bit[here] > 0, child, child + 1)
        forest.end_tree()
    return forest.result()
