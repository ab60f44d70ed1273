"""Webhooks: who is told of withdrawals, what waits or is dead, and how long enforcement takes."""

from __future__ import annotations

from typing import Any

from flask import Response, redirect, request, url_for

from consent_center.console.base import bp, embedded, field, page, say, who
from consent_center.errors import ConsentError
from consent_center.i18n import N_, ngettext
from consent_center.i18n import gettext as _
from consent_center.outbox import queue
from consent_center.outbox.queue import DEAD, DELIVERED, PENDING
from consent_center.rest import problems

STATES = {DEAD: N_("dead letters"), PENDING: N_("waiting"), DELIVERED: N_("delivered")}
KINDS = {
    "consent.withdrawn": N_("withdrawals"),
    "consent.denied": N_("refusals"),
    "consent.expired": N_("ends of consent"),
    "consent.granted": N_("consents"),
    "subject.erased": N_("erasures"),
    "subject.restricted": N_("restrictions"),
    "subject.unrestricted": N_("ends of restrictions"),
    "purpose.switched": N_("switched purposes"),
    "recipient.switched": N_("switched recipients"),
    "record.reminder": N_("reminders"),
}
_MOST = 200


@bp.get("/webhooks")
def webhooks() -> Response:
    """Receivers, queue and times; `?state=` chooses which messages are listed."""
    return _webhooks()


def _webhooks(status: int = 200, **values: Any) -> Response:
    outbox, state = embedded().outbox, request.args.get("state", DEAD)
    state = state if state in STATES else DEAD
    return page(
        "webhooks.html",
        status,
        hooks=outbox.webhooks(),
        messages=outbox.messages(state, _MOST),
        state=state,
        states=STATES,
        kinds=KINDS,
        all_kinds=queue.KINDS,
        chosen=queue.DEFAULT_KINDS,
        enforcement=outbox.enforcement(),
        key=outbox.public_key(),
        **values,
    )


@bp.post("/webhooks")
def webhook_put() -> Response:
    """Register a receiver or change one. Its secret is on this one answer, and nowhere later."""
    try:
        made = embedded().outbox.put_webhook(
            field("id", 200).strip(),
            field("url", 2_000).strip(),
            field("recipient", 200).strip(),
            [kind for kind in request.form.getlist("kinds") if len(kind) < 50],
            field("private", 5) == "yes",
            who().name,
        )
    except ConsentError as error:
        if not error.code.startswith("webhook."):
            raise
        return _webhooks(problems.status_of(error.code), form=request.form, problem=error)
    return _webhooks(made=made)


@bp.post("/webhooks/<id>/switch")
def webhook_switch(id: str) -> Response:
    """Off: messages wait. On: they go out again."""
    active = field("active", 5) == "yes"
    embedded().outbox.switch_webhook(id, active, who().name)
    say(_("%(id)s is on again.", id=id) if active else _("%(id)s is off; its messages wait.", id=id))
    return redirect(url_for("console.webhooks"), 303)  # type: ignore[return-value]


@bp.post("/webhooks/requeue")
def webhook_requeue() -> Response:
    """Another round for dead letters: one, all of a receiver, or all."""
    number = field("number", 20).strip()
    if number and not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise ConsentError("request.invalid", "the number of a message is a whole number")
    numbers = [int(number)] if number else []
    count = embedded().outbox.requeue(numbers, field("webhook", 200), who().name)
    text = ngettext("%(num)s message goes out again.", "%(num)s messages go out again.", count)
    say(text, "good" if count else "note")
    return redirect(url_for("console.webhooks"), 303)  # type: ignore[return-value]
