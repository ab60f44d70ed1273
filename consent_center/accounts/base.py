"""What all parts of accounts share: the data, and what is done inside a transaction.

Each change is a leaf of the ledger (kind `admin.action`) in its own transaction, with who did what to whom,
and no secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consent_center.accounts import factors
from consent_center.accounts.tables import accounts, sessions
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger import log

ROLES = ("viewer", "officer", "admin", "service")
LEAF_KIND = "admin.action"
NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{1,63}")
SECOND = 1_000_000
IDLE, LONGEST, HALF = 30 * 60 * SECOND, 12 * 3_600 * SECOND, 10 * 60 * SECOND  # of a session

Transaction = Callable[[], AbstractContextManager[sa.Connection]]


@dataclass(frozen=True)
class Account:
    """One account as lists show it. Times in microseconds, 0 for never."""

    name: str
    role: str
    active: bool
    local: bool  # has a password here
    oidc: bool
    second_factor: bool
    must_change: bool
    locked_until: int
    created_at: int
    seen_at: int


class Base:
    """One center's accounts; see `service.Accounts` and `login.Logins`."""

    def __init__(
        self, keys: Keys, controller: str, read: Transaction, write: Transaction, now: Callable[[], int]
    ) -> None:
        self._vault = factors.Vault(hmac.digest(keys.data, b"pec/consent/account factors", "sha256"))
        #: Signs the browser's cookies; the same in all processes of the center.
        self.cookie_key = hmac.digest(keys.data, b"pec/consent/console cookies", "sha256")
        self._controller, self._read, self._write, self._now = controller, read, write, now

    def _insert(self, connection: sa.Connection, name: str, role: str, password: str, oidc: str) -> None:
        connection.execute(
            accounts.insert().values(
                name=name,
                role=role,
                active=1,
                password=password,
                must_change=int(bool(password)),
                totp=b"",
                totp_pending=b"",
                totp_step=0,
                failures=0,
                locked_until=0,
                oidc=oidc,
                created_at=self._now(),
                seen_at=0,
            )
        )

    def _note(self, connection: sa.Connection, actor: str, action: str, subject: str, **details: Any) -> int:
        payload = {"actor": actor, "action": action, "subject": subject, "at": self._now(), **details}
        return log.append_entries(connection, [(LEAF_KIND, payload)])[0]

    def _change(self, connection: sa.Connection, name: str, **values: Any) -> None:
        connection.execute(accounts.update().where(accounts.c.name == name).values(**values))

    def _open(self, connection: sa.Connection, name: str, full: bool) -> str:
        text, now = secrets.token_urlsafe(32), self._now()
        connection.execute(sessions.delete().where(sessions.c.opened_at < now - LONGEST))
        connection.execute(
            sessions.insert().values(
                hash=digest(text), account=name, full=int(full), opened_at=now, seen_at=now
            )
        )
        return text


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def check_role(role: str) -> None:
    if role not in ROLES:
        raise ConsentError("account.role", f"{role!r} is none of {', '.join(ROLES)}")


def find(connection: sa.Connection, name: str) -> Any:
    return connection.execute(sa.select(accounts).where(accounts.c.name == name)).first()


def known(connection: sa.Connection, name: str) -> Any:
    row = find(connection, name)
    if row is None:
        raise ConsentError("account.unknown", f"there is no account {name!r}")
    return row


def spare_last_admin(connection: sa.Connection, row: Any) -> None:
    if row.role != "admin" or not row.active:
        return
    query = sa.select(sa.func.count()).where(accounts.c.role == "admin", accounts.c.active == 1)
    if connection.execute(query).scalar_one() <= 1:
        raise ConsentError("account.last_admin", f"{row.name} is the last administrator: make another first")


def end_sessions(connection: sa.Connection, name: str) -> None:
    connection.execute(sessions.delete().where(sessions.c.account == name))


def account_of(row: Any) -> Account:
    return Account(
        row.name,
        row.role,
        bool(row.active),
        bool(row.password),
        bool(row.oidc),
        bool(row.totp),
        bool(row.must_change),
        int(row.locked_until),
        int(row.created_at),
        int(row.seen_at),
    )
