"""What the center offers for webhooks: receivers, queue, dead letters, enforcement times."""

from __future__ import annotations

import base64
import hmac
import json
import os
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent_center import subjects
from consent_center.batch import moment
from consent_center.errors import ConsentError
from consent_center.identifiers import OK, normalise
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.ledger.verify import canonical
from consent_center.model import KINDS as IDENTIFIER_KINDS
from consent_center.outbox import queue, targets, timing
from consent_center.outbox.queue import DEAD, DELIVERED, EVERYBODY, PENDING, Webhook
from consent_center.outbox.tables import outbox, webhooks
from consent_center.outbox.verify import PUBLIC, SECRET, signed
from consent_center.registry import is_name

SECOND = 1_000_000
#: The first pause after a failure, the longest, and how many attempts a message gets (about 20 hours).
FIRST_PAUSE, LONGEST_PAUSE, ATTEMPTS = 5 * SECOND, 6 * 3600 * SECOND, 14
#: So long a dispatcher may work on what it has taken; then another takes it.
CLAIM = 120 * SECOND


@dataclass(frozen=True)
class Outbox:
    """One center's outbox."""

    keys: Keys
    controller: str
    read: Callable[[], AbstractContextManager[sa.Connection]]
    write: Callable[[], AbstractContextManager[sa.Connection]]
    now: Callable[[], int]

    # ---- receivers -----------------------------------------------------------------------------------------

    def put_webhook(
        self,
        id: str,
        url: str,
        recipient: str,
        kinds: Sequence[str] = queue.DEFAULT_KINDS,
        private: bool = False,
        actor: str = "",
    ) -> dict[str, Any]:
        """Register a receiver or change one; it with its secret. `webhook.url`, `webhook.field`.

        `recipient`: whose events it gets; `*` for the organisation's own systems: all. `private`: its address
        may be in a private network.
        """
        if not is_name(id) or not (recipient == EVERYBODY or is_name(recipient)):
            raise ConsentError(
                "webhook.field", "id and recipient are names without blanks; recipient may be *"
            )
        strange = [kind for kind in kinds if kind not in queue.KINDS]
        if strange or not kinds:
            raise ConsentError("webhook.field", f"kinds are some of {', '.join(queue.KINDS)}")
        body = {
            "url": targets.check_url(url),
            "recipient": recipient,
            "kinds": sorted(set(kinds)),
            "private": private,
        }
        with self.write() as connection:
            held = connection.execute(sa.select(webhooks).where(webhooks.c.id == id)).first()
            salt = os.urandom(32) if held is None else held.salt
            values = {"body": canonical(body).decode(), "active": 1, "salt": salt}
            if held is None:
                connection.execute(webhooks.insert().values(id=id, **values))
            else:
                connection.execute(webhooks.update().where(webhooks.c.id == id).values(**values))
            told = {"id": id, "webhook": body, "active": True, "actor": actor}
            log.append_entries(connection, [(queue.HOOK_KIND, told)])
        return {
            "id": id,
            **body,
            "active": True,
            "secret": self._secret(salt),
            "public_key": self.public_key(),
        }

    def switch_webhook(self, id: str, active: bool, actor: str = "") -> dict[str, Any]:
        """Switch a receiver off or on; what is queued for one that is off waits. `webhook.unknown`."""
        with self.write() as connection:
            row = self._row(connection, id)
            connection.execute(webhooks.update().where(webhooks.c.id == id).values(active=int(active)))
            told = {"id": id, "webhook": json.loads(row.body), "active": active, "actor": actor}
            log.append_entries(connection, [(queue.HOOK_KIND, told)])
        return {"id": id, "active": active}

    def webhooks(self) -> list[dict[str, Any]]:
        """All receivers, with what waits for each; without secrets."""
        with self.read() as connection:
            rows = sorted(connection.execute(sa.select(webhooks)).all(), key=lambda row: str(row.id))
            count = sa.select(outbox.c.webhook, outbox.c.state, sa.func.count())
            found: dict[str, dict[str, int]] = {}
            for hook, state, number in connection.execute(count.group_by(outbox.c.webhook, outbox.c.state)):
                found.setdefault(hook, {})[state] = int(number)
        empty = {PENDING: 0, DELIVERED: 0, DEAD: 0}
        return [
            {
                "id": row.id,
                **json.loads(row.body),
                "active": bool(row.active),
                **empty,
                **found.get(row.id, {}),
            }
            for row in rows
        ]

    def _row(self, connection: sa.Connection, id: str) -> Any:
        row = connection.execute(sa.select(webhooks).where(webhooks.c.id == id)).first()
        if row is None:
            raise ConsentError("webhook.unknown", f"no webhook {id!r} is registered")
        return row

    def _secret(self, salt: bytes) -> str:
        raw = hmac.digest(self.keys.data, b"webhook secret\x00" + salt, "sha256")
        return SECRET + base64.b64encode(raw).decode()

    def _signer(self) -> Ed25519PrivateKey:
        """A key of its own, so that no signed message can pass for a checkpoint."""
        seed = hmac.digest(self.keys.signer.seed, b"pec/consent/webhook/v1", "sha256")
        return Ed25519PrivateKey.from_private_bytes(seed)

    def public_key(self) -> str:
        """What receivers verify with: `whpk_…`."""
        return PUBLIC + base64.b64encode(self._signer().public_key().public_bytes_raw()).decode()

    def persons(self, id: str, kind: str, values: Sequence[str]) -> list[str]:
        """A receiver's own pseudonyms of people, so that it knows whom a message is about; "" for unknown."""
        if kind not in IDENTIFIER_KINDS:
            raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(IDENTIFIER_KINDS)}")
        if len(values) > 10_000:
            raise ConsentError("webhook.field", "at most 10,000 values")
        normal = normalise(pa.array(values, pa.string()), kind)
        rows = np.flatnonzero(normal.status == OK)
        hashed = subjects.pseudonyms(self.keys.pseudonym, kind, normal.values.take(rows))
        found = [""] * len(values)
        with self.read() as connection:
            self._row(connection, id)
            ordinals = subjects.sql_lookup(connection, hashed)
            known = np.flatnonzero(ordinals >= 0)
            if len(known):
                named = queue.persons(self.keys, id, subjects.salts_of(connection, ordinals[known]))
                for at, name in zip(rows[known].tolist(), named, strict=True):
                    found[at] = name
        return found

    # ---- queue ---------------------------------------------------------------------------------------------

    def messages(self, state: str = DEAD, limit: int = 200) -> list[dict[str, Any]]:
        """Messages in a state (`pending`, `delivered`, `dead`), the oldest first."""
        if state not in (PENDING, DELIVERED, DEAD):
            raise ConsentError("webhook.field", f"{state!r} is none of {PENDING}, {DELIVERED}, {DEAD}")
        with self.read() as connection:
            query = sa.select(outbox).where(outbox.c.state == state).order_by(outbox.c.number).limit(limit)
            return [
                {
                    "number": int(row.number),
                    "webhook": row.webhook,
                    "type": json.loads(row.body)["type"],
                    "created_at": moment(row.created_at),
                    "attempts": int(row.attempts),
                    "next_at": moment(row.next_at) if state == PENDING else "",
                    "last": row.last,
                }
                for row in connection.execute(query)
            ]

    def requeue(self, numbers: Sequence[int] = (), webhook: str = "", actor: str = "") -> int:
        """Give dead messages another round: those numbers, or all of a webhook, or all; how many."""
        now = self.now()
        where = [outbox.c.state == DEAD]
        if numbers:
            where.append(outbox.c.number.in_(list(numbers)[:1_000]))
        if webhook:
            where.append(outbox.c.webhook == webhook)
        with self.write() as connection:
            change = outbox.update().where(*where).values(state=PENDING, attempts=0, next_at=now, done_at=-1)
            count = int(connection.execute(change).rowcount)
            if count:
                told = {
                    "requeued": count,
                    "numbers": list(numbers)[:1_000],
                    "webhook": webhook,
                    "actor": actor,
                }
                log.append_entries(connection, [(queue.RESULT_KIND, {**told, "at": moment(now)})])
        return count

    def claim(self, limit: int) -> list[tuple[int, Webhook, int, bytes]]:
        """Take messages that are due, for this dispatcher alone: (number, receiver, attempts, body)."""
        now = self.now()
        with self.write() as connection:
            hooks = {hook.id: hook for hook in queue.active(connection)}
            if not hooks:
                return []
            query = sa.select(outbox).where(
                outbox.c.state == PENDING, outbox.c.next_at <= now, outbox.c.webhook.in_(sorted(hooks))
            )
            rows = connection.execute(query.order_by(outbox.c.next_at, outbox.c.number).limit(limit)).all()
            taken = [int(row.number) for row in rows]
            if taken:
                change = outbox.update().where(outbox.c.number.in_(taken))
                connection.execute(change.values(next_at=now + CLAIM))
        return [(int(row.number), hooks[row.webhook], int(row.attempts), row.body.encode()) for row in rows]

    def headers(self, number: int, hook: Webhook, body: bytes) -> dict[str, str]:
        """What a message is sent with: id, time, both signatures."""
        id, stamp = f"{self.controller}-{number}", self.now() // SECOND
        covered = signed(id, stamp, body)
        secret = base64.b64decode(self._secret(hook.salt).removeprefix(SECRET))
        shared = base64.b64encode(hmac.digest(secret, covered, "sha256")).decode()
        own = base64.b64encode(self._signer().sign(covered)).decode()
        return {
            "Content-Type": "application/json",
            "User-Agent": "pec-consent",
            "webhook-id": id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": f"v1,{shared} v1a,{own}",
        }

    def settle(
        self, results: Sequence[tuple[int, int, bool, str]], jitter: Callable[[], float] = random.random
    ) -> None:
        """Note what became of claimed messages (number, attempts before, accepted, what happened).

        A failure is tried again after twice the last pause, spread by a factor from 0.5 to 1.5, so that
        receivers that come back are not met by everything at once; then the message is dead.
        """
        if not results:
            return
        now = self.now()
        delivered: list[dict[str, Any]] = []
        dead: list[int] = []
        with self.write() as connection:
            for number, attempts, good, what in results:
                row = connection.execute(sa.select(outbox).where(outbox.c.number == number)).one()
                if row.state != PENDING:
                    continue  # another dispatcher was quicker
                values: dict[str, Any] = {"attempts": attempts + 1, "last": what[:500]}
                if good:
                    values |= {"state": DELIVERED, "done_at": now}
                    lag = max(0, now - row.created_at) // 1000
                    delivered.append({"number": number, "webhook": row.webhook, "lag_ms": lag})
                elif attempts + 1 >= ATTEMPTS:
                    values |= {"state": DEAD, "done_at": now}
                    dead.append(number)
                else:
                    pause = min(FIRST_PAUSE << attempts, LONGEST_PAUSE)
                    values["next_at"] = now + int(pause * (0.5 + jitter()))
                connection.execute(outbox.update().where(outbox.c.number == number).values(**values))
            if delivered or dead:
                told = {"delivered": delivered, "dead": dead, "at": moment(now)}
                log.append_entries(connection, [(queue.RESULT_KIND, told)])

    # ---- enforcement ---------------------------------------------------------------------------------------

    def enforcement(self) -> dict[str, Any]:
        """How long from a withdrawal to its enforcement, by jobs and by webhooks, from the ledger."""
        now = self.now()
        with self.read() as connection:
            found = timing.report(connection)
            oldest = sa.select(sa.func.min(outbox.c.created_at)).where(outbox.c.state == PENDING)
            since = connection.execute(oldest).scalar_one()
            count = sa.select(outbox.c.state, sa.func.count()).group_by(outbox.c.state)
            states = {state: int(number) for state, number in connection.execute(count)}
        waiting = 0.0 if since is None else max(0.0, (now - int(since)) / SECOND)
        queued = {
            "pending": states.get(PENDING, 0),
            "dead": states.get(DEAD, 0),
            "oldest_pending_seconds": waiting,
        }
        return {**found, "outbox": queued}
