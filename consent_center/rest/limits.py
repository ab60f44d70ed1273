"""Limits of what everybody may call: bytes of a body, rates by address. The windows are a process's own.

The library below Flask-Limiter, without its hook: that would run on every decision too.
"""

from __future__ import annotations

from functools import cache

from flask import Flask, current_app, request
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from werkzeug.exceptions import RequestEntityTooLarge

from consent_center.errors import ConsentError

#: Bytes of a body up to which it is read before a thread is taken, and of any body that needs no proof.
SMALL = 1 << 20
#: In the environment of a request whose body, in chunks, is larger than SMALL: its rest may not have come.
LARGER = "pec.larger"
_EXTENSION = "pec.limits"
_parse = cache(parse_many)


def install(app: Flask) -> None:
    app.extensions[_EXTENSION] = MovingWindowRateLimiter(MemoryStorage())


def body() -> bytes:
    """The request's body, whole. RequestEntityTooLarge if it goes on beyond its limit.

    `get_data` alone cuts a body that comes in chunks at the limit and says nothing: the last rows of an
    upload would be lost.
    """
    data = request.get_data(cache=False)
    if request.content_length is None and len(data) >= (request.max_content_length or len(data) + 1):
        raise RequestEntityTooLarge
    return data


def limit_rate(scope: str, rules: str) -> None:
    """Counts this request; raises `request.rate` over any of `rules`, such as `20 per minute; 100 per hour`.

    Behind a proxy the address is the client's only with PEC_CONSENT_PROXIES (docs/console.md).
    """
    limiter: MovingWindowRateLimiter = current_app.extensions[_EXTENSION]
    address = request.remote_addr or "unknown"
    over: list[RateLimitItem] = [r for r in _parse(rules) if not limiter.hit(r, scope, address)]
    if over:
        raise ConsentError("request.rate", f"more than {over[0]} from {address}: wait and try again")
