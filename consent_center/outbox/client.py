"""The outbox of any center: embedded ones answer themselves, remote ones over REST (but do not dispatch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from consent_center.client import CenterClient
from consent_center.errors import ConsentError
from consent_center.outbox.queue import DEAD, DEFAULT_KINDS


class OutboxClient(Protocol):
    """`consent_center.outbox.service.Outbox` documents each call."""

    def put_webhook(
        self,
        id: str,
        url: str,
        recipient: str,
        kinds: Sequence[str] = DEFAULT_KINDS,
        private: bool = False,
        actor: str = "",
    ) -> dict[str, Any]: ...
    def switch_webhook(self, id: str, active: bool, actor: str = "") -> dict[str, Any]: ...
    def webhooks(self) -> list[dict[str, Any]]: ...
    def public_key(self) -> str: ...
    def persons(self, id: str, kind: str, values: Sequence[str]) -> list[str]: ...
    def messages(self, state: str = DEAD, limit: int = 200) -> list[dict[str, Any]]: ...
    def requeue(self, numbers: Sequence[int] = (), webhook: str = "", actor: str = "") -> int: ...
    def enforcement(self) -> dict[str, Any]: ...


def outbox_of(center: CenterClient) -> OutboxClient:
    """The outbox of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.outbox
    if isinstance(center, RemoteCenter):
        return RemoteOutbox(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} keeps no outbox")


class RemoteOutbox:
    """Over REST; `call(method, path, body, safe)` is the remote center's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def put_webhook(
        self,
        id: str,
        url: str,
        recipient: str,
        kinds: Sequence[str] = DEFAULT_KINDS,
        private: bool = False,
        actor: str = "",
    ) -> dict[str, Any]:
        body = {"id": id, "url": url, "recipient": recipient, "kinds": list(kinds), "private": private}
        return dict(self._call("POST", "/v1/webhooks", {**body, "actor": actor}))

    def switch_webhook(self, id: str, active: bool, actor: str = "") -> dict[str, Any]:
        path = f"/v1/webhooks/{quote(id, safe='')}/switch"
        return dict(self._call("POST", path, {"active": active, "actor": actor}))

    def webhooks(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._call("GET", "/v1/webhooks")]

    def public_key(self) -> str:
        return str(self._call("GET", "/v1/webhooks/key")["public_key"])

    def persons(self, id: str, kind: str, values: Sequence[str]) -> list[str]:
        body = {"kind": kind, "values": list(values)}
        path = f"/v1/webhooks/{quote(id, safe='')}/persons"
        return [str(name) for name in self._call("POST", path, body, True)["persons"]]

    def messages(self, state: str = DEAD, limit: int = 200) -> list[dict[str, Any]]:
        path = f"/v1/outbox?state={quote(state, safe='')}&limit={limit}"
        return [dict(entry) for entry in self._call("GET", path)]

    def requeue(self, numbers: Sequence[int] = (), webhook: str = "", actor: str = "") -> int:
        body = {"numbers": list(numbers), "webhook": webhook, "actor": actor}
        return int(self._call("POST", "/v1/outbox/requeue", body)["requeued"])

    def enforcement(self) -> dict[str, Any]:
        return dict(self._call("GET", "/v1/enforcement"))
