"""Recording events of consent, one or millions, and what is held about one person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from consent_center import batch as batches
from consent_center import events, examine, few
from consent_center.embedded.base import Base
from consent_center.errors import ConsentError
from consent_center.model import KINDS, ConsentEvent, Explanation, Recorded, RecordedMany
from consent_center.receipts import make as receipts
from consent_center.subjects import SQL_LOOKUP


class Recording(Base):
    """The calls about events."""

    def record(self, event: ConsentEvent) -> Recorded:
        """Record one event. Raises `event.*`; then nothing was written."""
        written = self._record([event], "raise")
        many = written.recorded
        return Recorded(many.first_sequence, many.first_leaf, int(many.subjects[0]), written.ignored)

    def record_many(self, events: Sequence[ConsentEvent] | pa.Table, on_error: str = "raise") -> RecordedMany:
        """Record a batch in one transaction; a table is the fast way (README, "Bulk", lists its columns).

        `on_error` "raise": the first bad row raises its `event.*` with `.row`, nothing is written; "skip":
        bad rows are in the answer's `errors`, the others are written.
        """
        if on_error not in ("raise", "skip"):
            raise ConsentError("event.batch", f"on_error is 'raise' or 'skip', not {on_error!r}")
        table = events if isinstance(events, pa.Table) else batches.table_of(events)
        return self._record(table, on_error).recorded

    def _record(self, told: pa.Table | list[ConsentEvent], on_error: str) -> events.Written:
        with self._write() as connection:
            now = self._now()
            parse = few.parse if isinstance(told, list) else batches.parse
            batch = parse(told, self._registry(connection), self._controller, now)
            _raise_first(batch, on_error)
            written = self._write_batch(connection, batch, now, assumed=False)
            _raise_first(batch, on_error)
            return written

    def assume(
        self,
        values: pa.Array,
        kind: str,
        purpose: str,
        recipient: str,
        categories: Sequence[str],
        reason: str,
        actor: str,
    ) -> RecordedMany:
        """Record consent that was NOT given here but is assumed, as such (method "assumed"), with the reason.

        For evaluations on one's own files. It never outweighs an event of the person. One event a person;
        rows that can't be used have subject -1. Raises `event.*`, `identifier.*`.
        """
        if not reason.strip() or len(reason) > 1000 or len(actor) > 512:
            raise ConsentError("event.text", "assumed consent needs a reason (1 to 1000 characters)")
        if kind not in KINDS:
            raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
        with self._write() as connection:
            now = self._now()
            known = self._registry(connection)
            current = known.current.get(purpose)
            fields = {
                "purpose": purpose,
                "purpose_version": current.version if current else 0,
                "action": "granted",
                "recipient": recipient,
                "notice": "",
                "notice_version": 0,
                "controller": self._controller,
                "regulation": "PIPL",
                "channel": "import",
                "method": batches.ASSUMED,
                "categories": list(categories),
                "reason": reason,
                "actor": actor,
            }
            descriptor = batches.check_descriptor(fields, known, self._controller)
            rows, days = len(values), current.duration_days if current else None
            batch = batches.Batch(
                [descriptor],
                np.zeros(rows, np.int64),
                [(kind, values)],
                np.full(rows, now, np.int64),
                np.full(rows, batches.NEVER if days is None else now + days * batches.DAY, np.int64),
                np.full(rows, batches.NEVER, np.int64),
                None,
                {},
            )
            return self._write_batch(connection, batch, now, assumed=True).recorded

    def _write_batch(
        self, connection: sa.Connection, batch: batches.Batch, now: int, assumed: bool
    ) -> events.Written:
        if batch.rows * len(batch.identifiers) <= SQL_LOOKUP:
            return events.write(connection, self._keys, batch, now, None, assumed)
        with self._lock:
            self._catch_up(connection)
            return events.write(connection, self._keys, batch, now, self._state.index(connection), assumed)

    def explain(self, kind: str, value: str) -> Explanation:
        """Everything held about the person with that identifier. `subject.unknown`, `identifier.kind`."""
        with self._read() as connection:
            subject = examine.find(connection, self._keys, kind, value)
            return examine.explain(connection, self._keys, subject)

    def erase(self, kind: str, value: str, actor: str) -> int:
        """Destroy the person's keys and identifiers; the ledger stays verifiable. The erasure's sequence
        number.

        `subject.unknown`. Copies of the database from before (backups, SQLite's write-ahead log until its
        next checkpoint) still have the salt: they need the data key, which is kept apart.
        """
        with self._write() as connection:
            subject = examine.find(connection, self._keys, kind, value)
            return examine.erase(connection, self._keys, subject, self._controller, actor, self._now())

    def receipt(self, sequence: int, identifiers: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """The signed receipt of an event (`receipts.make`). `receipt.event`, `receipt.identifier`."""
        with self._read() as connection:
            return receipts.make(connection, self._keys, sequence, identifiers, self._now())


def _raise_first(batch: batches.Batch, on_error: str) -> None:
    if batch.bad and on_error == "raise":
        row = min(batch.bad)
        raise ConsentError(*batch.bad[row], row if batch.rows > 1 else None)
