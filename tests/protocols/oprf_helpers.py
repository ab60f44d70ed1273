"""What the tests of align, enrich and their exchange share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocols import align, enrich
from protocols.machine import Machine
from protocols.oprf.messages import Kind

SESSION = bytes(range(32))


def stream(seed: str) -> Callable[[int], bytes]:
    """A fixed source of randomness: call i gives SHAKE-256(seed ‖ i)."""
    calls = iter(range(1 << 62))
    return lambda n: hashlib.shake_256(f"{seed} {next(calls)}".encode()).digest(n)


def items_of(names: Sequence[object]) -> np.ndarray:
    """Distinct items for distinct names."""
    digests = b"".join(hashlib.sha256(repr(name).encode()).digest() for name in names)
    return np.frombuffer(digests, dtype=np.uint8).reshape(len(names), 32)


def records_of(names: Sequence[object], width: int = 24) -> np.ndarray:
    data = b"".join(hashlib.shake_256(b"record" + repr(name).encode()).digest(width) for name in names)
    return np.frombuffer(data, dtype=np.uint8).reshape(len(names), width)


@dataclass(frozen=True)
class Suite:
    """A protocol on the exchange, as the shared tests see it."""

    kind: Kind
    receiver: Callable[..., Machine[Any]]
    sender: Callable[..., Machine[Any]]


def _align_receiver(names, seed="receiver", session=SESSION, limits=None):
    return align.Receiver(items_of(names), session, limits or align.Limits(), stream(seed))


def _align_sender(names, seed="sender", session=SESSION, limits=None):
    return align.Sender(items_of(names), session, limits or align.Limits(), stream(seed))


def _enrich_receiver(names, seed="receiver", session=SESSION, limits=None):
    return enrich.Receiver(items_of(names), session, limits or enrich.Limits(), stream(seed))


def _enrich_sender(names, seed="sender", session=SESSION, limits=None):
    limits = limits or enrich.Limits()
    return enrich.Sender(items_of(names), records_of(names), session, limits, stream(seed))


SUITES = {
    "align": Suite(align.messages.KIND, _align_receiver, _align_sender),
    "enrich": Suite(enrich.messages.KIND, _enrich_receiver, _enrich_sender),
}


def converse(receiver: Machine[Any], sender: Machine[Any]) -> list[tuple[str, bytes]]:
    """Run both to the end; gives every message with who sent it ("receiver" or "sender")."""
    transcript: list[tuple[str, bytes]] = []
    queue = [("receiver", m) for m in receiver.start()] + [("sender", m) for m in sender.start()]
    while queue:
        who, message = queue.pop(0)
        transcript.append((who, message))
        if who == "receiver":
            queue += [("sender", m) for m in sender.receive(message)]
        else:
            queue += [("receiver", m) for m in receiver.receive(message)]
    return transcript


def sent_by(who: str, transcript: list[tuple[str, bytes]]) -> list[bytes]:
    return [message for name, message in transcript if name == who]


def feed(machine: Machine[Any], messages: Sequence[bytes]) -> Iterator[bytes]:
    """Drive one machine with recorded messages; gives what it sends."""
    yield from machine.start()
    for message in messages:
        yield from machine.receive(message)
