"""The embedded consent center: one directory, used by several processes at once.

    home/center.db      SQLite (WAL), or home/database.url, which names a PostgreSQL database
    home/keys/          the three secrets, mode 0600

Every call is safe from several threads. Errors are ConsentError; each method names its codes.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa

from consent_center import batch as batches
from consent_center import decide as deciding
from consent_center import (
    events,
    examine,
    few,
    group,
    integrity,
    registry,
    schema,
    snapshot,
    state_file,
    storage,
)
from consent_center import subjects as subjects_of
from consent_center.accounts.login import Logins
from consent_center.accounts.service import Accounts
from consent_center.analytics.service import Analytics
from consent_center.collection import settings
from consent_center.collection.public import PublicCollection
from consent_center.collection.service import Collection
from consent_center.database import Database, entries, get_meta
from consent_center.ends import bitmap
from consent_center.errors import ConsentError
from consent_center.gather import Decided, Gather
from consent_center.keys import Keys, checks, create_keys, load_keys
from consent_center.ledger import log, proof, tree
from consent_center.ledger.checkpoint import Checkpoint
from consent_center.ledger.head import Head
from consent_center.ledger.verify import disclosure_hash
from consent_center.model import (
    CODE,
    KINDS,
    Assessment,
    ConsentEvent,
    DecisionRequest,
    Decisions,
    Delta,
    Explanation,
    Finding,
    Notice,
    Purpose,
    Recorded,
    RecordedMany,
    Snapshot,
)
from consent_center.notices.service import Notices
from consent_center.outbox import check as outbox_check
from consent_center.outbox import queue, timing
from consent_center.outbox.service import Outbox
from consent_center.preferences import check as preference_check
from consent_center.preferences.consents import judge
from consent_center.preferences.service import Preferences
from consent_center.receipts import make as receipts
from consent_center.records import service as records_of
from consent_center.records.service import Records
from consent_center.requests import check as rights_check
from consent_center.requests.service import Rights
from consent_center.room import Room
from consent_center.rules import regions as region_index
from consent_center.rules.document import RuleSet
from consent_center.rules.document import parse as parse_rules
from consent_center.rules.house import House, exceeded, has_limits, note_use
from consent_center.rules.service import Rules
from consent_center.rules.service import in_force as rules_in_force
from consent_center.signals import store as signal_store
from consent_center.signals.mapping import parse as parse_mapping
from consent_center.state import State, check_file, ordinals_of
from consent_center.subjects import SQL_LOOKUP
from consent_center.witness import check as witness_check
from consent_center.witness.service import Witness

Clock = Callable[[], datetime]

_KEYS = "keys"


def utc_now() -> datetime:
    """The clock in production."""
    return datetime.now(UTC)


class Center:
    """See the README for what is stored, signed and proven. Make one with `create` or `open`."""

    def __init__(
        self,
        home: Path,
        database: Database,
        keys: Keys,
        controller: str,
        clock: Clock,
        rules: Sequence[deciding.Rule],
    ) -> None:
        self._database = database
        self._keys = keys
        self._controller = controller
        self._clock = clock
        self._rules = tuple(rules)
        self._regions = region_index.RegionIndex()
        self._house: tuple[int, RuleSet] | None = None
        self._rules_hash = deciding.rules_hash(self._rules)
        self._home = home
        self._head = Head(home / _KEYS, keys.signer)
        self._trusts_file = True
        self._state = State(self._stored_state)
        self._known: registry.Registry | None = None
        self._nodes: log.Nodes = {}
        self._lock = threading.RLock()
        self._closed = self._wrote = False
        self._gather = Gather(lambda items: group.serve(self, items))

    # ---- life ----------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        home: Path,
        controller: str,
        clock: Clock = utc_now,
        rules: Sequence[deciding.Rule] = (),
        database: str | None = None,
    ) -> Center:
        """Make a center for `controller` in `home` (made if absent); `database`: URL of an empty PostgreSQL
        database, None for SQLite. `center.exists`, `.location`, `.unreachable`, `event.controller`.
        """
        home = Path(home)
        if not registry.is_name(controller):
            raise ConsentError(
                "event.controller", f"controller {controller!r} must be a name without blanks or , ; | * +"
            )
        if storage.exists(home) or (home / _KEYS).exists():
            raise ConsentError(
                "center.exists", f"{home} holds a consent center already; open it or choose another"
            )
        home.mkdir(parents=True, exist_ok=True)
        keys = create_keys(home / _KEYS, f"pec-consent/{controller}")
        try:
            made = storage.create(home, database, controller)
        except BaseException:
            shutil.rmtree(home / _KEYS)  # of a center that never was
            raise
        center = cls(home, made, keys, controller, clock, rules)
        with made.write() as connection:
            payload = {"controller": controller, "keys": checks(keys)}
            log.append_entries(connection, [("center", payload)])
            head = center._head.due(connection, now=True)
        center._head.keep(head)
        return center

    @classmethod
    def open(cls, home: Path, clock: Clock = utc_now, rules: Sequence[deciding.Rule] = ()) -> Center:
        """Open the center in `home`. `center.missing`, `.version`, `.keys`, `.unreachable`."""
        home = Path(home)
        if not storage.exists(home):
            raise ConsentError(
                "center.missing", f"{home} holds no consent center; make one: pec consent init"
            )
        keys = load_keys(home / _KEYS)
        database = storage.open_database(home)
        try:
            with database.read() as connection:
                schema.check(connection)
                controller = get_meta(connection, "controller") or ""
                told = integrity.key_checks(connection)
            # With another pseudonym key everybody would be unknown, and a withdrawal a stranger's.
            if told is not None and told != checks(keys):
                raise ConsentError("center.keys", f"the keys in {home / _KEYS} are not those of its database")
        except BaseException:
            database.close()
            raise
        return cls(home, database, keys, controller, clock, rules)

    @property
    def controller(self) -> str:
        """Whose center this is."""
        return self._controller

    def close(self) -> None:
        """Release the database. Further calls raise `center.closed`."""
        self._gather.close()
        if not self._closed and self._wrote:
            self._keep_head()
        self._closed = True
        self._database.close()

    def _keep_head(self) -> None:
        try:
            with self._database.read() as connection:
                self._head.check(connection)
                head = self._head.due(connection, now=True)
            self._head.keep(head)
        except ConsentError as error:
            # Closing must not fail; the next center that is opened here checks anew.
            logging.getLogger(__name__).warning("the log's head was not kept: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        if self._closed:
            raise ConsentError("center.closed", "this center was closed; open it again")
        with self._database.read() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        if self._closed:
            raise ConsentError("center.closed", "this center was closed; open it again")
        with self._database.write() as connection:
            self._head.check(connection)
            yield connection
            head = self._head.due(connection)
        self._wrote = True
        self._head.keep(head)

    def _registry(self, connection: sa.Connection) -> registry.Registry:
        """The registry as this transaction sees it; read again only when its counter has risen."""
        known = self._known
        if known is None or known.version != registry.counter(connection):
            self._known = known = registry.load(connection)
        return known

    def _now(self) -> int:
        return batches.micros(self._clock())

    # ---- registry ------------------------------------------------------------------------------------------

    def put_purpose(self, purpose: Purpose, actor: str = "") -> Purpose:
        """Register a version of a purpose. `registry.purpose`, `registry.version`."""
        with self._write() as connection:
            return registry.put_purpose(connection, purpose, actor)

    def put_notice(self, notice: Notice, actor: str = "") -> Notice:
        """Register a version of a notice; the answer has its hash. `registry.*`."""
        with self._write() as connection:
            return registry.put_notice(connection, notice, actor)

    def put_assessment(self, assessment: Assessment, actor: str = "") -> Assessment:
        """Register the reference of an impact assessment. `registry.assessment`, `.unknown`."""
        with self._write() as connection:
            return registry.put_assessment(connection, assessment, actor)

    def switch_purpose(self, id: str, active: bool, actor: str) -> Purpose:
        """Switch a purpose on or off, for everybody and at once. `registry.unknown`."""
        with self._write() as connection:
            changed = registry.switch_purpose(connection, id, active, actor)
            queue.note_all(connection, "purpose.switched", {"purpose": id, "active": active}, "", self._now())
            return changed

    def switch_recipient(self, id: str, active: bool, actor: str) -> dict[str, bool]:
        """Switch a recipient off or on, for every purpose and at once; all that were ever switched.

        `registry.recipient`. Running jobs for it stop at their next stage.
        """
        with self._write() as connection:
            registry.switch_recipient(connection, id, active, actor)
            told = {"recipient": id, "active": active}
            queue.note_all(connection, "recipient.switched", told, id, self._now())
            return registry.switched_recipients(connection)

    def recipients(self) -> dict[str, bool]:
        """The recipients that were ever switched, and whether they are on; all others are on."""
        with self._read() as connection:
            return registry.switched_recipients(connection)

    def purposes(self) -> list[Purpose]:
        """Every version of every purpose."""
        with self._read() as connection:
            return list(registry.load(connection).purposes.values())

    def notices(self) -> list[Notice]:
        """Every version of every notice."""
        with self._read() as connection:
            return list(registry.load(connection).notices.values())

    def assessments(self) -> list[Assessment]:
        """The references of impact assessments."""
        with self._read() as connection:
            return list(registry.load(connection).assessments.values())

    # ---- events --------------------------------------------------------------------------------------------

    def record(self, event: ConsentEvent) -> Recorded:
        """Record one event. Raises `event.*`; then nothing was written."""
        written = self._record([event], "raise")
        many = written.recorded
        return Recorded(many.first_sequence, many.first_leaf, int(many.subjects[0]), written.ignored)

    def record_many(self, events: Sequence[ConsentEvent] | pa.Table, on_error: str = "raise") -> RecordedMany:
        """Record a batch in one transaction; a table is the fast way (README, "Bulk", lists its columns).

        `on_error` "raise": the first bad row raises its `event.*` with `.row`, nothing is written; "skip":
        bad rows are in the answer's `errors`, the others are written.
        """
        if on_error not in ("raise", "skip"):
            raise ConsentError("event.batch", f"on_error is 'raise' or 'skip', not {on_error!r}")
        table = events if isinstance(events, pa.Table) else batches.table_of(events)
        return self._record(table, on_error).recorded

    def _record(self, told: pa.Table | list[ConsentEvent], on_error: str) -> events.Written:
        with self._write() as connection:
            now = self._now()
            parse = few.parse if isinstance(told, list) else batches.parse
            batch = parse(told, self._registry(connection), self._controller, now)
            _raise_first(batch, on_error)
            written = self._write_batch(connection, batch, now, assumed=False)
            _raise_first(batch, on_error)
            return written

    def assume(
        self,
        values: pa.Array,
        kind: str,
        purpose: str,
        recipient: str,
        categories: Sequence[str],
        reason: str,
        actor: str,
    ) -> RecordedMany:
        """Record consent that was NOT given here but is assumed, as such (method "assumed"), with the reason.

        For evaluations on one's own files. It never outweighs an event of the person. One event a person;
        rows that can't be used have subject -1. Raises `event.*`, `identifier.*`.
        """
        if not reason.strip() or len(reason) > 1000 or len(actor) > 512:
            raise ConsentError("event.text", "assumed consent needs a reason (1 to 1000 characters)")
        if kind not in KINDS:
            raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
        with self._write() as connection:
            now = self._now()
            known = self._registry(connection)
            current = known.current.get(purpose)
            fields = {
                "purpose": purpose,
                "purpose_version": current.version if current else 0,
                "action": "granted",
                "recipient": recipient,
                "notice": "",
                "notice_version": 0,
                "controller": self._controller,
                "regulation": "PIPL",
                "channel": "import",
                "method": batches.ASSUMED,
                "categories": list(categories),
                "reason": reason,
                "actor": actor,
            }
            descriptor = batches.check_descriptor(fields, known, self._controller)
            rows, days = len(values), current.duration_days if current else None
            batch = batches.Batch(
                [descriptor],
                np.zeros(rows, np.int64),
                [(kind, values)],
                np.full(rows, now, np.int64),
                np.full(rows, batches.NEVER if days is None else now + days * batches.DAY, np.int64),
                np.full(rows, batches.NEVER, np.int64),
                None,
                {},
            )
            return self._write_batch(connection, batch, now, assumed=True).recorded

    def record_soon(self, event: ConsentEvent) -> Recorded:
        """`record`, in one commit with what other threads record and ask meanwhile: for services."""
        return self._gather.record(event)

    def decide_soon(self, request: DecisionRequest, value: str, kind: str) -> Decided:
        """`decide` for one value, likewise; its leaf is durable when this returns."""
        deciding.check_request(request)
        if kind not in KINDS:
            raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
        return self._gather.decide(request, value, kind)

    def _write_batch(
        self, connection: sa.Connection, batch: batches.Batch, now: int, assumed: bool
    ) -> events.Written:
        if batch.rows * len(batch.identifiers) <= SQL_LOOKUP:
            return events.write(connection, self._keys, batch, now, None, assumed)
        with self._lock:
            self._catch_up(connection)
            return events.write(connection, self._keys, batch, now, self._state.index(connection), assumed)

    def explain(self, kind: str, value: str) -> Explanation:
        """Everything held about the person with that identifier. `subject.unknown`, `identifier.kind`."""
        with self._read() as connection:
            subject = examine.find(connection, self._keys, kind, value)
            return examine.explain(connection, self._keys, subject)

    def erase(self, kind: str, value: str, actor: str) -> int:
        """Destroy the person's keys and identifiers; the ledger stays verifiable. The erasure's sequence
        number.

        `subject.unknown`. Copies of the database from before (backups, SQLite's write-ahead log until its
        next checkpoint) still have the salt: they need the data key, which is kept apart.
        """
        with self._write() as connection:
            subject = examine.find(connection, self._keys, kind, value)
            return examine.erase(connection, self._keys, subject, self._controller, actor, self._now())

    # ---- preferences ---------------------------------------------------------------------------------------

    @property
    def preferences(self) -> Preferences:
        """Whether people may be contacted: channels, topics, frequency caps, quiet hours."""
        return Preferences(self._keys, self._read, self._write, self._now, self._judge, self._has_rules())

    def _judge(self, connection: sa.Connection, request: DecisionRequest, ordinals: Any, as_of: int) -> Any:
        with self._lock:
            self._catch_up(connection)
            rules = self._rules_now(connection)
            return judge(self._state, self._controller, request, ordinals, as_of, rules)

    def _has_rules(self) -> bool:
        """Whether any rule is in force, whose answer may change with time."""
        if self._rules:
            return True
        with self._read() as connection:
            return rules_in_force(connection) is not None

    @property
    def records(self) -> Records:
        """Processing register, agreements, reminders, exports."""
        return Records(self._controller, self._read, self._write, self._now)

    def require_assessments(self, required: bool, actor: str) -> bool:
        """Whether a job for another organisation needs an impact assessment in force (PIPL 55)."""
        with self._write() as connection:
            registry.require_assessments(connection, required, actor)
        return required

    @property
    def witness(self) -> Witness:
        """Cosigning other logs, and collecting cosignatures for this one."""
        return Witness(self._keys, self._read, self._write, self._now)

    def recover(self, reason: str, actor: str = "") -> dict[str, Any]:
        """Accept a database that was put back from a backup (`center.restored`): a leaf says so, with the
        head that is lost; {lost_size, size, leaf}. What was recorded since that backup must be done again.
        """
        if not reason.strip() or len(reason) > 2_000:
            raise ConsentError("request.invalid", "say why the database was put back (1 to 2000 characters)")
        if self._closed:
            raise ConsentError("center.closed", "this center was closed; open it again")
        with self._lock:
            with self._database.write() as connection:
                try:
                    self._head.check(connection)
                except ConsentError as error:
                    if error.code != "center.restored":
                        raise
                else:
                    raise ConsentError("request.invalid", "the database is the one that was there")
                at = batches.moment(self._now())
                lost = self._head.lost(connection, at)
                size = log.size(connection)
                told = {"lost": lost, "size": size, "reason": reason, "actor": actor, "at": at}
                leaf = log.append_entries(connection, [("center.recovered", told)])[0]
                self._head.forget()
                head = self._head.due(connection, now=True)
            self._head.keep(head, force=True)
            self._state = State(self._stored_state)
            self._nodes = {}
        lost_size = int(lost.split("\n")[1]) if lost.count("\n") > 2 else 0
        return {"lost_size": lost_size, "size": size + 1, "leaf": leaf}

    @property
    def outbox(self) -> Outbox:
        """Webhooks, their queue, and how long enforcement takes."""
        return Outbox(self._keys, self._controller, self._read, self._write, self._now)

    @property
    def rights(self) -> Rights:
        """Requests of people about their data: access, correction, deletion, restriction …"""
        return Rights(self._keys, self._controller, self._read, self._write, self._now, self._judge)

    # ---- collection ----------------------------------------------------------------------------------------

    @property
    def room(self) -> Room:
        """What the parts of the center that have a package of their own work with."""
        return Room(
            self._keys,
            self._controller,
            self._read,
            self._write,
            self._now,
            self._registry,
            self._caught_up,
            self._rules_now,
        )

    @property
    def rules(self) -> Rules:
        """The rules of the house: check, dry run, put in force; where people are."""
        return Rules(self.room, self._regions, self._rules)

    def _declared(self, connection: sa.Connection) -> RuleSet | None:
        """The rule file in force, parsed once."""
        held = rules_in_force(connection)
        if held is None:
            return None
        if self._house is None or self._house[0] != held[0]:
            self._house = (held[0], parse_rules(held[1]))
        return self._house[1]

    def _rules_now(self, connection: sa.Connection) -> tuple[deciding.Rule, ...]:
        """Built-in rules and the rules of the house, as this transaction sees them. Under the center's
        lock.
        """
        declared = self._declared(connection)
        if declared is None or self._house is None:
            return self._rules
        try:
            self._regions.catch_up(connection, self._keys)
        except BaseException:
            self._regions.reset()  # half-read regions must not answer
            raise
        everybody = region_index.universe(subjects_of.count(connection))
        return (*self._rules, House(declared, self._house[0], self._regions, everybody))

    @contextmanager
    def _caught_up(self) -> Iterator[tuple[sa.Connection, State]]:
        with self._lock, self._read() as connection:
            self._catch_up(connection)
            yield connection, self._state

    @property
    def collection(self) -> Collection:
        """Forms, signed links, the preference page's contents, double opt-in, guardians."""
        return Collection(self.room)

    @property
    def notice_board(self) -> Notices:
        """Notices from draft to publication, differences, who must be asked again."""
        return Notices(self.room)

    @property
    def analytics(self) -> Analytics:
        """Figures: rates, where people stand, funnels, A/B of notices."""
        return Analytics(self.room)

    @property
    def public_collection(self) -> PublicCollection:
        """What the embedded script may ask."""
        return PublicCollection(self.room)

    # ---- accounts ------------------------------------------------------------------------------------------

    @property
    def accounts(self) -> Accounts:
        """Who may use the service, with which role; their API tokens."""
        return Accounts(self._keys, self._controller, self._read, self._write, self._now)

    @property
    def logins(self) -> Logins:
        """Passwords, second factors, sessions of the console."""
        return Logins(self._keys, self._controller, self._read, self._write, self._now)

    # ---- decisions -----------------------------------------------------------------------------------------

    def decide(self, request: DecisionRequest, values: pa.Array, kind: str) -> Decisions:
        """Eligible or the first reason, for each row; a summary becomes a leaf of the ledger.

        If the center can't catch up with its events, can't read one or can't write the leaf, every usable row
        is `stale`.
        Raises `decision.request`, `identifier.*`, `center.closed`.
        """
        deciding.check_request(request)
        found = deciding.candidates(self._keys.pseudonym, values, kind)
        return self._decide_and_log(request, found, kind, None)

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

    def _hash_of(self, rules: tuple[deciding.Rule, ...]) -> str:
        return self._rules_hash if rules == self._rules else deciding.rules_hash(rules)

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

    def _catch_up(self, connection: sa.Connection) -> None:
        try:
            self._state.catch_up(connection)
        except BaseException as error:
            self._state.reset()  # a half-read state must not answer; the next call reads everything anew
            if isinstance(error, integrity.UNREADABLE):
                raise ConsentError(
                    "ledger.corrupt", f"a record can't be read ({type(error).__name__}); run fsck"
                ) from error
            raise

    @contextmanager
    def _distrusting(self) -> Iterator[None]:
        """A part of the stored state that turns out to be changed: the next call reads the tables instead."""
        try:
            yield
        except ConsentError as error:
            if error.code == "ledger.corrupt":
                self._trusts_file = False
                self._state.reset()
            raise

    def _stored_state(self) -> state_file.Stored | None:
        return state_file.open_file(self._home, self._state_key()) if self._trusts_file else None

    def _state_key(self) -> bytes:
        return state_file.secret(self._keys.data)

    def keep_state(self, after: int = 0) -> bool:
        """Store the state in the center's directory, if more than `after` events came since; whether it did.

        Opening then reads it instead of all states. `center.unreachable`, `ledger.corrupt`.
        """
        with self._lock:
            with self._read() as connection:
                self._catch_up(connection)
                if self._state.sequence - self._state.file_sequence <= after:
                    return False
                size = log.size(connection)
                root = tree.root_of(size, log.reader(connection))
            with self._distrusting():
                parts = list(self._state.parts())
            state_file.write(self._home, self._state_key(), self._state.sequence, size, root, parts)
            self._state.file_sequence = self._state.sequence
            self._trusts_file = True
        return True

    def decide_subjects(self, request: DecisionRequest, subjects: npt.NDArray[np.int64]) -> Decisions:
        """`decide` for known subjects, integers[n], -1 for an unknown one: identifiers are not looked at."""
        deciding.check_request(request)
        return self._decide_and_log(request, None, "subject", subjects)

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
        tokens = snapshot.tokens_of(salt, found.hashed[chosen])
        purpose = known.current.get(request.purpose)
        assessed = known.assessment(request.purpose, request.recipient, batches.moment(as_of)[:10])
        if known.assessments_required and assessed is None and request.recipient != self._controller:
            raise ConsentError(
                "assessment.missing",
                f"no assessment (PIPL 55) for {request.purpose!r} and {request.recipient!r} is in force",
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
        """Who was eligible in a snapshot and is not now. `snapshot.unknown`, `center.unreachable`."""
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
            active = not deciding.closed_for(self._state.registry, asked.purpose, asked.recipient)
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

    # ---- ledger --------------------------------------------------------------------------------------------

    def append(self, kind: str, payload: dict[str, Any]) -> int:
        """Append a leaf; its index. `ledger.payload`."""
        return self.append_many([(kind, payload)])[0]

    def append_many(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
        """Append leaves in one transaction; their indices. `ledger.payload`.

        The center's own kinds (`log.OWN_KINDS`) are refused: nobody else may say what was registered.
        """
        own = [kind for kind, _ in entries if kind in log.OWN_KINDS]
        if own:
            raise ConsentError("ledger.payload", f"{own[0]!r} is a kind that only the center itself writes")
        with self._write() as connection:
            return log.append_entries(connection, entries)

    def checkpoint(self) -> str:
        """The log's size and root as a C2SP signed note."""
        with self._read() as connection:
            size = log.size(connection)
            root = tree.root_of(size, log.reader(connection))
        signer = self._keys.signer
        return Checkpoint(signer.name, size, root).sign(signer)

    def prove(self, index: int, size: int) -> list[bytes]:
        """Inclusion proof of leaf `index` in the log's first `size` leaves. `ledger.index`."""
        with self._read() as connection:
            self._check_size(connection, size)
            return proof.inclusion(index, size, log.reader(connection, self._nodes))

    def prove_consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Proof that the log of `new_size` leaves extends that of `old_size`. `ledger.index`."""
        with self._read() as connection:
            self._check_size(connection, new_size)
            return proof.consistency(old_size, new_size, log.reader(connection, self._nodes))

    def _check_size(self, connection: sa.Connection, size: int) -> None:
        have = log.size(connection)
        if not 0 <= size <= have:
            raise ConsentError("ledger.index", f"the log has {have} leaves, not {size}")

    def opening(self, index: int) -> dict[str, Any]:
        """What leaf `index` commits to, for an audit bundle. `ledger.index`, `ledger.opening` (it was
        changed).

        {index, kind, salt, leaf_hash} and `payload`, or for a consent event only `body_hash`: that is all
        that may leave the organisation.
        """
        with self._read() as connection:
            return log.entry_opening(connection, index) or examine.event_opening(connection, index)

    # ---- signals and receipts ------------------------------------------------------------------------------

    def put_signal_mapping(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        """Put a table from signals to purposes in force; it with its hash and leaf. `signal.mapping`."""
        mapping = parse_mapping(document)
        with self._write() as connection:
            leaf = signal_store.put(connection, mapping, actor)
        return {**mapping.to_json(), "sha256": mapping.sha256, "leaf": leaf}

    def signal_mapping(self) -> dict[str, Any]:
        """The table in force. `signal.mapping` if there is none."""
        with self._read() as connection:
            return signal_store.get(connection).to_json()

    def receipt(self, sequence: int, identifiers: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """The signed receipt of an event (`receipts.make`). `receipt.event`, `receipt.identifier`."""
        with self._read() as connection:
            return receipts.make(connection, self._keys, sequence, identifiers, self._now())

    def verifier_key(self) -> str:
        """C2SP verifier key string of checkpoints and snapshots; its name is the log's origin."""
        return self._keys.signer.verifier.text()

    def fsck(self, checkpoint: str = "") -> Finding | None:
        """Recompute every leaf, tile and state; the first difference, or None.

        With a `checkpoint` that was kept elsewhere, also checks that the log still extends it: whoever can
        rewrite the whole database can rewrite its hashes, but not that note.
        """
        with self._read() as connection:
            found = examine.fsck(connection, self._keys, checkpoint)
            found = found or preference_check.fsck(connection, self._keys)
            found = found or rights_check.fsck(connection, self._keys) or outbox_check.fsck(connection)
            found = found or witness_check.fsck(connection) or records_of.fsck(connection)
            found = found or settings.fsck(connection, entries)
            found = found or region_index.fsck(connection, self._keys)
            return found or check_file(connection, self._home, self._state_key())


def _raise_first(batch: batches.Batch, on_error: str) -> None:
    if batch.bad and on_error == "raise":
        row = min(batch.bad)
        raise ConsentError(*batch.bad[row], row if batch.rows > 1 else None)


def _asked(request: DecisionRequest, as_of: int) -> dict[str, Any]:
    return {
        "purpose": request.purpose,
        "recipient": request.recipient,
        "categories": sorted(request.categories),
        "regulation": request.regulation or "",
        "as_of": batches.moment(as_of),
    }
