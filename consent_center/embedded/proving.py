"""The ledger from outside: leaves, checkpoints, proofs, openings, its check, and a database put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from consent_center import batch as batches
from consent_center import examine
from consent_center.collection import settings
from consent_center.database import entries
from consent_center.embedded.base import Base
from consent_center.errors import ConsentError
from consent_center.ledger import log, proof, tree
from consent_center.ledger.checkpoint import Checkpoint
from consent_center.model import Finding
from consent_center.outbox import check as outbox_check
from consent_center.preferences import check as preference_check
from consent_center.records import service as records_of
from consent_center.requests import check as rights_check
from consent_center.rules import regions as region_index
from consent_center.state import State, check_file
from consent_center.witness import check as witness_check


class Proving(Base):
    """The ledger's calls."""

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
