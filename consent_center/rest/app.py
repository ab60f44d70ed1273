"""The application factory: limits, authentication, errors, OpenAPI; the calls are in the blueprints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from apiflask import APIFlask
from apiflask.exceptions import HTTPError
from flask import Flask, Response, current_app, redirect, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Response as BaseResponse

from consent_center import i18n
from consent_center.client import CenterClient, open_center
from consent_center.console import install as console
from consent_center.console.security import check_form
from consent_center.details import told
from consent_center.errors import ConsentError
from consent_center.rest import (
    analytics,
    collection,
    decisions,
    docs_page,
    embed,
    events,
    fast,
    ledger,
    limits,
    notices,
    pages,
    preferences,
    problems,
    receipts,
    records,
    registry,
    rights,
    roles,
    rules,
    signals,
    token,
    webhooks,
    witness,
)
from consent_center.rest.context import CENTER, TOKEN, service_token

JSON_LIMIT, UPLOAD_LIMIT, BULK_LIMIT = 4 << 20, 64 << 20, 512 << 20  # bytes of a body
_ICON = (Path(console.__file__).parent / "static" / "icon.svg").read_bytes()
#: Of every answer.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}
_UPLOADS = {"/v1/events/batch"}
_BULK = {"/v1/decisions/bulk", "/v1/snapshots", "/v1/assumptions/bulk", "/v1/events/bulk"}


def create_app(
    location: str | Path | CenterClient, token_text: str | None = None, home: Path | None = None
) -> Flask:
    """A WSGI application for one center: its directory, or one that is open already.

    `token_text` is the bearer token; None makes one in the center's directory (`rest.token`, mode 0600).
    `home` is where the console's `oidc.json` may be; default: the center's directory, where that is given.
    """
    opened = open_center(location) if isinstance(location, str | Path) else location
    if token_text is None:
        if not isinstance(location, str | Path):
            raise ConsentError(
                "center.keys", "an open center needs its token named: create_app(center, token)"
            )
        token_text = token.ensure_token(Path(location))
    app = APIFlask(
        __name__,
        title="PEC consent center",
        version="1",
        docs_path=None,
        spec_path="/openapi.json",
        static_folder=None,  # type: ignore[arg-type]
    )
    app.extensions[CENTER] = opened
    app.extensions[TOKEN] = token.digest(token_text)
    app.extensions[roles.AUTHENTICATORS] = [service_token]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["AUTO_404_RESPONSE"] = False
    app.config["VALIDATION_ERROR_STATUS_CODE"] = 400
    app.config["DESCRIPTION"] = docs_page.INTRODUCTION
    app.security_schemes = {"token": {"type": "http", "scheme": "bearer"}}
    app.before_request(_guard)
    app.after_request(_headers)
    _errors(app)
    for module in (
        registry,
        events,
        signals,
        decisions,
        preferences,
        rights,
        webhooks,
        witness,
        records,
        receipts,
        ledger,
        collection,
        notices,
        rules,
        analytics,
        embed,
        pages,
    ):
        app.register_blueprint(module.bp)
    app.spec_processor(docs_page.complete)
    app.get("/docs", endpoint="docs")(app.doc(hide=True)(docs_page.view))
    app.get("/favicon.ico", endpoint="favicon")(app.doc(hide=True)(_favicon))
    app.get("/", endpoint="home")(app.doc(hide=True)(_home))
    i18n.install(app)
    app.jinja_env.filters["told"] = told
    limits.install(app)
    console.install(app, opened, Path(location) if isinstance(location, str | Path) else home)
    roles.check(app)
    fast.install(app, HEADERS)
    return app


def _home() -> BaseResponse:
    """Who opens the bare address in a browser wants pages: the console, or the description of the calls."""
    return redirect("/console/" if "console.dashboard" in current_app.view_functions else "/docs")


def _favicon() -> Response:
    """What browsers ask for at any page, with or without being somebody."""
    response = Response(_ICON, content_type="image/svg+xml")
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response


def _guard() -> None:
    """Who asks, how much, and whether JSON is JSON: before anything looks at the body."""
    roles.enforce(request.endpoint)
    request.max_content_length = limit = _limit()
    larger = limit == limits.SMALL and bool(request.environ.get(limits.LARGER))
    if larger or (request.content_length or 0) > limit:
        raise RequestEntityTooLarge  # before a byte of it is waited for
    check_form(request.endpoint)
    if request.mimetype == "application/json" and request.path not in _UPLOADS:
        try:
            json.loads(request.get_data(cache=True), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise ConsentError("request.invalid", f"the body is no JSON: {error}") from error


def _limit() -> int:
    """Bytes of this request's body. Where nobody need prove who they are, no more than needs no thread."""
    if roles.ENDPOINTS.get(request.endpoint or "") == "public":
        return limits.SMALL
    return UPLOAD_LIMIT if request.path in _UPLOADS else BULK_LIMIT if request.path in _BULK else JSON_LIMIT


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _errors(app: APIFlask) -> None:
    @app.error_processor
    def _http(error: HTTPError) -> Any:
        if error.status_code >= 500:
            return problems.internal()
        return problems.from_http(error.status_code, _explain(error))

    def _coded(error: Exception) -> Response:
        return problems.from_error(error if isinstance(error, ConsentError) else _wrapped(error))

    def _unforeseen(error: Exception) -> Response:
        app.logger.exception("request %s %s failed", request.method, request.path)
        return problems.internal()

    handlers: dict[type[Exception], Callable[[Exception], Response]] = {
        ConsentError: _coded,
        SQLAlchemyError: _coded,
        RecursionError: _coded,
        Exception: _unforeseen,
    }
    for kind, handler in handlers.items():
        app.register_error_handler(kind, handler)


def _wrapped(error: Exception) -> ConsentError:
    if isinstance(error, RecursionError):
        return ConsentError("request.invalid", "the body is nested too deeply")
    current_app.logger.error("database: %s", error)
    return ConsentError("center.unreachable", "the center's database does not answer; try again")


def _explain(error: HTTPError) -> str:
    """`{"json": {"phone": ["Missing data."]}}` as one sentence a field."""
    if not isinstance(error.detail, dict) or not error.detail:
        return str(error.message)
    found: list[str] = []

    def walk(node: Any, path: list[str]) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, [*path, str(key)])
        elif isinstance(node, list):
            found.append(f"{'.'.join(path[1:]) or told('the body')}: {' '.join(told(str(x)) for x in node)}")

    walk(error.detail, [])
    return "; ".join(found[:20]) or str(error.message)
