"""A fixed random source, a pump that keeps the transcript, and ideal linear queries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocols.linear_query import brand, messages, plan, provider
from protocols.machine import Machine, Step

SESSION = bytes(range(32))


def fixed_rng(name: str) -> Callable[[int], bytes]:
    """A deterministic stream of bytes; two sources with different names are unrelated."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name}/{count}".encode()).digest(size)

    return draw


def fractions(words: np.ndarray, bits: int) -> np.ndarray:
    """float64[n] in [0, 1): numbers of `bits` bits, uint32[words, n] with the lowest first, over 2^bits."""
    return sum(np.ldexp(word.astype(np.float64), 32 * w - bits) for w, word in enumerate(words))


def transcript(
    left: Machine[Any],
    right: Machine[Any],
    change: Callable[[str, int, bytes], bytes] = lambda side, index, message: message,
) -> list[tuple[str, bytes]]:
    """Run both to the end; `change(side, index, message)` may tamper with the index-th message of all."""
    log: list[tuple[str, bytes]] = []
    queue = [("left", m) for m in left.start()] + [("right", m) for m in right.start()]
    while queue:
        side, message = queue.pop(0)
        message = change(side, len(log), message)
        log.append((side, message))
        receiver, answerer = (right, "right") if side == "left" else (left, "left")
        queue.extend((answerer, m) for m in receiver.receive(message))
    return log


def ideal_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear queries of a third party whom both sides trust, in the place of the protocol's, with the same
    plans and bounds: for statistics over hundreds of runs. Messages are not the protocol's.
    """
    at_third_party: dict[bytes, np.ndarray] = {}

    def hold(query, values, session, rng, then):
        agreed = plan(query)
        y = values(0, query.rows)
        assert np.abs(y).max() <= query.max_value
        assert query.sparse_queries or np.count_nonzero(y) <= query.max_nonzero
        at_third_party[session] = y
        modulus = np.int64(agreed.plain_modulus)
        return Step((b"held",), Then(lambda _message: then(np.mod(at_third_party.pop(session), modulus))))

    def ask(query, queries, session, rng, then, kept=None):
        agreed = plan(query)

        def asked(_message: bytes) -> Step[Any]:
            rows = queries(0, query.rows)
            assert np.abs(rows).max() <= query.max_query
            assert not query.sparse_queries or np.count_nonzero(rows.any(axis=0)) <= query.max_nonzero
            at_third_party[session] = rows.astype(np.int64) @ at_third_party[session]
            return Step((b"asked",), Then(answered))

        def answered(message: bytes) -> Step[Any]:
            masked = messages.TO_PROVIDER.decode(message, messages.Masked)
            return then(brand.centred(np.frombuffer(masked.values, "<u8").astype(np.int64), agreed))

        return Step((), Then(asked))

    monkeypatch.setattr(brand, "steps", hold)
    monkeypatch.setattr(provider, "steps", ask)


class Then:
    """A state that is a function of the next message."""

    def __init__(self, function: Callable[[bytes], Step[Any]]) -> None:
        self.receive = function
