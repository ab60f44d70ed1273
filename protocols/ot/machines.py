"""OT extension as two machines: n OTs, streamed in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from protocols.errors import LocalError
from protocols.machine import Done, Machine, Step
from protocols.ot.aes import Words
from protocols.ot.extension import OtReceiver, OtSender
from protocols.ot.messages import BLOCK
from protocols.ot.results import ReceiverOts, SenderOts
from protocols.ristretto import Rng

#: Most OTs of a machine; 48 bytes of results each.
MOST = 1 << 28


class Sender(Machine[SenderOts]):
    """Learns both strings of n OTs. LocalError protocol.argument: n, session. Progress counts OTs."""

    def __init__(
        self, n: int, session: bytes, rng: Rng, *, correlated: bool = False, malicious: bool = False
    ) -> None:
        _check(n)
        role = OtSender(session, rng, correlated=correlated, malicious=malicious)
        super().__init__(Step([role.opening()], _Beginning(role, n), (0, n)))


class Receiver(Machine[ReceiverOts]):
    """Learns the chosen string of each OT, for `choices: uint8[n]` of zeros and ones."""

    def __init__(
        self,
        choices: npt.NDArray[np.uint8],
        session: bytes,
        rng: Rng,
        *,
        correlated: bool = False,
        malicious: bool = False,
    ) -> None:
        _check(len(choices))
        if choices.dtype != np.uint8 or choices.ndim != 1 or (len(choices) and choices.max() > 1):
            raise LocalError("protocol.argument", "choices are uint8[n] of zeros and ones")
        role = OtReceiver(session, rng, correlated=correlated, malicious=malicious)
        super().__init__(Step((), _SettingUp(role, choices), (0, len(choices))))


def _check(n: int) -> None:
    if not 0 <= n <= MOST:
        raise LocalError("protocol.argument", f"{n} OTs; 0 to {MOST} are allowed")


class _Beginning:
    """The sender, for the Setup."""

    def __init__(self, role: OtSender, n: int) -> None:
        self._role = role
        self._n = n

    def receive(self, message: bytes) -> Step[SenderOts]:
        self._role.begin(message)
        strings = np.empty((self._n, 2, 2), dtype=np.uint64)
        if not self._n:
            return Step((), Done(SenderOts(strings, self._role.delta)))
        return Step((), _Extending(self._role, strings))


class _Extending:
    """The sender, for Columns."""

    def __init__(self, role: OtSender, strings: Words) -> None:
        self._role = role
        self._strings = strings
        self._done = 0

    def receive(self, message: bytes) -> Step[SenderOts]:
        n = len(self._strings)
        end = min(self._done + BLOCK, n)
        self._strings[self._done : end] = self._role.extend(message, end - self._done)
        self._done = end
        if end == n:
            return Step((), Done(SenderOts(self._strings, self._role.delta)), (n, n))
        return Step((), self, (end, n))


class _SettingUp:
    """The receiver, for the Opening; then it only sends."""

    def __init__(self, role: OtReceiver, choices: npt.NDArray[np.uint8]) -> None:
        self._role = role
        self._choices = choices
        self._done = 0

    def receive(self, message: bytes) -> Step[ReceiverOts]:
        setup = self._role.setup(message)
        strings = np.empty((len(self._choices), 2), dtype=np.uint64)
        done: Done[ReceiverOts] = Done(ReceiverOts(strings))
        return Step(self._messages(setup, strings), done, lambda: (self._done, len(strings)))

    def _messages(self, setup: bytes, strings: Words) -> Iterator[bytes]:
        yield setup
        for at in range(0, len(strings), BLOCK):
            part = self._choices[at : at + BLOCK]
            message, strings[at : at + BLOCK] = self._role.extend(part)
            self._done = at + len(part)
            yield message
