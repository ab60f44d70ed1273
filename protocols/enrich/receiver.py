"""Enrich's receiver: learns the sender's records of its items, and cannot open any other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols.enrich.limits import Limits
from protocols.enrich.messages import KIND
from protocols.enrich.records import row_bytes, tags_and_keys
from protocols.errors import PeerError
from protocols.machine import Machine
from protocols.oprf.messages import check_session
from protocols.oprf.padding import Index, distinct_items, words
from protocols.oprf.receiver import Receiving
from protocols.ristretto import Bytes, Mask, Rng, unseal
from protocols.security import LOOKUP_TAG_BYTES


@dataclass(frozen=True, eq=False)
class EnrichResult:
    """`found: bool[n]`, and `records: uint8[n, width]`, zero where nothing was found."""

    found: Mask
    records: Bytes = field(repr=False)


class Receiver(Machine[EnrichResult]):
    """Holds `items: uint8[n, 32]`; n may be 0. Learns its own records, the sender's size and width.

    LocalError protocol.argument: wrong shape, repeated items, over the limits. PeerError: the codes of
    README section 6. `progress` counts items and rows.
    """

    def __init__(self, items: npt.ArrayLike, session: bytes, limits: Limits, rng: Rng) -> None:
        check_session(session)
        array = distinct_items(items, limits.max_receiver, "limits.max_receiver")
        wish = _Open(len(array), session, limits.max_width)
        super().__init__(Receiving(KIND, session, array, limits.max_sender, rng, wish).opening())


class _Open:
    """Keeps its own tags and keys, and of each piece of the table only what they open."""

    def __init__(self, n: int, session: bytes, max_width: int) -> None:
        self._n = n
        self._session = session
        self._max_width = max_width
        self._tags: list[Bytes] = []
        self._keys: list[Bytes] = []
        self._own: tuple[Index, Bytes] | None = None
        self._total = 0
        self._last: tuple[int, int] | None = None
        self._found = np.zeros(n, dtype=np.bool_)
        self._records = np.zeros((n, 1), dtype=np.uint8)

    def agree(self, size: int, rows: int, width: int) -> int:
        if not 1 <= width <= self._max_width:
            raise PeerError(
                "protocol.too_large", f"records of {width} bytes announced, 1 to {self._max_width} is allowed"
            )
        self._total = rows
        self._records = np.zeros((self._n, width), dtype=np.uint8)
        return row_bytes(width)

    def due(self, done: int, parts: int) -> int:
        return self._total if done == parts else 0

    def outputs(self, first: int, outputs: Bytes) -> None:
        tags, keys = tags_and_keys(outputs, self._session)
        self._tags.append(tags)
        self._keys.append(keys)

    def rows(self, first: int, rows: Bytes) -> None:
        tags, sealed = rows[:, :LOOKUP_TAG_BYTES], rows[:, LOOKUP_TAG_BYTES:]
        self._check_order(first, tags)
        if self._own is None:
            self._own = Index(np.concatenate(self._tags)[: self._n]), np.concatenate(self._keys)
        index, keys = self._own
        item = index.find(tags)
        hit = np.flatnonzero(item >= 0)
        records, good = unseal(keys[item[hit]], sealed[hit])
        if not good.all():
            at = first + int(hit[~good][0])
            raise PeerError(
                "enrich.tampered",
                f"{int((~good).sum())} records fail authentication, the first at row {at}; "
                "ask again in a new session, and keep the transcript if it repeats",
            )
        self._found[item[hit]] = True
        self._records[item[hit]] = records

    def _check_order(self, first: int, tags: Bytes) -> None:
        # Any other order could carry the sender's own, or hide that one tag has two records.
        high, low = words(tags)
        up = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
        start = int(high[0]), int(low[0])
        if not up.all() or (self._last is not None and start <= self._last):
            raise PeerError("enrich.order", f"rows {first}… of the table are not in strictly rising order")
        self._last = int(high[-1]), int(low[-1])

    def result(self) -> EnrichResult:
        return EnrichResult(self._found, self._records)
