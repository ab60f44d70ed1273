"""Words of the data that pages show translated: roles, actions, reasons, states."""

from __future__ import annotations

from consent_center.i18n import N_, gettext

_ROLES = (N_("public"), N_("viewer"), N_("officer"), N_("admin"), N_("service"))
#: Action of an event -> what it is called, and whether it is good or bad for whoever wants to use the data.
ACTIONS = {
    "granted": (N_("granted"), "good"),
    "guardian_granted": (N_("granted by the guardian"), "good"),
    "renewed": (N_("renewed"), "good"),
    "denied": (N_("denied"), "bad"),
    "withdrawn": (N_("withdrawn"), "bad"),
    "expired": (N_("expired"), "note"),
    "erased": (N_("erased"), "bad"),
}
REASONS = {
    "eligible": N_("eligible"),
    "identifier_null": N_("no identifier in the row"),
    "identifier_invalid": N_("not an identifier of that kind"),
    "identifier_duplicate": N_("identifier repeated in the file"),
    "unreachable": N_("the consent center did not answer"),
    "stale": N_("the center was behind its events"),
    "purpose_inactive": N_("purpose switched off or not registered"),
    "recipient_inactive": N_("recipient switched off"),
    "restricted": N_("processing restricted"),
    "unknown_subject": N_("person unknown here, or erased"),
    "minor_without_guardian": N_("under 14 without a guardian's consent"),
    "no_event": N_("nothing recorded for the purpose"),
    "denied": N_("denied"),
    "withdrawn": N_("withdrawn"),
    "expired": N_("expired"),
    "outdated_notice": N_("given under an outdated notice or purpose"),
    "recipient_out_of_scope": N_("consent is for other recipients"),
    "category_out_of_scope": N_("consent lacks a data category"),
    "blocked_by_rule": N_("blocked by a rule"),
    "withdrawn_midway": N_("withdrawn while the job ran"),
}
STATES = {
    "draft": (N_("draft"), ""),
    "proposed": (N_("proposed"), ""),
    "awaiting_approval": (N_("awaiting approval"), "note"),
    "approved": (N_("approved"), "note"),
    "running": (N_("running"), "note"),
    "held": (N_("held"), "note"),
    "succeeded": (N_("succeeded"), "good"),
    "failed": (N_("failed"), "bad"),
    "rejected": (N_("rejected"), "bad"),
    "cancelled": (N_("cancelled"), "bad"),
    "stopped_by_consent": (N_("stopped by consent"), "bad"),
}
KINDS = {
    "phone": N_("phone number"),
    "email": N_("e-mail address"),
    "device": N_("device id"),
    "opaque": N_("other id"),
}
#: Of rules of the house: effects, and the windows of limits.
RULES = {
    "deny": N_("deny"),
    "allow": N_("allow"),
    "limit": N_("limit"),
    "hour": N_("hour"),
    "day": N_("day"),
    "week": N_("week"),
    "month": N_("30 days"),
}
#: Fields of a purpose that a new version may change.
FIELDS = {
    "title": N_("title"),
    "dpv": N_("DPV term"),
    "legal_basis": N_("legal basis"),
    "separate_consent": N_("separate consent"),
    "needs_guardian": N_("guardian needed under 14"),
    "methods": N_("Methods"),
    "categories": N_("Categories"),
    "sensitive": N_("Sensitive categories"),
    "recipient_kinds": N_("Kinds of recipients"),
    "recipients": N_("Recipients by name"),
    "duration_days": N_("Consent lasts (days)"),
    "retention_days": N_("Data is kept (days)"),
}

ACTS = {
    "account.add": N_("made an account"),
    "account.role": N_("gave a role"),
    "account.enable": N_("enabled an account"),
    "account.disable": N_("disabled an account"),
    "account.reset": N_("reset a login"),
    "account.login": N_("logged in"),
    "account.locked": N_("locked after wrong attempts"),
    "account.password": N_("changed the password"),
    "account.second_factor": N_("set up the second factor"),
    "token.add": N_("made an API token"),
    "token.revoke": N_("revoked an API token"),
    "person.search": N_("searched a person"),
    "person.withdraw": N_("withdrew for a person"),
    "export.csv": N_("exported a table"),
    "export.person": N_("exported a person's story"),
    "export.register": N_("exported a register"),
    "export.job": N_("exported a job's story"),
    "export.receipt": N_("took a receipt"),
    "job.was_in": N_("asked whether a person was in a job"),
    "ledger.check": N_("checked the ledger"),
    "witness.collect": N_("asked the witnesses"),
}


def act(text: str) -> str:
    """An act of the ledger in the reader's language."""
    return gettext(ACTS[text]) if text in ACTS else text


def word(text: str) -> str:
    """A word of the tables above in the reader's language; what is in none of them stays as it is."""
    for table in (ACTIONS, STATES):
        if text in table:
            return gettext(table[text][0])
    for words in (REASONS, KINDS, RULES, FIELDS):
        if text in words:
            return gettext(words[text])
    return text


def tone(text: str) -> str:
    """`good`, `bad`, `note` or nothing: the colour beside the word."""
    for table in (ACTIONS, STATES):
        if text in table:
            return table[text][1]
    return ""
