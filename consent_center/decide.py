"""Decisions as set algebra: who is refused for which first reason, who is left.

Every rule below is a bitmap over ordinals; nothing is called once a person. What is not proven eligible is
refused: an unknown action counts as a denial, and of several regulations each must say yes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from consent_center.batch import local_day
from consent_center.ends import FEW, bitmap, members_of
from consent_center.errors import ConsentError
from consent_center.hashing import Bytes2
from consent_center.identifiers import INVALID, NULL, OK, normalise
from consent_center.ledger.verify import canonical
from consent_center.model import CODE, GRANTS, REASONS, DecisionRequest, Decisions
from consent_center.registry import Registry, is_name
from consent_center.state import Context, State
from consent_center.subjects import pseudonyms

Ints = npt.NDArray[np.int64]

_STEP = 1 << 20


class Rule(Protocol):
    """A further ground for refusal. It names whom it blocks as a bitmap; it is called once a decision."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...

    def blocked(self, request: DecisionRequest, as_of: int) -> BitMap:
        """Ordinals to refuse; `as_of` in microseconds."""
        ...


@dataclass(frozen=True)
class Candidates:
    """A column of identifiers, normalised: what needs no database. `hashed` uint8[k, 32] of `rows`."""

    codes: npt.NDArray[np.uint8]
    rows: Ints
    hashed: Bytes2


def rules_hash(rules: Sequence[Rule]) -> str:
    """SHA-256 (hex) over the reasons' order and the rules' names and versions."""
    named = sorted([rule.name, rule.version] for rule in rules)
    return hashlib.sha256(canonical({"reasons": list(REASONS), "rules": named})).hexdigest()


def check_request(request: DecisionRequest) -> None:
    """ConsentError `decision.request` unless every name is one name."""
    names = [("purpose", request.purpose), ("recipient", request.recipient)]
    names += [("category", category) for category in request.categories]
    if request.regulation is not None:
        names.append(("regulation", request.regulation))
    for what, value in names:
        if not is_name(value):
            raise ConsentError(
                "decision.request", f"{what} {value!r} must be 1 to 128 characters without , ; | * +"
            )
    if isinstance(request.categories, str) or not request.categories:
        raise ConsentError("decision.request", "categories must be a tuple with at least one name")
    if request.as_of is not None and request.as_of.tzinfo is None:
        raise ConsentError("decision.request", "as_of has no time zone; add one (UTC: +00:00)")


def candidates(key: bytes, values: pa.Array, kind: str | pa.Array) -> Candidates:
    """Normalise and pseudonymise a column; `kind` is that of all rows, or a column with the kind of each."""
    if not isinstance(kind, str):
        return _mixed(key, values, kind)
    normal = normalise(values, kind)
    codes = np.zeros(len(normal.status), np.uint8)
    codes[normal.status == NULL] = CODE["identifier_null"]
    codes[normal.status == INVALID] = CODE["identifier_invalid"]
    rows = np.flatnonzero(normal.status == OK)
    usable = normal.values if len(rows) == len(codes) else normal.values.take(rows)
    return Candidates(codes, rows, pseudonyms(key, kind, usable))


def _mixed(key: bytes, values: pa.Array, kinds: pa.Array) -> Candidates:
    """`candidates` of rows whose identifiers are of several kinds."""
    if len(kinds) != len(values) or kinds.null_count:
        raise ConsentError("identifier.kind", "every row needs the kind of its identifier")
    codes = np.zeros(len(values), np.uint8)
    rows: list[Ints] = []
    hashed: list[Bytes2] = []
    for kind in sorted(pc.unique(kinds).to_pylist()):
        at = np.flatnonzero(np.asarray(pc.equal(kinds, kind)))
        part = candidates(key, values.take(pa.array(at)), str(kind))
        codes[at] = part.codes
        rows.append(at[part.rows])
        hashed.append(part.hashed)
    if not rows:
        return Candidates(codes, np.empty(0, np.int64), np.empty((0, 32), np.uint8))
    where = np.concatenate(rows)
    order = np.argsort(where, kind="stable")
    return Candidates(codes, where[order], np.concatenate(hashed)[order])


def refused(found: Candidates, reason: str, detail: str) -> Decisions:
    """Nobody is eligible, for one reason that concerns the center as a whole."""
    codes = found.codes.copy()
    codes[found.rows] = CODE[reason]
    return Decisions(codes, np.full(len(codes), -1, np.int64), -1, detail)


def decide(
    state: State,
    controller: str,
    request: DecisionRequest,
    found: Candidates,
    known: Ints,
    as_of: int,
    rules: Sequence[Rule],
) -> Decisions:
    """Decide a column; `state` is caught up, `known` int64[len(found.rows)] the rows' subjects, -1 for none.

    codes uint8[n], ordinals int64[n].
    """
    codes, ordinals = found.codes.copy(), np.full(len(found.codes), -1, np.int64)
    ordinals[found.rows] = known
    codes[found.rows] = judge(state, controller, request, known, as_of, rules)
    return Decisions(codes, ordinals, state.sequence)


def judge(
    state: State, controller: str, request: DecisionRequest, subjects: Ints, as_of: int, rules: Sequence[Rule]
) -> npt.NDArray[np.uint8]:
    """Codes uint8[n] of subjects int64[n], -1 for unknown ones. No Python object is made per subject."""
    closed = closed_for(state.registry, request.purpose, request.recipient)
    if closed:
        return np.full(len(subjects), CODE[closed], np.uint8)
    if len(subjects) <= FEW:
        people = BitMap([subject for subject in subjects.tolist() if subject >= 0])
        by_person = dict.fromkeys(people, 0)
        for code, members in classify(state, controller, request, people, as_of, rules):
            by_person.update(dict.fromkeys(members, code))
        unknown = CODE["unknown_subject"]
        return np.array([by_person.get(subject, unknown) for subject in subjects.tolist()], np.uint8)
    top = int(subjects.max()) + 1
    if 8 * len(subjects) > top:
        people = BitMap()  # everybody: cheaper than to sort out who was asked for
        people.add_range(0, top)
    else:
        people = bitmap(np.unique(subjects[subjects >= 0]))
    table = np.zeros(top + 1, np.uint8)
    table[-1] = CODE["unknown_subject"]  # that is where -1 points to
    for code, members in classify(state, controller, request, people, as_of, rules):
        table[members_of(members)] = code
    codes = np.empty(len(subjects), np.uint8)
    for start in range(0, len(subjects), _STEP):  # an index of another type is copied to 64 bits
        codes[start : start + _STEP] = table[subjects[start : start + _STEP]]
    return codes


def purpose_active(registry: Registry | None, purpose: str) -> bool:
    """Whether the purpose is registered and switched on."""
    known = registry.current.get(purpose) if registry is not None else None
    return known is not None and known.active


def closed_for(registry: Registry | None, purpose: str, recipient: str) -> str:
    """The reason that holds for everybody, if the purpose or the recipient is off; empty if both are on."""
    if registry is None or not purpose_active(registry, purpose):
        return "purpose_inactive"
    return "recipient_inactive" if recipient in registry.off else ""


def classify(
    state: State, controller: str, request: DecisionRequest, people: BitMap, as_of: int, rules: Sequence[Rule]
) -> list[tuple[int, BitMap]]:
    """Split `people` by first reason: disjoint (code, bitmap) in REASONS' order; the rest is eligible."""
    registry = state.registry
    closed = closed_for(registry, request.purpose, request.recipient)
    if registry is None or closed:
        return [(CODE[closed], people.copy())]
    purpose = registry.current[request.purpose]
    left, out = people.copy(), []

    def refuse(reason: str, who: BitMap) -> None:
        hit = left & who
        left.difference_update(hit)
        out.append((CODE[reason], hit))

    concerned = [
        context
        for context in state.contexts.values()
        if context.controller == controller
        and context.purpose == request.purpose
        and request.regulation in (None, context.regulation)
    ]
    mine = [context for context in concerned if context.recipient == request.recipient]
    # Only what concerns these people: a decision about one person must not walk through millions.
    held = [(context, _within(context, people)) for context in mine]
    mine_event = _union([who for _, members in held for who in members.values()])
    elsewhere = [_within(context, people) for context in concerned if context not in mine]
    any_event = _union([mine_event, *(who for members in elsewhere for who in members.values())])
    by_action = _by_action(state, held)

    refuse("unknown_subject", state.erased)
    refuse("restricted", state.restricted)
    if purpose.needs_guardian:
        others = _union([who for action, who in by_action.items() if action != "guardian_granted"])
        guarded = by_action.get("guardian_granted", BitMap()) - others
        refuse("minor_without_guardian", state.minors(local_day(as_of)) - guarded)
    refuse("no_event", left - any_event)
    refusing = [who for action, who in by_action.items() if action not in GRANTS | {"withdrawn", "expired"}]
    refuse("denied", _union(refusing))
    refuse("withdrawn", by_action.get("withdrawn", BitMap()))
    ended = [context.ends.ended(as_of, people) for context in mine]
    refuse("expired", _union([by_action.get("expired", BitMap()), *ended]))
    refuse("outdated_notice", _where(state, held, registry, outdated=True, wanted=frozenset()))
    refuse("recipient_out_of_scope", left - mine_event)
    wanted = frozenset(request.categories)
    refuse("category_out_of_scope", _where(state, held, registry, outdated=False, wanted=wanted))
    refuse("blocked_by_rule", _union([rule.blocked(request, as_of) for rule in rules]))
    return out


def _union(sets: Sequence[BitMap]) -> BitMap:
    return BitMap.union(*sets) if sets else BitMap()


#: A context with its members among the people asked for, by descriptor.
Held = tuple[Context, dict[int, BitMap]]


def _within(context: Context, people: BitMap) -> dict[int, BitMap]:
    found = {descriptor: members & people for descriptor, members in context.members.items()}
    return {descriptor: who for descriptor, who in found.items() if who}


def _by_action(state: State, held: Sequence[Held]) -> dict[str, BitMap]:
    found: dict[str, BitMap] = {}
    for _, members in held:
        for descriptor, who in members.items():
            action = state.descriptors[descriptor]["action"]
            found[action] = found[action] | who if action in found else who
    return found


def _where(
    state: State, held: Sequence[Held], registry: Registry, outdated: bool, wanted: frozenset[str]
) -> BitMap:
    """Members whose descriptor is outdated, or else does not name every category in `wanted`."""
    hit = []
    for context, by_descriptor in held:
        newest = registry.current[context.purpose].version
        for descriptor, members in by_descriptor.items():
            fields = state.descriptors[descriptor]
            if outdated:
                old = fields["purpose_version"] < newest
                notice = fields["notice"]
                bad = old or (notice and not registry.notice_stands(notice, fields["notice_version"]))
            else:
                bad = not wanted <= set(fields["categories"])
            if bad:
                hit.append(members)
    return _union(hit)
