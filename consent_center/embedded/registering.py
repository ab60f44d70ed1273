"""Purposes, notices, assessments, switches and the table of signals: each change a leaf."""

from __future__ import annotations

from typing import Any

from consent_center import registry
from consent_center.embedded.base import Base
from consent_center.model import Assessment, Notice, Purpose
from consent_center.outbox import queue
from consent_center.signals import store as signal_store
from consent_center.signals.mapping import parse as parse_mapping


class Registering(Base):
    """The registry's calls."""

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

    def assessments_required(self) -> bool | None:
        """Whether such a job needs one: True in a new center; None in an old one where nobody decided."""
        with self._read() as connection:
            return registry.assessments_required(connection)

    def require_assessments(self, required: bool, actor: str) -> bool:
        """Whether a job for another organisation needs an impact assessment in force (PIPL 55)."""
        with self._write() as connection:
            registry.require_assessments(connection, required, actor)
        return required

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
