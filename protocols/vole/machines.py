"""The roles as machines of their own, for tests and for callers that need nothing else from the same
exchange.

A role's long computation is done before its last message leaves; who wants it after that embeds the role.
"""

from __future__ import annotations

from protocols.machine import Done, Machine, Step
from protocols.ristretto import Rng
from protocols.vole.receiver import VoleReceiver
from protocols.vole.results import ReceiverVole, SenderVole
from protocols.vole.sender import VoleSender


class Sender(Machine[SenderVole]):
    """`VoleSender` as a machine: sends the opening by itself."""

    def __init__(
        self, n: int, session: bytes, rng: Rng, *, field: str = "gf64", malicious: bool = False
    ) -> None:
        role = VoleSender(n, session, rng, field=field, malicious=malicious)
        super().__init__(Step([role.opening()], _Answering(role, malicious)))


class Receiver(Machine[ReceiverVole]):
    """`VoleReceiver` as a machine: waits for the opening."""

    def __init__(
        self, n: int, session: bytes, rng: Rng, *, field: str = "gf64", malicious: bool = False
    ) -> None:
        role = VoleReceiver(n, session, rng, field=field, malicious=malicious)
        super().__init__(Step((), _Requesting(role)))


class _Answering:
    """The sender, for the Request."""

    def __init__(self, role: VoleSender, malicious: bool) -> None:
        self._role = role
        self._malicious = malicious

    def receive(self, message: bytes) -> Step[SenderVole]:
        answer = self._role.answer(message)
        if self._malicious:
            return Step([answer], _Proving(self._role))
        return Step([answer], Done(self._role.expand()))


class _Proving:
    """The sender, for the Challenge."""

    def __init__(self, role: VoleSender) -> None:
        self._role = role

    def receive(self, message: bytes) -> Step[SenderVole]:
        proof = self._role.prove(message)
        return Step([proof], Done(self._role.expand()))


class _Requesting:
    """The receiver, for the Opening."""

    def __init__(self, role: VoleReceiver) -> None:
        self._role = role

    def receive(self, message: bytes) -> Step[ReceiverVole]:
        return Step([self._role.request(message)], _Accepting(self._role))


class _Accepting:
    """The receiver, for the Answer."""

    def __init__(self, role: VoleReceiver) -> None:
        self._role = role

    def receive(self, message: bytes) -> Step[ReceiverVole]:
        challenge = self._role.accept(message)
        if challenge is None:
            return Step((), Done(self._role.expand()))
        return Step([challenge], _Verifying(self._role))


class _Verifying:
    """The receiver, for the Proof."""

    def __init__(self, role: VoleReceiver) -> None:
        self._role = role

    def receive(self, message: bytes) -> Step[ReceiverVole]:
        self._role.verify(message)
        return Step((), Done(self._role.expand()))
