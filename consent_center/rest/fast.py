"""The short way for the two busiest calls: one decision, one event.

It takes only bodies that the schemas would take too, by plain checks instead of marshmallow's; whatever else
comes (more values, times in another spelling, unknown members, mistakes) goes the ordinary way, which judges
it and words the error. Authentication, roles and limits come before, as for every call: in Flask's hooks, or,
for the service token, in `Front`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from flask import Flask, Response, request

from consent_center.center import Center
from consent_center.model import ACTIONS, KINDS, REASONS, DecisionRequest
from consent_center.rest import token, wire
from consent_center.rest.context import CENTER, SERVICE_ROLE, TOKEN, center
from consent_center.rest.roles import ENDPOINTS, actor, allowed

_ID, _LINE, _TEXT = 200, 1_000, 100_000
_BAD = re.compile("[\0\ud800-\udfff]")
_TIME = re.compile(r"(?:19|20|21)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)

_FAILED = "pec.failed"  # no header can make such a key

Check = Callable[[Any], bool]


def _string(limit: int = _ID, least: int = 1) -> Check:
    return lambda v: isinstance(v, str) and least <= len(v) <= limit and _BAD.search(v) is None


def _texts(least: int) -> Check:
    one = _string()
    return lambda v: isinstance(v, list) and least <= len(v) <= 100 and all(map(one, v))


def _number(least: int) -> Check:
    return lambda v: type(v) is int and least <= v < 1 << 31


def _time(value: Any) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


_DECISION: dict[str, Check] = {
    "purpose": _string(),
    "recipient": _string(),
    "categories": _texts(1),
    "regulation": _string(),
    "kind": lambda v: isinstance(v, str) and v in KINDS,
    "values": lambda v: isinstance(v, list) and len(v) == 1 and _string(_LINE, 0)(v[0]),
}
_DECISION_NEEDS = {"purpose", "recipient", "categories", "kind", "values"}
_EVENT: dict[str, Check] = {
    **{kind: _string() for kind in KINDS},
    "purpose": _string(),
    "purpose_version": _number(1),
    "action": lambda v: isinstance(v, str) and v in ACTIONS,
    "recipient": _string(),
    "categories": _texts(0),
    "notice": _string(least=0),
    "notice_version": _number(0),
    "controller": _string(least=0),
    "regulation": _string(),
    "channel": _string(),
    "method": _string(),
    "occurred_at": _time,
    "expires_at": _time,
    "evidence": _string(_TEXT, 0),
    "actor": _string(least=0),
}
_EVENT_NEEDS = {"purpose", "purpose_version", "action", "recipient"}


def decision_of(body: Any) -> tuple[DecisionRequest, str, str] | None:
    """(request, kind, value), or None for what the ordinary way must judge."""
    if not _fits(body, _DECISION, _DECISION_NEEDS):
        return None
    categories = tuple(body["categories"])
    asked = DecisionRequest(body["purpose"], body["recipient"], categories, None, body.get("regulation"))
    return asked, body["kind"], body["values"][0]


def event_of(body: Any) -> dict[str, Any] | None:
    """What `schemas.Event` would load, or None for what the ordinary way must judge."""
    if not _fits(body, _EVENT, _EVENT_NEEDS) or not body.keys() & set(KINDS):
        return None
    data = dict(body)
    for name in ("occurred_at", "expires_at"):
        if name in data:
            try:
                data[name] = datetime.fromisoformat(data[name])
            except ValueError:  # such as the 30th of February
                return None
    return data


def _fits(body: Any, checks: dict[str, Check], needs: set[str]) -> bool:
    if not isinstance(body, dict) or not needs <= body.keys():
        return False
    return all(name in checks and checks[name](value) for name, value in body.items())


Answer = tuple[dict[str, Any], int]
#: The name for the ledger, from the one that the body gives.
Actor = Callable[[str], str]


def _decide(served: Center, body: Any, _actor: Actor) -> Answer | None:
    found = decision_of(body)
    if found is None:
        return None
    asked, kind, value = found
    one = served.decide_soon(asked, value, kind)
    reason = REASONS[one.code]
    counts = {"in": 1, "out": {}} if one.code == 0 else {"in": 0, "out": {reason: 1}}
    return {"sequence": one.sequence, "detail": one.detail, "counts": counts, "reasons": [reason]}, 200


def _record(served: Center, body: Any, actor_of: Actor) -> Answer | None:
    data = event_of(body)
    if data is None:
        return None
    event = wire.event_from_json({**data, "actor": actor_of(data.get("actor", ""))}, datetime.now(UTC))
    return wire.plain(served.record_soon(event)), 201


_WAYS = {"decisions.decide": _decide, "events.record": _record}
_PATHS = {"/v1/decisions": "decisions.decide", "/v1/events": "events.record"}
_STATUS = {200: "200 OK", 201: "201 CREATED"}


def _text(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def install(app: Flask, headers: Mapping[str, str]) -> None:
    """Call after every other hook before requests: those decide who may ask. `headers`: of every answer."""
    app.before_request(_answer)
    if isinstance(app.extensions[CENTER], Center):
        app.wsgi_app = Front(app, headers)  # type: ignore[method-assign]


def _answer() -> Response | None:
    failed = request.environ.get(_FAILED)
    if failed is not None:
        raise failed
    way = _WAYS.get(request.endpoint or "")
    if way is None or request.mimetype != "application/json":
        return None
    served = center()
    if not isinstance(served, Center):
        return None
    found = way(served, json.loads(request.get_data(cache=True)), actor)
    return None if found is None else Response(_text(found[0]), found[1], content_type="application/json")


class Front:
    """A WSGI application before Flask's, for the two busiest calls of holders of the service token.

    Flask costs more than a decision does. Whatever is not exactly such a call goes on to Flask untouched; so
    does an error, which is worded there.
    """

    def __init__(self, app: Flask, headers: Mapping[str, str]) -> None:
        self._flask = app.wsgi_app
        self._center, self._token = app.extensions[CENTER], app.extensions[TOKEN]
        self._headers = list(headers.items())

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found = self._served(environ)
        if found is None:
            flask: Iterable[bytes] = self._flask(environ, start_response)
            return flask
        text = _text(found[0])
        about = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        start_response(_STATUS[found[1]], about + self._headers)
        return [text]

    def _served(self, environ: dict[str, Any]) -> Answer | None:
        endpoint = _PATHS.get(environ.get("PATH_INFO", ""), "")
        way = _WAYS.get(endpoint)
        size = environ.get("CONTENT_LENGTH", "")
        if (
            way is None
            or environ.get("REQUEST_METHOD") != "POST"
            or environ.get("CONTENT_TYPE") != "application/json"
            or environ.get("QUERY_STRING")
            or environ.get("SCRIPT_NAME")
            or "HTTP_TRANSFER_ENCODING" in environ
            or not (size.isascii() and size.isdigit() and len(size) < 6)
            or not token.matches(environ.get("HTTP_AUTHORIZATION"), self._token)
            or not allowed(SERVICE_ROLE, ENDPOINTS[endpoint])
        ):
            return None
        body = environ["wsgi.input"].read(int(size))
        environ["wsgi.input"] = io.BytesIO(body)
        if len(body) != int(size):
            return None
        try:
            data = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return None
        try:
            return way(self._center, data, str)
        except Exception as error:  # not done twice: `_answer` raises it where errors are worded
            environ[_FAILED] = error
            return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
