"""`pec consent`: its commands by module, each loaded only when it is called."""

from __future__ import annotations

import click

from pec.lazy_group import LazyGroup

# name → (module and attribute, the first line of its help; a test compares)
COMMANDS: dict[str, tuple[str, str]] = {
    "analytics": (
        "pec.cli_consent_analytics:analytics",
        "How consent is going: rates, withdrawals, funnels, A/B of notices.",
    ),
    "assessment": ("pec.cli_consent_records:assessment", "Impact assessments (PIPL 55)."),
    "checkpoint": (
        "pec.cli_consent_center:checkpoint",
        "Print the signed checkpoint of the ledger and the key that verifies it.",
    ),
    "decide": (
        "pec.cli_consent_center:decide",
        "May RECIPIENT have these people's data for PURPOSE? Counts by reason.",
    ),
    "dispatch": ("pec.cli_consent_webhooks:dispatch", "Send webhooks until interrupted."),
    "enforcement": (
        "pec.cli_consent_webhooks:enforcement",
        "Show how long it takes from a withdrawal to its enforcement, by jobs and by webhooks.",
    ),
    "experiment": ("pec.cli_consent_collect:experiment", "A/B of two notices."),
    "form": ("pec.cli_consent_collect:form", "What is offered together."),
    "fsck": ("pec.cli_consent_center:fsck", "Compare the database with the ledger."),
    "guardian-link": (
        "pec.cli_consent_collect:guardian_link",
        "Make a link on which the guardian of a child under 14 consents.",
    ),
    "import": ("pec.cli_consent_center:import_", "Import consent events from CSV or JSON lines."),
    "init": ("pec.cli_consent_center:init", "Make a new consent center."),
    "link": ("pec.cli_consent_collect:link", "Make a signed, expiring link to one person's preference page."),
    "may-ask": (
        "pec.cli_consent_collect:may_ask",
        "May this person be asked (again) now? Exit code 3 when not.",
    ),
    "migrate": ("pec.cli_consent_center:migrate", "Bring a center's database to this program's schema."),
    "notice": ("pec.cli_consent_notices:notice", "The texts that people see."),
    "opt-in": (
        "pec.cli_consent_collect:opt_in",
        "Begin a double opt-in: nothing counts until the person confirms on the link.",
    ),
    "prove": (
        "pec.cli_consent_center:prove",
        "Prove that leaf INDEX is in the ledger, and open it as far as it was not erased.",
    ),
    "purpose": ("pec.cli_consent_registry:purpose", "What consent is asked for."),
    "receipt": (
        "pec.cli_consent_signals:receipt",
        "Write the signed receipt of one event (ISO/IEC TS 27560).",
    ),
    "recipient": ("pec.cli_consent_webhooks:recipient", "Who may get data at all."),
    "reconsent": (
        "pec.cli_consent_notices:reconsent",
        "Who must be asked again for PURPOSE: people whose consent is to an older version.",
    ),
    "record": (
        "pec.cli_consent_center:record",
        "Record that one person grants, denies, withdraws or renews.",
    ),
    "recover": (
        "pec.cli_consent_witness:recover",
        "Accept a database that was put back from a backup, after `center.restored`.",
    ),
    "region": (
        "pec.cli_consent_rules:region",
        "Say where known people are: CSV with the columns kind, value, region (CN, or CN-31).",
    ),
    "register": (
        "pec.cli_consent_records:register",
        "Records that the law asks for: processing register, agreements, assessments.",
    ),
    "reminders": ("pec.cli_consent_records:reminders", "Show what lapses soon or has lapsed."),
    "request": (
        "pec.cli_consent_rights:request",
        "Requests of people: access, copy, portability, correction, deletion …",
    ),
    "rules": (
        "pec.cli_consent_rules:rules",
        "Rules of the house: deny, allow, limit by purpose, recipient, region, category, time.",
    ),
    "serve": (
        "pec.cli_consent_center:serve",
        "Serve the center over REST on this machine, until interrupted.",
    ),
    "show": (
        "pec.cli_consent_center:show",
        "Show all that the center holds about one person: for requests to access (PIPL 45).",
    ),
    "signal": (
        "pec.cli_consent_signals:signal",
        "What other systems say of a person's will: IAB TCF and GPP strings, Sec-GPC.",
    ),
    "site": ("pec.cli_consent_collect:site", "Where the script may show a form."),
    "user": (
        "pec.cli_consent_user:user",
        "Accounts of the console and of machines: add, list, disable, reset, tokens.",
    ),
    "verify": (
        "pec.cli_consent_signals:verify",
        "Check a receipt offline: its record, its place in the ledger, its signature.",
    ),
    "webhook": (
        "pec.cli_consent_webhooks:webhook",
        "Receivers that are told of withdrawals, erasures and switches.",
    ),
    "withdraw": ("pec.cli_consent_center:withdraw", "Record that one person withdraws consent."),
    "witness": (
        "pec.cli_consent_witness:witness",
        "Others cosign this center's log, and it cosigns theirs (C2SP tlog-witness).",
    ),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def consent() -> None:
    """Who agreed to what: register, import, decide, withdraw, prove."""
