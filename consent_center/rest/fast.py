"""The short way for the two busiest calls: one decision, one event.

It takes only bodies that the schemas would take too, by plain checks instead of marshmallow's; whatever else
comes (more values, times in another spelling, unknown members, mistakes) goes the ordinary way, which judges
it and words the error. Authentication, roles and limits come before, as for every call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, request

from consent_center.center import Center
from consent_center.model import ACTIONS, KINDS, REASONS, DecisionRequest
from consent_center.rest import wire
from consent_center.rest.context import center
from consent_center.rest.roles import actor

_ID, _LINE, _TEXT = 200, 1_000, 100_000
_BAD = re.compile("[\0\ud800-\udfff]")
_TIME = re.compile(r"(?:19|20|21)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)

Check = Callable[[Any], bool]


def _text(limit: int = _ID, least: int = 1) -> Check:
    return lambda v: isinstance(v, str) and least <= len(v) <= limit and _BAD.search(v) is None


def _texts(least: int) -> Check:
    one = _text()
    return lambda v: isinstance(v, list) and least <= len(v) <= 100 and all(map(one, v))


def _number(least: int) -> Check:
    return lambda v: type(v) is int and least <= v < 1 << 31


def _time(value: Any) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


_DECISION: dict[str, Check] = {
    "purpose": _text(),
    "recipient": _text(),
    "categories": _texts(1),
    "regulation": _text(),
    "kind": lambda v: isinstance(v, str) and v in KINDS,
    "values": lambda v: isinstance(v, list) and len(v) == 1 and _text(_LINE, 0)(v[0]),
}
_DECISION_NEEDS = {"purpose", "recipient", "categories", "kind", "values"}
_EVENT: dict[str, Check] = {
    **{kind: _text() for kind in KINDS},
    "purpose": _text(),
    "purpose_version": _number(1),
    "action": lambda v: isinstance(v, str) and v in ACTIONS,
    "recipient": _text(),
    "categories": _texts(0),
    "notice": _text(least=0),
    "notice_version": _number(0),
    "controller": _text(least=0),
    "regulation": _text(),
    "channel": _text(),
    "method": _text(),
    "occurred_at": _time,
    "expires_at": _time,
    "evidence": _text(_TEXT, 0),
    "actor": _text(least=0),
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


def _json(data: dict[str, Any], status: int) -> Response:
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return Response(text + "\n", status, content_type="application/json")


def _decide(served: Center, body: Any) -> Response | None:
    found = decision_of(body)
    if found is None:
        return None
    asked, kind, value = found
    one = served.decide_soon(asked, value, kind)
    reason = REASONS[one.code]
    counts = {"in": 1, "out": {}} if one.code == 0 else {"in": 0, "out": {reason: 1}}
    return _json({"sequence": one.sequence, "detail": one.detail, "counts": counts, "reasons": [reason]}, 200)


def _record(served: Center, body: Any) -> Response | None:
    data = event_of(body)
    if data is None:
        return None
    event = wire.event_from_json({**data, "actor": actor(data.get("actor", ""))}, datetime.now(UTC))
    return _json(wire.plain(served.record_soon(event)), 201)


_WAYS = {"decisions.decide": _decide, "events.record": _record}


def install(app: Flask) -> None:
    """Call after every other hook before requests: those decide who may ask."""
    app.before_request(_answer)


def _answer() -> Response | None:
    way = _WAYS.get(request.endpoint or "")
    if way is None or request.mimetype != "application/json":
        return None
    served = center()
    if not isinstance(served, Center):
        return None
    return way(served, json.loads(request.get_data(cache=True)))
