"""For receivers: check a webhook. Needs the standard library and `cryptography`, nothing of the center.

The headers are those of the Standard Webhooks specification (standardwebhooks.com):

    webhook-id          unique; the same when a message is sent again
    webhook-timestamp   seconds since 1970, of this attempt
    webhook-signature   "v1,…" HMAC-SHA-256 and "v1a,…" Ed25519, base64, over `id.timestamp.body`

    guard = ReplayGuard()
    message = verify(request.headers, request.get_data(), public_key="whpk_…")
    if guard.first(message.id): handle(message.document)
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent_center.errors import ConsentError

#: A message whose time is further away than this is refused: somebody may have kept it.
TOLERANCE = 300
SECRET, PUBLIC = "whsec_", "whpk_"


@dataclass(frozen=True)
class Message:
    """A message whose signature holds."""

    id: str
    timestamp: int
    document: dict[str, Any]


def signed(id: str, timestamp: int, body: bytes) -> bytes:
    """What a signature covers."""
    return f"{id}.{timestamp}.".encode() + body


def verify(
    headers: Mapping[str, str],
    body: bytes,
    public_key: str = "",
    secret: str = "",
    now: float | None = None,
    tolerance: int = TOLERANCE,
) -> Message:
    """The message, or ConsentError `webhook.signature`. Give the center's public key or the secret."""
    found = {name.lower(): value for name, value in headers.items()}
    id, stamp = found.get("webhook-id", ""), found.get("webhook-timestamp", "")
    if not id or not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        raise ConsentError("webhook.signature", "the headers webhook-id and webhook-timestamp are missing")
    away = abs((time.time() if now is None else now) - int(stamp))
    if away > tolerance:
        # An old message that somebody kept must not undo a newer one.
        raise ConsentError("webhook.signature", f"its time is {away:.0f} s away; {tolerance} s are allowed")
    if not public_key and not secret:
        raise ConsentError("webhook.signature", "give the center's public key or the shared secret")
    covered = signed(id, int(stamp), body)
    given = [part.partition(",")[::2] for part in found.get("webhook-signature", "").split()]
    good = False
    for version, encoded in given:
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue  # an unreadable signature counts as none
        if version == "v1" and secret:
            good |= hmac.compare_digest(raw, hmac.digest(_raw(secret, SECRET), covered, "sha256"))
        elif version == "v1a" and public_key:
            good |= _ed25519(_raw(public_key, PUBLIC), raw, covered)
    if not good:
        raise ConsentError("webhook.signature", "no signature of the message is by that key")
    try:
        document = json.loads(body)
    except ValueError:
        raise ConsentError("webhook.signature", "the signed body is no JSON") from None
    return Message(id, int(stamp), document)


def _raw(text: str, prefix: str) -> bytes:
    try:
        raw = base64.b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(prefix) or len(raw) < 24:
        raise ConsentError("webhook.signature", f"the key is not of the form {prefix}…")
    return raw


def _ed25519(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class ReplayGuard:
    """Remembers ids, so that a message that comes twice is handled once. Keep one a process."""

    def __init__(self, size: int = 100_000) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._size = size

    def first(self, id: str) -> bool:
        """Whether this id was not seen before; the oldest are forgotten."""
        if id in self._seen:
            return False
        self._seen[id] = None
        if len(self._seen) > self._size:
            self._seen.popitem(last=False)
        return True
