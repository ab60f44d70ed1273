"""Group commit: what many threads of a service ask one by one is written in one transaction.

A commit costs a write to the disk, whatever is in it. So single events and decisions wait in a queue; one
thread takes all that wait, writes and decides them together, commits, and only then answers each. Nothing is
acknowledged before it is durable, and a decision sees every event acknowledged before it was asked.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from consent_center.accounts.base import Account
from consent_center.errors import ConsentError
from consent_center.model import ConsentEvent, DecisionRequest, Recorded
from consent_center.preferences.model import Answer as Contacting
from consent_center.preferences.model import Question

#: At most so many are answered by one commit; the others wait for the next.
LARGEST = 256
#: Seconds that a group waits for as many callers as there were a moment ago; never for one alone.
PATIENCE = 0.002


@dataclass(frozen=True)
class Asked:
    """Whether one identifier may be used: index of model.REASONS, sequence number, what went wrong."""

    request: DecisionRequest
    kind: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Decided:
    code: int
    sequence: int
    detail: str


@dataclass(frozen=True)
class Borne:
    """What the holder of an API token asks. Whose token it is, is looked up in the transaction that answers,
    so that a token that was revoked a moment ago counts no more (and before it, so that a token that nobody
    holds begins none); `make` raises if that account may not ask.
    """

    token: str = field(repr=False)
    make: Callable[[Account], Plain]


Plain = ConsentEvent | Asked | Question
Item = Plain | Borne
Answer = Recorded | Decided | Contacting | ConsentError
#: Answers a group, in order, durably; raises only if nothing of it was written.
Serve = Callable[[Sequence[Item]], list[Answer]]
#: Takes an answer, or what went wrong, in the thread that commits: it must neither wait nor raise.
Tell = Callable[[Answer | Exception], None]


class Gather:
    """Use from any thread. `serve` is called from one thread of its own, which starts with the first item."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._waiting: deque[tuple[Item, Tell]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._expected = 1  # so many callers were seen at once

    def record(self, event: ConsentEvent) -> Recorded:
        """`Center.record`; ConsentError as there."""
        found = self._ask(event)
        if not isinstance(found, Recorded):
            raise TypeError(f"an event was answered by {type(found).__name__}")
        return found

    def decide(self, request: DecisionRequest, value: str, kind: str) -> Decided:
        """`Center.decide` for one value; ConsentError as there."""
        found = self._ask(Asked(request, kind, value))
        if not isinstance(found, Decided):
            raise TypeError(f"a question was answered by {type(found).__name__}")
        return found

    def contact(self, question: Question) -> Contacting:
        """`Preferences.may_contact`; ConsentError as there."""
        found = self._ask(question)
        if not isinstance(found, Contacting):
            raise TypeError(f"a question was answered by {type(found).__name__}")
        return found

    def _ask(self, item: Item) -> Recorded | Decided | Contacting:
        answer: Future[Answer | Exception] = Future()
        self.submit(item, answer.set_result)
        found = answer.result()
        if isinstance(found, Exception):
            raise found
        return found

    def submit(self, item: Item, tell: Tell) -> None:
        """Queue an item; `tell` is called once. Raises `center.closed`, and then never calls it."""
        with self._ready:
            if self._closed:
                raise ConsentError("center.closed", "this center was closed; open it again")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="consent-gather", daemon=True)
                self._thread.start()
            self._waiting.append((item, tell))
            if len(self._waiting) == 1 or len(self._waiting) >= self._expected:
                self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._closed:
                    self._ready.wait()
                if not self._waiting:
                    return
                # Who was answered a moment ago is likely to ask again: better one commit for all than two.
                self._ready.wait_for(lambda: self._closed or len(self._waiting) >= self._expected, PATIENCE)
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), LARGEST))]
            self._answer(group)
            with self._ready:
                self._expected = min(LARGEST, len(group) + len(self._waiting))

    def _answer(self, group: list[tuple[Item, Tell]]) -> None:
        try:
            answers = self._serve([item for item, _ in group])
            if len(answers) != len(group):
                raise ValueError(f"{len(answers)} answers for {len(group)} items")
        except Exception as error:  # each caller gets it; the thread must go on for the next group
            if len(group) == 1:
                group[0][1](error)
                return
            for one in group:  # nothing was written: one that can't be served must not cost the others
                self._answer([one])
            return
        for (_, tell), answer in zip(group, answers, strict=True):
            tell(answer)

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
