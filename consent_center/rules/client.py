"""Rules at any center: an embedded one answers itself, a remote one over REST."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from consent_center.client import CenterClient
from consent_center.errors import ConsentError


class RulesClient(Protocol):
    """`consent_center.rules.service.Rules` documents each call."""

    def check(self, text: str) -> dict[str, Any]: ...
    def show(self) -> dict[str, Any]: ...
    def apply(self, text: str, actor: str = "", base: str = "") -> dict[str, Any]: ...
    def dry_run(self, text: str, sample: int = 20) -> dict[str, Any]: ...
    def set_regions(self, people: Sequence[tuple[str, str, str]]) -> dict[str, Any]: ...


def rules_of(center: CenterClient) -> RulesClient:
    """The rules of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.rules
    if isinstance(center, RemoteCenter):
        return RemoteRules(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} keeps no rules")


class RemoteRules:
    """Over REST; `call(method, path, body, safe)` is the remote center's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def check(self, text: str) -> dict[str, Any]:
        told: dict[str, Any] = self._call("POST", "/v1/rules/check", {"text": text}, True)
        return told

    def show(self) -> dict[str, Any]:
        told: dict[str, Any] = self._call("GET", "/v1/rules")
        return told

    def apply(self, text: str, actor: str = "", base: str = "") -> dict[str, Any]:
        more = {**({"actor": actor} if actor else {}), **({"base": base} if base else {})}
        told: dict[str, Any] = self._call("PUT", "/v1/rules", {"text": text, **more})
        return told

    def dry_run(self, text: str, sample: int = 20) -> dict[str, Any]:
        told: dict[str, Any] = self._call("POST", "/v1/rules/dry-run", {"text": text, "sample": sample}, True)
        return told

    def set_regions(self, people: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
        body = {"people": [{"kind": k, "value": v, "region": r} for k, v, r in people]}
        told: dict[str, Any] = self._call("POST", "/v1/people/regions", body, True)
        return told
