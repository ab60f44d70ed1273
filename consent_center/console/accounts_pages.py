"""Accounts and their tokens, for administrators; what anybody did, for all who may see it."""

from __future__ import annotations

from typing import Any

from flask import Response, redirect, url_for

from consent_center.accounts.base import ROLES
from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.console.dashboard import figures
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.rest import problems


def _accounts(status: int = 200, **values: Any) -> Response:
    center = embedded()
    tokens: dict[str, list[Any]] = {}
    for token in center.accounts.tokens():
        tokens.setdefault(token.account, []).append(token)
    return page(
        "accounts.html", status, people=center.accounts.all(), tokens=tokens, roles=ROLES,
        now=center.room.now(), **values,
    )  # fmt: skip


@bp.get("/accounts")
def accounts() -> Response:
    return _accounts()


@bp.post("/accounts")
def account_add() -> Response:
    """A new account; its first password is on the answer and nowhere else."""
    name, role = field("name", 200).strip(), field("role", 20)
    try:
        made, password = embedded().accounts.add(name, role, who().name)
    except ConsentError as error:
        if not error.code.startswith("account."):
            raise
        return _accounts(problems.status_of(error.code), problem=error)
    return _accounts(told={"name": made.name, "password": password})


@bp.post("/accounts/<name>")
def account_change(name: str) -> Response:
    """One change of one account: role, disable, enable, reset, token, revoke."""
    service, actor, what = embedded().accounts, who().name, field("what", 20)
    told: dict[str, str] = {}
    try:
        if what == "role":
            service.set_role(name, field("role", 20), actor)
        elif what in ("disable", "enable"):
            service.set_active(name, what == "enable", actor)
        elif what == "reset":
            told = {"name": name, "password": service.reset(name, actor)}
        elif what == "token":
            days = field("days", 6).strip()
            number = int(days) if days.isascii() and days.isdecimal() else 0
            told = {"name": name, "token": service.new_token(name, field("label", 300), number, actor)[1]}
        elif what == "revoke":
            service.revoke(field("token", 50), actor)
        else:
            raise ConsentError("request.invalid", f"{what!r} is no change of an account")
    except ConsentError as error:
        if not error.code.startswith("account."):
            raise
        return _accounts(problems.status_of(error.code), problem=error)
    if told:
        return _accounts(told=told)
    say(_("%(name)s was changed.", name=name))
    return redirect(url_for("console.accounts"), 303)  # type: ignore[return-value]


@bp.get("/activity")
def activity() -> Response:
    """The newest acts, from the ledger."""
    return page("activity.html", acts=figures().acts())
