"""Collection at any center: an embedded one answers itself, a remote one over REST."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Protocol

from consent_center.client import CenterClient
from consent_center.errors import ConsentError


class CollectionClient(Protocol):
    """`consent_center.collection.service.Collection` documents each call."""

    def put_form(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]: ...
    def forms(self) -> list[dict[str, Any]]: ...
    def put_site(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]: ...
    def sites(self) -> list[dict[str, Any]]: ...
    def put_experiment(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]: ...
    def experiments(self) -> list[dict[str, Any]]: ...
    def may_ask(
        self, kind: str, value: str, purpose: str, recipient: str, regulation: str = "PIPL"
    ) -> dict[str, Any]: ...
    def link(
        self,
        identifiers: Sequence[tuple[str, str]],
        form: str,
        kind: str = "page",
        seconds: int | None = None,
        asks: bool = False,
        actor: str = "",
    ) -> dict[str, Any]: ...
    def revoke_links(self, kind: str, value: str, actor: str = "") -> dict[str, Any]: ...
    def request_opt_in(
        self,
        identifiers: Sequence[tuple[str, str]],
        form: str,
        purpose: str,
        recipient: str,
        initiative: str = "organisation",
        seconds: int | None = None,
        evidence: str = "",
        actor: str = "",
    ) -> dict[str, Any]: ...
    def guardian_link(
        self,
        identifiers: Sequence[tuple[str, str]],
        birth_date: date,
        form: str,
        contact_checked: str,
        seconds: int | None = None,
        actor: str = "",
    ) -> dict[str, Any]: ...


def collection_of(center: CenterClient) -> CollectionClient:
    """The collection of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.collection
    if isinstance(center, RemoteCenter):
        return RemoteCollection(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} collects no consent")


class RemoteCollection:
    """Over REST; `call(method, path, body, safe)` is the remote center's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def _put(self, what: str, document: dict[str, Any], actor: str) -> dict[str, Any]:
        body = {"document": document, **({"actor": actor} if actor else {})}
        done: dict[str, Any] = self._call("POST", f"/v1/collection/{what}", body, True)
        return done

    def _list(self, what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", f"/v1/collection/{what}")
        return found

    def _make(self, path: str, identifiers: Sequence[tuple[str, str]], **fields: Any) -> dict[str, Any]:
        body: dict[str, Any] = {name: value for name, value in fields.items() if value not in ("", None)}
        for kind, value in identifiers:
            body[kind] = [*body.get(kind, []), value]
        made: dict[str, Any] = self._call("POST", path, body)
        return made

    def put_form(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        return self._put("forms", document, actor)

    def forms(self) -> list[dict[str, Any]]:
        return self._list("forms")

    def put_site(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        return self._put("sites", document, actor)

    def sites(self) -> list[dict[str, Any]]:
        return self._list("sites")

    def put_experiment(self, document: dict[str, Any], actor: str = "") -> dict[str, Any]:
        return self._put("experiments", document, actor)

    def experiments(self) -> list[dict[str, Any]]:
        return self._list("experiments")

    def may_ask(
        self, kind: str, value: str, purpose: str, recipient: str, regulation: str = "PIPL"
    ) -> dict[str, Any]:
        body = {"kind": kind, "value": value, "purpose": purpose, "recipient": recipient}
        told: dict[str, Any] = self._call("POST", "/v1/may-ask", {**body, "regulation": regulation}, True)
        return told

    def link(
        self,
        identifiers: Sequence[tuple[str, str]],
        form: str,
        kind: str = "page",
        seconds: int | None = None,
        asks: bool = False,
        actor: str = "",
    ) -> dict[str, Any]:
        fields = {"form": form, "kind": kind, "seconds": seconds, "asks": asks, "actor": actor}
        return self._make("/v1/preference-links", identifiers, **fields)

    def revoke_links(self, kind: str, value: str, actor: str = "") -> dict[str, Any]:
        body = {"kind": kind, "value": value, **({"actor": actor} if actor else {})}
        told: dict[str, Any] = self._call("POST", "/v1/preference-links/revoke", body, True)
        return told

    def request_opt_in(
        self,
        identifiers: Sequence[tuple[str, str]],
        form: str,
        purpose: str,
        recipient: str,
        initiative: str = "organisation",
        seconds: int | None = None,
        evidence: str = "",
        actor: str = "",
    ) -> dict[str, Any]:
        fields = {"form": form, "purpose": purpose, "recipient": recipient, "initiative": initiative}
        more = {"seconds": seconds, "evidence": evidence, "actor": actor}
        return self._make("/v1/opt-ins", identifiers, **fields, **more)

    def guardian_link(
        self,
        identifiers: Sequence[tuple[str, str]],
        birth_date: date,
        form: str,
        contact_checked: str,
        seconds: int | None = None,
        actor: str = "",
    ) -> dict[str, Any]:
        fields = {"birth_date": birth_date.isoformat(), "form": form, "contact_checked": contact_checked}
        return self._make("/v1/guardian-links", identifiers, **fields, seconds=seconds, actor=actor)
