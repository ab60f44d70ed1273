"""What every call of a center works with: its database, keys, clock, caught-up state and rules in force."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from consent_center import batch as batches
from consent_center import decide as deciding
from consent_center import integrity, registry, state_file
from consent_center import subjects as subjects_of
from consent_center.database import Database
from consent_center.errors import ConsentError
from consent_center.keys import Keys
from consent_center.ledger import log, tree
from consent_center.ledger.head import Head
from consent_center.rules import regions as region_index
from consent_center.rules.document import RuleSet
from consent_center.rules.document import parse as parse_rules
from consent_center.rules.house import House
from consent_center.rules.service import in_force as rules_in_force
from consent_center.state import State

Clock = Callable[[], datetime]

KEYS = "keys"


def utc_now() -> datetime:
    """The clock in production."""
    return datetime.now(UTC)


class Base:
    """Transactions, the state that they see, and the rules; `center.Center` is the whole."""

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
        self._head = Head(home / KEYS, keys.signer)
        self._trusts_file = True
        self._state = State(self._stored_state)
        self._known: registry.Registry | None = None
        self._nodes: log.Nodes = {}
        self._lock = threading.RLock()
        self._closed = self._wrote = False

    @property
    def controller(self) -> str:
        """Whose center this is."""
        return self._controller

    def close(self) -> None:
        """Release the database. Further calls raise `center.closed`."""
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

    def _hash_of(self, rules: tuple[deciding.Rule, ...]) -> str:
        return self._rules_hash if rules == self._rules else deciding.rules_hash(rules)

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

    @contextmanager
    def _caught_up(self) -> Iterator[tuple[sa.Connection, State]]:
        with self._lock, self._read() as connection:
            self._catch_up(connection)
            yield connection, self._state

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
