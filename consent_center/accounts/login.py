"""Logging in: password, second factor, identity providers, sessions.

Wrong attempts lock an account for a while that doubles: `_FREE` are free, then 30 s, 1 min, 2 min … at most
an hour. The counter is in the database, so all processes agree, and it is written though the login fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consent_center.accounts import factors
from consent_center.accounts.base import (
    HALF,
    IDLE,
    LONGEST,
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
from consent_center.accounts.tables import accounts, sessions
from consent_center.errors import ConsentError

_FREE, _FIRST_LOCK, _LONGEST_LOCK = 5, 30, 3_600  # attempts; seconds
_SEEN_EVERY = 60 * SECOND


@dataclass(frozen=True)
class Session:
    """Who is logged in. `full`: with the second factor too."""

    account: Account
    full: bool


class Logins(Base):
    """The sessions of one center; `Center.logins` makes it."""

    # ---- logging in ----------------------------------------------------------------------------------------

    def login(self, name: str, password: str) -> str:
        """The text of a session that still needs the second factor. `account.refused`, `account.locked`.

        A wrong name and a wrong password get the same answer, after the same time.
        """
        name = name.strip().lower()
        with self._read() as connection:
            row = find(connection, name)
        # Before the check, so that a locked account's password can't be tried either.
        self._not_locked(row)
        right = factors.password_fits(row.password if row is not None else "", password)
        if row is None or not right or not row.active:
            if row is not None:
                self._failed(name)
            raise ConsentError("account.refused", "the name or the password is wrong, or it is disabled")
        with self._write() as connection:
            if factors.outdated(row.password):
                self._change(connection, name, password=factors.hash_password(password, name))
            return self._open(connection, name, full=False)

    def second_factor(self, text: str, code: str) -> str:
        """A full session for a half one. `account.refused`, `account.locked`, `account.session`."""
        name = self._half(text)
        with self._read() as connection:
            row = known(connection, name)
        self._not_locked(row)
        if not row.totp:
            raise ConsentError("account.session", "no second factor is set up yet")
        step = factors.used_step(self._vault.open(row.totp, name), code, self._now(), row.totp_step)
        if step is None:
            self._failed(name)
            raise ConsentError("account.refused", "the code is wrong, or was used before: wait for the next")
        with self._write() as connection:
            # Two requests with the same code at once: one of them finds the step used.
            done = connection.execute(
                accounts.update()
                .where(accounts.c.name == name, accounts.c.totp_step < step)
                .values(totp_step=step, failures=0, locked_until=0, seen_at=self._now())
            )
            if not done.rowcount:
                raise ConsentError("account.refused", "the code was used before: wait for the next")
            self._note(connection, name, "account.login", name)
            return self._renew(connection, text, name)

    def begin_totp(self, text: str) -> tuple[str, str]:
        """(secret, otpauth address) to show in a half session without a second factor; the same until it is
        confirmed."""
        name = self._half(text)
        with self._write() as connection:
            row = known(connection, name)
            if row.totp:
                raise ConsentError("account.session", "a second factor is set up already")
            secret = self._vault.open(row.totp_pending, name) if row.totp_pending else factors.new_secret()
            if not row.totp_pending:
                self._change(connection, name, totp_pending=self._vault.seal(secret, name))
        return secret, factors.provisioning(secret, name, self._controller)

    def confirm_totp(self, text: str, code: str) -> str:
        """The first right code: the second factor is set up, and the session full. `account.refused`."""
        name = self._half(text)
        with self._read() as connection:
            row = known(connection, name)
        self._not_locked(row)
        if row.totp or not row.totp_pending:
            raise ConsentError("account.session", "there is no second factor to confirm")
        step = factors.used_step(self._vault.open(row.totp_pending, name), code, self._now(), 0)
        if step is None:
            self._failed(name)
            raise ConsentError("account.refused", "that is not the code that the app shows now")
        with self._write() as connection:
            self._change(
                connection,
                name,
                totp=row.totp_pending,
                totp_pending=b"",
                totp_step=step,
                failures=0,
                seen_at=self._now(),
            )
            self._note(connection, name, "account.second_factor", name)
            self._note(connection, name, "account.login", name)
            return self._renew(connection, text, name)

    def change_password(self, name: str, old: str, new: str) -> None:
        """`account.refused` for a wrong old one, `account.password`, `account.locked`. Other sessions end
        with it: the caller opens a new one."""
        with self._read() as connection:
            row = known(connection, name)
        self._not_locked(row)
        if not factors.password_fits(row.password, old):
            self._failed(name)
            raise ConsentError("account.refused", "the present password is wrong")
        if old == new:
            raise ConsentError("account.password", "the new password is the present one")
        with self._write() as connection:
            self._change(connection, name, password=factors.hash_password(new, name), must_change=0)
            end_sessions(connection, name)
            self._note(connection, name, "account.password", name)

    def oidc_login(self, issuer: str, subject: str, name: str, role: str) -> str:
        """A full session for whom an identity provider vouches; the account is made at the first login, and
        its role follows the provider's. `account.name`, `account.exists` (a local account of that name),
        `account.refused` (disabled)."""
        identity, name = f"{issuer} {subject}", name.strip().lower()
        check_role(role)
        with self._write() as connection:
            row = connection.execute(sa.select(accounts).where(accounts.c.oidc == identity)).first()
            if row is None:
                if not NAME.fullmatch(name):
                    raise ConsentError("account.name", f"the provider's name {name!r} can't be an account's")
                # Never by name alone: whoever may choose names at the provider could take an account over.
                if find(connection, name) is not None:
                    raise ConsentError("account.exists", f"{name!r} is another account here already")
                self._insert(connection, name, role, "", identity)
                self._note(connection, name, "account.add", name, role=role, oidc=issuer)
            else:
                name = row.name
                if not row.active:
                    raise ConsentError("account.refused", f"{name} is disabled here")
                if row.role != role:
                    spare_last_admin(connection, row)
                    self._change(connection, name, role=role)
                    self._note(connection, "oidc", "account.role", name, role=role, before=row.role)
            self._change(connection, name, seen_at=self._now())
            self._note(connection, name, "account.login", name)
            return self._open(connection, name, full=True)

    def open_session(self, name: str) -> str:
        """A full session for who has just proven who it is in another one (after a change of password)."""
        with self._write() as connection:
            known(connection, name)
            return self._open(connection, name, full=True)

    def session(self, text: str) -> Session | None:
        """Who holds that text, or None: unknown, over, idle too long, or the account is disabled."""
        now, key = self._now(), digest(text)
        with self._read() as connection:
            query = (
                sa.select(
                    accounts, sessions.c.full, sessions.c.opened_at, sessions.c.seen_at.label("used_at")
                )
                .join(sessions, sessions.c.account == accounts.c.name)
                .where(sessions.c.hash == key)
            )
            row = connection.execute(query).first()
        if row is None or not row.active:
            return None
        age, idle = now - row.opened_at, now - row.used_at
        if age > (LONGEST if row.full else HALF) or idle > IDLE:
            self.close_session(text)
            return None
        if idle > _SEEN_EVERY:
            with self._write() as connection:
                connection.execute(sessions.update().where(sessions.c.hash == key).values(seen_at=now))
        return Session(account_of(row), bool(row.full))

    def close_session(self, text: str) -> None:
        """Log out: the text is worth nothing any more, wherever copies of the cookie are."""
        with self._write() as connection:
            connection.execute(sessions.delete().where(sessions.c.hash == digest(text)))

    def _half(self, text: str) -> str:
        found = self.session(text)
        if found is None or found.full:
            raise ConsentError("account.session", "the login has lapsed: begin again")
        return found.account.name

    def _renew(self, connection: sa.Connection, text: str, name: str) -> str:
        # Another text after the second factor: one that was planted before the login is worth nothing.
        connection.execute(sessions.delete().where(sessions.c.hash == digest(text)))
        return self._open(connection, name, full=True)

    def _not_locked(self, row: Any) -> None:
        if row is not None and row.locked_until > self._now():
            seconds = -(-(row.locked_until - self._now()) // SECOND)
            raise ConsentError("account.locked", f"too many wrong attempts: try again in {seconds} seconds")

    def _failed(self, name: str) -> None:
        with self._write() as connection:
            failures = int(known(connection, name).failures) + 1
            values: dict[str, Any] = {"failures": failures}
            if failures >= _FREE:
                seconds = min(_FIRST_LOCK << min(failures - _FREE, 20), _LONGEST_LOCK)
                values["locked_until"] = self._now() + seconds * SECOND
                self._note(connection, "login", "account.locked", name, seconds=seconds)
            self._change(connection, name, **values)
