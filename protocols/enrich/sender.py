"""Enrich's sender: evaluates the receiver's elements and sends all of its records, each sealed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from protocols.codec import U64
from protocols.enrich.limits import Limits
from protocols.enrich.messages import KIND, Table
from protocols.enrich.records import row_bytes, tags_and_keys
from protocols.errors import LocalError
from protocols.machine import Machine
from protocols.oprf.messages import check_session
from protocols.oprf.padding import CHUNK, Index, distinct_items, pieces, portion, rows_per_message
from protocols.oprf.sender import SenderResult, Sending
from protocols.oprf.suite import evaluate, generate_key
from protocols.ristretto import Bytes, Rng, joined, seal
from protocols.security import LOOKUP_TAG_BYTES, RECORD_KEY_BYTES


class Sender(Machine[SenderResult]):
    """Holds `items: uint8[m, 32]` and `records: uint8[m, width]`; m may be 0, width is at least 1.

    Learns the receiver's padded size only. All records travel, so the receiver learns m and width, but can
    open only those whose items it asked for. All records have one width (the caller pads shorter ones).
    LocalError protocol.argument: wrong shapes, repeated items, over the limits.
    """

    def __init__(
        self, items: npt.ArrayLike, records: npt.ArrayLike, session: bytes, limits: Limits, rng: Rng
    ) -> None:
        check_session(session)
        array = distinct_items(items, limits.max_sender, "limits.max_sender")
        table = np.asarray(records)
        if table.dtype != np.uint8 or table.ndim != 2 or len(table) != len(array):
            raise LocalError(
                "protocol.argument",
                f"records must be uint8[{len(array)}, width], {table.dtype}{list(table.shape)} was given",
            )
        if not 1 <= table.shape[1] <= limits.max_width:
            raise LocalError(
                "protocol.argument", f"records of {table.shape[1]} bytes; 1 to {limits.max_width} is allowed"
            )
        # One key a session, and thereby a fresh key for every record of every session.
        key = generate_key(rng)
        offer = _Sealed(array, table, session, key)
        super().__init__(Sending(KIND, session, key, limits.max_receiver, offer).opening())


class _Sealed:
    """Computes tags and keys while the receiver's elements pass; sends the table after the last of them."""

    def __init__(self, items: Bytes, records: Bytes, session: bytes, key: Bytes) -> None:
        self.rows = len(items)
        self.done = 0
        self._items = items
        self._records = records
        self._session = session
        self._key = key
        self._tags = np.zeros((self.rows, LOOKUP_TAG_BYTES), dtype=np.uint8)
        self._keys = np.zeros((self.rows, RECORD_KEY_BYTES), dtype=np.uint8)

    def agree(self, size: int) -> int:
        return int(self._records.shape[1])

    def serve(self, part: int, parts: int) -> Iterator[bytes]:
        low, high = portion(self.rows, part, parts), portion(self.rows, part + 1, parts)
        for at, end in pieces(low, high, CHUNK):
            outputs = evaluate(self._key, self._items[at:end])
            self._tags[at:end], self._keys[at:end] = tags_and_keys(outputs, self._session)
            self.done = end
        if part == parts - 1:
            yield from self._table()

    def _table(self) -> Iterator[bytes]:
        # In the order of the tags, which are pseudorandom: a record's place says nothing about its row.
        order = Index(self._tags).order
        for at, end in pieces(0, self.rows, rows_per_message(row_bytes(self._records.shape[1]))):
            rows = order[at:end]
            sealed = seal(self._keys[rows], self._records[rows])
            data = joined(len(rows), self._tags[rows], sealed)
            yield KIND.to_receiver.encode(Table(U64(at), data.tobytes()))
