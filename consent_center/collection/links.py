"""Signed, expiring links. A link opens one thing (`kind`) for one person, until a time; it names nobody.

    token = base64url( version ‖ kind ‖ id (16) ‖ expiry (8, seconds) ‖ HMAC-SHA-256(link key, those ‖
    subject) ) link key = HMAC-SHA-256(data key, "pec/consent/link/v1")

The id is random; which person it is for stands in the database only, and in the MAC: a row whose subject was
exchanged opens nothing. Erasing a person ends all its links.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent_center import subjects
from consent_center.collection.tables import links
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger.log import append_entries
from consent_center.preferences.store import secrets_of

LEAF_KIND = "collection.link"
_VERSION = 1
_KINDS = {"page": 1, "confirm": 2, "guardian": 3, "embed": 4}
#: Kinds that end with their first answer.
_ONCE = frozenset({"confirm"})
_ID, _MAC, _NONCE = 16, 32, 12
_HEAD = struct.Struct(f">BB{_ID}sQ")
OPEN = -1


@dataclass(frozen=True)
class Link:
    """An opened link. `body` says what it is for, `private` what names somebody."""

    id: bytes
    kind: str
    subject: int
    created_at: int
    expires_at: int
    body: dict[str, Any]
    private: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """How evidence and ledger name it; gives nobody access."""
        return self.id.hex()


def derive(keys: Keys, label: str) -> bytes:
    """A key for one use only, from the center's data key."""
    return hmac.digest(keys.data, f"pec/consent/{label}".encode(), "sha256")


def issue(
    connection: sa.Connection,
    keys: Keys,
    kind: str,
    subject: int,
    now: int,
    seconds: int,
    body: dict[str, Any],
    private: dict[str, Any],
    actor: str,
) -> tuple[str, Link]:
    """Make a link; (token, link). Writes a leaf without anybody's name."""
    id, expires = os.urandom(_ID), now + seconds * 1_000_000
    secret = secrets_of(connection, keys, [subject]).get(subject)
    if secret is None:
        raise ConsentError("subject.unknown", "that person was erased")
    nonce = os.urandom(_NONCE)
    text = json.dumps(private, ensure_ascii=False).encode()
    sealed = nonce + AESGCM(secret.seal).encrypt(nonce, text, b"link\x00" + id)
    link = Link(id, kind, subject, now, expires, body, private)
    connection.execute(
        links.insert().values(
            id=id,
            kind=kind,
            subject=subject,
            created_at=now,
            expires_at=expires,
            used_at=OPEN,
            revoked_at=OPEN,
            body=json.dumps(body, ensure_ascii=False),
            sealed=sealed,
        )
    )
    payload = {"link": link.name, "kind": kind, "for": body, "seconds": seconds, "actor": actor}
    append_entries(connection, [(LEAF_KIND, payload)])
    return _token(keys, link), link


def _token(keys: Keys, link: Link) -> str:
    head = _HEAD.pack(_VERSION, _KINDS[link.kind], link.id, link.expires_at // 1_000_000)
    return base64.urlsafe_b64encode(head + _mac(keys, head, link.subject)).decode().rstrip("=")


def _mac(keys: Keys, head: bytes, subject: int) -> bytes:
    return hmac.digest(derive(keys, "link/v1"), head + subject.to_bytes(8, "big"), "sha256")


def open_link(connection: sa.Connection, keys: Keys, token: str, kind: str, now: int) -> Link:
    """The link of a token. `link.invalid` (not ours, or for something else), `link.expired` (ended, used,
    revoked, or its person was erased)."""
    broken = ConsentError("link.invalid", "the link is incomplete or was not made by this center")
    try:
        # Strict: urlsafe_b64decode skips strange characters, so one link would have many spellings.
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise broken from None
    if len(raw) != _HEAD.size + _MAC or base64.urlsafe_b64encode(raw).decode().rstrip("=") != token:
        raise broken
    version, number, id, seconds = _HEAD.unpack(raw[: _HEAD.size])
    row = connection.execute(sa.select(links).where(links.c.id == id)).first()
    # A token that is not ours is checked against a subject all the same: the time tells nothing.
    subject = 0 if row is None else int(row.subject)
    if not hmac.compare_digest(_mac(keys, raw[: _HEAD.size], subject), raw[_HEAD.size :]) or row is None:
        raise broken
    if version != _VERSION or _KINDS.get(row.kind) != number or row.kind != kind:
        raise broken
    if now >= seconds * 1_000_000 or now >= row.expires_at:
        raise ConsentError("link.expired", "the link has expired; ask for a new one")
    if row.revoked_at != OPEN or (row.kind in _ONCE and row.used_at != OPEN):
        raise ConsentError("link.expired", "the link was used or withdrawn; ask for a new one")
    secret = secrets_of(connection, keys, [subject]).get(subject)
    if secret is None:
        raise ConsentError("link.expired", "the link has ended: nothing is held about this person any more")
    try:
        text = AESGCM(secret.seal).decrypt(row.sealed[:_NONCE], row.sealed[_NONCE:], b"link\x00" + id)
    except (InvalidTag, ValueError):
        raise broken from None
    return Link(
        id,
        row.kind,
        subject,
        int(row.created_at),
        int(row.expires_at),
        json.loads(row.body),
        json.loads(text),
    )


def use(connection: sa.Connection, link: Link, now: int) -> None:
    """Note the first use; a link for one use ends with it. `link.expired` if another was quicker."""
    done = connection.execute(
        links.update().where(links.c.id == link.id, links.c.used_at == OPEN).values(used_at=now)
    )
    if done.rowcount == 0 and link.kind in _ONCE:
        raise ConsentError("link.expired", "the link was used already; ask for a new one")


def revoke(connection: sa.Connection, subject: int, kind: str, now: int) -> int:
    """End all open links of a kind of one person; how many."""
    chosen = sa.and_(links.c.subject == subject, links.c.kind == kind, links.c.revoked_at == OPEN)
    return int(connection.execute(links.update().where(chosen).values(revoked_at=now)).rowcount)


def form_token(keys: Keys, link: Link) -> str:
    """What the page's forms carry: a page that does not have the link can't make one (CSRF)."""
    return hmac.digest(derive(keys, "form/v1"), link.id, "sha256").hex()


def is_erased(connection: sa.Connection, subject: int) -> bool:
    return bool(subjects.is_erased(subjects.salts_of(connection, np.array([subject], np.int64)))[0])
