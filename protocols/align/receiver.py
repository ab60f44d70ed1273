"""Align's receiver: learns the sender's row of each of its items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.align.messages import KIND
from protocols.align.tags import tag_bytes, tags_of
from protocols.errors import PeerError
from protocols.machine import Machine
from protocols.oprf.limits import Limits
from protocols.oprf.messages import check_session
from protocols.oprf.padding import Index, distinct_items, portion
from protocols.oprf.receiver import Receiving
from protocols.ristretto import Bytes, Rng


@dataclass(frozen=True, eq=False)
class AlignResult:
    """`rows: int64[n]`, the sender's row of item i or -1; `sender_rows` is the sender's size m."""

    rows: npt.NDArray[np.int64]
    sender_rows: int


class Receiver(Machine[AlignResult]):
    """Holds `items: uint8[n, 32]`; n may be 0. Learns which are the sender's, at which row, and its size.

    LocalError protocol.argument: wrong shape, repeated items, over the limits. PeerError: the codes of
    README section 6. `progress` counts items and rows.
    """

    def __init__(self, items: npt.ArrayLike, session: bytes, limits: Limits, rng: Rng) -> None:
        check_session(session)
        array = distinct_items(items, limits.max_receiver, "limits.max_receiver")
        wish = _Match(len(array), session)
        super().__init__(Receiving(KIND, session, array, limits.max_sender, rng, wish).opening())


class _Match:
    """Collects both sides' tags, then searches."""

    def __init__(self, n: int, session: bytes) -> None:
        self._n = n
        self._session = session
        self._own: list[Bytes] = []
        self._theirs = np.zeros((0, 1), dtype=np.uint8)

    def agree(self, size: int, rows: int, width: int) -> int:
        expected = tag_bytes(size, rows)
        if width != expected:
            # Shorter tags would give false matches, longer ones only cost.
            raise PeerError("align.size", f"tags of {width} bytes announced, {expected} are due")
        self._theirs = np.zeros((rows, width), dtype=np.uint8)
        return width

    def due(self, done: int, parts: int) -> int:
        return portion(len(self._theirs), done, parts)

    def outputs(self, first: int, outputs: Bytes) -> None:
        self._own.append(tags_of(outputs, self._session, self._theirs.shape[1]))

    def rows(self, first: int, rows: Bytes) -> None:
        self._theirs[first : first + len(rows)] = rows

    def result(self) -> AlignResult:
        own = np.concatenate(self._own)[: self._n]
        return AlignResult(Index(self._theirs).find(own), len(self._theirs))
