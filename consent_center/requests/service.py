"""What the center offers for rights requests: intake, identity, clock, tasks, decision, letters.

    rights.open("access", [("phone", "13800138000")])
    rights.step(id, "identity.pass", method="in_person", evidence="identity card seen")
    rights.step(id, "grant")        rights.fulfil(id)

Every step is one transaction with its leaf. Nothing about a person is disclosed or done before the identity
check has passed: `show` does not even tell whether the person is known. Answers are plain JSON, so that REST,
the command line and the console show the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from consent_center import database as db
from consent_center import examine, subjects
from consent_center.batch import DAY, micros, moment
from consent_center.errors import ConsentError
from consent_center.identifiers import OK, normalise
from consent_center.keys import Keys
from consent_center.ledger import log
from consent_center.ledger.verify import canonical
from consent_center.model import KINDS as IDENTIFIER_KINDS
from consent_center.outbox import queue
from consent_center.requests import clock, correction, letters, package, restriction, store
from consent_center.requests.clock import ClockRule
from consent_center.requests.model import (
    DONE,
    GROUNDS,
    IDENTIFIED,
    KINDS,
    LANGUAGES,
    METHODS,
    OUTCOMES,
    PACKAGES,
    PAUSED,
    REGULATIONS,
    STEPS,
    Request,
    move,
)
from consent_center.requests.tables import rights_requests, rights_steps

#: What names the person is kept so long after a request is done, and the record of it for three years
#: (PIPL 56 asks three years for records of processing; limitation periods are about the same).
PRIVATE_DAYS, RECORD_DAYS = 90, 1096
_MAX_TEXT = 20_000
_MAX_IDENTIFIERS = 100


@dataclass(frozen=True)
class Rights:
    """One center's rights requests."""

    keys: Keys
    controller: str
    read: Callable[[], AbstractContextManager[sa.Connection]]
    write: Callable[[], AbstractContextManager[sa.Connection]]
    now: Callable[[], int]
    judge: package.Judge

    # ---- intake --------------------------------------------------------------------------------------------

    def open(
        self,
        kind: str,
        identifiers: Sequence[tuple[str, str]],
        regulation: str = "PIPL",
        language: str = "zh",
        channel: str = "cli",
        contact: str = "",
        text: str = "",
        received_at: datetime | None = None,
        actor: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Take in a request. `contact`: how to reach the person; `text`: what was asked; both are sealed.

        Raises `rights.request`, `event.identifier`. An unknown person is no error: the answer does not tell.
        """
        _choice(kind, KINDS, "kind")
        _choice(regulation, REGULATIONS, "regulation")
        _choice(language, LANGUAGES, "language")
        for what, value, limit in (
            ("channel", channel, 128),
            ("contact", contact, 1000),
            ("text", text, _MAX_TEXT),
        ):
            _text(what, value, limit)
        now = self.now()
        received = now if received_at is None else micros(received_at)
        if received > now or received < now - 5 * 366 * DAY:
            raise ConsentError("rights.request", "received_at is in the future or more than five years ago")
        given = self._identifiers(identifiers)
        private = {"identifiers": [list(pair) for pair in given], "contact": contact, "text": text}
        with self.write() as connection:
            found = {self._subject(connection, pair) for pair in given} - {-1}
            if len(found) > 1:
                raise ConsentError(
                    "event.identifier_conflict",
                    "the identifiers belong to different people; open a request for each",
                )
            subject = found.pop() if found else -1
            made = store.open_request(
                connection,
                self.keys,
                kind,
                regulation,
                language,
                subject,
                received,
                now,
                actor,
                channel,
                details or {},
                private,
            )
            return self._shown(connection, made, now)

    def _identifiers(self, identifiers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        if not 0 < len(identifiers) <= _MAX_IDENTIFIERS:
            raise ConsentError("rights.request", f"give 1 to {_MAX_IDENTIFIERS} identifiers of the person")
        given = []
        for kind, value in identifiers:
            if kind not in IDENTIFIER_KINDS:
                raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(IDENTIFIER_KINDS)}")
            normal = normalise(pa.array([value], pa.string()), kind)
            if normal.status[0] != OK:
                raise ConsentError(
                    "event.identifier", f"the value is no {kind} identifier; check kind and spelling"
                )
            given.append((kind, str(normal.values[0].as_py())))
        return given

    def _subject(self, connection: sa.Connection, pair: tuple[str, str]) -> int:
        return int(subjects.sql_lookup(connection, examine.pseudonym(self.keys, *pair))[0])

    # ---- steps ---------------------------------------------------------------------------------------------

    def step(self, id: str, name: str, actor: str = "", **given: Any) -> dict[str, Any]:
        """One step of `model.STEPS` but `fulfil`, `letter` and `purge`, which have calls of their own.

        identity.ask, identity.fail, identity.pass(method, evidence); task.add(task), task.done(task, skipped,
        text); assign(to); pause(text), resume; extend(text); grant(outcome, grounds, text),
        refuse(grounds, text); note(text); withdraw(text); close; lift. `text` and `evidence` are sealed.
        Raises `rights.*`.
        """
        if name in ("fulfil", "letter", "purge", "open"):
            raise ConsentError("rights.state", f"{name!r} is no step of its own: see fulfil, letter, sweep")
        if name not in {step for steps in STEPS.values() for step in steps}:
            raise ConsentError("rights.state", f"{str(name)[:40]!r} is no step")
        now = self.now()
        private = {}
        for what in ("text", "evidence"):
            value = given.pop(what, "") or ""
            _text(what, value, _MAX_TEXT)
            if value:
                private[what] = value
        with self.write() as connection:
            request = store.load(connection, id)
            move(request.state, name)
            data = self._checked(connection, request, name, private, dict(given), now)
            if name == "lift":
                self._lift(connection, request)
            made = store.step(connection, self.keys, request, name, data, private, now, actor)
            if made.state == "closed" and made.kind == "deletion" and made.outcome != "refused":
                made = self._purge(connection, made, now, actor)
            return self._shown(connection, made, now)

    def _checked(
        self,
        connection: sa.Connection,
        request: Request,
        name: str,
        private: Mapping[str, str],
        given: dict[str, Any],
        now: int,
    ) -> dict[str, Any]:
        """The step's structured part, checked against what the step needs."""
        wanted: dict[str, tuple[str, ...]] = {
            "identity.pass": ("method",),
            "task.add": ("task",),
            "task.done": ("task", "skipped"),
            "assign": ("to",),
            "grant": ("outcome", "grounds"),
            "refuse": ("grounds",),
        }
        strange = set(given) - set(wanted.get(name, ()))
        if strange:
            raise ConsentError("rights.request", f"step {name!r} has no field {', '.join(sorted(strange))}")
        if name == "identity.pass":
            _choice(given.get("method"), METHODS, "method")
            if not private.get("evidence"):
                raise ConsentError("rights.identity", "say what was seen: `evidence` (it is sealed)")
            return self._identity(connection, request, given["method"])
        if name in ("task.add", "task.done"):
            return self._task(request, name, given, private)
        if name == "assign":
            _text("to", given.get("to", ""), 128, least=1)
        elif name in ("pause", "extend") and not private.get("text"):
            raise ConsentError("rights.request", f"{name} needs its reason in `text`: the person is told it")
        elif name == "extend":
            self._may_extend(connection, request, now)
        elif name in ("grant", "refuse"):
            return self._decision(request, name, given)
        elif name == "close":
            told = store.payloads(connection, store.number_of(connection, request.id))
            if not any(s["step"] == "letter" and s["data"]["letter"] == "decision" for s in told):
                raise ConsentError(
                    "rights.state", "the person has had no letter with the decision yet; write it first"
                )
        return given

    def _identity(self, connection: sa.Connection, request: Request, method: str) -> dict[str, Any]:
        """The check has passed: now it counts whom the identifiers lead to."""
        given = self._private(connection, request)["identifiers"]
        found = {self._subject(connection, (kind, value)) for kind, value in given} - {-1}
        if len(found) > 1 and request.kind != "correction":
            raise ConsentError("event.identifier_conflict", "the identifiers lead to different people by now")
        subject = request.subject if request.subject in found else min(found, default=-1)
        return {
            "method": method,
            "subject_tag": store.set_subject(connection, self.keys, request.id, subject),
        }

    def _task(
        self, request: Request, name: str, given: dict[str, Any], private: Mapping[str, str]
    ) -> dict[str, Any]:
        task, skipped = given.get("task"), bool(given.get("skipped", False))
        _text("task", task, 128, least=1)
        if name == "task.add":
            if task in request.open_tasks:
                raise ConsentError("rights.task", f"task {task!r} is open already")
            return {"task": task}
        if task not in request.open_tasks:
            raise ConsentError(
                "rights.task", f"no task {task!r} is open; open: {', '.join(request.open_tasks) or 'none'}"
            )
        if skipped and not private.get("text"):
            raise ConsentError("rights.task", "a task that is left out needs its reason in `text`")
        return {"task": task, "skipped": skipped}

    def _may_extend(self, connection: sa.Connection, request: Request, now: int) -> None:
        rule = store.rule_of(connection, request.id)
        if request.extensions >= rule.extensions:
            raise ConsentError(
                "rights.clock", f"{rule.regulation} allows {rule.extensions} extensions; no more"
            )
        if now >= request.due_at:
            raise ConsentError("rights.clock", "the time is over: an extension must be told before")

    def _decision(self, request: Request, name: str, given: dict[str, Any]) -> dict[str, Any]:
        outcome = "refused" if name == "refuse" else given.get("outcome", "granted")
        _choice(outcome, OUTCOMES, "outcome")
        grounds = given.get("grounds", ())
        if not isinstance(grounds, list | tuple):
            raise ConsentError("rights.request", "grounds is a list")
        for ground in grounds:
            _choice(ground, GROUNDS, "ground")
        if name == "grant" and outcome == "refused":
            raise ConsentError("rights.request", "a refusal is the step `refuse`")
        if outcome != "granted" and not grounds:
            raise ConsentError(
                "rights.request", f"an answer that is not a yes needs grounds: {', '.join(GROUNDS)}"
            )
        if request.state not in IDENTIFIED and list(grounds) != ["identity_not_proven"]:
            raise ConsentError(
                "rights.identity", "before the identity is proven the only ground is identity_not_proven"
            )
        return {"outcome": outcome, "grounds": list(grounds)}

    def _lift(self, connection: sa.Connection, request: Request) -> None:
        if request.kind != "restriction" or not restriction.lift(connection, request.subject):
            raise ConsentError("rights.fulfil", "this request restricts nobody")
        self._tell(connection, request.subject, "subject.unrestricted", self.now())

    def _tell(self, connection: sa.Connection, subject: int, kind: str, now: int) -> None:
        salt = subjects.salts_of(connection, np.array([subject], np.int64))
        queue.note_subject(connection, self.keys, subject, salt, kind, now)

    # ---- fulfilment ----------------------------------------------------------------------------------------

    def fulfil(
        self, id: str, actor: str = "", corrections: Sequence[Mapping[str, Any]] = (), text: str = ""
    ) -> dict[str, Any]:
        """Carry out what was granted, once and in one transaction; {"request", "result"}.

        access, copy, portability, explanation: `result` is the signed package. deletion: the person's key is
        destroyed. restriction: decisions refuse from now on. correction: `corrections` are
        {"action", "kind", "value", "target_kind", "target_value"}; none if only facts outside the center
        were corrected, which then needs `text`. Raises `rights.state`, `.identity`, `.task`, `.fulfil`.
        """
        _text("text", text, _MAX_TEXT)
        now = self.now()
        with self.write() as connection:
            request = store.load(connection, id)
            if request.state != "decided":
                code = "rights.state" if request.identified else "rights.identity"
                raise ConsentError(
                    code, f"request {id} is {request.state}: only a decided one can be carried out"
                )
            if request.open_tasks:
                raise ConsentError("rights.task", f"still open: {', '.join(request.open_tasks)}")
            result = self._carry_out(connection, request, corrections, text, now, actor)
            data = {"result": _summary(request, result)}
            private = {"text": text} if text else {}
            made = store.step(connection, self.keys, request, "fulfil", data, private, now, actor)
            return {"request": self._shown(connection, made, now), "result": result}

    def _carry_out(
        self,
        connection: sa.Connection,
        request: Request,
        corrections: Sequence[Mapping[str, Any]],
        text: str,
        now: int,
        actor: str,
    ) -> dict[str, Any]:
        if corrections and request.kind != "correction":
            raise ConsentError("rights.fulfil", f"a request for {request.kind} corrects nothing")
        if request.kind in PACKAGES:
            return package.build(connection, self.keys, self.controller, request, self.judge, now)
        if request.subject < 0 or not _still_known(connection, request.subject):
            return {"held": False}
        if request.kind == "deletion":
            sequence = examine.erase(connection, self.keys, request.subject, self.controller, actor, now)
            return {"held": True, "erased": sequence}
        if request.kind == "restriction":
            leaf = log.size(connection)  # the leaf of the step `fulfil`, in this transaction
            restriction.restrict(connection, request.subject, now, leaf)
            self._tell(connection, request.subject, "subject.restricted", now)
            return {"held": True, "restricted_since": moment(now)}
        if not corrections and not text:
            raise ConsentError("rights.fulfil", "say what was corrected: `corrections`, or `text`")
        done = []
        for wish in corrections:
            target = (
                (str(wish["target_kind"]), str(wish["target_value"])) if wish.get("target_kind") else None
            )
            done.append(
                correction.correct(
                    connection,
                    self.keys,
                    self.controller,
                    request.subject,
                    str(wish.get("action")),
                    str(wish.get("kind")),
                    str(wish.get("value")),
                    now,
                    actor,
                    request.id,
                    target,
                )
            )
        return {"held": True, "corrections": done}

    # ---- letters -------------------------------------------------------------------------------------------

    def letter(
        self, id: str, letter: str, text: str = "", language: str = "", actor: str = ""
    ) -> dict[str, Any]:
        """Write a letter: {"html", "sha256", "leaf"}. The page is sealed; its hash is in the ledger."""
        _text("text", text, _MAX_TEXT)
        now = self.now()
        with self.write() as connection:
            request = store.load(connection, id)
            if letter == "decision" and not request.outcome:
                raise ConsentError("rights.state", "nothing is decided yet")
            words = language or request.language
            rule = store.rule_of(connection, request.id)
            # Days as the person's calendar has them: the rule's zone, by which the deadline is counted too.
            received, today = (
                clock.local_date(rule, at).isoformat() for at in (store.micros_of(request.received_at), now)
            )
            due = self._due(connection, request, now)[0].isoformat()
            dated = replace(request, due=due, received_at=received)
            page = letters.render(letter, words, dated, self.controller, today, text)
            data = {"letter": letter, "language": words, "sha256": letters.digest(page)}
            store.step(connection, self.keys, request, "letter", data, {"html": page}, now, actor)
            return {"html": page, "sha256": data["sha256"], "leaf": log.size(connection) - 1}

    # ---- looking -------------------------------------------------------------------------------------------

    def show(self, id: str, private: bool = False) -> dict[str, Any]:
        """A request and its steps; with `private` also what names the person, for those who work on it."""
        now = self.now()
        with self.read() as connection:
            request = store.load(connection, id)
            told = store.history(connection, self.keys, id)
            steps = [{k: v for k, v in s.items() if private or k != "private"} for s in told]
            return {**self._shown(connection, request, now), "steps": steps}

    def list(self, running: bool = False) -> list[dict[str, Any]]:
        """All requests, or those that are not done, the most urgent first."""
        now = self.now()
        with self.read() as connection:
            return [
                self._shown(connection, store.load(connection, id), now)
                for id in store.ids(connection, running)
            ]

    def deadlines(self, within_days: int = clock.NEAR_DAYS) -> dict[str, Any]:
        """How many requests are on time, near their end, overdue or paused, and the urgent ones."""
        # Fulfilled and refused ones wait for their closing only: nothing of theirs is due.
        shown = [entry for entry in self.list(running=True) if entry["standing"] != "done"]
        counts = dict.fromkeys(("on_time", "near", "overdue", "paused"), 0)
        for entry in shown:
            counts[entry["standing"]] += 1
        urgent = [e for e in shown if e["standing"] == "overdue" or e["days_left"] <= within_days]
        return {"counts": counts, "urgent": [e for e in urgent if e["standing"] != "paused"]}

    def _due(self, connection: sa.Connection, request: Request, now: int) -> tuple[Any, bool]:
        rule = store.rule_of(connection, request.id)
        return clock.deadline(
            rule, store.micros_of(request.received_at), request.extensions, request.pauses, now
        )

    def _shown(self, connection: sa.Connection, request: Request, now: int) -> dict[str, Any]:
        found = asdict(request)
        for name in ("subject", "due_at", "pauses"):
            del found[name]
        found["pauses"] = [[moment(a), moment(b) if b >= 0 else ""] for a, b in request.pauses]
        found["grounds"], found["tasks"] = list(request.grounds), [asdict(task) for task in request.tasks]
        found["articles"] = KINDS[request.kind]
        # Before the identity check nobody is told whether the person is known.
        if request.identified:
            found["known"] = request.subject >= 0
        if request.state in DONE or request.state in ("fulfilled", "refused"):
            return {**found, "standing": "done", "days_left": 0, "possible": sorted(STEPS[request.state])}
        rule = store.rule_of(connection, request.id)
        due, provisional = self._due(connection, request, now)
        standing, left = clock.standing(rule, due, now, request.state not in PAUSED)
        more = {"due": due.isoformat(), "provisional": provisional, "standing": standing, "days_left": left}
        return {**found, **more, "possible": sorted(STEPS[request.state])}

    def _private(self, connection: sa.Connection, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = store.history(connection, self.keys, request.id)[0]["private"]
        if not found:
            raise ConsentError("rights.state", "what named the person of this request was destroyed")
        return found

    # ---- rules and retention -------------------------------------------------------------------------------

    def rules(self) -> dict[str, Any]:
        """The clock rules in force, by regulation."""
        with self.read() as connection:
            return {name: rule.to_json() for name, rule in store.rules(connection).items()}

    def put_rule(self, rule: ClockRule, actor: str = "") -> dict[str, Any]:
        """Set how a regulation counts, for requests from now on. `rights.clock`."""
        _choice(rule.regulation, REGULATIONS, "regulation")
        with self.write() as connection:
            store.put_rule(connection, rule, actor)
        return rule.to_json()

    def sweep(self, actor: str = "") -> dict[str, Any]:
        """Retention: destroy what names people in requests done for long, drop records after three years."""
        now = self.now()
        purged, dropped = [], []
        with self.write() as connection:
            query = sa.select(rights_requests).where(rights_requests.c.done_at >= 0)
            for row in connection.execute(query.order_by(rights_requests.c.number)).all():
                if row.state != "purged" and now - row.done_at >= PRIVATE_DAYS * DAY:
                    self._purge(connection, store.load(connection, row.id), now, actor)
                    purged.append(row.id)
                if now - row.done_at >= RECORD_DAYS * DAY:
                    connection.execute(rights_steps.delete().where(rights_steps.c.request == row.number))
                    connection.execute(rights_requests.delete().where(rights_requests.c.number == row.number))
                    dropped.append(row.id)
            if dropped:
                told = {"dropped": dropped, "at": moment(now), "actor": actor}
                log.append_entries(connection, [(store.SWEEP_KIND, told)])
        return {"purged": purged, "dropped": dropped}

    def _purge(self, connection: sa.Connection, request: Request, now: int, actor: str) -> Request:
        store.forget(connection, request.id)
        return store.step(connection, self.keys, request, "purge", {}, {}, now, actor)


def _still_known(connection: sa.Connection, subject: int) -> bool:
    """Whether somebody is still known under that number: not erased meanwhile."""
    query = sa.select(db.identifiers.c.id).where(db.identifiers.c.subject == subject).limit(1)
    return connection.execute(query).first() is not None


def _summary(request: Request, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the leaf says of a fulfilment: a package by its hash, everything else as it is."""
    if request.kind in PACKAGES:
        return {"package_sha256": hashlib.sha256(canonical(dict(result))).hexdigest()}
    found: dict[str, Any] = json.loads(json.dumps(dict(result)))
    return found


def _choice(value: Any, choices: Any, what: str) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConsentError("rights.request", f"{what} {str(value)[:60]!r} is none of {', '.join(choices)}")


def _text(what: str, value: Any, limit: int, least: int = 0) -> None:
    clean = isinstance(value, str) and least <= len(value) <= limit
    if not clean or any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise ConsentError("rights.request", f"{what} must be a text of {least} to {limit:,} characters")
