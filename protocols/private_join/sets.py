"""A side's set on the wire: items, its dummies, all of the other side's dummies, padding, in secret order.

README, section 4. Everything here works on whole arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocols.errors import PeerError
from protocols.labels import label
from protocols.oprf.padding import ITEM, Index, padded_size
from protocols.oprf.suite import hash_to_group
from protocols.private_join.noise import sample
from protocols.private_join.terms import HOLDER, PROTOCOL, VALUER, JoinResult, Noise, Terms, withholds
from protocols.ristretto import POINT, Bytes, Rng, joined, random_bytes


def padded(items: int, terms: Terms) -> int:
    """How many elements a side with so many items sends: the same whatever its dummies are."""
    return padded_size(items) + 4 * terms.size_noise.bound


def is_padded(size: int, terms: Terms) -> bool:
    """Whether `size` is on the grid; another one would tell more about the peer than its README says."""
    items = size - 4 * terms.size_noise.bound
    return items > 0 and items == padded_size(items)


def permutation(n: int, rng: Rng) -> npt.NDArray[np.int64]:
    """A uniform order of n rows: the order of n 128-bit words of `rng` (two are equal with 2^-129 n^2)."""
    words = random_bytes(n, 16, rng).view(np.uint64).reshape(n, 2)
    return np.lexsort((words[:, 0], words[:, 1]))


class Own:
    """One side's set as it goes on the wire.

    `points: uint8[size, 32]` are H of its elements in secret order, and `order[i]` is the item at place i, or
    something not below the number of items for dummies and padding. `eta` is its number of dummies.
    """

    def __init__(self, items: Bytes, role: str, session: bytes, terms: Terms, rng: Rng) -> None:
        other = VALUER if role == HOLDER else HOLDER
        noise = terms.size_noise
        pool = 2 * noise.bound
        self._terms = terms
        self.eta = noise.bound + draw(noise, rng)
        self.size = padded(len(items), terms)
        # Padding takes the place of dummies that are not put in, so that the size doesn't tell eta.
        fill = self.size - len(items) - pool - self.eta
        people = np.concatenate([items, random_bytes(fill, ITEM, rng)])
        prefix = label(PROTOCOL, "both", "item", session)
        points = np.concatenate(
            [
                hash_to_group(joined(len(people), prefix, people)),
                dummies(role, session, self.eta),
                dummies(other, session, pool),
            ]
        )
        self.order = permutation(self.size, rng)
        self.points = np.ascontiguousarray(points[self.order])

    def result(self, peer_size: int, count: int, sums: tuple[int, ...] | None) -> JoinResult:
        """What this side learned from the common `count`: without its own dummies."""
        noise = self._terms.size_noise
        withheld = bool(self._terms.bounds) and withholds(self._terms, count)
        size = count - self.eta - noise.bound
        items = peer_size - padded(0, self._terms) + padded_size(0)
        return JoinResult(size, float(1 / noise.rate), sums, withheld, items)


def draw(noise: Noise, rng: Rng) -> int:
    """One draw of the law; 0 without noise."""
    return sample(noise.rate, noise.bound, rng) if noise.bound else 0


def dummies(role: str, session: bytes, count: int) -> Bytes:
    """H of the first `count` elements of this side's pool, which both sides know.

    The label says "dummy" and not "item", so H's inputs differ and no person can be one of them.
    """
    numbers = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
    return hash_to_group(joined(count, label(PROTOCOL, role, "dummy", session), numbers))


def refuse_repeated(elements: Bytes, whose: str) -> None:
    """PeerError if an element comes twice.

    A side that puts a person in a hundred times would see the answer for it above any noise.
    """
    if len(np.unique(elements.view(f"V{POINT}").reshape(-1))) != len(elements):
        raise PeerError("private_join.repeated", f"the {whose}'s elements are not distinct")


class Matcher:
    """Which elements are among those of a fixed set `uint8[n, 32]`."""

    def __init__(self, elements: Bytes) -> None:
        self._elements = elements
        self._index = Index(np.ascontiguousarray(elements[:, :16]))

    def find(self, elements: Bytes) -> npt.NDArray[np.bool_]:
        at = self._index.find(np.ascontiguousarray(elements[:, :16]))
        # Equal in 16 bytes is almost always the same element; all 32 decide.
        equal: npt.NDArray[np.bool_] = (self._elements[at] == elements).all(axis=1) & (at >= 0)
        return equal
