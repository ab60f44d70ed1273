"""From withdrawal to enforcement, measured: by a job's lease checks and by receivers' acknowledgements.

A lease check that drops people for the first time writes a leaf (kind "enforcement") with how long each had
waited; an acknowledgement stands in the leaf of the dispatcher's round. The report is made of leaves alone.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from consent_center import database as db
from consent_center.batch import moment
from consent_center.ledger import log
from consent_center.outbox import queue
from consent_center.outbox.tables import lease_checks

Ints = npt.NDArray[np.int64]
LEAF_KIND = "enforcement"
#: Times in one leaf; of more people a check keeps evenly spaced quantiles.
_KEPT = 1_000


def measured_up_to(connection: sa.Connection, snapshot: str, start: int) -> int:
    """The last event whose drop was measured for that snapshot."""
    query = sa.select(lease_checks.c.sequence).where(lease_checks.c.snapshot == snapshot)
    found = connection.execute(query).scalar_one_or_none()
    return start if found is None else int(found)


def new_waits(connection: sa.Connection, after: int, dropped: Ints, now: int) -> Ints:
    """int64[k], milliseconds: how long the first event after `after` of each dropped subject waits."""
    if not len(dropped):
        return np.empty(0, np.int64)
    table = db.events
    query = sa.select(table.c.subject, table.c.recorded_at).where(table.c.sequence > after)
    subject, recorded = db.columns(connection, query)
    mine = np.isin(subject, dropped)
    if not mine.any():
        return np.empty(0, np.int64)
    order = np.lexsort((recorded[mine], subject[mine]))
    first = np.append(True, np.diff(subject[mine][order]) != 0)
    waits: Ints = np.maximum(0, now - recorded[mine][order][first]) // 1000
    return waits


def note(connection: sa.Connection, document: dict[str, Any], sequence: int, waits: Ints, now: int) -> None:
    """Write what a lease check has enforced."""
    kept = np.sort(waits)
    if len(kept) > _KEPT:
        kept = kept[np.linspace(0, len(kept) - 1, _KEPT).astype(np.int64)]
    told = {
        "snapshot": document["id"],
        "job": document["job_id"],
        "purpose": document["purpose"],
        "recipient": document["recipient"],
        "sequence": sequence,
        "people": len(waits),
        "waits_ms": kept.tolist(),
        "at": moment(now),
    }
    log.append_entries(connection, [(LEAF_KIND, told)])
    where = lease_checks.c.snapshot == document["id"]
    if connection.execute(lease_checks.update().where(where).values(sequence=sequence)).rowcount == 0:
        connection.execute(lease_checks.insert().values(snapshot=document["id"], sequence=sequence))


def summary(times: list[int]) -> dict[str, Any]:
    """Count, median, 99th percentile and maximum in milliseconds; None where nothing was measured."""
    if not times:
        return {"count": 0, "p50_ms": None, "p99_ms": None, "max_ms": None}
    p50, p99 = np.percentile(np.array(times), [50, 99], method="inverted_cdf").tolist()
    return {"count": len(times), "p50_ms": int(p50), "p99_ms": int(p99), "max_ms": max(times)}


def report(connection: sa.Connection) -> dict[str, Any]:
    """The times of all lease checks, by recipient, and of all acknowledgements, by webhook."""
    jobs: dict[str, list[int]] = {}
    hooks: dict[str, list[int]] = {}
    table = db.entries
    query = sa.select(table.c.kind, table.c.payload).where(table.c.kind.in_((LEAF_KIND, queue.RESULT_KIND)))
    for kind, payload in connection.execute(query):
        told = json.loads(payload)
        if kind == LEAF_KIND:
            jobs.setdefault(told["recipient"], []).extend(told["waits_ms"])
        for entry in told.get("delivered", ()):
            hooks.setdefault(entry["webhook"], []).append(int(entry["lag_ms"]))
    every = [ms for times in jobs.values() for ms in times]
    acked = [ms for times in hooks.values() for ms in times]
    return {
        "jobs": {**summary(every), "by_recipient": {name: summary(jobs[name]) for name in sorted(jobs)}},
        "webhooks": {**summary(acked), "by_webhook": {name: summary(hooks[name]) for name in sorted(hooks)}},
    }
