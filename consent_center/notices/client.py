"""Notices' drafts at any center: an embedded one answers itself, a remote one over REST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from consent_center.client import CenterClient
from consent_center.errors import ConsentError


class NoticeClient(Protocol):
    """`consent_center.notices.service.Notices` documents each call."""

    def draft(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]: ...
    def drafts(self) -> list[dict[str, Any]]: ...
    def discard(self, id: str) -> None: ...
    def preview(self, id: str) -> dict[str, Any]: ...
    def publish(self, id: str, actor: str = "", base: str = "") -> dict[str, Any]: ...
    def diff(self, id: str, old: int, new: int) -> dict[str, Any]: ...
    def reconsent(self, purpose: str, start: int = 0, limit: int = 0) -> dict[str, Any]: ...


def notices_of(center: CenterClient) -> NoticeClient:
    """The drafts of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.notice_board
    if isinstance(center, RemoteCenter):
        return RemoteNotices(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} keeps no drafts")


class RemoteNotices:
    """Over REST; `call(method, path, body, safe)` is the remote center's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def draft(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        told: dict[str, Any] = self._call("POST", "/v1/notice-drafts", {**document, **_by(actor)}, True)
        return told

    def drafts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/v1/notice-drafts")
        return found

    def discard(self, id: str) -> None:
        self._call("DELETE", f"/v1/notice-drafts/{quote(id, safe='')}")

    def preview(self, id: str) -> dict[str, Any]:
        told: dict[str, Any] = self._call("GET", f"/v1/notice-drafts/{quote(id, safe='')}/preview")
        return told

    def publish(self, id: str, actor: str = "", base: str = "") -> dict[str, Any]:
        body = {**_by(actor), **({"base": base} if base else {})}
        told: dict[str, Any] = self._call("POST", f"/v1/notice-drafts/{quote(id, safe='')}/publish", body)
        return told

    def diff(self, id: str, old: int, new: int) -> dict[str, Any]:
        path = f"/v1/notices/{quote(id, safe='')}/diff?old={old}&new={new}"
        told: dict[str, Any] = self._call("GET", path)
        return told

    def reconsent(self, purpose: str, start: int = 0, limit: int = 0) -> dict[str, Any]:
        path = f"/v1/purposes/{quote(purpose, safe='')}/reconsent?start={start}&limit={limit}"
        told: dict[str, Any] = self._call("GET", path)
        return told


def _by(actor: str) -> dict[str, str]:
    return {"actor": actor} if actor else {}
