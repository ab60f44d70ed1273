"""Kinds, states and steps of a rights request, and the one table that says which step is allowed when.

A request is the fold of its steps; `move` is the only way from one state to the next, so an illegal move can
not happen. Sources: PIPL articles 44 to 50, GDPR articles 12 and 15 to 21.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from consent_center.errors import ConsentError

#: What a person may ask for, with the articles that give the right.
KINDS: dict[str, str] = {
    "access": "PIPL 45; GDPR 15",
    "copy": "PIPL 45; GDPR 15(3)",
    "portability": "PIPL 45; GDPR 20",
    "correction": "PIPL 46; GDPR 16",
    "deletion": "PIPL 47; GDPR 17",
    "restriction": "PIPL 44; GDPR 18",
    "explanation": "PIPL 48 and 24; GDPR 13 to 15",
}
#: Kinds whose fulfilment is a package of what the center holds.
PACKAGES = frozenset({"access", "copy", "portability", "explanation"})

REGULATIONS = ("PIPL", "GDPR")

#: How somebody may show who they are. `none` can only fail.
METHODS = (
    "account_login",
    "code_to_known_contact",
    "document_check",
    "in_person",
    "signed_request",
    "representative",
)

OUTCOMES = ("granted", "partly", "refused")

#: Grounds on which a request may be refused in whole or in part, each with where the law has it.
GROUNDS: dict[str, str] = {
    "identity_not_proven": "PIPL 50; GDPR 11(2), 12(6)",
    "nothing_held": "GDPR 15(1)",
    "manifestly_unfounded": "GDPR 12(5)",
    "excessive": "GDPR 12(5)",
    "legal_obligation": "PIPL 47 last paragraph; GDPR 17(3)(b)",
    "legal_claims": "GDPR 17(3)(e)",
    "rights_of_others": "GDPR 15(4), 20(4)",
    "secrecy_by_law": "PIPL 45 with 18 and 35; GDPR 23",
    "not_accurate": "PIPL 46; GDPR 16",
    "not_feasible": "PIPL 47 last paragraph; GDPR 20(2)",
}

#: state -> {step: next state}. What is not here is refused.
STEPS: dict[str, dict[str, str]] = {
    "received": {
        "identity.ask": "identifying",
        "identity.pass": "open",
        "identity.fail": "identifying",
        "extend": "received",
        "letter": "received",
        "note": "received",
        "assign": "received",
        "withdraw": "withdrawn",
    },
    "identifying": {
        "identity.ask": "identifying",
        "identity.pass": "open",
        "identity.fail": "identifying",
        "pause": "identifying_paused",
        "extend": "identifying",
        "letter": "identifying",
        "note": "identifying",
        "assign": "identifying",
        "refuse": "refused",
        "withdraw": "withdrawn",
    },
    "identifying_paused": {
        "identity.pass": "open",
        "identity.fail": "identifying_paused",
        "resume": "identifying",
        "letter": "identifying_paused",
        "note": "identifying_paused",
        "refuse": "refused",
        "withdraw": "withdrawn",
    },
    "open": {
        "task.add": "open",
        "task.done": "open",
        "pause": "open_paused",
        "extend": "open",
        "letter": "open",
        "note": "open",
        "assign": "open",
        "grant": "decided",
        "refuse": "refused",
        "withdraw": "withdrawn",
    },
    "open_paused": {
        "task.add": "open_paused",
        "task.done": "open_paused",
        "resume": "open",
        "letter": "open_paused",
        "note": "open_paused",
        "withdraw": "withdrawn",
    },
    "decided": {
        "task.add": "decided",
        "task.done": "decided",
        "extend": "decided",
        "letter": "decided",
        "note": "decided",
        "assign": "decided",
        "fulfil": "fulfilled",
        "withdraw": "withdrawn",
    },
    "fulfilled": {"letter": "fulfilled", "note": "fulfilled", "lift": "fulfilled", "close": "closed"},
    "refused": {"letter": "refused", "note": "refused", "close": "closed"},
    "withdrawn": {"purge": "purged"},
    "closed": {"lift": "closed", "purge": "purged"},
    "purged": {"lift": "purged"},
}
#: In these nothing is due any more.
DONE = frozenset({"closed", "withdrawn", "purged"})
#: Only in these is the person's identity proven, and may anything about the person be said.
IDENTIFIED = frozenset({"open", "open_paused", "decided", "fulfilled"})
PAUSED = frozenset({"identifying_paused", "open_paused"})

#: Tasks that a new request brings; all must be done, or left out with a reason, before it is fulfilled.
TASKS: dict[str, tuple[str, ...]] = {
    "access": ("collect_other_systems", "check_rights_of_others"),
    "copy": ("collect_other_systems", "check_rights_of_others"),
    "portability": ("collect_other_systems",),
    "correction": ("check_accuracy", "tell_recipients"),
    "deletion": ("check_retention_duties", "delete_other_systems", "tell_recipients"),
    "restriction": ("restrict_other_systems", "tell_recipients"),
    "explanation": ("collect_rules",),
}

LETTERS = ("acknowledgement", "identity", "extension", "pause", "decision")
LANGUAGES = ("zh", "en")


def move(state: str, step: str) -> str:
    """The state after `step`; ConsentError `rights.state` for a step that the table does not have."""
    allowed = STEPS.get(state, {})
    if step not in allowed:
        raise ConsentError(
            "rights.state",
            f"{step!r} is not possible in state {state!r}; possible: {', '.join(allowed) or 'none'}",
        )
    return allowed[step]


@dataclass(frozen=True)
class Task:
    """Something that must be done; `done` is the day it was, `skipped` why it was left out instead."""

    name: str
    added_at: str
    done_at: str = ""
    actor: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class Request:
    """A request as the fold of its steps. Nothing in it names the person; `private` does, and is sealed.

    Times are ISO 8601 in UTC; `due` is the last day on which the answer is in time, in the law's own zone.
    """

    id: str
    kind: str
    regulation: str
    language: str
    state: str
    subject: int
    received_at: str
    due: str
    due_at: int = field(repr=False)
    provisional: bool = False
    assigned_to: str = ""
    method: str = ""
    identity_attempts: int = 0
    outcome: str = ""
    grounds: tuple[str, ...] = ()
    extensions: int = 0
    pauses: tuple[tuple[int, int], ...] = ()  # (from, to) microseconds; to -1: running
    tasks: tuple[Task, ...] = ()
    decided_at: str = ""
    fulfilled_at: str = ""
    done_at: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def identified(self) -> bool:
        """Whether the identity check has passed."""
        return bool(self.method)

    @property
    def open_tasks(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks if not task.done_at)
