"""Contact policies: the organisation's defaults by channel and topic; declared channels and topics."""

from __future__ import annotations

from typing import Any

from flask import Response

from consent_center.console.base import attempt, bp, embedded, field, lines, page, who, whole
from consent_center.console.dashboard import titles
from consent_center.i18n import N_
from consent_center.i18n import gettext as _
from consent_center.preferences.model import Cap, Policy, Quiet, Term

PERIODS = {"day": N_("in 24 hours"), "week": N_("in 7 days"), "month": N_("in a month")}
_CODES = ("preference",)


@bp.get("/contact")
def contact() -> Response:
    return _contact()


def _contact(status: int = 200, **values: Any) -> Response:
    book = embedded().preferences.rulebook()
    return page(
        "contact.html",
        status,
        policies=book.policies,
        channels=book.channels,
        topics=book.topics,
        periods=PERIODS,
        purposes=[("", _("none")), *sorted((id, f"{title} ({id})") for id, title in titles().items())],
        **values,
    )


@bp.post("/contact/policy")
def contact_policy() -> Response:
    """A new version of the default for a channel and topic."""

    def put() -> None:
        caps = [Cap(whole(f"cap-{per}", 0), per) for per in PERIODS if field(f"cap-{per}", 9).strip()]
        start, end = field("quiet-start", 5).strip(), field("quiet-end", 5).strip()
        zone = field("zone", 64).strip() or "Asia/Shanghai"
        policy = Policy(
            field("channel", 128).strip() or "*",
            field("topic", 128).strip() or "*",
            caps=tuple(caps) or None,
            quiet=(Quiet(start, end, zone),) if start or end else None,
            zone=zone,
            binding=field("binding", 5) == "yes",
            opt_in=field("opt_in", 5) == "yes",
            purpose=field("purpose", 200),
            recipient=field("recipient", 200).strip(),
            categories=tuple(lines("categories")),
        )
        embedded().preferences.put_policy(policy, who().name)

    return attempt(put, _contact, _CODES, "console.contact")


@bp.post("/contact/term")
def contact_term() -> Response:
    """Declare a channel or a topic, or switch one off."""
    told = {code: field(f"title-{code}", 500).strip() for code in ("zh", "en")}
    term = Term(
        field("kind", 20),
        field("id", 128).strip(),
        {code: text for code, text in told.items() if text},
        field("active", 5) == "yes",
    )
    return attempt(
        lambda: embedded().preferences.declare(term, who().name), _contact, _CODES, "console.contact"
    )
