"""Decisions, signed snapshots and their deltas; each a leaf of the ledger."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from consent_center import batch as batches
from consent_center import decide as deciding
from consent_center import examine, registry, snapshot
from consent_center.embedded.base import Base
from consent_center.ends import bitmap
from consent_center.errors import ConsentError
from consent_center.ledger import log
from consent_center.ledger.verify import disclosure_hash
from consent_center.model import CODE, DecisionRequest, Decisions, Delta, Snapshot
from consent_center.outbox import timing
from consent_center.preferences.consents import judge
from consent_center.rules.house import exceeded, has_limits, note_use
from consent_center.rules.service import in_force as rules_in_force
from consent_center.state import ordinals_of


class Deciding(Base):
    """The calls that decide."""

    def decide(self, request: DecisionRequest, values: pa.Array, kind: str) -> Decisions:
        """Eligible or the first reason, for each row; a summary becomes a leaf of the ledger.

        If the center can't catch up with its events, can't read one or can't write the leaf, every usable row
        is `stale`.
        Raises `decision.request`, `identifier.*`, `center.closed`.
        """
        deciding.check_request(request)
        found = deciding.candidates(self._keys.pseudonym, values, kind)
        return self._decide_and_log(request, found, kind, None)

    def decide_subjects(self, request: DecisionRequest, subjects: npt.NDArray[np.int64]) -> Decisions:
        """`decide` for known subjects, integers[n], -1 for an unknown one: identifiers are not looked at."""
        deciding.check_request(request)
        return self._decide_and_log(request, None, "subject", subjects)

    def _decide_and_log(
        self, request: DecisionRequest, found: deciding.Candidates | None, kind: str, subjects: Any
    ) -> Decisions:
        as_of = self._now() if request.as_of is None else batches.micros(request.as_of)
        try:
            decisions, rules = self._decide(request, found, as_of, subjects)
            with self._write() as connection:
                over, decisions = self._within_limits(connection, request, decisions)
                payload = self._decision_payload(request, as_of, kind, decisions, rules)
                leaf = log.append_entries(connection, [("decision", payload)])[0]
                if not over:  # what was refused uses up nothing
                    self._use(connection, leaf, "decision", request, decisions)
        except ConsentError as error:
            if error.code not in ("center.unreachable", "center.busy", "center.restored", "ledger.corrupt"):
                raise
            if found is not None:
                return deciding.refused(found, "stale", error.detail)
            codes = np.full(len(subjects), CODE["stale"], np.uint8)
            return Decisions(codes, np.full(len(subjects), -1, np.int64), -1, error.detail)
        return decisions

    def _decision_payload(
        self,
        request: DecisionRequest,
        as_of: int,
        kind: str,
        decisions: Decisions,
        rules: tuple[deciding.Rule, ...],
    ) -> dict[str, Any]:
        return {
            **_asked(request, as_of),
            "kind": kind,
            "sequence": decisions.sequence,
            "counts": decisions.counts(),
            "rules_hash": self._hash_of(rules),
        }

    def _decide(
        self, request: DecisionRequest, found: deciding.Candidates | None, as_of: int, subjects: Any = None
    ) -> tuple[Decisions, tuple[deciding.Rule, ...]]:
        """The decisions, and the rules that they were made by."""
        with self._lock, self._read() as connection:
            self._catch_up(connection)
            return self._decide_in(connection, request, found, as_of, subjects)

    def _decide_in(
        self,
        connection: sa.Connection,
        request: DecisionRequest,
        found: deciding.Candidates | None,
        as_of: int,
        subjects: Any,
    ) -> tuple[Decisions, tuple[deciding.Rule, ...]]:
        """Decide identifiers or subjects in a transaction in which the state is caught up, under the lock."""
        state, controller, rules = self._state, self._controller, self._rules_now(connection)
        with self._distrusting():
            if found is None:
                codes = deciding.judge(state, controller, request, subjects, as_of, rules)
                return Decisions(codes, subjects, state.sequence), rules
            known = state.lookup(connection, found.hashed)
            return deciding.decide(state, controller, request, found, known, as_of, rules), rules

    def _within_limits(
        self, connection: sa.Connection, request: DecisionRequest, decisions: Decisions
    ) -> tuple[str, Decisions]:
        """(the limit that is reached or "", the decisions: then none eligible). In the writer's turn."""
        declared = self._declared(connection)
        if declared is None or not has_limits(declared):
            return "", decisions
        people = int(np.count_nonzero(decisions.eligible))
        over = exceeded(connection, declared, request, "decision", people, self._now())
        if not over:
            return "", decisions
        codes = decisions.codes.copy()
        codes[decisions.eligible] = CODE["blocked_by_rule"]
        return over, replace(decisions, codes=codes, detail=over)

    def _counts_uses(self, connection: sa.Connection) -> bool:
        declared = self._declared(connection)
        return declared is not None and has_limits(declared)

    def _use(
        self, connection: sa.Connection, leaf: int, kind: str, request: DecisionRequest, decisions: Decisions
    ) -> None:
        """Count a use, while there are limits."""
        if self._counts_uses(connection):
            people = int(np.count_nonzero(decisions.eligible))
            note_use(connection, leaf, self._now(), kind, request, people)

    def snapshot(
        self, request: DecisionRequest, values: pa.Array, kind: str | pa.Array, job_id: str
    ) -> Snapshot:
        """Decide, and sign the outcome for a job. Ends are judged at `as_of` or now, whichever is later.

        `kind` is that of all rows, or a column of text with the kind of each (people known by several kinds).

        Unlike `decide` it raises when the center is stale (`center.unreachable`, `center.busy`): a job
        without a snapshot must not start. Also `decision.request`, `identifier.*`.
        """
        deciding.check_request(request)
        if not registry.is_name(job_id):
            raise ConsentError(
                "decision.request", f"job_id {job_id!r} must be 1 to 128 characters without , ; | * +"
            )
        found = deciding.candidates(self._keys.pseudonym, values, kind)
        now = self._now()
        as_of = now if request.as_of is None else max(now, batches.micros(request.as_of))
        with self._lock:
            decisions, rules = self._decide(request, found, as_of)
            known = self._state.registry
        if known is None:
            raise ConsentError("center.unreachable", "the registry was not read")
        salt = secrets.token_bytes(snapshot.SALT_SIZE)
        chosen = decisions.codes[found.rows] == 0
        hashed = found.hashed if chosen.all() else found.hashed[chosen]
        del found, chosen  # of millions, hundreds of megabytes
        tokens = snapshot.tokens_of(salt, hashed)
        del hashed
        purpose = known.current.get(request.purpose)
        day = batches.moment(as_of)[:10]
        assessed = known.assessment(request.purpose, request.recipient, day)
        if known.lacks_assessment(self._controller, request.purpose, request.recipient, day):
            raise ConsentError(
                "assessment.missing",
                f"no impact assessment for {request.purpose!r} and {request.recipient!r} is in force; a job "
                "for another organisation needs one (PIPL 55): pec consent assessment put",
            )
        disclosure = {
            "counts": decisions.counts(),
            "token_count": len(tokens),
            "salt": secrets.token_hex(snapshot.SALT_SIZE),
        }
        document = {
            "format": "pec.snapshot/1",
            "id": secrets.token_hex(16),
            "job_id": job_id,
            "center": self._keys.signer.name,
            "controller": self._controller,
            **_asked(request, as_of),
            "purpose_version": purpose.version if purpose else 0,
            "kind": kind if isinstance(kind, str) else "+".join(sorted(set(kind.to_pylist()))),
            "sequence": decisions.sequence,
            "disclosure_hash": disclosure_hash(disclosure),
            "rules_hash": self._hash_of(rules),
            "notices_hash": known.notices_hash(request.purpose),
            "assessment": assessed.reference if assessed else "",
            "token_root": snapshot.token_root(tokens).hex(),
            "issued_at": batches.moment(now),
        }
        signature = snapshot.sign(self._keys.signer, document)
        eligible = bitmap(decisions.ordinals[decisions.eligible])
        with self._write() as connection:
            declared = self._declared(connection)
            if declared is not None and has_limits(declared):
                # Unlike a decision it raises: a job without a snapshot must not start.
                over = exceeded(connection, declared, request, "snapshot", len(eligible), now)
                if over:
                    raise ConsentError("rules.limit", over)
            leaf = snapshot.store(
                connection, document, disclosure, signature, salt, request, eligible, tokens
            )
            self._use(connection, leaf, "snapshot", request, decisions)
        return Snapshot(document, signature, decisions, disclosure)

    def delta(self, snapshot_id: str) -> Delta:
        """Who was eligible in a snapshot and is not now. `snapshot.unknown`, `center.unreachable`.

        Not `active`: the purpose or recipient is off, or an assessment is needed and none is in force.
        """
        now = self._now()
        with self._lock, self._read() as connection:
            self._head.check(connection)
            stored = snapshot.load(connection, snapshot_id)
            self._catch_up(connection)
            # A snapshot for a later day must not be re-judged by today's ends; nor may the clock go back.
            as_of = max(now, batches.micros(datetime.fromisoformat(stored.document["as_of"])))
            rules = self._rules_now(connection)
            with self._distrusting():
                parts = deciding.classify(
                    self._state, self._controller, stored.request, stored.eligible, as_of, rules
                )
            asked = stored.request
            known = self._state.registry
            active = (
                known is not None
                and not deciding.closed_for(known, asked.purpose, asked.recipient)
                and not known.lacks_assessment(
                    self._controller, asked.purpose, asked.recipient, batches.moment(as_of)[:10]
                )
            )
            sequence = self._state.sequence
            members = [ordinals_of(who) for _, who in parts]
            withdrawn = np.concatenate([*members, np.empty(0, np.int64)])
            codes = [np.full(len(m), code, np.uint8) for (code, _), m in zip(parts, members, strict=True)]
            reasons = np.concatenate([*codes, np.empty(0, np.uint8)])
            order = np.argsort(withdrawn)
            start = int(stored.document["sequence"])
            lag = examine.oldest_change(connection, start, withdrawn, now)
            before = timing.measured_up_to(connection, snapshot_id, start)
            waits = timing.new_waits(connection, before, withdrawn, now)
        if len(waits):
            with self._write() as connection:
                timing.note(connection, stored.document, sequence, waits, now)
        return Delta(sequence, active, withdrawn[order], reasons[order], lag)

    def token_proof(self, snapshot_id: str, kind: str, value: str) -> dict[str, Any]:
        """Proof that an identifier's token was, or was not, in a snapshot; `ledger.verify.token` checks it.

        `snapshot.unknown`, `event.identifier` (the value is no identifier of that kind).
        """
        with self._read() as connection:
            stored = snapshot.load(connection, snapshot_id)
            tokens = snapshot.load_tokens(connection, snapshot_id)
        hashed = examine.pseudonym(self._keys, kind, value)
        found = snapshot.prove_token(tokens, snapshot.tokens_of(stored.salt, hashed)[0].tobytes())
        return {**found, "disclosure": stored.disclosure}

    def _judge(self, connection: sa.Connection, request: DecisionRequest, ordinals: Any, as_of: int) -> Any:
        with self._lock:
            self._catch_up(connection)
            rules = self._rules_now(connection)
            return judge(self._state, self._controller, request, ordinals, as_of, rules)

    def _has_rules(self, given: sa.Connection | None = None) -> bool:
        """Whether any rule is in force, whose answer may change with time."""
        if self._rules:
            return True
        with self._read() if given is None else nullcontext(given) as connection:
            return rules_in_force(connection) is not None


def _asked(request: DecisionRequest, as_of: int) -> dict[str, Any]:
    return {
        "purpose": request.purpose,
        "recipient": request.recipient,
        "categories": sorted(request.categories),
        "regulation": request.regulation or "",
        "as_of": batches.moment(as_of),
    }
