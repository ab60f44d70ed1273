"""Preferences, questions and answers as JSON, for the REST service, its client and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from consent_center.preferences.model import (
    REASONS,
    Answer,
    Contact,
    Question,
    Reason,
    Term,
    policy_from_json,
    preference_from_json,
    to_json,
)
from consent_center.preferences.service import Person
from consent_center.preferences.store import Rulebook


def _time(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def question_from_json(data: Mapping[str, Any]) -> Question:
    """From checked JSON; what it does not know is left out."""
    known = {f.name for f in fields(Question)}
    given = {name: value for name, value in data.items() if name in known}
    given["categories"] = tuple(given.get("categories", ()))
    given["at"] = _time(given.get("at"))
    return Question(**given)


def contact_from_json(data: Mapping[str, Any]) -> Contact:
    """From checked JSON."""
    names = [f.name for f in fields(Contact)]
    return Contact(**{name: _time(data[name]) if name == "at" else data[name] for name in names})


def entry_to_json(entry: Question | Contact) -> dict[str, Any]:
    """The reverse of both."""
    data = {f.name: getattr(entry, f.name) for f in fields(entry)}
    at = data.pop("at")
    told = {name: list(v) if isinstance(v, tuple) else v for name, v in data.items() if v not in ("", ())}
    return told if at is None else {**told, "at": at.isoformat()}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """With the reasons' titles in zh and en."""
    return {
        "allowed": answer.allowed,
        "reasons": [
            {
                "code": reason.code,
                "title": reason.title,
                "by": reason.by,
                "channel": reason.channel,
                "topic": reason.topic,
                "until": _text(reason.until),
                "detail": reason.detail,
            }
            for reason in answer.reasons
        ],
        "at": _text(answer.at),
        "next_at": _text(answer.next_at),
        "reserved_until": _text(answer.reserved_until),
    }


def answer_from_json(data: Mapping[str, Any]) -> Answer:
    """The reverse; a reason that a newer center added counts as `stale`, so it still refuses."""
    reasons = tuple(
        Reason(
            r["code"] if r["code"] in REASONS else "stale",
            r["by"],
            r["channel"],
            r["topic"],
            _time(r["until"]),
            r["detail"],
        )
        for r in data["reasons"]
    )
    times = [_time(data[name]) for name in ("at", "next_at", "reserved_until")]
    return Answer(data["allowed"] is True and not reasons, reasons, *times)


def person_to_json(person: Person) -> dict[str, Any]:
    """What is in force for one person, the policies beside it, and the history if it was asked for."""
    return {
        "subject": person.subject,
        "preferences": [{"number": number, **to_json(wish)} for number, wish in person.in_force],
        "history": [{"number": n, "leaf_index": leaf, **to_json(w)} for n, leaf, w in person.history],
        "policies": [to_json(policy) for policy in person.policies],
    }


def person_from_json(data: Mapping[str, Any]) -> Person:
    """The reverse."""

    def wish(entry: Mapping[str, Any]) -> Any:
        return preference_from_json({k: v for k, v in entry.items() if k not in ("number", "leaf_index")})

    return Person(
        data["subject"],
        tuple((entry["number"], wish(entry)) for entry in data["preferences"]),
        tuple((entry["number"], entry["leaf_index"], wish(entry)) for entry in data["history"]),
        tuple(policy_from_json(policy) for policy in data["policies"]),
    )


def term_to_json(term: Term) -> dict[str, Any]:
    return {"kind": term.kind, "id": term.id, "title": dict(term.title), "active": term.active}


def book_to_json(book: Rulebook) -> dict[str, Any]:
    """Policies in force, what is declared, and the reasons with their titles."""
    return {
        "policies": [to_json(policy) for policy in book.policies],
        "channels": [term_to_json(term) for term in book.channels.values()],
        "topics": [term_to_json(term) for term in book.topics.values()],
        "reasons": REASONS,
    }


def book_from_json(data: Mapping[str, Any]) -> Rulebook:
    """The reverse."""
    return Rulebook(
        tuple(policy_from_json(policy) for policy in data["policies"]),
        {term["id"]: Term(**term) for term in data["channels"]},
        {term["id"]: Term(**term) for term in data["topics"]},
    )
