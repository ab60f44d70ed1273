"""Managing accounts and the API tokens of accounts."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consent_center import database as db
from consent_center.accounts import factors
from consent_center.accounts.base import (
    NAME,
    SECOND,
    Account,
    Base,
    account_of,
    check_role,
    digest,
    end_sessions,
    find,
    known,
    spare_last_admin,
)
from consent_center.accounts.tables import accounts, tokens
from consent_center.errors import ConsentError

TOKEN_PREFIX = "pec_"  # noqa: S105 - lets scanners find a token that was committed by mistake


@dataclass(frozen=True)
class Token:
    """An API token as lists show it; the secret is never shown again."""

    id: str
    account: str
    label: str
    created_at: int
    expires_at: int


class Accounts(Base):
    """The accounts of one center; `Center.accounts` makes it."""

    # ---- managing ------------------------------------------------------------------------------------------

    def add(self, name: str, role: str, actor: str) -> tuple[Account, str]:
        """Make an account and its first password, which is told once. A machine (`service`) gets none.

        `account.name`, `account.role`, `account.exists`.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConsentError(
                "account.name", f"{name!r}: 2 to 64 of a-z, 0-9 and . _ @ + -, beginning with a-z or 0-9"
            )
        check_role(role)
        password = "" if role == "service" else factors.first_password()
        hashed = factors.hash_password(password, name) if password else ""
        with self._write() as connection:
            if find(connection, name) is not None:
                raise ConsentError("account.exists", f"there is an account {name!r} already")
            self._insert(connection, name, role, hashed, "")
            self._note(connection, actor, "account.add", name, role=role)
        return self.get(name), password

    def all(self) -> list[Account]:
        """All accounts by name."""
        with self._read() as connection:
            return [
                account_of(row) for row in connection.execute(sa.select(accounts).order_by(accounts.c.name))
            ]

    def get(self, name: str) -> Account:
        """`account.unknown`."""
        with self._read() as connection:
            return account_of(known(connection, name))

    def set_role(self, name: str, role: str, actor: str) -> Account:
        """`account.unknown`, `account.role`, `account.last_admin`. Ends the account's sessions."""
        check_role(role)
        with self._write() as connection:
            row = known(connection, name)
            if (row.role == "service") != (role == "service"):
                raise ConsentError("account.role", "a machine stays a machine: make another account")
            if row.role != role:
                spare_last_admin(connection, row)
                self._change(connection, name, role=role)
                end_sessions(connection, name)
                self._note(connection, actor, "account.role", name, role=role, before=row.role)
        return self.get(name)

    def set_active(self, name: str, active: bool, actor: str) -> Account:
        """Disable (its sessions end, its tokens are refused) or enable. `account.unknown`, `.last_admin`."""
        with self._write() as connection:
            row = known(connection, name)
            if bool(row.active) != active:
                if not active:
                    spare_last_admin(connection, row)
                self._change(connection, name, active=int(active), failures=0, locked_until=0)
                end_sessions(connection, name)
                self._note(connection, actor, "account.enable" if active else "account.disable", name)
        return self.get(name)

    def reset(self, name: str, actor: str) -> str:
        """A new first password for somebody who lost the password or the second factor; unlocks the account.

        `account.unknown`, `account.password` for accounts that have none (OIDC, machines).
        """
        password = factors.first_password()
        with self._write() as connection:
            row = known(connection, name)
            if row.oidc or row.role == "service":
                raise ConsentError("account.password", f"{name} has no password here")
            self._change(
                connection,
                name,
                password=factors.hash_password(password, name),
                must_change=1,
                totp=b"",
                totp_pending=b"",
                failures=0,
                locked_until=0,
            )
            end_sessions(connection, name)
            self._note(connection, actor, "account.reset", name)
        return password

    def note(self, actor: str, action: str, subject: str, **details: Any) -> int:
        """Write that somebody did something: the leaf. For acts that change nothing themselves (a search, an
        export). No raw identifier and no secret may be in it."""
        with self._write() as connection:
            return self._note(connection, actor, action, subject, **details)

    # ---- tokens --------------------------------------------------------------------------------------------

    def new_token(self, account: str, label: str, days: int, actor: str) -> tuple[Token, str]:
        """A token with the account's role, and its text, which is told once. `account.unknown`, `.token`."""
        if not 1 <= days <= 3_660 or not 0 < len(label.strip()) <= 200 or not label.isprintable():
            raise ConsentError(
                "account.token", "a token has a label (1 to 200 characters) and 1 to 3660 days"
            )
        secret, id = secrets.token_urlsafe(32), secrets.token_hex(6)
        now = self._now()
        with self._write() as connection:
            known(connection, account)
            values: dict[str, Any] = {
                "id": id,
                "account": account,
                "label": label.strip(),
                "created_at": now,
                "expires_at": now + days * 86_400 * SECOND,
            }
            connection.execute(tokens.insert().values(hash=digest(secret), **values))
            self._note(connection, actor, "token.add", account, token=id)
        return Token(**values), f"{TOKEN_PREFIX}{id}_{secret}"

    def tokens(self, account: str | None = None) -> list[Token]:
        """Tokens of one account or of all, newest first."""
        query = sa.select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.id)
        if account is not None:
            query = query.where(tokens.c.account == account)
        with self._read() as connection:
            return [
                Token(row.id, row.account, row.label, row.created_at, row.expires_at)
                for row in connection.execute(query)
            ]

    def revoke(self, id: str, actor: str) -> None:
        """`account.token` if there is none of that id."""
        with self._write() as connection:
            row = connection.execute(sa.select(tokens).where(tokens.c.id == id)).first()
            if row is None:
                raise ConsentError("account.token", f"there is no token {id!r}")
            connection.execute(tokens.delete().where(tokens.c.id == id))
            self._note(connection, actor, "token.revoke", row.account, token=id)

    def by_token(self, text: str) -> Account | None:
        """The account whose token that is, or None: unknown, over, or the account is disabled."""
        if not text.startswith(TOKEN_PREFIX):
            return None
        with self._read() as connection:
            return holder_of(connection, text, self._now())


def holder_of(connection: sa.Connection, text: str, now: int) -> Account | None:
    """`Accounts.by_token` inside the caller's transaction."""
    return holders_of(connection, [text], now).get(text)


def holders_of(connection: sa.Connection, texts: Iterable[str], now: int) -> dict[str, Account]:
    """The accounts whose tokens those are, by token; without those that `holder_of` has none for."""
    wanted: dict[str, dict[str, str]] = {}  # made-up texts may share an id
    for text in texts:
        id, _, secret = text.removeprefix(TOKEN_PREFIX).partition("_")
        if text.startswith(TOKEN_PREFIX) and secret:
            wanted.setdefault(id, {})[text] = secret
    query = sa.select(accounts, tokens.c.id.label("token"), tokens.c.hash, tokens.c.expires_at).join(
        tokens, tokens.c.account == accounts.c.name
    )
    found: dict[str, Account] = {}
    for ids in db.chunks(sorted(wanted)):
        for row in connection.execute(query.where(tokens.c.id.in_(ids))):
            if not row.active or now >= row.expires_at:
                continue
            # The id is no secret, the rest is compared as hashes in constant time.
            for text, secret in wanted[row.token].items():
                if hmac.compare_digest(row.hash, digest(secret)):
                    found[text] = account_of(row)
    return found
