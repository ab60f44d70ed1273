"""The rights requests of any center: embedded ones answer themselves, remote ones over REST."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from consent_center.client import CenterClient
from consent_center.errors import ConsentError
from consent_center.requests.clock import ClockRule


class RightsClient(Protocol):
    """`consent_center.requests.service.Rights` documents each call."""

    def open(
        self,
        kind: str,
        identifiers: Sequence[tuple[str, str]],
        regulation: str = "PIPL",
        language: str = "zh",
        channel: str = "cli",
        contact: str = "",
        text: str = "",
        received_at: datetime | None = None,
        actor: str = "",
    ) -> dict[str, Any]: ...
    def step(self, id: str, name: str, actor: str = "", **given: Any) -> dict[str, Any]: ...
    def fulfil(
        self, id: str, actor: str = "", corrections: Sequence[Mapping[str, Any]] = (), text: str = ""
    ) -> dict[str, Any]: ...
    def letter(
        self, id: str, letter: str, text: str = "", language: str = "", actor: str = ""
    ) -> dict[str, Any]: ...
    def show(self, id: str, private: bool = False) -> dict[str, Any]: ...
    def list(self, running: bool = False) -> list[dict[str, Any]]: ...
    def deadlines(self, within_days: int = 5) -> dict[str, Any]: ...
    def rules(self) -> dict[str, Any]: ...
    def put_rule(self, rule: ClockRule, actor: str = "") -> dict[str, Any]: ...
    def sweep(self, actor: str = "") -> dict[str, Any]: ...


def rights_of(center: CenterClient) -> RightsClient:
    """The rights requests of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.rights
    if isinstance(center, RemoteCenter):
        return RemoteRights(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} keeps no rights requests")


class RemoteRights:
    """Over REST; `call(method, path, body, safe)` is the remote center's. Steps are never sent twice."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def open(
        self,
        kind: str,
        identifiers: Sequence[tuple[str, str]],
        regulation: str = "PIPL",
        language: str = "zh",
        channel: str = "cli",
        contact: str = "",
        text: str = "",
        received_at: datetime | None = None,
        actor: str = "",
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"request": kind, "regulation": regulation, "language": language}
        body |= {"channel": channel, "contact": contact, "text": text, "actor": actor}
        if received_at is not None:
            body["received_at"] = received_at.isoformat()
        for sort, value in identifiers:
            body[sort] = [*body.get(sort, []), value]
        return dict(self._call("POST", "/v1/rights/requests", body))

    def step(self, id: str, name: str, actor: str = "", **given: Any) -> dict[str, Any]:
        body = {"step": name, "actor": actor, **given}
        return dict(self._call("POST", f"/v1/rights/requests/{quote(id, safe='')}/steps", body))

    def fulfil(
        self, id: str, actor: str = "", corrections: Sequence[Mapping[str, Any]] = (), text: str = ""
    ) -> dict[str, Any]:
        body = {"actor": actor, "corrections": [dict(c) for c in corrections], "text": text}
        return dict(self._call("POST", f"/v1/rights/requests/{quote(id, safe='')}/fulfil", body))

    def letter(
        self, id: str, letter: str, text: str = "", language: str = "", actor: str = ""
    ) -> dict[str, Any]:
        body = {
            "letter": letter,
            "text": text,
            "actor": actor,
            **({"language": language} if language else {}),
        }
        return dict(self._call("POST", f"/v1/rights/requests/{quote(id, safe='')}/letters", body))

    def show(self, id: str, private: bool = False) -> dict[str, Any]:
        path = f"/v1/rights/requests/{quote(id, safe='')}?private={str(private).lower()}"
        return dict(self._call("GET", path))

    def list(self, running: bool = False) -> list[dict[str, Any]]:
        return [
            dict(entry) for entry in self._call("GET", f"/v1/rights/requests?running={str(running).lower()}")
        ]

    def deadlines(self, within_days: int = 5) -> dict[str, Any]:
        return dict(self._call("GET", f"/v1/rights/deadlines?within_days={within_days}"))

    def rules(self) -> dict[str, Any]:
        return dict(self._call("GET", "/v1/rights/rules"))

    def put_rule(self, rule: ClockRule, actor: str = "") -> dict[str, Any]:
        return dict(self._call("PUT", "/v1/rights/rules", {**rule.to_json(), "actor": actor}))

    def sweep(self, actor: str = "") -> dict[str, Any]:
        return dict(self._call("POST", "/v1/rights/sweep", {"actor": actor}))
