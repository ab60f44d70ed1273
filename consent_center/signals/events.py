"""From signals to consent events. Sans-I/O: the clock's time and the registry are arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any, Protocol

from consent_center.errors import ConsentError
from consent_center.model import GRANTS, ConsentEvent, Explanation, Notice, Purpose, RecordedMany
from consent_center.signals.mapping import DENIED, GRANTED, NOTHING, OPTED_OUT, Mapping, Outcome, check, judge
from consent_center.signals.signal import Signal

_ACTIONS = {GRANTED: "granted", DENIED: "denied", OPTED_OUT: "withdrawn"}
_DAY = timedelta(days=1)


def to_events(
    signals: Signal | Sequence[Signal],
    mapping: Mapping,
    identifiers: Sequence[tuple[str, str]],
    purposes: Sequence[Purpose],
    notices: Sequence[Notice],
    at: datetime,
    channel: str = "web",
    actor: str = "",
) -> tuple[list[ConsentEvent], list[Outcome]]:
    """The events that record what the signals say about one person, and the outcome of every rule.

    `at` is the time of receipt. The raw string, its SHA-256 and the table's stand in the evidence, which is
    encrypted under the person's key. Raises ConsentError `signal.mapping`, and `signal.value` for a string
    from the future.
    """
    listed = [signals] if isinstance(signals, Signal) else list(signals)
    check(mapping, purposes, notices)
    for signal in listed:
        if signal.updated is not None and signal.updated > at:
            raise ConsentError(
                "signal.value", f"the string was last updated at {signal.updated.isoformat()}, after now"
            )
    off = {purpose.id for purpose in purposes if not purpose.active}
    outcomes = [
        replace(o, outcome=NOTHING, because=(f"purpose {o.rule.purpose} is switched off",))
        if o.outcome == GRANTED and o.rule.purpose in off
        else o
        for o in judge(listed, mapping)
    ]
    events = [
        _event(outcome, outcome.source, mapping, identifiers, purposes, at, channel, actor)
        for outcome in outcomes
        if outcome.outcome != NOTHING and outcome.source is not None
    ]
    return events, outcomes


def _event(
    outcome: Outcome,
    signal: Signal,
    mapping: Mapping,
    identifiers: Sequence[tuple[str, str]],
    purposes: Sequence[Purpose],
    at: datetime,
    channel: str,
    actor: str,
) -> ConsentEvent:
    rule = outcome.rule
    versions = {p.version: p for p in purposes if p.id == rule.purpose}
    grants = outcome.outcome == GRANTED
    version = rule.purpose_version if grants or outcome.outcome == DENIED else max(versions)
    purpose = versions[version]
    kept = set(purpose.categories)
    evidence = {
        "signal": signal.kind,
        "string": signal.raw,
        "sha256": signal.sha256,
        "mapping_sha256": mapping.sha256,
        "outcome": outcome.outcome,
        "because": list(outcome.because),
    }
    return ConsentEvent(
        identifiers=tuple(identifiers),
        purpose=rule.purpose,
        purpose_version=version,
        action=_ACTIONS[outcome.outcome],
        recipient=rule.recipient,
        categories=tuple(c for c in rule.categories if c in kept) or purpose.categories,
        occurred_at=_when(outcome.outcome, signal, at),
        notice=rule.notice if grants else "",
        notice_version=rule.notice_version if grants else 0,
        regulation=rule.regulation,
        channel=channel,
        method=signal.kind,
        evidence=json.dumps(evidence, ensure_ascii=False),
        actor=actor,
    )


def _when(outcome: str, signal: Signal, at: datetime) -> datetime:
    """A grant counts from when the string was last updated: sent again after a withdrawal, it undoes nothing.

    Since TCF v2.2 that time is a whole day. A refusal then counts from the end of the day (or now), so that
    it is not outweighed by a grant of the morning. Opt-outs without a time count from now.
    """
    updated = signal.updated
    if updated is None or outcome == OPTED_OUT:
        return at
    if outcome == DENIED and updated.time() == time():
        return min(at, updated + _DAY - timedelta(microseconds=1))
    return updated


class Recorder(Protocol):
    """What `record` needs of a center."""

    def record_many(self, events: Sequence[ConsentEvent]) -> RecordedMany: ...
    def explain(self, kind: str, value: str) -> Explanation: ...


def record(center: Recorder, events: Sequence[ConsentEvent]) -> list[dict[str, int]]:
    """Record refusals, then grants; sequence number and leaf of each. Raises ConsentError `event.*`.

    A browser sends its string with every page: what is in force by the very same string is not recorded anew.
    """
    events = _news(center, events)
    found = []
    # Refusals first, on their own: a grant that can't be recorded must not take an opt-out with it.
    for part in ([e for e in events if e.action not in GRANTS], [e for e in events if e.action in GRANTS]):
        if part:
            done = center.record_many(part)
            found += [
                {"sequence": done.first_sequence + i, "leaf_index": done.first_leaf + i}
                for i in range(done.count)
            ]
    return found


def _news(center: Recorder, events: Sequence[ConsentEvent]) -> Sequence[ConsentEvent]:
    """Without what is in force already. Several identifiers may be news themselves: then all is recorded."""
    if not events or len(events[0].identifiers) != 1:
        return events
    try:
        known = center.explain(*events[0].identifiers[0])
    except ConsentError as error:
        if error.code != "subject.unknown":
            raise
        return events
    by_sequence = {told["sequence"]: told.get("evidence", "") for told in known.events}
    held = {
        (state["purpose"], state["recipient"], state["regulation"]): (
            state["action"],
            state["purpose_version"],
            state["categories"],
            by_sequence.get(state["sequence"], ""),
        )
        for state in known.states
    }
    return [
        event
        for event in events
        if held.get((event.purpose, event.recipient, event.regulation))
        != (event.action, event.purpose_version, sorted(event.categories), event.evidence)
    ]


def outcomes_to_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What was understood, a line a rule."""
    return [
        {
            "purpose": o.rule.purpose,
            "recipient": o.rule.recipient,
            "regulation": o.rule.regulation,
            "outcome": o.outcome,
            "because": list(o.because),
            "signal": o.source.kind if o.source else "",
        }
        for o in outcomes
    ]
