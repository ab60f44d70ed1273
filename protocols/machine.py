"""The driver that every protocol shares: bytes in, bytes out, and a failed step is final.

A protocol is written as states. A state is a class of its own whose `receive` consumes one message and
names the state that follows; an illegal move therefore can't be written. `Machine` holds the current state,
hands out messages lazily (so memory is bounded by a message and not by the data), and poisons itself on any
error, so that nobody can go on from half a step.

Rules for whoever drives a machine: exhaust the iterator that `start` or `receive` returned before the next
call; stop when `finished`; then read `result`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from protocols.errors import LocalError, PeerError

#: Largest message that a machine may emit or accept, in bytes: 1 MiB with room for the transport's frame.
MAX_MESSAGE = (1 << 20) - 4096

#: How much is done, and of how much.
Progress = tuple[int, int]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Done(Generic[R]):
    """The end of a protocol, with what this side learned."""

    result: R


class State(Protocol[R_co]):
    """One state of one party."""

    def receive(self, message: bytes) -> Step[R_co]:
        """Consume one message of the peer's; raise PeerError if it is not allowed."""
        ...


@dataclass(frozen=True)
class Step(Generic[R_co]):
    """What a state answers: messages to send (may be lazy), then the state that follows.

    `progress` is (done, total) in the unit that the protocol's README names, for a progress bar only; a
    function where it goes on while messages are being made.
    """

    send: Iterable[bytes]
    then: State[R_co] | Done[R_co]
    progress: Progress | Callable[[], Progress] | None = None


class Machine(Generic[R]):
    """One party of one run. `opening` is the step that needs no message; pass `Step((), state)` to wait."""

    def __init__(self, opening: Step[R]) -> None:
        self._opening: Step[R] | None = opening
        self._state: State[R] | Done[R] | None = None
        self._sending = False
        self._poisoned = False
        self._progress: Progress | Callable[[], Progress] = (0, 0)

    @property
    def progress(self) -> Progress:
        """(done, total) of the whole protocol, as far as it is known."""
        return self._progress() if callable(self._progress) else self._progress

    @property
    def finished(self) -> bool:
        return isinstance(self._state, Done) and not self._sending and not self._poisoned

    @property
    def result(self) -> R:
        """What this side learned; LocalError before the end or after a failure."""
        if not self.finished or not isinstance(self._state, Done):
            raise LocalError("protocol.state", "the result was asked for before the protocol ended")
        return self._state.result

    def start(self) -> Iterator[bytes]:
        """Messages that this side sends before it has received any."""
        if self._poisoned:
            raise LocalError("protocol.poisoned", "an earlier call failed; start a new session")
        opening, self._opening = self._opening, None
        if opening is None:
            raise self._refuse("start was called twice")
        return self._run(opening)

    def receive(self, message: bytes) -> Iterator[bytes]:
        """Take one message of the peer's; the answer may be empty."""
        if self._poisoned:
            raise LocalError("protocol.poisoned", "an earlier step failed; start a new session")
        if self._opening is not None or self._sending or self._state is None:
            raise self._refuse("receive was called before the previous messages were all taken")
        if isinstance(self._state, Done):
            self._poisoned = True
            raise PeerError("protocol.unexpected", "a message after the protocol's end")
        if len(message) > MAX_MESSAGE:
            # A peer must not be able to make this side hold an arbitrary amount of memory.
            self._poisoned = True
            raise PeerError("protocol.too_large", f"a message of {len(message)} bytes, {MAX_MESSAGE} allowed")
        try:
            step = self._state.receive(message)
        except BaseException:
            self._poisoned = True
            raise
        return self._run(step)

    def _run(self, step: Step[R]) -> Iterator[bytes]:
        self._sending = True
        self._state = step.then
        if step.progress is not None:
            self._progress = step.progress
        return self._emit(step.send)

    def _emit(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for message in messages:
                if len(message) > MAX_MESSAGE:
                    raise LocalError("protocol.too_large", f"this side's message has {len(message)} bytes")
                yield message
        except BaseException:
            self._poisoned = True
            raise
        self._sending = False

    def _refuse(self, why: str) -> LocalError:
        self._poisoned = True
        return LocalError("protocol.state", why)


def pump(left: Machine[Any], right: Machine[Any], limit: int = 1_000_000) -> None:
    """Run two machines against each other in memory; for tests, oracles and playbooks.

    Raises LocalError when both wait for each other (a protocol that can't end).
    """
    to_right, to_left = list(left.start()), list(right.start())
    for _ in range(limit):
        if to_right:
            to_left.extend(right.receive(to_right.pop(0)))
        elif to_left:
            to_right.extend(left.receive(to_left.pop(0)))
        elif left.finished and right.finished:
            return
        else:
            raise LocalError("protocol.state", "both sides wait for a message")
    raise LocalError("protocol.state", f"no end after {limit} messages")
