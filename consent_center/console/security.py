"""Sessions, forms and limits: what stands between the internet and the console."""

from __future__ import annotations

import os
from typing import Any

import flask
from flask import Flask, Request, g, request
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from consent_center.accounts.login import Session
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.rest import roles
from consent_center.rest.roles import Principal

SESSION, NEXT = "s", "next"
SAFE = ("GET", "HEAD", "OPTIONS")
#: Attempts at a password or a code from one address; an account's own lock is in the database.
ATTEMPTS = "20 per minute; 100 per hour"
_CSRF = CSRFProtect()


class _Cookies(SecureCookieSessionInterface):
    """`Secure` wherever the browser came over TLS, so that the same center works on a laptop too."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def install(app: Flask, center: Center) -> None:
    """Cookies, CSRF, and the two more ways to prove who one is."""
    app.secret_key = center.logins.cookie_key
    app.session_interface = _Cookies()
    app.config.update(
        SESSION_COOKIE_NAME="pec_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",  # Strict would lose the session on the way back from an OIDC provider
        WTF_CSRF_CHECK_DEFAULT=False,  # `check_form` calls it, after the role
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
    )
    _CSRF.init_app(app)
    proxies = int(os.environ.get("PEC_CONSENT_PROXIES", "0"))
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    app.extensions[roles.AUTHENTICATORS].extend([_api_token(center), _session(center)])


def _api_token(center: Center) -> roles.Authenticator:
    def authenticate(asked: Request) -> Principal | None:
        scheme, _, text = asked.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            return None
        account = center.accounts.by_token(text.strip())
        return None if account is None else Principal(account.name, account.role, "api token")

    return authenticate


def _session(center: Center) -> roles.Authenticator:
    def authenticate(asked: Request) -> Principal | None:
        found = session_of(center)
        # Without the second factor, or with a password that somebody else made, nobody is anybody yet.
        if found is None or not found.full or found.account.must_change:
            return None
        return Principal(found.account.name, found.account.role, "session")

    return authenticate


def session_of(center: Center) -> Session | None:
    """The session of the running request, half or full; found once a request."""
    if "pec_session" not in g:
        text = flask.session.get(SESSION) if request.cookies.get("pec_session") else None
        g.pec_session = center.logins.session(text) if isinstance(text, str) else None
    found: Session | None = g.pec_session
    return found


def check_form(endpoint: str | None) -> None:
    """Raises `request.csrf` unless a changing request carries the token of its session. Requests that prove
    who they are with a header need none: no other site can make a browser send it."""
    if request.method in SAFE:
        return
    # A call for everybody does not look at who asks: a session that happens to be there lends it nothing.
    theirs = roles.ENDPOINTS.get(endpoint or "") != "public" and roles.principal().via == "session"
    if not theirs and not (endpoint or "").startswith("console."):
        return
    try:
        _CSRF.protect()
    except CSRFError as error:
        raise ConsentError(
            "request.csrf", f"{error.description} Load the page again and send it again."
        ) from error


def start_session(text: str, **keep: Any) -> None:
    """Puts a session's text into the cookie; all else that was in it goes."""
    flask.session.clear()
    flask.session[SESSION] = text
    for name, value in keep.items():
        if value:
            flask.session[name] = value
    g.pop("pec_session", None)
    g.pop("pec_principal", None)
