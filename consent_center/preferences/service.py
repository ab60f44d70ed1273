"""What the center offers: set and read preferences, policies, contact decisions, reports of contacts.

    center.preferences.set_many([("phone", "13800138000")], [Preference("sms", allowed=False)])
    center.preferences.may_contact(Question("phone", "13800138000", "sms", "news", "crm"))

Every call is one transaction. A decision with `reserve` decides and takes the slot in the same one, which no
other writer can enter, so of two senders that ask for the last slot one gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from consent_center.batch import DAY, NEVER, day_start, micros
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.model import KINDS, DecisionRequest
from consent_center.model import REASONS as CONSENT_REASONS
from consent_center.preferences import model, store
from consent_center.preferences.evaluate import Consent, Known, evaluate, keys_of
from consent_center.preferences.model import (
    Answer,
    Contact,
    Policy,
    Preference,
    Question,
    Reason,
    Reported,
    Term,
    when,
)
from consent_center.requests import restriction

Ints = npt.NDArray[np.int64]

#: Further back than this no window reaches (a month has 31 days at most, and the clocks may change).
_REACH = 33 * DAY
_FAILS_CLOSED = ("center.unreachable", "center.busy", "ledger.corrupt")


class Judge(Protocol):
    """`consents.judge` on the center's caught-up state."""

    def __call__(
        self, connection: sa.Connection, request: DecisionRequest, ordinals: Ints, as_of: int
    ) -> tuple[npt.NDArray[np.uint8], Ints]: ...


@dataclass(frozen=True)
class Written:
    """What `set_many` wrote: number of the first preference, their leaves, the person's ordinal."""

    first_number: int
    leaves: tuple[int, ...]
    subject: int


@dataclass(frozen=True)
class Person:
    """What holds for one person: (number, preference) in force and, if asked for, all that ever were."""

    subject: int
    in_force: tuple[tuple[int, Preference], ...]
    history: tuple[tuple[int, int, Preference], ...]  # (number, leaf, preference)
    policies: tuple[Policy, ...]


@dataclass(frozen=True)
class Preferences:
    """One center's preferences. `timed_rules`: the center has rules, whose answer may change with time."""

    keys: Keys
    read: Callable[[], AbstractContextManager[sa.Connection]]
    write: Callable[[], AbstractContextManager[sa.Connection]]
    now: Callable[[], int]
    judge: Judge
    timed_rules: bool = False

    # ---- preferences ---------------------------------------------------------------------------------------

    def set_many(self, identifiers: Sequence[tuple[str, str]], wishes: Sequence[Preference]) -> Written:
        """Record what one person wants, each for its key; a person not known yet becomes known.

        Raises `preference.*`, `event.identifier`, `event.identifier_conflict`; then nothing was written.
        """
        if not 0 < len(wishes) <= 1_000:
            raise ConsentError("preference.request", "give 1 to 1,000 preferences")
        now, ready = self.now(), []
        for wish in wishes:
            model.check_preference(wish)
            said = wish if wish.occurred_at else replace(wish, occurred_at=when(now))
            if said.occurred_at and micros(said.occurred_at) > now + model.SKEW:
                raise ConsentError("preference.time", "occurred_at is in the future")
            ready.append(said)
        with self.write() as connection:
            book = store.rulebook(connection)
            for wish in ready:
                _declared(book, wish.channel, wish.topic)
            said_at = min(micros(wish.occurred_at) for wish in ready if wish.occurred_at)
            subject = store.subject_for(connection, self.keys, identifiers, said_at)
            first, leaves = store.write_preferences(connection, self.keys, subject, ready, now)
        return Written(first, tuple(leaves), subject)

    def get(self, kind: str, value: str, history: bool = False) -> Person:
        """What holds for one person. `subject.unknown`, `event.identifier`, `ledger.corrupt`."""
        with self.read() as connection:
            if kind not in KINDS:
                raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
            found, valid = store.ordinals_of(connection, self.keys, [(kind, value)])
            if not valid[0]:
                raise ConsentError(
                    "event.identifier", f"the value is no {kind} identifier; check kind and spelling"
                )
            subject = int(found[0])
            if subject < 0:
                raise ConsentError("subject.unknown", f"no person with that {kind} is known here")
            secrets = store.secrets_of(connection, self.keys, [subject])
            wishes, broken = store.in_force(connection, secrets)
            if broken:
                raise ConsentError("ledger.corrupt", "a preference of this person was changed; run fsck")
            told = store.history(connection, secrets[subject], subject) if history else []
            policies = store.rulebook(connection).policies
        return Person(subject, tuple(wishes.get(subject, ())), tuple(told), policies)

    # ---- policies ------------------------------------------------------------------------------------------

    def put_policy(self, policy: Policy, actor: str = "") -> Policy:
        """A new version of the organisation's default for a key. `preference.*`."""
        model.check_policy(policy)
        with self.write() as connection:
            _declared(store.rulebook(connection), policy.channel, policy.topic)
            return store.put_policy(connection, policy, actor)

    def declare(self, term: Term, actor: str = "") -> Term:
        """Declare a channel or a topic, or switch one off. `preference.term`."""
        model.check_term(term)
        with self.write() as connection:
            return store.put_term(connection, term, actor)

    def rulebook(self) -> store.Rulebook:
        """Policies in force, declared channels and topics."""
        with self.read() as connection:
            return store.rulebook(connection)

    # ---- decisions -----------------------------------------------------------------------------------------

    def may_contact(self, question: Question) -> Answer:
        """One question; see `decide`."""
        return self.decide([question])[0]

    def decide(self, questions: Sequence[Question]) -> list[Answer]:
        """Up to 10,000 questions, in their order; a summary becomes a leaf of the ledger.

        If the center can't be read or written, every answer is no for `stale`. Raises `preference.*`,
        `decision.request`, `identifier.kind` for malformed questions, with the row.
        """
        if not 0 < len(questions) <= model.MAX_ITEMS:
            raise ConsentError("preference.request", f"ask 1 to {model.MAX_ITEMS:,} questions")
        now = self.now()
        times = [_checked(row, question, now, len(questions) > 1) for row, question in enumerate(questions)]
        try:
            with self.write() as connection:
                return self._decide(connection, questions, times, now)
        except ConsentError as error:
            if error.code not in _FAILS_CLOSED:
                raise
            reason = Reason("stale", detail=error.detail)
            return [Answer(False, (reason,), when(at), None) for at in times]

    def decide_each(
        self, connection: sa.Connection, questions: Sequence[Question], now: int
    ) -> list[Answer | ConsentError]:
        """Questions of several callers, in the caller's transaction: each has its own leaf and error."""
        told: list[Answer | ConsentError | None] = [None] * len(questions)
        good, times = [], []
        for row, question in enumerate(questions):
            try:
                times.append(_checked(row, question, now, many=False))
                good.append(row)
            except ConsentError as error:
                told[row] = error
        book, leaves = store.rulebook(connection), []
        answers = (
            self._answers(connection, [questions[row] for row in good], times, now, book) if good else []
        )
        for row, answer in zip(good, answers, strict=True):
            told[row] = answer
            if isinstance(answer, Answer):
                reserved = int(answer.reserved_until is not None)
                leaves.append(("contact.decision", _summary([questions[row]], [answer], reserved, book)))
        log.append_entries(connection, leaves)
        return [one for one in told if one is not None]

    def _decide(
        self, connection: sa.Connection, questions: Sequence[Question], times: Sequence[int], now: int
    ) -> list[Answer]:
        answers, book = [], store.rulebook(connection)
        for row, answer in enumerate(self._answers(connection, questions, times, now, book)):
            if isinstance(answer, ConsentError):
                raise ConsentError(answer.code, answer.detail, row if len(questions) > 1 else None)
            answers.append(answer)
        reserved = sum(answer.reserved_until is not None for answer in answers)
        log.append_entries(connection, [("contact.decision", _summary(questions, answers, reserved, book))])
        return answers

    def _answers(
        self,
        connection: sa.Connection,
        questions: Sequence[Question],
        times: Sequence[int],
        now: int,
        book: store.Rulebook,
    ) -> list[Answer | ConsentError]:
        """In their order, each seeing the slots that earlier ones took; an error is a conflict of its id."""
        ordinals, valid = store.ordinals_of(connection, self.keys, [(q.kind, q.value) for q in questions])
        people = {int(ordinal) for ordinal in ordinals if ordinal >= 0}
        secrets = store.secrets_of(connection, self.keys, sorted(people))
        wishes, broken = store.in_force(connection, secrets)
        young = store.birthdays(connection, people)
        restricted = set(restriction.subjects(connection))
        store.drop_reservations(connection, expired=now)  # before what is held is read
        made = store.contacts_of(connection, people, min(times) - _REACH, now)
        ids = [
            store.contact_key(self.keys, q.sender, q.contact_id) if q.contact_id else b"" for q in questions
        ]
        slots = store.known_contacts(connection, [id for id in ids if id])
        consents = self._consents(connection, book, questions, ordinals, times, now)
        answers: list[Answer | ConsentError] = []
        for row, question in enumerate(questions):
            subject, id = int(ordinals[row]), ids[row]
            held = slots.get(id)
            fixed = _fixed(book, question, bool(valid[row]), subject in broken, subject)
            if held is not None and _other(held, subject, question.channel, question.topic):
                answers.append(
                    ConsentError(
                        "preference.contact_conflict",
                        "contact_id stands for another person, channel or topic",
                    )
                )
                continue
            if subject in restricted:
                fixed.append(Reason("restricted"))
            if held is not None and held.expires_at == store.MADE:
                fixed.append(Reason("already_made"))
            list_of = made.setdefault(subject, []) if subject >= 0 else []
            known = Known(
                [wish for _, wish in wishes.get(subject, ())],
                [p for key in keys_of(question.channel, question.topic) for p in _at(book, key)],
                [(at, channel, topic) for at, channel, topic, other in list_of if not id or other != id],
                consents[row],
                int(day_start(np.array([young[subject]]))[0]) if subject in young else None,
            )
            answer = evaluate(known, question.channel, question.topic, times[row], fixed)
            if self.timed_rules and answer.next_at is not None and not answer.allowed:
                answer = self._rechecked(connection, book, question, subject, answer, now)
            if question.reserve and answer.allowed:
                expires = now + question.reserve_seconds * 1_000_000
                key = (question.channel, question.topic)
                store.reserve(connection, id, subject, times[row], key, question.sender, expires)
                list_of[:] = sorted([c for c in list_of if c[3] != id] + [(times[row], *key, id)])
                slots[id] = store.known_contacts(connection, [id])[id]
                answer = replace(answer, reserved_until=when(expires))
            elif held is not None and not answer.allowed:
                store.drop_reservations(connection, [id])  # it may no longer be used
                if held.expires_at != store.MADE:
                    del slots[id]
                list_of[:] = [c for c in list_of if c[3] != id or held.expires_at == store.MADE]
            answers.append(answer)
        return answers

    def _consents(
        self,
        connection: sa.Connection,
        book: store.Rulebook,
        questions: Sequence[Question],
        ordinals: Ints,
        times: Sequence[int],
        now: int,
    ) -> list[list[Consent]]:
        """Per question what was decided on each purpose that it or a policy links."""
        groups: dict[tuple[DecisionRequest, int], list[int]] = {}
        for row, question in enumerate(questions):
            for request in _linked(book, question):
                # Without rules a consent only ever ends, so one look at today's state serves every time.
                groups.setdefault((request, times[row] if self.timed_rules else now), []).append(row)
        found: list[list[Consent]] = [[] for _ in questions]
        for (request, as_of), rows in groups.items():
            who = ordinals[rows]
            codes, ends = self.judge(connection, request, who[who >= 0], as_of)
            told = iter(zip(codes.tolist(), ends.tolist(), strict=True))
            for row in rows:
                code, end = (
                    next(told) if ordinals[row] >= 0 else (CONSENT_REASONS.index("unknown_subject"), NEVER)
                )
                reason = CONSENT_REASONS[code] if code else ""
                found[row].append(Consent(request.purpose, reason, None if end == NEVER else end))
        return found

    def _rechecked(
        self,
        connection: sa.Connection,
        book: store.Rulebook,
        question: Question,
        subject: int,
        answer: Answer,
        now: int,
    ) -> Answer:
        """With rules of the house, the next time is only promised if they allow it then."""
        if answer.next_at is None:
            return answer
        then, who = [micros(answer.next_at)], np.array([subject], np.int64)
        again = self._consents(connection, book, [question], who, then, now)[0]
        return replace(answer, next_at=None) if any(consent.reason for consent in again) else answer

    # ---- contacts ------------------------------------------------------------------------------------------

    def record_contacts(self, made: Sequence[Contact]) -> Reported:
        """Count contacts that were made; the same (sender, contact_id) again changes nothing.

        Each stands for itself: "recorded", "repeated", or why not (`subject.unknown`, `event.identifier`,
        `preference.contact_conflict`, `preference.time`, `preference.key`); all others are recorded.
        """
        if not 0 < len(made) <= model.MAX_ITEMS:
            raise ConsentError("preference.request", f"report 1 to {model.MAX_ITEMS:,} contacts")
        now = self.now()
        outcomes: list[tuple[str, str]] = [("recorded", "")] * len(made)
        for row, contact in enumerate(made):
            try:
                model.check_contact(contact)
                if not 0 <= micros(contact.at) <= now + model.SKEW:
                    raise ConsentError("preference.time", "at is in the future, or before 1970")
            except ConsentError as error:
                outcomes[row] = (error.code, error.detail)
        good = [row for row, (outcome, _) in enumerate(outcomes) if outcome == "recorded"]
        with self.write() as connection:
            ordinals, valid = store.ordinals_of(
                connection, self.keys, [(made[r].kind, made[r].value) for r in good]
            )
            ids = [store.contact_key(self.keys, made[r].sender, made[r].contact_id) for r in good]
            held = store.known_contacts(connection, ids)
            fresh: dict[bytes, tuple[int, Contact]] = {}
            for row, id, ordinal, usable in zip(good, ids, ordinals.tolist(), valid.tolist(), strict=True):
                contact, old = made[row], held.get(id)
                earlier = fresh.get(id)
                if not usable:
                    outcomes[row] = ("event.identifier", f"the value is no {contact.kind} identifier")
                elif ordinal < 0:
                    outcomes[row] = ("subject.unknown", f"no person with that {contact.kind} is known here")
                elif (old and _other(old, ordinal, contact.channel, contact.topic)) or (
                    earlier
                    and (earlier[0], earlier[1].channel, earlier[1].topic)
                    != (ordinal, contact.channel, contact.topic)
                ):
                    outcomes[row] = ("preference.contact_conflict", "contact_id stands for another contact")
                elif earlier or (old and old.expires_at == store.MADE):
                    outcomes[row] = ("repeated", "")
                else:
                    fresh[id] = (ordinal, contact)
            if fresh:
                rows = [(id, ordinal, contact) for id, (ordinal, contact) in fresh.items()]
                store.write_contacts(connection, self.keys, rows, now)
        return Reported(tuple(o for o, _ in outcomes), tuple(d for _, d in outcomes))

    def release(self, sender: str, contact_ids: Sequence[str]) -> int:
        """Give back reserved slots that will not be used; how many. Made contacts stay."""
        with self.write() as connection:
            ids = [store.contact_key(self.keys, sender, id) for id in contact_ids]
            return store.drop_reservations(connection, ids)


def _checked(row: int, question: Question, now: int, many: bool) -> int:
    """The time that the question is about."""
    try:
        model.check_question(question)
        at = now if question.at is None else micros(question.at)
        if at < now - model.SKEW:
            raise ConsentError("preference.time", "at has passed; ask about now or a later time")
        if at > now + model.AHEAD:
            raise ConsentError("preference.time", "at is more than 366 days ahead")
        return max(at, now)
    except ConsentError as error:
        raise ConsentError(error.code, error.detail, row if many else None) from error


def _declared(book: store.Rulebook, channel: str, topic: str) -> None:
    if channel != model.ALL and channel not in book.channels:
        raise ConsentError("preference.unknown", f"channel {channel!r} is not declared; declare it first")
    if topic != model.ALL and topic not in book.topics:
        raise ConsentError("preference.unknown", f"topic {topic!r} is not declared; declare it first")


def _fixed(book: store.Rulebook, question: Question, valid: bool, broken: bool, subject: int) -> list[Reason]:
    found = []
    if broken:
        found.append(Reason("stale", detail="a preference of this person can't be read; run fsck"))
    if not valid:
        found.append(Reason("identifier_invalid", detail=question.kind))
    elif subject < 0:
        found.append(Reason("unknown_subject"))
    for code, name, known in (
        ("unknown_channel", question.channel, book.channels),
        ("unknown_topic", question.topic, book.topics),
    ):
        if name not in known or not known[name].active:
            found.append(Reason(code, detail=name))
    return found


def _at(book: store.Rulebook, key: tuple[str, str]) -> list[Policy]:
    return [policy for policy in book.policies if (policy.channel, policy.topic) == key]


def _linked(book: store.Rulebook, question: Question) -> list[DecisionRequest]:
    links = [(question.purpose, question.recipient, question.categories)]
    for key in keys_of(question.channel, question.topic):
        links += [(p.purpose, p.recipient, p.categories) for p in _at(book, key)]
    return list(dict.fromkeys(DecisionRequest(*link) for link in links if link[0]))


def _other(held: Any, subject: int, channel: str, topic: str) -> bool:
    return (held.subject, held.channel, held.topic) != (subject, channel, topic)


def _summary(
    questions: Sequence[Question], answers: Sequence[Answer], reserved: int, book: store.Rulebook
) -> dict[str, Any]:
    """What the ledger says of a decision: numbers, nobody's name."""
    reasons: dict[str, int] = {}
    for answer in answers:
        for code in {reason.code for reason in answer.reasons}:
            reasons[code] = reasons.get(code, 0) + 1
    return {
        "senders": sorted({question.sender for question in questions}),
        "channels": sorted({question.channel for question in questions}),
        "topics": sorted({question.topic for question in questions}),
        "allowed": sum(answer.allowed for answer in answers),
        "denied": sum(not answer.allowed for answer in answers),
        "reasons": dict(sorted(reasons.items())),
        "reserved": reserved,
        "rules_hash": book.digest(),
    }
