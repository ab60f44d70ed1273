"""`pec consent user`: who may use the consent center's console and its REST interface.

Works on a center's directory only: whoever can write there is its administrator already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from pec.cli_common import emit, json_option, table
from pec.consent_options import actor, directory, facts, where

ROLE = click.Choice(["viewer", "officer", "admin", "service"])


@click.group()
def user() -> None:
    """Accounts of the console and of machines: add, list, disable, reset, tokens."""


@contextmanager
def _accounts(location: str | None) -> Iterator[Any]:
    from consent_center.center import Center

    with Center.open(directory(location)) as center:
        yield center.accounts


def _time(micros: int) -> str:
    if not micros:
        return "-"
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")


@user.command()
@where
@click.argument("name")
@click.option("--role", type=ROLE, required=True, help="service: a machine, which uses tokens only.")
@json_option
def add(location: str | None, name: str, role: str, as_json: bool) -> None:
    """Make an account. Prints its first password once; it is changed at the first login.

    The first login also sets up the second factor (an authenticator app).
    """
    with _accounts(location) as accounts:
        made, password = accounts.add(name, role, actor())
    data = {"name": made.name, "role": made.role, "password": password}

    def render(d: dict[str, Any]) -> str:
        if not d["password"]:
            return f"{d['name']} ({d['role']}): give it a token with `pec consent user token {d['name']}`"
        return f"{d['name']} ({d['role']})\nfirst password: {d['password']}\nIt is shown this once."

    emit(data, as_json, render)


@user.command("list")
@where
@json_option
def list_(location: str | None, as_json: bool) -> None:
    """Show all accounts and their tokens (never the tokens' secrets)."""
    with _accounts(location) as accounts:
        people, tokens = accounts.all(), accounts.tokens()
    data = {"accounts": [asdict(a) for a in people], "tokens": [asdict(t) for t in tokens]}

    def render(_: dict[str, Any]) -> Any:
        from pec.cli_common import console

        rows = [
            (a.name, a.role, "active" if a.active else "disabled", a.second_factor, a.oidc, _time(a.seen_at))
            for a in people
        ]
        console().print(table(("name", "role", "state", "second factor", "OIDC", "last login"), rows))
        if tokens:
            listed = [(t.id, t.account, t.label, _time(t.expires_at)) for t in tokens]
            console().print(table(("token", "account", "label", "expires"), listed))

    emit(data, as_json, render)


@user.command()
@where
@click.argument("name")
@click.option("--role", type=ROLE, required=True)
@json_option
def role(location: str | None, name: str, role: str, as_json: bool) -> None:
    """Give an account another role. Its sessions end."""
    with _accounts(location) as accounts:
        changed = accounts.set_role(name, role, actor())
    emit(asdict(changed), as_json, lambda d: f"{d['name']} is {d['role']} now")


@user.command()
@where
@click.argument("name")
@json_option
def disable(location: str | None, name: str, as_json: bool) -> None:
    """Shut an account out: its sessions end and its tokens are refused, at once."""
    with _accounts(location) as accounts:
        changed = accounts.set_active(name, False, actor())
    emit(asdict(changed), as_json, lambda d: f"{d['name']} is disabled")


@user.command()
@where
@click.argument("name")
@json_option
def enable(location: str | None, name: str, as_json: bool) -> None:
    """Let a disabled account in again."""
    with _accounts(location) as accounts:
        changed = accounts.set_active(name, True, actor())
    emit(asdict(changed), as_json, lambda d: f"{d['name']} is active")


@user.command()
@where
@click.argument("name")
@json_option
def reset(location: str | None, name: str, as_json: bool) -> None:
    """A new first password for somebody who lost the password or the phone. Unlocks the account."""
    with _accounts(location) as accounts:
        password = accounts.reset(name, actor())
    emit(
        {"name": name, "password": password},
        as_json,
        lambda d: f"first password: {d['password']}\nIt is shown this once; a new second factor is set up.",
    )


@user.command()
@where
@click.argument("name")
@click.option("--label", default="cli", show_default=True, help="What the token is for.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3660))
@json_option
def token(location: str | None, name: str, label: str, days: int, as_json: bool) -> None:
    """Make an API token with the account's role. It is shown once."""
    with _accounts(location) as accounts:
        made, text = accounts.new_token(name, label, days, actor())
    data = {"id": made.id, "account": made.account, "token": text, "expires": _time(made.expires_at)}
    emit(data, as_json, facts)


@user.command()
@where
@click.argument("token_id")
@json_option
def revoke(location: str | None, token_id: str, as_json: bool) -> None:
    """Revoke an API token by its id, at once."""
    with _accounts(location) as accounts:
        accounts.revoke(token_id, actor())
    emit({"revoked": token_id}, as_json, lambda d: f"token {d['revoked']} is revoked")
