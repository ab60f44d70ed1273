"""Search a person by an identifier, see the whole story, withdraw for them, take the evidence along."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from flask import Response, redirect, request, url_for

from consent_center import examine
from consent_center.collection import contact
from consent_center.console import references
from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.console.contact_page import PERIODS
from consent_center.console.dashboard import titles
from consent_center.errors import ConsentError
from consent_center.i18n import gettext as _
from consent_center.model import KINDS, REASONS, ConsentEvent, DecisionRequest, Explanation, Notice
from consent_center.preferences.model import Preference, to_json
from consent_center.receipts.verify import dumps
from consent_center.rest import problems


@dataclass(frozen=True)
class Step:
    """One event of the timeline, with the notice that the person saw, if it named one."""

    event: dict[str, Any]
    notice: Notice | None
    receipt: bool  # whether one can be made


def answers(subject: int, told: Explanation) -> list[str]:
    """For each state what a decision says now: `eligible` or the first reason against it."""
    center, found = embedded(), []
    with center.room.read() as connection:
        for state in told.states:
            asked = DecisionRequest(state["purpose"], state["recipient"], tuple(state["categories"]))
            codes, _ends = center.rights.judge(
                connection, asked, np.array([subject], np.int64), center.room.now()
            )
            found.append(REASONS[int(codes[0])])
    return found


def wishes(subject: int) -> list[Preference]:
    """What the person wants of contacts; nothing of somebody erased."""
    center = embedded()
    with center.room.read() as connection:
        found = contact.wishes_of(connection, center.room.keys, subject)
    return sorted(found, key=lambda wish: (wish.channel, wish.topic))


def story(subject: int) -> tuple[Explanation, list[Step]]:
    """All that is held about a person, newest first. `subject.unknown` once erased."""
    center = embedded()
    with center.room.read() as connection:
        known = center.room.registry(connection)
        told = examine.explain(connection, center.room.keys, subject)
    erased = any(event["action"] == "erased" for event in told.events)
    steps = []
    for event in reversed(told.events):
        notice = known.notices.get((event.get("notice", ""), event.get("notice_version", 0)))
        receipt = not erased and "reason" not in event and event["action"] != "erased"
        steps.append(Step(event, notice, receipt))
    return told, steps


@bp.route("/people", methods=["GET", "POST"])
def people() -> Response:
    """The search. What was typed is in the body, and only its keyed hash is compared."""
    if request.method == "GET":
        return page("people.html", kinds=KINDS, kind=KINDS[0], missing=False)
    kind, value = field("kind", 20), field("value", 1_000)
    center = embedded()
    try:
        with center.room.read() as connection:
            subject = examine.find(connection, center.room.keys, kind, value)
    except ConsentError as error:
        if error.code not in ("subject.unknown", "event.identifier", "identifier.kind"):
            raise
        center.accounts.note(
            who().name, "person.search", "", found=False, kind=kind if kind in KINDS else "?"
        )
        missing = error.code == "subject.unknown"
        return page(
            "people.html",
            200 if missing else problems.status_of(error.code),
            kinds=KINDS,
            kind=kind,
            missing=missing,
            problem=None if missing else error,
        )
    center.accounts.note(who().name, "person.search", "", found=True, kind=kind)
    return redirect(url_for("console.person", reference=references.seal(subject)), 303)  # type: ignore[return-value]


@bp.get("/people/<reference>")
def person(reference: str) -> Response:
    subject = references.unseal(reference)
    told, steps = story(subject)
    return page(
        "person.html",
        told=told,
        steps=steps,
        answers=answers(subject, told),
        wishes=wishes(subject),
        periods=PERIODS,
        names=titles(),
        reference=reference,
        kinds=KINDS,
    )


@bp.get("/people/<reference>/receipt/<int:sequence>")
def person_receipt(reference: str, sequence: int) -> Response:
    """The signed receipt of one of the person's events, as a file."""
    told, _steps = story(references.unseal(reference))
    if sequence not in {event["sequence"] for event in told.events}:
        raise ConsentError("request.not_found", f"event {sequence} is not this person's")
    embedded().accounts.note(who().name, "export.receipt", "", sequence=sequence)
    data = dumps(embedded().receipt(sequence))
    return _file(data, f"receipt-{sequence}.json", "application/ld+json")


@bp.get("/people/<reference>/decisions")
def person_decisions(reference: str) -> Response:
    """Everything that is held, events and states in force, as a JSON file."""
    subject = references.unseal(reference)
    told, _steps = story(subject)
    now = [
        {**state, "decision": answer}
        for state, answer in zip(told.states, answers(subject, told), strict=True)
    ]
    embedded().accounts.note(who().name, "export.person", "", format="json", events=len(told.events))
    body = {
        "controller": embedded().controller,
        "identifiers": list(told.identifiers),
        "minor_until": told.minor_until,
        "states": now,
        "preferences": [to_json(wish) for wish in wishes(subject)],
        "events": list(told.events),
        "checkpoint": embedded().checkpoint(),
    }
    data = json.dumps(body, ensure_ascii=False, indent=1, default=str).encode("utf-8", "replace")
    return _file(data, "person.json", "application/json")


@bp.post("/people/<reference>/withdraw")
def person_withdraw(reference: str) -> Response:
    """Withdraw for a person who asked by telephone or at the desk.

    The identifier is typed again: that shows that it is the right person, and nothing here has kept it.
    """
    center, subject = embedded(), references.unseal(reference)
    kind, value = field("kind", 20), field("value", 1_000)
    purpose, recipient, regulation = (field(name, 200) for name in ("purpose", "recipient", "regulation"))
    with center.room.read() as connection:
        if examine.find(connection, center.room.keys, kind, value) != subject:
            raise ConsentError("subject.unknown", "that identifier is not this person's: nothing was changed")
    states = [s for s in story(subject)[0].states if (s["purpose"], s["recipient"]) == (purpose, recipient)]
    if not states:
        raise ConsentError("registry.unknown", "there is no such consent to withdraw")
    done = center.record(
        ConsentEvent(
            identifiers=((kind, value),),
            purpose=purpose,
            purpose_version=int(states[0]["purpose_version"]),
            action="withdrawn",
            recipient=recipient,
            categories=tuple(states[0]["categories"]),
            occurred_at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=center.room.now()),
            regulation=regulation or str(states[0]["regulation"]),
            channel="console",
            evidence=field("evidence", 10_000),
            actor=who().name,
        )
    )
    center.accounts.note(who().name, "person.withdraw", "", sequence=done.sequence)
    say(_("Withdrawn: event %(number)s. It holds from now on, in running jobs too.", number=done.sequence))
    return redirect(url_for("console.person", reference=reference), 303)  # type: ignore[return-value]


def _file(data: bytes, name: str, kind: str) -> Response:
    response = Response(data, content_type=kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
