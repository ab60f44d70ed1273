"""Correlated OT with chosen bits from silent VOLEs over bits, in segments with one Δ each: README section 10.

A segment is a VOLE with field gf2 in the malicious setting: the sender has b and Δ, the receiver a and
random bits c
with a = b ⊕ c·Δ. The receiver sends d = choice ⊕ c, and the sender takes q = b ⊕ d·Δ, so that the
receiver's t = a is
q ⊕ choice·Δ. Machines to be embedded: their messages are below 1 MiB, of the receiver n_s / 8 bytes a
segment.

    sender                         receiver
    Vole  ───────── opening ─────►
          ◄──────── request ─────  Vole
    Vole  ───────── answer ──────►
          ◄─────── challenge ────  Vole
    Vole  ───────── proof ───────►
          ◄──────── d ───────────  Flips        then the next segment
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from protocols.codec import Codec, array_of
from protocols.labels import label
from protocols.machine import Done, Machine, Step
from protocols.vole.receiver import VoleReceiver
from protocols.vole.sender import VoleSender

Rng = Callable[[int], bytes]
Words = npt.NDArray[np.uint64]

#: Takes a segment's strings and its Δ (zeros at the receiver) as soon as they are there.
Taker = Callable[[Words, Words], None]


@dataclass(frozen=True)
class Strings:
    """`words`: uint64[n_s, 2] of each segment, the sender's q or the receiver's t = q ⊕ choice · Δ_s;
    `deltas`: Δ_s, uint64[2] of each, the sender's alone (empty at the receiver)."""

    words: tuple[Words, ...] = field(repr=False)
    deltas: tuple[Words, ...] = field(repr=False)


@dataclass(frozen=True)
class Vole:
    """Either side: a message of the segment's VOLE."""

    data: bytes


@dataclass(frozen=True)
class Flips:
    """Receiver: its choices under the VOLE's random bits, a bit an instance."""

    data: bytes


TO_RECEIVER = Codec(Vole)
TO_SENDER = Codec(Vole, Flips)


def _session(session: bytes, segment: int) -> bytes:
    return hashlib.sha256(label("vole", "both", f"chosen {segment}", session)).digest()


# Checked (malicious=True): a receiver whose columns differ would learn bits of Δ and with it strings that
# it did not
# choose; a sender whose trees differ would learn noise positions and with them choices.


class Sender(Machine[Strings]):
    """`sizes` are the instances of each segment. PeerError as of `protocols/vole`.

    With `take` each segment is handed over and forgotten: memory is that of one, and the result is empty.
    """

    def __init__(self, sizes: Sequence[int], session: bytes, rng: Rng, take: Taker | None = None) -> None:
        run = _SenderRun(tuple(sizes), session, rng, take)
        super().__init__(run.opening())


class _SenderRun:
    def __init__(self, sizes: tuple[int, ...], session: bytes, rng: Rng, take: Taker | None) -> None:
        self.sizes, self._session, self._rng, self._take = sizes, session, rng, take
        self.words: list[Words] = []
        self.deltas: list[Words] = []
        self._done = 0

    def keep(self, words: Words, delta: Words) -> None:
        self._done += 1
        if self._take is not None:
            self._take(words, delta)
            return
        self.words.append(words)
        self.deltas.append(delta)

    def opening(self) -> Step[Strings]:
        """The next segment's, or the end."""
        segment = self._done
        if segment == len(self.sizes):
            return Step((), Done(Strings(tuple(self.words), tuple(self.deltas))))
        role = VoleSender(
            self.sizes[segment], _session(self._session, segment), self._rng, field="gf2", malicious=True
        )
        return Step((TO_RECEIVER.encode(Vole(role.opening())),), WaitRequest(self, role))


class WaitRequest:
    def __init__(self, run: _SenderRun, role: VoleSender) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        answer = self._role.answer(TO_SENDER.decode(message, Vole).data)
        return Step((TO_RECEIVER.encode(Vole(answer)),), WaitChallenge(self._run, self._role))


class WaitChallenge:
    def __init__(self, run: _SenderRun, role: VoleSender) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        proof = self._role.prove(TO_SENDER.decode(message, Vole).data)
        then = WaitFlips(self._run)

        def send() -> Iterator[bytes]:
            yield TO_RECEIVER.encode(Vole(proof))
            made = self._role.expand()  # after the proof, so that both sides expand at the same time
            then.b, then.delta = made.b, made.delta

        return Step(send(), then)


class WaitFlips:
    def __init__(self, run: _SenderRun) -> None:
        self._run = run
        self.b: Words = np.zeros((0, 2), dtype=np.uint64)
        self.delta: Words = np.zeros(2, dtype=np.uint64)

    def receive(self, message: bytes) -> Step[Strings]:
        count = len(self.b)
        packed = array_of(TO_SENDER.decode(message, Flips).data, "u1", (count + 7) // 8)
        flips = np.unpackbits(packed, count=count).astype(np.uint64)
        self.b ^= flips[:, None] * self.delta
        self._run.keep(self.b, self.delta)
        return self._run.opening()


class Receiver(Machine[Strings]):
    """`choices`: uint8[n_s] of 0 and 1 of each segment, asked for once, in order; `take` as at the sender."""

    def __init__(
        self,
        choices: Sequence[npt.NDArray[np.uint8]],
        session: bytes,
        rng: Rng,
        take: Taker | None = None,
    ) -> None:
        super().__init__(_ReceiverRun(choices, session, rng, take).wait())


class _ReceiverRun:
    def __init__(
        self, choices: Sequence[npt.NDArray[np.uint8]], session: bytes, rng: Rng, take: Taker | None
    ) -> None:
        self.choices, self._session, self._rng, self._take = choices, session, rng, take
        self.words: list[Words] = []
        self._done = 0

    def keep(self, words: Words) -> None:
        self._done += 1
        if self._take is not None:
            self._take(words, np.zeros(2, dtype=np.uint64))
        else:
            self.words.append(words)

    def wait(self) -> Step[Strings]:
        """For the next segment's opening, or the end."""
        segment = self._done
        if segment == len(self.choices):
            return Step((), Done(Strings(tuple(self.words), ())))
        chosen = self.choices[segment]
        session = _session(self._session, segment)
        role = VoleReceiver(len(chosen), session, self._rng, field="gf2", malicious=True)
        return Step((), WaitOpening(self, role, chosen))


class WaitOpening:
    def __init__(self, run: _ReceiverRun, role: VoleReceiver, chosen: npt.NDArray[np.uint8]) -> None:
        self._run, self._role, self._chosen = run, role, chosen

    def receive(self, message: bytes) -> Step[Strings]:
        request = self._role.request(TO_RECEIVER.decode(message, Vole).data)
        return Step((TO_SENDER.encode(Vole(request)),), WaitAnswer(self._run, self._role, self._chosen))


class WaitAnswer:
    def __init__(self, run: _ReceiverRun, role: VoleReceiver, chosen: npt.NDArray[np.uint8]) -> None:
        self._run, self._role, self._chosen = run, role, chosen

    def receive(self, message: bytes) -> Step[Strings]:
        challenge = self._role.accept(TO_RECEIVER.decode(message, Vole).data)
        sent = () if challenge is None else (TO_SENDER.encode(Vole(challenge)),)
        return Step(sent, WaitProof(self._run, self._role, self._chosen))


class WaitProof:
    def __init__(self, run: _ReceiverRun, role: VoleReceiver, chosen: npt.NDArray[np.uint8]) -> None:
        self._run, self._role, self._chosen = run, role, chosen

    def receive(self, message: bytes) -> Step[Strings]:
        self._role.verify(TO_RECEIVER.decode(message, Vole).data)
        made = self._role.expand()
        flips = np.packbits(self._chosen ^ made.c.astype(np.uint8)).tobytes()
        self._run.keep(made.a)
        after = self._run.wait()
        return Step((TO_SENDER.encode(Flips(flips)),), after.then)
