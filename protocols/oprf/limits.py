"""Sizes that both sides agreed to beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.errors import LocalError

#: Above this, a set is split into buckets by the caller.
MOST = 1 << 32


@dataclass(frozen=True)
class Limits:
    """Largest sets, in items. A side refuses a peer that announces more (PeerError protocol.too_large)."""

    max_receiver: int = 1 << 22
    max_sender: int = 1 << 22

    def __post_init__(self) -> None:
        for name, value in (("max_receiver", self.max_receiver), ("max_sender", self.max_sender)):
            if not 0 <= value <= MOST:
                raise LocalError("protocol.argument", f"{name} is {value}; 0 to {MOST} is allowed")
