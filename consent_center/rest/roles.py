"""Who may call what: one table from endpoint to least role, enforced before anything looks at a body.

People climb a ladder: viewer < officer < admin, each may do all that the one before may. `service` is for
machines and stands beside the ladder: it may do what names it and nothing else. An admin may do everything.
A rule names the least role, or several that are enough each (`officer|service`). An endpoint that is not in
the table can't be served: `check` stops the application when it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, Request, current_app, g, request

from consent_center.errors import ConsentError

ROLES = ("public", "viewer", "officer", "admin", "service")
_LADDER = {"public": 0, "viewer": 1, "officer": 2, "admin": 3}
AUTHENTICATORS = "pec.authenticators"

#: endpoint (blueprint.function) -> rule. One line each; keep a blueprint's lines together.
ENDPOINTS: dict[str, str] = {
    # framework
    "openapi.spec": "public",
    "docs": "public",
    "favicon": "public",
    "home": "public",
    # purposes, notices, assessments
    "registry.health": "public",
    "registry.list_purposes": "viewer|service",
    "registry.put_purpose": "officer",
    "registry.switch_purpose": "officer",
    "registry.list_notices": "viewer|service",
    "registry.put_notice": "officer",
    "registry.list_assessments": "viewer|service",
    "registry.put_assessment": "officer",
    # events
    "events.record": "officer|service",
    "events.withdraw": "officer|service",
    "events.record_batch": "officer|service",
    "events.record_bulk": "officer|service",
    "events.explain": "officer",
    "events.erase": "officer",
    "events.assume": "admin",
    "events.assume_bulk": "admin",
    # signals of other systems
    "signals.put_mapping": "officer",
    "signals.get_mapping": "viewer|service",
    "signals.record": "officer|service",
    # decisions
    "decisions.decide": "officer|service",
    "decisions.decide_bulk": "service",
    "decisions.snapshot": "service",
    "decisions.delta": "viewer|service",
    "decisions.token_proof": "officer|service",
    # preferences and contact decisions
    "preferences.put": "officer|service",
    "preferences.show": "officer|service",
    "preferences.query": "officer|service",
    "preferences.policies": "viewer|service",
    "preferences.put_policy": "officer",
    "preferences.declare": "officer",
    "preferences.decide": "officer|service",
    "preferences.report": "officer|service",
    "preferences.release": "officer|service",
    # collection of consent, for the organisation's servers
    "collection.list_forms": "viewer|service",
    "collection.put_form": "officer",
    "collection.list_sites": "viewer|service",
    "collection.put_site": "officer",
    "collection.list_experiments": "viewer|service",
    "collection.put_experiment": "officer",
    "collection.make_link": "officer|service",
    "collection.revoke_links": "officer|service",
    "collection.request_opt_in": "officer|service",
    "collection.guardian_link": "officer|service",
    "collection.may_ask": "officer|service",
    # notices: drafts, publication, differences, who must be asked again
    "notices.list_drafts": "viewer|service",
    "notices.put_draft": "officer",
    "notices.discard_draft": "officer",
    "notices.preview_draft": "viewer|service",
    "notices.publish_draft": "officer",
    "notices.diff": "viewer|service",
    "notices.reconsent": "officer|service",
    # rules of the house
    "rules.show": "viewer|service",
    "rules.check": "officer",
    "rules.dry_run": "officer",
    "rules.apply": "admin",
    "rules.regions": "officer|service",
    # figures
    "analytics.rates": "viewer|service",
    "analytics.standing": "viewer|service",
    "analytics.funnel": "viewer|service",
    "analytics.experiment": "viewer|service",
    # the embedded script (a site's key and origin) and the pages behind signed links
    "embed.script": "public",
    "embed.preflight": "public",
    "embed.form": "public",
    "embed.shown": "public",
    "embed.answers": "public",
    "embed.signals": "public",
    "pages.page": "public",
    "pages.page_answer": "public",
    "pages.confirm": "public",
    "pages.confirm_answer": "public",
    "pages.guardian": "public",
    "pages.guardian_answer": "public",
    # rights requests
    "rights.open_request": "officer|service",
    "rights.list_requests": "viewer",
    "rights.show": "officer",
    "rights.step": "officer",
    "rights.fulfil": "officer",
    "rights.letter": "officer",
    "rights.deadlines": "viewer",
    "rights.rules": "viewer",
    "rights.put_rule": "admin",
    "rights.sweep": "officer",
    # webhooks, recipients, enforcement
    "webhooks.list_webhooks": "viewer",
    "webhooks.put_webhook": "admin",
    "webhooks.key": "viewer|service",
    "webhooks.switch_webhook": "officer",
    "webhooks.persons": "officer|service",
    "webhooks.list_messages": "viewer",
    "webhooks.requeue": "officer",
    "webhooks.enforcement": "viewer|service",
    "webhooks.list_recipients": "viewer|service",
    "webhooks.switch_recipient": "officer",
    # records
    "records.list_records": "viewer",
    "records.put_record": "officer",
    "records.export_records": "viewer",
    "records.list_reminders": "viewer|service",
    "records.send_reminders": "officer|service",
    "records.assessments_required": "viewer|service",
    "records.require_assessments": "admin",
    # witnesses: whoever sends a checkpoint proves by its signature whose it is
    "witness.add_checkpoint": "public",
    "witness.key": "public",
    "witness.list_logs": "viewer",
    "witness.trust_log": "admin",
    "witness.list_witnesses": "viewer",
    "witness.add_witness": "admin",
    "witness.collect": "officer|service",
    "witness.cosigned": "viewer|service",
    # receipts
    "receipts.receipt": "officer|service",
    "receipts.receipt_with_identifiers": "officer|service",
    # ledger
    "ledger.checkpoint": "viewer|service",
    "ledger.key": "viewer|service",
    "ledger.inclusion": "viewer|service",
    "ledger.consistency": "viewer|service",
    "ledger.opening": "officer|service",
    "ledger.append": "service",
    "ledger.append_many": "service",
    "ledger.fsck": "officer|service",
    # console: logging in is everybody's, and looks at the session itself
    "console.static": "public",
    "console.login": "public",
    "console.second_factor": "public",
    "console.password": "public",
    "console.logout": "public",
    "console.oidc_start": "public",
    "console.oidc_callback": "public",
    # console: pages
    "console.dashboard": "viewer",
    "console.analytics": "viewer",
    "console.people": "officer",
    "console.person": "officer",
    "console.person_receipt": "officer",
    "console.person_decisions": "officer",
    "console.person_evidence": "officer",
    "console.person_withdraw": "officer",
    "console.requests": "viewer",
    "console.request_open": "officer",
    "console.request_show": "officer",
    "console.request_step": "officer",
    "console.request_fulfil": "officer",
    "console.request_letter": "officer",
    "console.registry": "viewer",
    "console.purpose": "viewer",
    "console.purpose_switch": "officer",
    "console.purpose_new": "officer",
    "console.notice": "viewer",
    "console.notice_new": "officer",
    "console.draft": "viewer",
    "console.draft_publish": "officer",
    "console.draft_discard": "officer",
    "console.rules": "viewer",
    "console.rules_try": "officer",
    "console.rules_apply": "admin",
    "console.webhooks": "viewer",
    "console.webhook_put": "admin",
    "console.webhook_switch": "officer",
    "console.webhook_requeue": "officer",
    "console.registers": "viewer",
    "console.register_export": "viewer",
    "console.register_put": "officer",
    "console.register_require": "admin",
    "console.register_remind": "officer",
    "console.collection": "viewer",
    "console.collection_form": "officer",
    "console.collection_site": "officer",
    "console.collection_experiment": "officer",
    "console.contact": "viewer",
    "console.contact_policy": "officer",
    "console.contact_term": "officer",
    "console.recipients": "viewer",
    "console.recipient_switch": "officer",
    "console.clocks": "viewer",
    "console.clock_put": "admin",
    "console.witnesses": "viewer",
    "console.witness_add": "admin",
    "console.witness_trust": "admin",
    "console.witness_collect": "officer",
    "console.jobs": "viewer",
    "console.job": "viewer",
    "console.job_was_in": "officer",
    "console.job_evidence": "officer",
    "console.ledger": "viewer",
    "console.ledger_state": "viewer",
    "console.ledger_check": "officer",
    "console.ledger_consistency": "viewer",
    "console.ledger_leaf": "officer",
    "console.exports": "officer",
    "console.export_csv": "officer",
    "console.activity": "officer",
    "console.accounts": "admin",
    "console.account_add": "admin",
    "console.account_change": "admin",
}


@dataclass(frozen=True)
class Principal:
    """Who asks. `name` stands in the ledger as the actor; `via` is how they proved it."""

    name: str
    role: str
    via: str  # "nothing", "service token", "api token", "session"


NOBODY = Principal("", "public", "nothing")
Authenticator = Callable[[Request], Principal | None]


def allowed(role: str, rule: str) -> bool:
    """Whether `role` is enough for `rule`."""
    for least in rule.split("|"):
        if least == "public" or role == least or role == "admin":
            return True
        if role in _LADDER and least in _LADDER and _LADDER[role] >= _LADDER[least]:
            return True
    return False


def principal() -> Principal:
    """Who asks; found once a request. The first authenticator that knows the request decides."""
    if "pec_principal" not in g:
        found = NOBODY
        for authenticate in current_app.extensions[AUTHENTICATORS]:
            known = authenticate(request)
            if known is not None:
                found = known
                break
        g.pec_principal = found
    known_here: Principal = g.pec_principal
    return known_here


def actor(given: str = "", default: str = "") -> str:
    """The name for the ledger. A person acts under the own name, whatever the body says; machines relay for
    many, so what they name stands behind their own. The service token has no name: `given` or `default`."""
    return acting(principal(), given, default)


def acting(who: Principal, given: str, default: str = "") -> str:
    """`actor` of somebody named."""
    if who.via == "service token":
        return given or default
    return f"{who.name}:{given}" if who.role == "service" and given else who.name


def enforce(endpoint: str | None) -> None:
    """Raises `request.unauthorised` (nobody is known) or `request.forbidden` (known, and not enough).

    A path that does not exist is told only to those who are known: an outsider can't map the service.
    """
    rule = ENDPOINTS.get(endpoint, "admin") if endpoint is not None else "viewer|service"
    who = principal()
    if allowed(who.role, rule):
        return
    if who.role == "public":
        raise ConsentError(
            "request.unauthorised", "send the header `Authorization: Bearer <content of rest.token>`"
        )
    raise ConsentError(
        "request.forbidden",
        f"{endpoint} needs the role {rule.replace('|', ' or ')}; yours is {who.role}: ask an administrator",
    )


def check(app: Flask) -> None:
    """Raises KeyError for an endpoint without a role, or a rule that names no role."""
    served = {rule.endpoint for rule in app.url_map.iter_rules()}
    if missing := sorted(served - set(ENDPOINTS)):
        raise KeyError(f"endpoints without a role in consent_center/rest/roles.py: {', '.join(missing)}")
    if wrong := sorted(e for e, rule in ENDPOINTS.items() if not set(rule.split("|")) <= set(ROLES)):
        raise KeyError(f"rules that name no role: {', '.join(wrong)}")
