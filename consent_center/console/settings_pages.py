"""Recipients and their switches, legal clocks by regulation, witnesses of the log."""

from __future__ import annotations

from typing import Any

from flask import Response, redirect, url_for

from consent_center.console.base import attempt, bp, embedded, field, page, say, who, whole
from consent_center.console.dashboard import figures
from consent_center.i18n import gettext as _
from consent_center.i18n import ngettext
from consent_center.requests.clock import ClockRule


@bp.get("/recipients")
def recipients() -> Response:
    return _recipients()


def _recipients(status: int = 200, **values: Any) -> Response:
    center = embedded()
    switched = center.recipients()
    named = {name for p in center.purposes() for name in p.recipients}
    named |= {o["recipient"] for form in center.collection.forms() for o in form["offers"]}
    named |= {a.recipient for a in center.assessments() if a.recipient}
    named |= {row["recipient"] for row in figures().in_force()}  # whoever was named by an event
    shown = {name: switched.get(name, True) for name in sorted(named | set(switched))}
    return page("recipients.html", status, recipients=shown, **values)


@bp.post("/recipients")
def recipient_switch() -> Response:
    """Off: nobody is eligible for it and its running jobs stop at their next stage. On again."""
    name, active = field("id", 200).strip(), field("active", 5) == "yes"
    return attempt(
        lambda: embedded().switch_recipient(name, active, who().name),
        _recipients,
        ("registry",),
        "console.recipients",
    )


@bp.get("/clocks")
def clocks() -> Response:
    return _clocks()


def _clocks(status: int = 200, **values: Any) -> Response:
    return page("clocks.html", status, rules=embedded().rights.rules(), **values)


@bp.post("/clocks")
def clock_put() -> Response:
    """How a regulation counts, for requests from now on."""
    numbers = ("working_days", "months", "extension_working_days", "extension_months", "extensions")
    return attempt(
        lambda: embedded().rights.put_rule(
            ClockRule(
                field("regulation", 20),
                **{name: whole(name, 0) for name in numbers},
                country=field("country", 5).strip().upper(),
                zone=field("zone", 64).strip() or "UTC",
            ),
            who().name,
        ),
        _clocks,
        ("rights", "request"),
        "console.clocks",
    )


@bp.get("/witnesses")
def witnesses() -> Response:
    return _witnesses()


def _witnesses(status: int = 200, **values: Any) -> Response:
    witness = embedded().witness
    size = int(embedded().checkpoint().split("\n")[1])
    return page(
        "witnesses.html",
        status,
        key=witness.verifier_key(),
        others=witness.witnesses(),
        logs=witness.logs(),
        size=size,
        **values,
    )


@bp.post("/witnesses/add")
def witness_add() -> Response:
    """Have the own log cosigned by that witness."""
    key, url = field("key", 500).strip(), field("url", 2_000).strip()
    return attempt(
        lambda: embedded().witness.add_witness(key, url, field("private", 5) == "yes", who().name),
        _witnesses,
        ("ledger", "webhook", "witness"),
        "console.witnesses",
    )


@bp.post("/witnesses/trust")
def witness_trust() -> Response:
    """Cosign another log from now on."""
    return attempt(
        lambda: embedded().witness.trust_log(field("key", 500).strip(), who().name),
        _witnesses,
        ("ledger", "witness"),
        "console.witnesses",
    )


@bp.post("/witnesses/collect")
def witness_collect() -> Response:
    """Send the newest checkpoint to every witness; an act of the ledger with what came back."""
    found = embedded().witness.collect()
    failed = [one for one in found if "error" in one]
    good = len(found) - len(failed)
    embedded().accounts.note(who().name, "witness.collect", "", asked=len(found), cosigned=good)
    said = ngettext("%(num)s witness cosigned.", "%(num)s witnesses cosigned.", good)
    if failed:
        silent = _("No answer: %(names)s", names=", ".join(one["name"] for one in failed))
        said = f"{said} {silent}"
    say(said, "bad" if failed else "good")
    return redirect(url_for("console.witnesses"), 303)  # type: ignore[return-value]
