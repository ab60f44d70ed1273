"""Logging in and out: password, second factor, change of password."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import flask
import segno
from flask import Response, current_app, redirect, request, url_for
from markupsafe import Markup

from consent_center.accounts.oidc import Provider
from consent_center.console.base import PREFIX, bp, embedded, field, page, say
from consent_center.console.security import ATTEMPTS, NEXT, SESSION, session_of, start_session
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.rest import problems
from consent_center.rest.limits import limit_rate
from consent_center.rest.roles import principal

PROVIDER = "pec.oidc"


def _limited() -> None:
    limit_rate("login", ATTEMPTS)


def safe_next(target: Any) -> str:
    """A path of the console, or its front page: never another site's address."""
    if not isinstance(target, str) or len(target) > 500 or "\\" in target:
        return url_for("console.dashboard")
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path.startswith(f"{PREFIX}/"):
        return url_for("console.dashboard")
    return parts.path + (f"?{parts.query}" if parts.query else "")


def where_to_log_in() -> Response:
    """To the step that is due; back to the page afterwards, if it was only looked at."""
    found = session_of(embedded())
    if found is None:
        back = request.full_path.rstrip("?") if request.method == "GET" else None
        target = url_for("console.login", next=back)
    elif not found.full:
        target = url_for("console.second_factor")
    else:
        target = url_for("console.password")
    if request.headers.get("HX-Request"):
        return Response("", 401, {"HX-Redirect": target})
    return redirect(target, 303)  # type: ignore[return-value]


def _failed(template: str, error: ConsentError, **values: Any) -> Response:
    """The form again, with what was wrong."""
    if not error.code.startswith("account."):
        raise error
    return page(template, problems.status_of(error.code), problem=error, **values)


@bp.route("/login", methods=["GET", "POST"])
def login() -> Response:
    if principal().via == "session":
        return redirect(safe_next(request.args.get("next")), 303)  # type: ignore[return-value]
    provider = current_app.extensions.get(PROVIDER)
    if request.method == "GET":
        return page("login.html", name="", provider=provider)
    _limited()
    name = field("name", 200)
    try:
        text = embedded().logins.login(name, field("password", 1_000))
    except ConsentError as error:
        return _failed("login.html", error, name=name, provider=provider)
    start_session(text, **{NEXT: safe_next(request.args.get("next"))})
    return redirect(url_for("console.second_factor"), 303)  # type: ignore[return-value]


@bp.route("/login/code", methods=["GET", "POST"])
def second_factor() -> Response:
    """The code of the app; the first time, with what the app needs."""
    logins, found = embedded().logins, session_of(embedded())
    if found is None or found.full:
        return where_to_log_in() if found is None else redirect(url_for("console.dashboard"), 303)  # type: ignore[return-value]
    text: str = flask.session[SESSION]
    values: dict[str, Any] = {"name": found.account.name, "secret": ""}
    if not found.account.second_factor:
        secret, address = logins.begin_totp(text)
        code = segno.make(address, error="m", micro=False)
        drawn = code.svg_inline(scale=5, border=3, dark="#111", light="#fff", omitsize=True, svgclass="qr")
        values |= {"secret": " ".join(secret[i : i + 4] for i in range(0, len(secret), 4))}
        values |= {"qr": Markup(drawn), "address": address}  # noqa: S704 - made by segno from our own text
    if request.method == "GET":
        return page("code.html", **values)
    _limited()
    try:
        step = logins.second_factor if found.account.second_factor else logins.confirm_totp
        full = step(text, field("code", 20))
    except ConsentError as error:
        return _failed("code.html", error, **values)
    target = safe_next(flask.session.get(NEXT))
    start_session(full)
    if found.account.must_change:
        target = url_for("console.password")
    return redirect(target, 303)  # type: ignore[return-value]


@bp.route("/password", methods=["GET", "POST"])
def password() -> Response:
    """Change one's own password."""
    found = session_of(embedded())
    if found is None or not found.full:
        return where_to_log_in()
    account = found.account
    if not account.local:
        raise ConsentError("account.password", "this account logs in at its identity provider")
    if request.method == "GET":
        return page("password.html", account=account)
    _limited()
    old, new, again = (field(name, 1_000) for name in ("old", "new", "again"))
    try:
        if new != again:
            raise ConsentError("account.password", "the new password was not typed the same twice")
        embedded().logins.change_password(account.name, old, new)
    except ConsentError as error:
        return _failed("password.html", error, account=account)
    start_session(embedded().logins.open_session(account.name))
    say(_("The password was changed. Other sessions of yours were ended."))
    return redirect(url_for("console.dashboard"), 303)  # type: ignore[return-value]


@bp.post("/login/oidc")
def oidc_start() -> Response:
    """To the identity provider, if one is set up."""
    _limited()
    flask.session.clear()
    flask.session[NEXT] = safe_next(request.args.get("next"))
    found: Response = _provider().start(url_for("console.oidc_callback", _external=True))
    return found


@bp.get("/login/oidc")
def oidc_callback() -> Response:
    """Back from the identity provider."""
    _limited()
    target = safe_next(flask.session.get(NEXT))
    text = embedded().logins.oidc_login(*_provider().finish())
    start_session(text)
    return redirect(target, 303)  # type: ignore[return-value]


def _provider() -> Provider:
    found = current_app.extensions.get(PROVIDER)
    if not isinstance(found, Provider):
        raise ConsentError("request.not_found", "no identity provider is set up: see docs/console.md")
    return found


@bp.post("/logout")
def logout() -> Response:
    text = flask.session.get(SESSION)
    if isinstance(text, str):
        embedded().logins.close_session(text)
    flask.session.clear()
    return redirect(url_for("console.login"), 303)  # type: ignore[return-value]
