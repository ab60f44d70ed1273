"""Errors as problem details (RFC 9457), and the one table from an error code to an HTTP status."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, current_app, request

from consent_center.details import told
from consent_center.errors import CODES, ConsentError
from consent_center.i18n import gettext, language

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:pec:problem:"
PAGES = "pec.pages"

_STATUS = {
    "request.invalid": 400,
    "request.unauthorised": 401,
    "request.forbidden": 403,
    "request.not_found": 404,
    "registry.unknown": 404,
    "subject.unknown": 404,
    "snapshot.unknown": 404,
    "ledger.index": 404,
    "receipt.event": 404,
    "rights.unknown": 404,
    "webhook.unknown": 404,
    "rights.state": 409,
    "registry.version": 409,
    "event.identifier_conflict": 409,
    "preference.contact_conflict": 409,
    "collection.unknown": 404,
    "notice.unknown": 404,
    "notice.changed": 409,
    "rules.changed": 409,
    "rules.limit": 429,
    "collection.cooldown": 409,
    "collection.origin": 403,
    "collection.busy": 429,
    "link.invalid": 404,
    "link.expired": 410,
    "link.ticket": 409,
    "request.too_large": 413,
    "request.csrf": 400,
    "request.rate": 429,
    "account.unknown": 404,
    "account.exists": 409,
    "account.last_admin": 409,
    "account.refused": 403,
    "account.locked": 429,
    "account.session": 403,
    "account.oidc": 502,
    "center.busy": 503,
    "center.closed": 503,
    "center.restored": 503,
    "witness.refused": 502,
    "center.unreachable": 503,
    "ledger.corrupt": 500,
}

_CODES = {
    401: "request.unauthorised",
    403: "request.forbidden",
    404: "request.not_found",
    413: "request.too_large",
    429: "request.rate",
}


def status_of(code: str) -> int:
    """422 (understood, not allowed) for every code without a status of its own; 500 for a broken center."""
    return _STATUS.get(code, 500 if code.startswith("center.") else 422)


def body_of(code: str, detail: str, status: int, **more: Any) -> dict[str, Any]:
    """`title` and `detail` in the reader's language (`Accept-Language`), the rest for programs."""
    body: dict[str, Any] = {
        "type": TYPE + code,
        "title": gettext(CODES[code]),
        "status": status,
        "detail": told(detail),
        "instance": request.path,
        "code": code,
    }
    return body | more


def respond(body: dict[str, Any]) -> Response:
    """As problem details; below the paths of pages (`PAGES`: prefix -> renderer) as a page."""
    for prefix, page in current_app.extensions.get(PAGES, {}).items():
        if request.path == prefix or request.path.startswith(f"{prefix}/"):
            shown: Response = page(body)
            return shown
    more = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "60"}}
    headers = {"Content-Language": language(), "Vary": "Accept-Language", **more.get(body["status"], {})}
    text = json.dumps(body, ensure_ascii=True)
    return Response(text, body["status"], headers, content_type=MEDIA_TYPE)


def from_error(error: ConsentError) -> Response:
    more = {} if error.row is None else {"row": error.row}
    return respond(body_of(error.code, error.detail, status_of(error.code), **more))


def from_http(status: int, message: str) -> Response:
    """Errors of the framework itself: unknown path, wrong method, wrong content type, too large ..."""
    code = _CODES.get(status)
    return respond(body_of(code or "request.invalid", message, status))


def internal() -> Response:
    """A fault of ours has no code and tells no detail; the server's log has the trace."""
    body = {
        "type": "about:blank",
        "title": gettext("Internal Server Error"),
        "status": 500,
        "detail": told("the center failed on this request; its log says why"),
        "instance": request.path,
    }
    return respond(body)
