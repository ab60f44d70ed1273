"""What a person was shown, as evidence on the event: notice hash, layout hash, language, time.

It travels in the event's `evidence` as one JSON object, so it is encrypted under the person's own key and
committed to by the event's leaf. Anybody who has the registry can compare the hash with the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from consent_center.batch import micros
from consent_center.errors import ConsentError
from consent_center.model import Notice
from consent_center.registry import is_name

FORMAT = "pec.shown/1"
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_NOTE = 8_000


def compose(
    notices: Mapping[tuple[str, int], Notice],
    notice: tuple[str, int],
    layout_hash: str,
    language: str,
    shown_at: datetime,
    occurred_at: datetime,
    note: str = "",
    **more: Any,
) -> str:
    """The evidence text. ConsentError `event.shown` if the person can't have seen that.

    `notice` must be registered and have a text in `language`; it must have been shown before the answer.
    """
    known = notices.get(notice)
    if known is None:
        raise ConsentError("event.shown", f"notice {notice[0]!r} version {notice[1]} is not registered")
    if language not in known.text:
        raise ConsentError(
            "event.shown", f"{notice[0]} {notice[1]} has no text in {language!r}: {', '.join(known.text)}"
        )
    if not _HASH.fullmatch(layout_hash):
        raise ConsentError("event.shown", "layout_hash must be a SHA-256 in 64 hex digits, lower case")
    if micros(shown_at) > micros(occurred_at):
        raise ConsentError("event.shown", "shown_at is after the answer: nobody agrees to what comes later")
    if len(note) > _MAX_NOTE:
        raise ConsentError("event.text", f"evidence is over {_MAX_NOTE} characters")
    evidence = {
        "format": FORMAT,
        "notice_hash": known.hash,
        "layout_hash": layout_hash,
        "language": language,
        "shown_at": shown_at.isoformat(),
        **more,
    }
    if note:
        evidence["note"] = note
    return json.dumps(evidence, ensure_ascii=False)


def from_json(
    data: Mapping[str, Any],
    fields: Mapping[str, Any],
    notices: Mapping[tuple[str, int], Notice],
    now: datetime,
) -> str:
    """The evidence of a server's event: `data` is its member `shown`, `fields` the event's."""
    given = data.get("notice_hash", "")
    notice = (fields.get("notice", ""), fields.get("notice_version", 0))
    known = notices.get(notice)
    if known is not None and given and given != known.hash:
        raise ConsentError(
            "event.shown", f"notice_hash is not that of {notice[0]} version {notice[1]}: {known.hash}"
        )
    if not is_name(data["language"]):
        raise ConsentError("event.shown", "language must be a code like zh or en")
    occurred = fields.get("occurred_at") or now
    return compose(
        notices,
        notice,
        data["layout_hash"],
        data["language"],
        data["shown_at"],
        occurred,
        fields.get("evidence", ""),
    )


def read(evidence: str) -> dict[str, Any] | None:
    """What was shown, from an event's evidence; None if it does not say."""
    if not evidence.startswith("{"):
        return None
    try:
        found = json.loads(evidence)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None
