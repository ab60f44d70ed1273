"""One error type with a code; each edge (REST, CLI, node) maps codes once.

`ConsentError` carries a code of `CODES` and a message that says what is wrong, where, and what to do.
Refusing a person's data is no error: that is a reason code in a decision (`model.REASONS`).
"""

from __future__ import annotations

CODES: dict[str, str] = {
    # the center as a whole
    "center.exists": "a consent center is already in that directory",
    "center.missing": "there is no consent center in that directory",
    "center.version": "the database has another schema than this program needs",
    "center.keys": "the key files are missing, malformed, readable by others or not those of the database",
    "center.location": "a location is no directory or http(s) URL, or a database no PostgreSQL URL",
    "center.unreachable": "the consent center or its database can't be reached",
    "center.busy": "another process holds the database's write lock for too long",
    "center.restored": "the database was put back from a backup, or its log was rewritten",
    "center.closed": "the center was closed by this process",
    # registry
    "registry.purpose": "a field of a purpose is not allowed",
    "registry.notice": "a field of a notice is not allowed",
    "registry.assessment": "a field of an impact assessment's reference is not allowed",
    "registry.recipient": "a recipient's name is not allowed",
    "registry.version": "that version exists already with other content, or is not newer than the last",
    "registry.unknown": "no purpose or notice of that name and version",
    # events
    "event.action": "the action is not one of model.ACTIONS",
    "event.purpose": "the purpose or its version is not registered, or it is switched off",
    "event.notice": "the notice is missing, unknown, or belongs to another purpose",
    "event.identifier": "no identifier of the event can be used",
    "event.identifier_conflict": "the event's identifiers belong to different people",
    "event.time": "a time is missing, has no time zone, or is in the future",
    "event.expiry": "the consent would end before it begins",
    "event.recipient": "not exactly one recipient; separate consent can't be bundled",
    "event.categories": "categories are missing, malformed or not among the purpose's",
    "event.controller": "the event names another controller than this center's",
    "event.guardian": "a guardian's event needs the birth date of a person under the age limit",
    "event.erased": "the person was erased after the event happened",
    "event.text": "a text field is too long, empty, or has characters that are not allowed",
    "event.batch": "a batch of events has a missing, unknown or mistyped column",
    # identifiers and decisions
    "identifier.kind": "the kind is not phone, email, device or opaque",
    "identifier.type": "a column's type can't hold identifiers",
    "decision.request": "a decision was asked for with a malformed purpose, recipient, category or time",
    "subject.unknown": "no person with that identifier is known here",
    "snapshot.unknown": "no snapshot of that id was issued by this center",
    "snapshot.signature": "a snapshot's signature is not by that key",
    "snapshot.proof": "a token proof does not fit the snapshot's root",
    # ledger
    "ledger.payload": "a leaf's payload is no JSON object or its kind is malformed",
    "ledger.index": "an index or size outside the log",
    "ledger.note": "a signed note is malformed or its signature fails",
    "ledger.checkpoint": "a checkpoint's body is malformed",
    "ledger.key": "a signer or verifier key string is malformed",
    "ledger.proof": "a Merkle proof fails",
    "ledger.opening": "an opening does not give the leaf's hash",
    "ledger.corrupt": "the stored log differs from its own hashes",
    # signals of other systems: TC strings, GPP strings, Sec-GPC
    "signal.encoding": "a TC or GPP string is not base64url, is cut short, or goes on after its end",
    "signal.value": "a field of a TC or GPP string has a value that its specification does not allow",
    "signal.version": "a TC string, a GPP string or a section has a version that this program does not know",
    "signal.mapping": "the table from signals to purposes is missing, malformed, or names what is unknown",
    "signal.request": "no signal was given, or one that says nothing",
    # preferences and contact decisions
    "preference.key": "a channel, topic or answer of a preference is not allowed",
    "preference.unknown": "the channel or topic is not declared",
    "preference.term": "a declaration of a channel or topic is not allowed",
    "preference.cap": "a frequency cap is not allowed",
    "preference.quiet": "a quiet period is not allowed",
    "preference.zone": "a time zone is not in the IANA database",
    "preference.time": "a time has no time zone, has passed, or lies too far ahead",
    "preference.policy": "a policy's linked purpose is not allowed",
    "preference.request": "a contact decision or report is malformed, empty or too large",
    "preference.contact_conflict": "a contact id stands for another contact already",
    # collection: forms, sites, links, pages
    "collection.form": "a form is malformed, or offers what is not registered",
    "collection.site": "a site is malformed",
    "collection.experiment": "an A/B of two notices is malformed, or another runs",
    "collection.unknown": "no form, site or offer of that name is in force",
    "collection.cooldown": "the person may not be asked (again) now",
    "collection.initiative": "who began is neither the person nor the organisation",
    "collection.visitor": "a visitor's id is not random enough to name somebody",
    "collection.origin": "a page of that origin may not show the form",
    "collection.busy": "more requests in a minute than the site allows",
    "event.shown": "what the person is said to have been shown can't be what they saw",
    "link.invalid": "a link is incomplete, or was not made by this center for this",
    "link.expired": "a link has expired, was used or was withdrawn",
    "link.ticket": "a page is out of date, or its form was not made for this link",
    "link.kind": "a link of that kind can't be made here",
    "link.lifetime": "a link would work for too short or too long a time",
    # accounts
    "account.name": "an account's name is not allowed",
    "account.exists": "there is an account of that name already",
    "account.unknown": "there is no account of that name",
    "account.role": "the role is not viewer, officer, admin or service, or can't become that",
    "account.password": "a password is too short or too weak, or the account has none",
    "account.refused": "the name, the password or the code is wrong, or the account is disabled",
    "account.locked": "too many wrong attempts: the account is locked for a while",
    "account.session": "the login has lapsed or is at another step",
    "account.token": "there is no such API token, or its label or duration is not allowed",
    "account.last_admin": "the last administrator can't be disabled or given another role",
    "account.oidc": "the identity provider's settings or its answer can't be used",
    # rights requests
    "rights.unknown": "no rights request of that number",
    "rights.request": "a field of a rights request is not allowed",
    "rights.state": "the request's state does not allow this step",
    "rights.identity": "the person's identity is not proven, so nothing may be disclosed or done",
    "rights.clock": "a rule of the legal clock, or an extension, is not allowed",
    "rights.task": "no such task is open, or tasks are still open",
    "rights.fulfil": "the request can't be carried out like this",
    # rules of the house
    "rules.file": "a rule file is malformed",
    "rules.changed": "other rules were put in force since the dry run",
    "rules.limit": "a rule's limit on jobs, decisions or people is reached",
    "rules.region": "a region is no code of ISO 3166",
    # figures
    "analytics.request": "figures were asked for in a way that is not offered",
    # drafts of notices
    "notice.draft": "a draft of a notice is malformed",
    "notice.unknown": "there is no draft of that notice",
    "notice.language": "a draft lacks a language that people need",
    "notice.changed": "a draft was changed since it was previewed",
    # records
    "record.field": "a field of a record is missing or not allowed",
    "assessment.missing": "no impact assessment for this purpose and recipient is in force",
    # witnesses
    "witness.log": "a log that is witnessed has another key than the one given",
    "witness.refused": "a witness did not cosign the checkpoint",
    # webhooks
    "webhook.url": "a webhook's URL is not allowed, or its host has an address that is not",
    "webhook.field": "a field of a webhook is not allowed",
    "webhook.unknown": "no webhook of that name is registered",
    "webhook.signature": "a webhook's message is not signed by that key, or is too old",
    # receipts
    "receipt.event": "no receipt can be made of that event",
    "receipt.identifier": "the identifier is not of the person of that event",
    "receipt.format": "a receipt is not the canonical JSON that the center wrote",
    "receipt.signature": "a receipt is not signed by that key",
    "receipt.mismatch": "a receipt says something else than its leaf in the ledger",
    # edges: REST and import
    "request.invalid": "a request's body or parameters are malformed",
    "request.unauthorised": "no token, or one that is not known",
    "request.forbidden": "the role does not allow this",
    "request.not_found": "no such resource",
    "request.csrf": "the form was not made by this session, or is too old",
    "request.rate": "too many requests from this address",
    "request.too_large": "a request is over the size limit",
    "import.file": "a file can't be read as CSV or JSON lines",
    "import.column": "a column that the import needs is not in the file",
    "import.row": "a row of the file can't become an event",
}


class ConsentError(Exception):
    """`code` is one of `CODES`; `detail` says what, where and what to do; `row` is a batch's row, if any."""

    def __init__(self, code: str, detail: str, row: int | None = None) -> None:
        if code not in CODES:
            raise KeyError(f"unregistered error code {code!r}")
        super().__init__(f"{code}: {detail}" if row is None else f"{code}: row {row}: {detail}")
        self.code = code
        self.detail = detail
        self.row = row
