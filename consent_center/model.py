"""Plain data that crosses the package's edge. Nothing here opens a file or a database.

Times are aware `datetime`s; they are stored as microseconds since 1970 UTC. Arrays are numpy or pyarrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

#: Identifier kinds; the position is the number stored in the database, so only ever append.
KINDS: tuple[str, ...] = ("phone", "email", "device", "opaque")

#: What an event may do. Ties in time are settled by `RANK`: the more restrictive wins.
ACTIONS: tuple[str, ...] = ("granted", "denied", "withdrawn", "renewed", "expired", "guardian_granted")
GRANTS: frozenset[str] = frozenset({"granted", "renewed", "guardian_granted"})
RANK: dict[str, int] = {
    "granted": 0,
    "renewed": 0,
    "guardian_granted": 0,
    "expired": 1,
    "denied": 2,
    "withdrawn": 3,
    "erased": 4,
}

#: Reasons in their fixed order: code = position, 0 means eligible; a row gets the FIRST one that applies.
REASONS: tuple[str, ...] = (
    "eligible",
    "identifier_null",  # nothing in the row
    "identifier_invalid",  # something in the row that is no identifier of that kind
    "unreachable",  # the consent center did not answer (given by the remote client)
    "stale",  # the center could not catch up with its own event sequence
    "purpose_inactive",  # the purpose is switched off or was never registered
    "recipient_inactive",  # the recipient is switched off
    "unknown_subject",  # the center has never heard of that identifier, or erased it
    "restricted",  # the person's data may only be kept, not used (PIPL 44, GDPR 18)
    "minor_without_guardian",  # under the age limit at as_of, and no guardian's grant in force
    "no_event",  # nothing was ever recorded for this purpose
    "denied",
    "withdrawn",
    "expired",  # by its end time, by an "expired" event, or a guardian's grant after the birthday
    "outdated_notice",  # given under an older version of the purpose, or before a material new notice
    "recipient_out_of_scope",  # events for this purpose exist, but only for other recipients
    "category_out_of_scope",  # the consent does not name every category asked for
    "blocked_by_rule",  # a rule's bitmap (cooldown, litigation hold ...)
)
_STEP = 1 << 20

CODE: dict[str, int] = {name: code for code, name in enumerate(REASONS)}

#: Age below which a guardian must consent (PIPL art. 31).
GUARDIAN_AGE = 14


@dataclass(frozen=True)
class Purpose:
    """A versioned entry of the purpose taxonomy. A new version outdates consent given under older ones."""

    id: str
    version: int
    title: dict[str, str]  # language ("zh", "en") -> text
    categories: tuple[str, ...]  # data categories that consent to this purpose may name
    recipient_kinds: tuple[str, ...] = ()  # e.g. "data_provider", "media"
    dpv: str = ""  # term of the W3C Data Privacy Vocabulary, e.g. "dpv:PersonalisedAdvertising"
    legal_basis: str = "consent"
    separate_consent: bool = True  # PIPL 23, 29: its own event, one recipient
    duration_days: int | None = None  # how long a grant lasts when the event names no end
    needs_guardian: bool = True  # people under GUARDIAN_AGE need a guardian's grant
    active: bool = True
    methods: tuple[str, ...] = ()  # how data is processed, e.g. "private_join": PIPL 14, 17
    recipients: tuple[str, ...] = ()  # named recipients; empty: whatever fits `recipient_kinds`
    retention_days: int | None = None  # how long data is kept for it; None: as long as the consent lasts
    sensitive: tuple[str, ...] = ()  # those of `categories` that are sensitive (PIPL 28)


#: Fields of Purpose that came later: left out of the stored text while they say nothing, so that older
#: entries stay the same.
LATER_FIELDS: dict[str, object] = {"methods": (), "recipients": (), "retention_days": None, "sensitive": ()}


@dataclass(frozen=True)
class Notice:
    """The versioned text that a person saw. A material new version outdates consent under older ones."""

    id: str
    version: int
    purpose: str
    purpose_version: int
    text: dict[str, str]  # language -> text
    material: bool = True

    # SHA-256 (hex) of the canonical JSON of `text`; filled in by the registry.
    hash: str = ""


@dataclass(frozen=True)
class Assessment:
    """Reference of a personal information protection impact assessment (PIPL 55) for a purpose."""

    id: str
    purpose: str
    reference: str  # where the document is kept
    hash: str = ""  # SHA-256 (hex) of the document, if known
    approved_on: str = ""  # ISO date (UTC, as all days here); not in force before
    recipient: str = ""  # which recipient it covers; empty: all
    valid_until: str = ""  # ISO date; empty: no end
    status: str = "in_force"  # or "withdrawn"


@dataclass(frozen=True)
class ConsentEvent:
    """One event of one person, for exactly one purpose and one recipient.

    `identifiers` are (kind, raw value) pairs of one person. `controller` empty means the center's own.
    `notice` may be empty only for refusals, withdrawals and ends. `birth_date` matters for minors: what is
    kept is the date of the 14th birthday, and only if that is still to come.
    """

    identifiers: tuple[tuple[str, str], ...] = field(repr=False)
    purpose: str
    purpose_version: int
    action: str
    recipient: str
    categories: tuple[str, ...]
    occurred_at: datetime
    notice: str = ""
    notice_version: int = 0
    controller: str = ""
    regulation: str = "PIPL"
    channel: str = "unknown"
    method: str = "explicit"
    evidence: str = field(default="", repr=False)  # encrypted under the subject's key
    actor: str = field(default="", repr=False)  # encrypted under the subject's key
    expires_at: datetime | None = None
    birth_date: date | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Recorded:
    """A recorded event: its sequence number, its leaf in the ledger, its subject's ordinal."""

    sequence: int
    leaf_index: int
    subject: int
    ignored: tuple[str, ...] = ()  # kinds of identifiers that could not be used


@dataclass(frozen=True)
class RowError:
    """Why one row of a batch was refused."""

    row: int
    code: str
    detail: str


@dataclass(frozen=True)
class RecordedMany:
    """A recorded batch: `count` events numbered from `first_sequence`, in the order of the accepted rows.

    `subjects` int64[n] has a row's ordinal, -1 for a refused row. `ignored` counts identifiers that could not
    be used in rows that had another one.
    """

    first_sequence: int
    first_leaf: int
    count: int
    subjects: npt.NDArray[np.int64]
    errors: tuple[RowError, ...] = ()
    ignored: int = 0


@dataclass(frozen=True)
class DecisionRequest:
    """May `recipient` get `categories` of a person for `purpose`?

    `as_of` (default: now) is the time at which ends and birthdays are judged; events are always all those
    recorded so far. `regulation` None means that under every regulation with an event the answer must be yes.
    """

    purpose: str
    recipient: str
    categories: tuple[str, ...]
    as_of: datetime | None = None
    regulation: str | None = None


@dataclass(frozen=True)
class Decisions:
    """`codes` uint8[n] index REASONS; `ordinals` int64[n], -1 where unknown; `sequence`: last event seen.

    `sequence` is -1 when the center could not catch up; `detail` then says why.
    """

    codes: npt.NDArray[np.uint8]
    ordinals: npt.NDArray[np.int64]
    sequence: int
    detail: str = ""

    @property
    def eligible(self) -> npt.NDArray[np.bool_]:
        """bool[n]: rows that may be used."""
        mask: npt.NDArray[np.bool_] = self.codes == 0
        return mask

    def counts(self) -> dict[str, Any]:
        """`{"in": n, "out": {reason: n}}`; rows, not people; reasons that occur only."""
        tally = np.zeros(len(REASONS), np.int64)
        for start in range(0, len(self.codes), _STEP):  # bincount makes eight bytes of each code
            tally += np.bincount(self.codes[start : start + _STEP], minlength=len(REASONS))
        out = {REASONS[code]: int(tally[code]) for code in range(1, len(REASONS)) if tally[code]}
        return {"in": int(tally[0]), "out": out}


@dataclass(frozen=True)
class Snapshot:
    """What a job gets: the signed document, which the peer sees too, and what stays with the rows' owner.

    `disclosure` has `counts`, `token_count` and a salt; the document only has its hash, because a partner
    must not learn how many people a party holds or why they were left out. `ledger.verify.disclosure`
    compares the two.
    """

    document: dict[str, Any]
    signature: bytes
    decisions: Decisions
    disclosure: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.document["id"])


@dataclass(frozen=True)
class Delta:
    """Who was eligible in a snapshot and is not any more.

    `withdrawn` int64[k] ordinals (ascending), `reasons` uint8[k] codes of REASONS. `active` is whether the
    purpose and recipient are still switched on (if not, everybody is in `withdrawn`) and an impact assessment
    is in force where one is needed (if not, `withdrawn` is as ever). `lag_seconds`: how long the oldest of
    the changes had been recorded when this delta was asked for; 0.0 without changes.
    """

    sequence: int
    active: bool
    withdrawn: npt.NDArray[np.int64]
    reasons: npt.NDArray[np.uint8]
    lag_seconds: float


@dataclass(frozen=True)
class Explanation:
    """Everything that the center holds about one person, for compliance staff.

    `events` are dicts in the order of their sequence, `states` the current state per (recipient, purpose,
    regulation), `identifiers` the kinds that are known (never the values: the center does not have them).
    """

    subject: int
    identifiers: tuple[str, ...]
    minor_until: str
    events: tuple[dict[str, Any], ...] = field(repr=False)
    states: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Finding:
    """What `fsck` found first: `where` is a table and key, `what` one of changed, missing, reordered."""

    what: str
    where: str
    detail: str
