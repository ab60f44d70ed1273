"""The records of any center: embedded ones answer themselves, remote ones over REST."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from consent_center.client import CenterClient
from consent_center.errors import ConsentError
from consent_center.records.model import REMIND_DAYS


class RecordsClient(Protocol):
    """`consent_center.records.service.Records` documents each call."""

    def put(self, kind: str, id: str, body: Mapping[str, Any], actor: str = "") -> dict[str, Any]: ...
    def listing(self, kind: str) -> list[dict[str, Any]]: ...
    def export(self, kind: str, form: str = "csv", language: str = "zh") -> str: ...
    def reminders(self, within_days: int = REMIND_DAYS) -> list[dict[str, Any]]: ...
    def remind(self, within_days: int = REMIND_DAYS) -> dict[str, Any]: ...


def records_of(center: CenterClient) -> RecordsClient:
    """The records of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.records
    if isinstance(center, RemoteCenter):
        return RemoteRecords(center)
    raise ConsentError("center.location", f"a {type(center).__name__} keeps no records")


class RemoteRecords:
    """Over REST."""

    def __init__(self, center: Any) -> None:
        self._center = center

    def put(self, kind: str, id: str, body: Mapping[str, Any], actor: str = "") -> dict[str, Any]:
        path = f"/v1/records/{quote(kind, safe='')}/{quote(id, safe='')}"
        return dict(self._center.call_json("PUT", path, {"record": dict(body), "actor": actor}, True))

    def listing(self, kind: str) -> list[dict[str, Any]]:
        return list(self._center.call_json("GET", f"/v1/records/{quote(kind, safe='')}"))

    def export(self, kind: str, form: str = "csv", language: str = "zh") -> str:
        path = f"/v1/records/{quote(kind, safe='')}/export?form={form}&language={language}"
        return str(self._center.call_text(path))

    def reminders(self, within_days: int = REMIND_DAYS) -> list[dict[str, Any]]:
        return list(self._center.call_json("GET", f"/v1/reminders?within_days={within_days}"))

    def remind(self, within_days: int = REMIND_DAYS) -> dict[str, Any]:
        return dict(self._center.call_json("POST", "/v1/reminders", {"within_days": within_days}))
