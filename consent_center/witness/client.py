"""The witness of any center: embedded ones answer themselves, remote ones over REST."""

from __future__ import annotations

from typing import Any, Protocol

from consent_center.client import CenterClient
from consent_center.errors import ConsentError


class WitnessClient(Protocol):
    """`consent_center.witness.service.Witness` documents each call."""

    def verifier_key(self) -> str: ...
    def trust_log(self, key: str, actor: str = "") -> dict[str, Any]: ...
    def logs(self) -> list[dict[str, Any]]: ...
    def add_witness(self, key: str, url: str, private: bool = False, actor: str = "") -> dict[str, Any]: ...
    def witnesses(self) -> list[dict[str, Any]]: ...
    def collect(self) -> list[dict[str, Any]]: ...
    def cosigned_checkpoint(self) -> str: ...


def witness_of(center: CenterClient) -> WitnessClient:
    """The witness of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.witness
    if isinstance(center, RemoteCenter):
        return RemoteWitness(center)
    raise ConsentError("center.location", f"a {type(center).__name__} is no witness")


class RemoteWitness:
    """Over REST."""

    def __init__(self, center: Any) -> None:
        self._center = center

    def verifier_key(self) -> str:
        return str(self._center.call_text("/v1/witness/key")).strip()

    def trust_log(self, key: str, actor: str = "") -> dict[str, Any]:
        return dict(self._center.call_json("POST", "/v1/witness/logs", {"key": key, "actor": actor}))

    def logs(self) -> list[dict[str, Any]]:
        return list(self._center.call_json("GET", "/v1/witness/logs"))

    def add_witness(self, key: str, url: str, private: bool = False, actor: str = "") -> dict[str, Any]:
        body = {"key": key, "url": url, "private": private, "actor": actor}
        return dict(self._center.call_json("POST", "/v1/witness/witnesses", body))

    def witnesses(self) -> list[dict[str, Any]]:
        return list(self._center.call_json("GET", "/v1/witness/witnesses"))

    def collect(self) -> list[dict[str, Any]]:
        return list(self._center.call_json("POST", "/v1/witness/collect", {}))

    def cosigned_checkpoint(self) -> str:
        return str(self._center.call_text("/v1/witness/checkpoint"))
