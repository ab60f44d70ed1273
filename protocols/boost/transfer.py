"""The correlated OT inside: m·F·D instances, in segments of whole blocks with one Δ each. README, section 4.

A segment is a silent VOLE over bits (`protocols/vole`, README section 10): the brand has b and Δ, the
provider a and
random bits c with a = b ⊕ c·Δ. The provider sends d = choice ⊕ c, and the brand takes q = b ⊕ d·Δ, so that
the
provider's t = a is q ⊕ choice·Δ.

    brand                          provider
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
from protocols.vole import VoleReceiver, VoleSender

Rng = Callable[[int], bytes]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Strings:
    """words: uint64[n_s, 2] of each segment, the brand's q or the provider's t = q ⊕ choice · Δ_s;
    deltas: Δ_s, uint64[2] of each, the brand's alone (empty at the provider)."""

    words: tuple[Words, ...] = field(repr=False)
    deltas: tuple[Words, ...] = field(repr=False)


@dataclass(frozen=True)
class Vole:
    """Either side: a message of the segment's VOLE."""

    data: bytes


@dataclass(frozen=True)
class Flips:
    """Provider: its choices under the VOLE's random bits, a bit an instance."""

    data: bytes


TO_PROVIDER = Codec(Vole)
TO_BRAND = Codec(Vole, Flips)


def _session(session: bytes, segment: int) -> bytes:
    return hashlib.sha256(label("boost", "both", f"transfer {segment}", session)).digest()


# Checked (malicious=True): a provider whose columns differ would learn bits of Δ, and with Δ every
# gradient; a
# brand whose trees differ would learn which noise positions, and with them choices, so bins.


class Sender(Machine[Strings]):
    """The brand: `sizes` are the instances of each segment. PeerError as of `protocols/vole`."""

    def __init__(self, sizes: Sequence[int], session: bytes, rng: Rng) -> None:
        run = _SenderRun(tuple(sizes), session, rng)
        super().__init__(run.opening())


class _SenderRun:
    def __init__(self, sizes: tuple[int, ...], session: bytes, rng: Rng) -> None:
        self.sizes, self._session, self._rng = sizes, session, rng
        self.words: list[Words] = []
        self.deltas: list[Words] = []

    def opening(self) -> Step[Strings]:
        """The next segment's, or the end."""
        segment = len(self.words)
        if segment == len(self.sizes):
            return Step((), Done(Strings(tuple(self.words), tuple(self.deltas))))
        role = VoleSender(
            self.sizes[segment], _session(self._session, segment), self._rng, field="gf2", malicious=True
        )
        return Step((TO_PROVIDER.encode(Vole(role.opening())),), WaitRequest(self, role))


class WaitRequest:
    def __init__(self, run: _SenderRun, role: VoleSender) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        answer = self._role.answer(TO_BRAND.decode(message, Vole).data)
        return Step((TO_PROVIDER.encode(Vole(answer)),), WaitChallenge(self._run, self._role))


class WaitChallenge:
    def __init__(self, run: _SenderRun, role: VoleSender) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        proof = self._role.prove(TO_BRAND.decode(message, Vole).data)
        then = WaitFlips(self._run)

        def send() -> Iterator[bytes]:
            yield TO_PROVIDER.encode(Vole(proof))
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
        packed = array_of(TO_BRAND.decode(message, Flips).data, "u1", (count + 7) // 8)
        flips = np.unpackbits(packed, count=count).astype(np.uint64)
        self.b ^= flips[:, None] * self.delta
        self._run.words.append(self.b)
        self._run.deltas.append(self.delta)
        return self._run.opening()


class Receiver(Machine[Strings]):
    """The provider: choices uint8[n_s] of 0 and 1 of each segment."""

    def __init__(self, choices: Sequence[npt.NDArray[np.uint8]], session: bytes, rng: Rng) -> None:
        super().__init__(_ReceiverRun(choices, session, rng).wait())


class _ReceiverRun:
    def __init__(self, choices: Sequence[npt.NDArray[np.uint8]], session: bytes, rng: Rng) -> None:
        self.choices, self._session, self._rng = choices, session, rng
        self.words: list[Words] = []

    def wait(self) -> Step[Strings]:
        """For the next segment's opening, or the end."""
        segment = len(self.words)
        if segment == len(self.choices):
            return Step((), Done(Strings(tuple(self.words), ())))
        count = len(self.choices[segment])
        role = VoleReceiver(count, _session(self._session, segment), self._rng, field="gf2", malicious=True)
        return Step((), WaitOpening(self, role))


class WaitOpening:
    def __init__(self, run: _ReceiverRun, role: VoleReceiver) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        request = self._role.request(TO_PROVIDER.decode(message, Vole).data)
        return Step((TO_BRAND.encode(Vole(request)),), WaitAnswer(self._run, self._role))


class WaitAnswer:
    def __init__(self, run: _ReceiverRun, role: VoleReceiver) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        challenge = self._role.accept(TO_PROVIDER.decode(message, Vole).data)
        sent = () if challenge is None else (TO_BRAND.encode(Vole(challenge)),)
        return Step(sent, WaitProof(self._run, self._role))


class WaitProof:
    def __init__(self, run: _ReceiverRun, role: VoleReceiver) -> None:
        self._run, self._role = run, role

    def receive(self, message: bytes) -> Step[Strings]:
        self._role.verify(TO_PROVIDER.decode(message, Vole).data)
        made = self._role.expand()
        choices = self._run.choices[len(self._run.words)]
        flips = np.packbits(choices ^ made.c.astype(np.uint8)).tobytes()
        self._run.words.append(made.a)
        after = self._run.wait()
        return Step((TO_BRAND.encode(Flips(flips)),), after.then)
