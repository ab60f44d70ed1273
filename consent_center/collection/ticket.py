"""Tickets: what a page or script was given to show, signed, so that it comes back as evidence and not as
a claim.

    ticket = base64url(JSON) "." base64url( HMAC-SHA-256(ticket key, JSON) )

It names the link or visitor it was made for, so a page elsewhere can't make or reuse one (CSRF).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from typing import Any

from consent_center.collection.links import derive
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger.verify import canonical

LIFETIME = 24 * 3_600_000_000  # microseconds that a page may stay open
_MAX = 40_000


def make(keys: Keys, data: dict[str, Any]) -> str:
    body = canonical(data)
    return f"{_text(body)}.{_text(hmac.digest(derive(keys, 'ticket/v1'), body, 'sha256'))}"


def read(keys: Keys, text: str, audience: str, now: int) -> dict[str, Any]:
    """What the ticket says. ConsentError `link.ticket`: not ours, made for another, or too old."""
    bad = ConsentError("link.ticket", "the page is out of date; load it again and answer there")
    head, _, tail = text.partition(".")
    if len(text) > _MAX:
        raise bad
    try:
        body, mac = _bytes(head), _bytes(tail)
    except (binascii.Error, ValueError):
        raise bad from None
    if not hmac.compare_digest(hmac.digest(derive(keys, "ticket/v1"), body, "sha256"), mac):
        raise bad
    data: dict[str, Any] = json.loads(body)
    if data["for"] != audience or not data["at"] <= now <= data["at"] + LIFETIME:
        raise bad
    return data


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
