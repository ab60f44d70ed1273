"""The short way for the busiest calls: one decision, one event, one contact decision.

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

from consent_center.accounts.base import Account
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.gather import Asked, Borne, Decided, Plain
from consent_center.model import ACTIONS, KINDS, REASONS, ConsentEvent, DecisionRequest, Recorded
from consent_center.preferences.model import Answer as Contacting
from consent_center.preferences.model import Question
from consent_center.preferences.wire import answer_to_json, question_from_json
from consent_center.rest import token, wire
from consent_center.rest.context import CENTER, SERVICE_ROLE, TOKEN, center
from consent_center.rest.roles import ENDPOINTS, Principal, acting, actor, allowed

_ID, _LINE, _TEXT = 200, 1_000, 100_000
_BAD = re.compile("[\0\ud800-\udfff]")
_TIME = re.compile(r"(?:19|20|21)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)

_API_TOKEN = re.compile(r"[Bb]earer pec_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", re.ASCII)

#: The error of a call that was tried before Flask; no header can make such a key.
FAILED = "pec.failed"

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
_CONTACT: dict[str, Check] = {
    "kind": lambda v: isinstance(v, str) and v in KINDS,
    "value": _string(_LINE),
    **{name: _string(128) for name in ("channel", "topic", "sender", "purpose", "recipient")},
    "at": _time,
    "categories": _texts(0),
    "contact_id": _string(512),
    "reserve": lambda v: isinstance(v, bool),
    "reserve_seconds": _number(1),
}
_CONTACT_NEEDS = {"kind", "value", "channel", "topic", "sender"}
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


def contact_of(body: Any) -> Question | None:
    """What `/v1/contact-decisions` asks about one contact, or None for what the ordinary way must judge."""
    if not _fits(body, _CONTACT, _CONTACT_NEEDS):
        return None
    try:
        return question_from_json(body)
    except ValueError:  # such as the 30th of February
        return None


def _fits(body: Any, checks: dict[str, Check], needs: set[str]) -> bool:
    if not isinstance(body, dict) or not needs <= body.keys():
        return False
    return all(name in checks and checks[name](value) for name, value in body.items())


#: JSON members and status.
Answered = tuple[dict[str, Any], int]
#: The name for the ledger, from the one that the body gives.
Actor = Callable[[str], str]


def _question(body: Any, _actor: Actor) -> Asked | None:
    found = decision_of(body)
    if found is None:
        return None
    asked, kind, value = found
    return Asked(asked, kind, value)


def _event(body: Any, actor_of: Actor) -> ConsentEvent | None:
    data = event_of(body)
    if data is None:
        return None
    return wire.event_from_json({**data, "actor": actor_of(data.get("actor", ""))}, datetime.now(UTC))


def _contact(body: Any, _actor: Actor) -> Question | None:
    return contact_of(body)


#: From a body to what the center is asked, or None for what the ordinary way must judge.
WAYS: dict[str, Callable[[Any, Actor], Plain | None]] = {
    "decisions.decide": _question,
    "events.record": _event,
    "preferences.decide": _contact,
}
PATHS = {
    "/v1/decisions": "decisions.decide",
    "/v1/events": "events.record",
    "/v1/contact-decisions": "preferences.decide",
}
_STATUS = {200: "200 OK", 201: "201 CREATED"}
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def told(answer: Recorded | Decided | Contacting) -> Answered:
    """What the caller is told."""
    if isinstance(answer, Contacting):
        yes = int(answer.allowed)
        return {"answers": [answer_to_json(answer)], "allowed": yes, "denied": 1 - yes}, 200
    if isinstance(answer, Recorded):
        members = ("sequence", "leaf_index", "subject")
        return {**{m: getattr(answer, m) for m in members}, "ignored": list(answer.ignored)}, 201
    reason = REASONS[answer.code]
    counts = {"in": 1, "out": {}} if answer.code == 0 else {"in": 0, "out": {reason: 1}}
    return {
        "sequence": answer.sequence,
        "detail": answer.detail,
        "counts": counts,
        "reasons": [reason],
    }, 200


def text_of(data: dict[str, Any]) -> bytes:
    """As Flask writes it."""
    return _ENCODER.encode(data).encode() + b"\n"


def bears(authorization: str) -> bool:
    """Whether that looks like an API token."""
    return _API_TOKEN.fullmatch(authorization) is not None


def borne(endpoint: str, authorization: str, data: Any) -> Borne | None:
    """What the holder of an API token asks, or None for what the ordinary way must judge. Who that is and
    whether they may ask is found out where it is answered.
    """
    way = WAYS[endpoint]
    if way(data, str) is None:
        return None

    def make(holder: Account) -> Plain:
        who = Principal(holder.name, holder.role, "api token")
        item = way(data, lambda given: acting(who, given)) if allowed(who.role, ENDPOINTS[endpoint]) else None
        if item is None:
            raise ConsentError("request.forbidden", f"{endpoint} is not for the role {who.role}")
        return item

    return Borne(authorization.partition(" ")[2], make)


def _ask(served: Center, item: Plain) -> Answered:
    if isinstance(item, Question):
        return told(served.contact_soon(item))
    if isinstance(item, ConsentEvent):
        return told(served.record_soon(item))
    return told(served.decide_soon(item.request, item.value, item.kind))


def install(app: Flask, headers: Mapping[str, str]) -> None:
    """Call after every other hook before requests: those decide who may ask. `headers`: of every answer."""
    app.before_request(_answer)
    if isinstance(app.extensions[CENTER], Center):
        app.wsgi_app = Front(app, headers)  # type: ignore[method-assign]


def _answer() -> Response | None:
    failed = request.environ.get(FAILED)
    if failed is not None:
        raise failed
    way = WAYS.get(request.endpoint or "")
    if way is None or request.mimetype != "application/json":
        return None
    served = center()
    if not isinstance(served, Center):
        return None
    item = way(json.loads(request.get_data(cache=True)), actor)
    if item is None:
        return None
    data, status = _ask(served, item)
    return Response(text_of(data), status, content_type="application/json")


def load(body: bytes) -> Any:
    """JSON, strictly. Raises ValueError, RecursionError."""
    return json.loads(body, parse_constant=_no_constant)


def permitted(endpoint: str, authorization: str | None, digest: bytes) -> bool:
    """Whether the caller holds the service token, and that is enough for the endpoint."""
    return token.matches(authorization, digest) and allowed(SERVICE_ROLE, ENDPOINTS[endpoint])


class Front:
    """A WSGI application before Flask's, for the busiest calls of holders of the service token.

    Flask costs more than a decision does. Whatever is not exactly such a call goes on to Flask untouched; so
    does an error, which is worded there. `asgi.LoopFront` does the same in an event loop.
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
        text = text_of(found[0])
        about = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        start_response(_STATUS[found[1]], about + self._headers)
        return [text]

    def _served(self, environ: dict[str, Any]) -> Answered | None:
        endpoint = PATHS.get(environ.get("PATH_INFO", ""), "")
        way = WAYS.get(endpoint)
        size = environ.get("CONTENT_LENGTH", "")
        if (
            way is None
            or FAILED in environ
            or environ.get("REQUEST_METHOD") != "POST"
            or environ.get("CONTENT_TYPE") != "application/json"
            or environ.get("QUERY_STRING")
            or environ.get("SCRIPT_NAME")
            or "HTTP_TRANSFER_ENCODING" in environ
            or not (size.isascii() and size.isdigit() and len(size) < 6)
            or not permitted(endpoint, environ.get("HTTP_AUTHORIZATION"), self._token)
        ):
            return None
        body = environ["wsgi.input"].read(int(size))
        environ["wsgi.input"] = io.BytesIO(body)
        if len(body) != int(size):
            return None
        try:
            data = load(body)
        except (ValueError, RecursionError):
            return None
        try:
            item = way(data, str)
            return None if item is None else _ask(self._center, item)
        except Exception as error:  # not done twice: `_answer` raises it where errors are worded
            environ[FAILED] = error
            return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
