"""The interface of the two roles, for machines that embed a VOLE in their own messages (as align does).

    sender                                            receiver
    opening()   ──────────────────────────────────►   request(opening)
    answer(request)   ◄───────────────────────────────
                ──────────────────────────────────►   accept(answer)
    prove(challenge)   ◄──────────────────────────────    malicious only
                ──────────────────────────────────►   verify(proof)
    expand() = (b, Δ)                                 expand() = (a, c)       a = b + Δ·c

Each call gives or takes one message of at most MAX_MESSAGE bytes, whatever n is. Calls are made in this
order, each once; another order is LocalError protocol.state, and an error is final.
"""

from __future__ import annotations

from typing import Protocol

from protocols.vole.results import ReceiverVole, SenderVole


class VoleSenderRole(Protocol):
    """Ends with b and Δ. Constructed with (n, session, rng, *, field, malicious)."""

    def opening(self) -> bytes:
        """The first message: base OTs. Costs some 10 ms."""
        ...

    def answer(self, request: bytes) -> bytes:
        """Takes the receiver's request; PeerError if it is not one. Expands the sender's trees."""
        ...

    def prove(self, challenge: bytes) -> bytes:
        """Malicious only: shows that the trees were sent consistently."""
        ...

    def expand(self) -> SenderVole:
        """The long local computation; needs no further message, so send the answer first."""
        ...


class VoleReceiverRole(Protocol):
    """Ends with a and c. Constructed with (n, session, rng, *, field, malicious)."""

    def request(self, opening: bytes) -> bytes:
        """Takes the sender's opening; PeerError if it is not one, or holds bad points."""
        ...

    def accept(self, answer: bytes) -> bytes | None:
        """Takes the answer. The challenge if malicious (send it, then `verify`), otherwise None."""
        ...

    def verify(self, proof: bytes) -> None:
        """Malicious only: PeerError vole.check if the sender's trees were not consistent."""
        ...

    def expand(self) -> ReceiverVole:
        """The long local computation."""
        ...
