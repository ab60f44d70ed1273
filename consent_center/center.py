"""The embedded consent center: one directory, used by several processes at once.

    home/center.db      SQLite (WAL), or home/database.url, which names a PostgreSQL database
    home/keys/          the three secrets, mode 0600

Every call is safe from several threads. Errors are ConsentError; each method names its codes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from consent_center import decide as deciding
from consent_center import group, integrity, registry, schema, storage
from consent_center.accounts.login import Logins
from consent_center.accounts.service import Accounts
from consent_center.analytics.service import Analytics
from consent_center.collection.public import PublicCollection
from consent_center.collection.service import Collection
from consent_center.database import Database, get_meta, set_meta
from consent_center.embedded.base import KEYS, Clock, utc_now
from consent_center.embedded.proving import Proving
from consent_center.embedded.registering import Registering
from consent_center.embedded.serving import Serving
from consent_center.errors import ConsentError
from consent_center.gather import Asked, Decided, Gather, Item, Tell
from consent_center.keys import Keys, checks, create_keys, load_keys
from consent_center.ledger import log
from consent_center.model import KINDS, ConsentEvent, DecisionRequest, Recorded
from consent_center.notices.service import Notices
from consent_center.outbox.service import Outbox
from consent_center.preferences.model import Answer as Contacting
from consent_center.preferences.model import Question
from consent_center.records.service import Records
from consent_center.requests.service import Rights
from consent_center.room import Room
from consent_center.rules.service import Rules
from consent_center.witness.service import Witness

__all__ = ["Center", "Clock", "utc_now"]


class Center(Registering, Serving, Proving):
    """See the README for what is stored, signed and proven. Make one with `create` or `open`."""

    # ---- life ----------------------------------------------------------------------------------------------

    def __init__(
        self,
        home: Path,
        database: Database,
        keys: Keys,
        controller: str,
        clock: Clock,
        rules: Sequence[deciding.Rule],
    ) -> None:
        super().__init__(home, database, keys, controller, clock, rules)
        self._gather = Gather(lambda items: group.serve(self, items))

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
        if storage.exists(home) or (home / KEYS).exists():
            raise ConsentError(
                "center.exists", f"{home} holds a consent center already; open it or choose another"
            )
        home.mkdir(parents=True, exist_ok=True)
        keys = create_keys(home / KEYS, f"pec-consent/{controller}")
        try:
            made = storage.create(home, database, controller)
        except BaseException:
            shutil.rmtree(home / KEYS)  # of a center that never was
            raise
        center = cls(home, made, keys, controller, clock, rules)
        with made.write() as connection:
            payload = {"controller": controller, "keys": checks(keys), registry.REQUIRED_META: True}
            log.append_entries(connection, [("center", payload)])
            set_meta(connection, registry.REQUIRED_META, "1")  # PIPL 55: no assessment, no job for others
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
        keys = load_keys(home / KEYS)
        database = storage.open_database(home)
        try:
            with database.read() as connection:
                schema.check(connection)
                controller = get_meta(connection, "controller") or ""
                told = integrity.key_checks(connection)
            # With another pseudonym key everybody would be unknown, and a withdrawal a stranger's.
            if told is not None and told != checks(keys):
                raise ConsentError("center.keys", f"the keys in {home / KEYS} are not those of its database")
        except BaseException:
            database.close()
            raise
        return cls(home, database, keys, controller, clock, rules)

    def close(self) -> None:
        """Release the database. Further calls raise `center.closed`."""
        self._gather.close()
        super().close()

    # ---- for services --------------------------------------------------------------------------------------

    def record_soon(self, event: ConsentEvent) -> Recorded:
        """`record`, in one commit with what other threads record and ask meanwhile: for services."""
        return self._gather.record(event)

    def decide_soon(self, request: DecisionRequest, value: str, kind: str) -> Decided:
        """`decide` for one value, likewise; its leaf is durable when this returns."""
        deciding.check_request(request)
        if kind not in KINDS:
            raise ConsentError("identifier.kind", f"{kind!r} is none of {', '.join(KINDS)}")
        return self._gather.decide(request, value, kind)

    def contact_soon(self, question: Question) -> Contacting:
        """`preferences.may_contact`, likewise."""
        return self._gather.contact(question)

    def soon(self, item: Item, tell: Tell) -> None:
        """`record_soon` or `decide_soon` without a thread that waits for it: `tell` gets the answer or the
        error, in the thread that commits. Raises at once what is wrong before that.
        """
        if isinstance(item, Asked):
            deciding.check_request(item.request)
        self._gather.submit(item, tell)

    # ---- the parts with packages of their own ------------------------------------------------------------

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
    def records(self) -> Records:
        """Processing register, agreements, reminders, exports."""
        return Records(self._controller, self._read, self._write, self._now)

    @property
    def rights(self) -> Rights:
        """Requests of people about their data: access, correction, deletion, restriction …"""
        return Rights(self._keys, self._controller, self._read, self._write, self._now, self._judge)

    @property
    def collection(self) -> Collection:
        """Forms, signed links, the preference page's contents, double opt-in, guardians."""
        return Collection(self.room)

    @property
    def public_collection(self) -> PublicCollection:
        """What the embedded script may ask."""
        return PublicCollection(self.room)

    @property
    def notice_board(self) -> Notices:
        """Notices from draft to publication, differences, who must be asked again."""
        return Notices(self.room)

    @property
    def rules(self) -> Rules:
        """The rules of the house: check, dry run, put in force; where people are."""
        return Rules(self.room, self._regions, self._rules)

    @property
    def analytics(self) -> Analytics:
        """Figures: rates, where people stand, funnels, A/B of notices."""
        return Analytics(self.room)

    @property
    def outbox(self) -> Outbox:
        """Webhooks, their queue, and how long enforcement takes."""
        return Outbox(self._keys, self._controller, self._read, self._write, self._now)

    @property
    def witness(self) -> Witness:
        """Cosigning other logs, and collecting cosignatures for this one."""
        return Witness(self._keys, self._read, self._write, self._now)

    @property
    def accounts(self) -> Accounts:
        """Who may use the service, with which role; their API tokens."""
        return Accounts(self._keys, self._controller, self._read, self._write, self._now)

    @property
    def logins(self) -> Logins:
        """Passwords, second factors, sessions of the console."""
        return Logins(self._keys, self._controller, self._read, self._write, self._now)
