"""Messages that align and enrich share; each of them adds the one that carries the sender's rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from protocols.codec import B32, U32, U64, Codec
from protocols.errors import LocalError
from protocols.labels import label


@dataclass(frozen=True)
class Request:
    """Receiver, first: its session's binding and its padded size."""

    binding: B32
    size: U64


@dataclass(frozen=True)
class Announce:
    """Sender, first: its session's binding, its rows, and a row's width in bytes."""

    binding: B32
    rows: U64
    width: U32


@dataclass(frozen=True)
class Blinded:
    """Receiver: blinded elements `first`, `first` + 1, …, 32 bytes each."""

    first: U64
    elements: bytes


@dataclass(frozen=True)
class Evaluated:
    """Sender: the same elements, evaluated."""

    first: U64
    elements: bytes


@dataclass(frozen=True)
class Kind:
    """A protocol on top of the exchange: its name, its codecs, and the message that carries sender's rows.

    `rows` is a message class with the fields `first: U64` and `data: bytes`, as `Blinded` has.
    """

    name: str
    to_sender: Codec
    to_receiver: Codec
    rows: type[Any]


def binding(protocol: str, session: bytes) -> B32:
    """32 bytes that differ between sessions, protocols and suites; both sides compare them first."""
    return B32(hashlib.sha256(label(protocol, "both", "ecdh binding", session)).digest())


def check_session(session: bytes) -> None:
    """LocalError unless the session has the 32 bytes that bind job, stage and snapshots."""
    if len(session) != 32:
        raise LocalError("protocol.argument", f"a session has 32 bytes, {len(session)} were given")
