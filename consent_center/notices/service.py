"""Drafts, previews, publication and comparison of notices."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa

from consent_center import registry as registry_of
from consent_center.batch import moment
from consent_center.errors import ConsentError
from consent_center.ledger.verify import canonical
from consent_center.model import Notice, Purpose
from consent_center.notices import meaning, reconsent
from consent_center.notices.tables import notice_drafts
from consent_center.registry import Registry, is_name
from consent_center.room import Room

LANGUAGES = ("zh", "en")
_MAX_TEXT = 100_000
_MEMBERS = frozenset({"id", "purpose", "text", "material", "changes"})


@dataclass(frozen=True)
class Notices:
    """One center's notices on their way to people."""

    room: Room

    def draft(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        """Keep a draft (one a notice; the newer replaces the older). `notice.draft`, `registry.unknown`.

        Members: `id`, `purpose` (its id), `text` by language, `material` (for changes of words alone;
        default false), and `changes`: fields of the purpose that change with it (meaning.CHANGEABLE).
        """
        body = _parse(document)
        with self.room.write() as connection:
            known = self.room.registry(connection)
            self._ready(known, body)  # what can't be published is not kept
            values = {"body": canonical(body).decode(), "updated_at": self.room.now(), "actor": actor}
            table = notice_drafts
            done = connection.execute(table.update().where(table.c.id == body["id"]).values(**values))
            if done.rowcount == 0:
                connection.execute(table.insert().values(id=body["id"], **values))
            return self._shown(connection, body["id"])

    def drafts(self) -> list[dict[str, Any]]:
        """All drafts."""
        with self.room.read() as connection:
            rows = (
                connection.execute(sa.select(notice_drafts.c.id).order_by(notice_drafts.c.id)).scalars().all()
            )
            return [self._shown(connection, id) for id in rows]

    def discard(self, id: str) -> None:
        """Drop a draft. `notice.unknown`."""
        with self.room.write() as connection:
            done = connection.execute(notice_drafts.delete().where(notice_drafts.c.id == id))
            if done.rowcount == 0:
                raise ConsentError("notice.unknown", f"there is no draft of a notice {id!r}")

    def preview(self, id: str) -> dict[str, Any]:
        """What publishing would do: the notice, the purpose, the difference, and how many would be
        asked again.
        """
        with self.room.state() as (connection, state):
            body = self._body(connection, id)
            known = self.room.registry(connection)
            notice, purpose, old = self._ready(known, body)
            after = _with(known, notice, purpose)
            entries = reconsent.outdated(state, after, self.room.controller, purpose.id, self.room.now())
            before = reconsent.outdated(state, known, self.room.controller, purpose.id, self.room.now())
            return {
                "draft": self._shown(connection, id),
                "notice": asdict(notice),
                "purpose": _listed(registry_of.purpose_body(purpose)),
                "new_purpose_version": purpose.version != known.current[purpose.id].version,
                "diff": _diff(known, old, notice, purpose),
                "asked_again": reconsent.summary(entries)["people"],
                "asked_again_already": reconsent.summary(before)["people"],
                "missing_languages": [one for one in LANGUAGES if not notice.text.get(one, "").strip()],
            }

    def publish(self, id: str, actor: str = "", base: str = "") -> dict[str, Any]:
        """Make the draft the notice in force, with a new version of the purpose where the meaning changed.

        Needs both languages. `base`: the hash of the draft that was previewed; another draft since then is
        `notice.changed`. `notice.language`, `notice.unknown`, `registry.*`.
        """
        with self.room.write() as connection:
            body = self._body(connection, id)
            if base and base != _hash(body):
                raise ConsentError(
                    "notice.changed", "the draft was changed since that preview; preview it again"
                )
            known = self.room.registry(connection)
            notice, purpose, old = self._ready(known, body)
            missing = [one for one in LANGUAGES if not notice.text.get(one, "").strip()]
            if missing:
                raise ConsentError("notice.language", f"the draft has no text in {', '.join(missing)}")
            if purpose.version != known.current[purpose.id].version:
                registry_of.put_purpose(connection, purpose, actor)
            published = registry_of.put_notice(connection, notice, actor)
            connection.execute(notice_drafts.delete().where(notice_drafts.c.id == id))
            told = _diff(known, old, published, purpose)
        with self.room.state() as (connection, state):
            known = self.room.registry(connection)
            entries = reconsent.outdated(state, known, self.room.controller, purpose.id, self.room.now())
        return {
            "notice": asdict(published),
            "purpose": _listed(registry_of.purpose_body(purpose)),
            "diff": told,
            "asked_again": reconsent.summary(entries)["people"],
        }

    def diff(self, id: str, old: int, new: int) -> dict[str, Any]:
        """What changed between two versions of a notice, in words and in meaning. `registry.unknown`."""
        with self.room.read() as connection:
            known = self.room.registry(connection)
        for version in (old, new):
            if (id, version) not in known.notices:
                raise ConsentError("registry.unknown", f"no notice {id!r} version {version} is registered")
        first, second = known.notices[id, old], known.notices[id, new]
        return meaning.diff(
            first,
            known.purposes[first.purpose, first.purpose_version],
            second,
            known.purposes[second.purpose, second.purpose_version],
        )

    def reconsent(self, purpose: str, start: int = 0, limit: int = 0) -> dict[str, Any]:
        """Who must be asked again for a purpose: counts, and up to `limit` ordinals. `registry.unknown`."""
        if not 0 <= limit <= 10_000 or start < 0:
            raise ConsentError("request.invalid", "limit is 0 to 10000, start is not negative")
        with self.room.state() as (connection, state):
            known = self.room.registry(connection)
            if purpose not in known.current:
                raise ConsentError("registry.unknown", f"no purpose {purpose!r} is registered")
            entries = reconsent.outdated(state, known, self.room.controller, purpose, self.room.now())
            return {"purpose": purpose, **reconsent.summary(entries, start, limit)}

    # ---- inside --------------------------------------------------------------------------------------------

    def _body(self, connection: sa.Connection, id: str) -> dict[str, Any]:
        table = notice_drafts
        text = connection.execute(sa.select(table.c.body).where(table.c.id == id)).scalar_one_or_none()
        if text is None:
            raise ConsentError("notice.unknown", f"there is no draft of a notice {id!r}")
        body: dict[str, Any] = json.loads(text)
        return body

    def _shown(self, connection: sa.Connection, id: str) -> dict[str, Any]:
        row = connection.execute(sa.select(notice_drafts).where(notice_drafts.c.id == id)).one()
        body = json.loads(row.body)
        more = {"hash": _hash(body), "updated_at": moment(int(row.updated_at)), "actor": row.actor}
        return {**body, **more}

    @staticmethod
    def _ready(known: Registry, body: dict[str, Any]) -> tuple[Notice, Purpose, Notice | None]:
        """(the notice as it would be, its purpose as it would be, the version before)."""
        current = known.current.get(body["purpose"])
        if current is None:
            raise ConsentError("registry.unknown", f"no purpose {body['purpose']!r} is registered")
        versions = [n for (id, _), n in known.notices.items() if id == body["id"]]
        old = max(versions, key=lambda n: n.version, default=None)
        if old is not None and old.purpose != current.id:
            raise ConsentError("notice.draft", f"notice {old.id} belongs to purpose {old.purpose}")
        purpose = meaning.changed_purpose(current, body["changes"])
        changed = bool(meaning.compare_purposes(current, purpose))
        if changed:
            purpose = replace(purpose, version=current.version + 1)
        notice = Notice(
            body["id"],
            1 if old is None else old.version + 1,
            purpose.id,
            purpose.version,
            dict(body["text"]),
            # A change of meaning is material whatever the draft says: an officer can't wave it through.
            bool(body["material"]) or changed or old is None,
        )
        return notice, purpose, old


def _parse(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or set(document) - _MEMBERS:
        raise ConsentError("notice.draft", f"a draft is one object with {', '.join(sorted(_MEMBERS))}")
    for name in ("id", "purpose"):
        if not is_name(document.get(name)):
            raise ConsentError("notice.draft", f"{name} must be a name without blanks")
    text = document.get("text")
    if (
        not isinstance(text, dict)
        or not text
        or not all(is_name(k) and isinstance(v, str) and len(v) <= _MAX_TEXT for k, v in text.items())
    ):
        raise ConsentError("notice.draft", "text must be texts by language (zh, en)")
    if not any(one.strip() for one in text.values()):
        raise ConsentError("notice.draft", "text says nothing in any language")
    material, changes = document.get("material", False), document.get("changes", {})
    if not isinstance(material, bool) or not isinstance(changes, dict):
        raise ConsentError(
            "notice.draft", "material is true or false, changes an object of the purpose's fields"
        )
    kept = {name: one for name, one in text.items() if one.strip()}
    return {
        "id": document["id"],
        "purpose": document["purpose"],
        "text": kept,
        "material": material,
        "changes": changes,
    }


def _listed(body: dict[str, Any]) -> dict[str, Any]:
    """With lists for tuples, as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in body.items()}


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()


def _with(known: Registry, notice: Notice, purpose: Purpose) -> Registry:
    """The registry as it would be after publication."""
    return replace(
        known,
        current={**known.current, purpose.id: purpose},
        purposes={**known.purposes, (purpose.id, purpose.version): purpose},
        notices={**known.notices, (notice.id, notice.version): notice},
    )


def _diff(known: Registry, old: Notice | None, notice: Notice, purpose: Purpose) -> dict[str, Any] | None:
    if old is None:
        return None
    return meaning.diff(old, known.purposes[old.purpose, old.purpose_version], notice, purpose)
