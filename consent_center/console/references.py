"""References to a person in addresses: encrypted, for one account, for an hour.

The identifier that was typed is hashed on the way in and then forgotten. What goes on is the person's
ordinal, sealed, so that an address in a history or a log names nobody and a colleague can't use it.
"""

from __future__ import annotations

import base64
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent_center.console.base import embedded, who
from consent_center.errors import ConsentError

_SECONDS = 3_600


def _sealer() -> AESGCM:
    return AESGCM(hmac.digest(embedded().logins.cookie_key, b"person reference", "sha256"))


def seal(subject: int) -> str:
    """For the account that asks."""
    nonce, until = os.urandom(12), embedded().room.now() // 1_000_000 + _SECONDS
    sealed = _sealer().encrypt(nonce, struct.pack(">qq", subject, until), who().name.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")


def unseal(reference: str) -> int:
    """The ordinal. `request.not_found` for another account's, an old or a made-up one."""
    try:
        data = base64.urlsafe_b64decode(reference + "=" * (-len(reference) % 4))
        subject, until = struct.unpack(">qq", _sealer().decrypt(data[:12], data[12:], who().name.encode()))
    except (ValueError, InvalidTag, struct.error) as error:
        raise ConsentError("request.not_found", "search the person again") from error
    if embedded().room.now() // 1_000_000 > until:
        raise ConsentError("request.not_found", "this page is over an hour old: search the person again")
    return int(subject)
