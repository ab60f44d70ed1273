"""The preferences of any center: embedded ones answer themselves, remote ones over REST.

A remote center that does not answer refuses every contact, for `unreachable`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from consent_center.client import CenterClient
from consent_center.errors import ConsentError
from consent_center.preferences import wire
from consent_center.preferences.model import (
    Answer,
    Contact,
    Policy,
    Preference,
    Question,
    Reason,
    Reported,
    Term,
    policy_from_json,
    to_json,
)
from consent_center.preferences.service import Person, Written
from consent_center.preferences.store import Rulebook


class PreferenceClient(Protocol):
    """`consent_center.preferences.service.Preferences` documents each call."""

    def set_many(self, identifiers: Sequence[tuple[str, str]], wishes: Sequence[Preference]) -> Written: ...
    def get(self, kind: str, value: str, history: bool = False) -> Person: ...
    def put_policy(self, policy: Policy, actor: str = "") -> Policy: ...
    def declare(self, term: Term, actor: str = "") -> Term: ...
    def rulebook(self) -> Rulebook: ...
    def may_contact(self, question: Question) -> Answer: ...
    def decide(self, questions: Sequence[Question]) -> list[Answer]: ...
    def record_contacts(self, made: Sequence[Contact]) -> Reported: ...
    def release(self, sender: str, contact_ids: Sequence[str]) -> int: ...


def preferences_of(center: CenterClient) -> PreferenceClient:
    """The preferences of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.preferences
    if isinstance(center, RemoteCenter):
        return RemotePreferences(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} keeps no preferences")


class RemotePreferences:
    """Over REST; `call(method, path, body, safe)` is the remote center's. Safe calls are tried again."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def set_many(self, identifiers: Sequence[tuple[str, str]], wishes: Sequence[Preference]) -> Written:
        body: dict[str, Any] = {"preferences": [_given(to_json(wish)) for wish in wishes]}
        for kind, value in identifiers:
            body[kind] = [*body.get(kind, []), value]
        done = self._call("PUT", "/v1/preferences", body)
        return Written(done["first_number"], tuple(done["leaves"]), done["subject"])

    def get(self, kind: str, value: str, history: bool = False) -> Person:
        body = {"kind": kind, "value": value, "history": history}
        return wire.person_from_json(self._call("POST", "/v1/preferences/query", body, True))

    def put_policy(self, policy: Policy, actor: str = "") -> Policy:
        body = {k: v for k, v in _given(to_json(policy)).items() if k != "version"}
        return policy_from_json(self._call("PUT", "/v1/contact-policies", {**body, **_by(actor)}, True))

    def declare(self, term: Term, actor: str = "") -> Term:
        body = {**wire.term_to_json(term), **_by(actor)}
        return Term(**self._call("PUT", "/v1/contact-terms", body, True))

    def rulebook(self) -> Rulebook:
        return wire.book_from_json(self._call("GET", "/v1/contact-policies"))

    def may_contact(self, question: Question) -> Answer:
        return self.decide([question])[0]

    def decide(self, questions: Sequence[Question]) -> list[Answer]:
        body = {"items": [wire.entry_to_json(question) for question in questions]}
        try:
            # Asking again is harmless: a reservation is kept under its contact id.
            told = self._call("POST", "/v1/contact-decisions", body, True)["answers"]
            if len(told) != len(questions):
                raise ConsentError("center.unreachable", "the center answered another number of questions")
            return [wire.answer_from_json(answer) for answer in told]
        except ConsentError as error:
            if not error.code.startswith("center."):
                raise
            reason, now = Reason("unreachable", detail=error.detail), datetime.now(UTC)
            return [Answer(False, (reason,), question.at or now, None) for question in questions]

    def record_contacts(self, made: Sequence[Contact]) -> Reported:
        body = {"contacts": [wire.entry_to_json(contact) for contact in made]}
        done = self._call("POST", "/v1/contacts", body, True)["outcomes"]
        return Reported(tuple(o["outcome"] for o in done), tuple(o["detail"] for o in done))

    def release(self, sender: str, contact_ids: Sequence[str]) -> int:
        body = {"sender": sender, "contact_ids": list(contact_ids)}
        return int(self._call("POST", "/v1/contacts/release", body, True)["released"])


def _given(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value not in ("", None)}


def _by(actor: str) -> dict[str, str]:
    return {"actor": actor} if actor else {}
