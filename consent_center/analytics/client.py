"""Figures of any center: an embedded one answers itself, a remote one over REST."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from consent_center.analytics.service import LEAST
from consent_center.client import CenterClient
from consent_center.errors import ConsentError


class AnalyticsClient(Protocol):
    """`consent_center.analytics.service.Analytics` documents each call."""

    def rates(
        self,
        by: str = "purpose",
        since: datetime | None = None,
        until: datetime | None = None,
        purpose: str = "",
        least: int = LEAST,
    ) -> dict[str, Any]: ...
    def standing(self, least: int = LEAST) -> dict[str, Any]: ...
    def funnel(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        purpose: str = "",
        least: int = LEAST,
        by: str = "notice",
    ) -> dict[str, Any]: ...
    def experiment(self, id: str, effect: float = 0.05, least: int = LEAST) -> dict[str, Any]: ...


def analytics_of(center: CenterClient) -> AnalyticsClient:
    """The figures of an open center."""
    from consent_center.center import Center
    from consent_center.rest.remote import RemoteCenter

    if isinstance(center, Center):
        return center.analytics
    if isinstance(center, RemoteCenter):
        return RemoteAnalytics(center.call_json)
    raise ConsentError("center.location", f"a {type(center).__name__} gives no figures")


class RemoteAnalytics:
    """Over REST; `call(method, path, body, safe)` is the remote center's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        given = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in query.items() if v}
        told: dict[str, Any] = self._call("GET", f"/v1/analytics/{path}?{urlencode(given)}")
        return told

    def rates(
        self,
        by: str = "purpose",
        since: datetime | None = None,
        until: datetime | None = None,
        purpose: str = "",
        least: int = LEAST,
    ) -> dict[str, Any]:
        return self._get("rates", by=by, since=since, until=until, purpose=purpose, least=least)

    def standing(self, least: int = LEAST) -> dict[str, Any]:
        return self._get("standing", least=least)

    def funnel(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        purpose: str = "",
        least: int = LEAST,
        by: str = "notice",
    ) -> dict[str, Any]:
        return self._get("funnel", since=since, until=until, purpose=purpose, least=least, by=by)

    def experiment(self, id: str, effect: float = 0.05, least: int = LEAST) -> dict[str, Any]:
        return self._get(f"experiments/{quote(id, safe='')}", effect=effect, least=least)
