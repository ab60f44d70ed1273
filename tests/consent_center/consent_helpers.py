"""A center with a clock that tests move, and short ways to make events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from consent_center.center import Center
from consent_center.model import REASONS, ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.records.assess import file_assessment

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REQUEST = DecisionRequest("ads", "provider", ("contact",))
#: For centers that go by the machine's clock, whatever it shows.
LASTING, LONG_AGO = 36_500, datetime(2020, 1, 1, tzinfo=UTC)


def sqlite() -> str | None:
    return None


#: Makes the URL of an empty database for `make`, or None for SQLite; the fixture `store` sets it.
storage: Callable[[], str | None] = sqlite


class Clock:
    """Time stands still until `forward`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


def phone(number: int) -> str:
    return f"138{number:08d}"


def ads(version: int = 1, **changes: Any) -> Purpose:
    fields: dict[str, Any] = {"categories": ("contact", "usage"), "duration_days": 365, **changes}
    return Purpose("ads", version, {"en": "Advertising", "zh": "广告"}, **fields)


def notice(version: int = 1, purpose_version: int = 1, **changes: Any) -> Notice:
    return Notice("ads-notice", version, "ads", purpose_version, {"en": f"text {version}"}, **changes)


def event(number: int = 1, **changes: Any) -> ConsentEvent:
    fields: dict[str, Any] = {
        "identifiers": (("phone", phone(number)),),
        "purpose": "ads",
        "purpose_version": 1,
        "action": "granted",
        "recipient": "provider",
        "categories": ("contact",),
        "occurred_at": START - timedelta(days=1),
        "notice": "ads-notice",
        "notice_version": 1,
        "actor": "shop 12",
        "evidence": "form 7",
        **changes,
    }
    return ConsentEvent(**fields)


def make(home: Path, clock: Clock | None = None, rules: tuple[Any, ...] = (), days: int = 365) -> Center:
    """A center with one purpose, whose consents hold `days`."""
    center = Center.create(home, "brand", clock or Clock(), rules, storage())
    center.put_purpose(ads(duration_days=days))
    center.put_notice(notice())
    file_assessment(center, "ads", "provider", "none: a test", "")
    return center


def reason(center: Center, number: int, request: DecisionRequest = REQUEST) -> str:
    decisions = center.decide(request, pa.array([phone(number)]), "phone")
    return REASONS[int(decisions.codes[0])]
