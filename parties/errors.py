"""Errors of the party node. `code` is one of `CODES`, `detail` says what and where, `hint` what to do.

`CODES` has the meaning of each code in words that hold nothing of anybody's data: when a stage fails on one
side, the other side is told the code and this text, and the detail stays where it arose (unless the error
says `share=True`, as refusals do, because their detail is meant for the peer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CODES: dict[str, str] = {
    # the process and its directory
    "node.config": "node.toml is missing, unreadable or holds a wrong value",
    "node.exists": "the directory already holds a node",
    "node.home": "the directory is no node home, or its files are not private",
    "node.locked": "another process runs this node",
    "node.engine": "the engine that node.toml asks for is not installed, or does not start",
    "node.prepared": "nothing can be prepared: no job would use it",
    "node.worker": "workers of the engine were lost too often in one alignment",
    "node.port": "the port can't be opened",
    "node.disk": "the disk has no room for what a job keeps while it runs",
    "node.interrupted": "the node stopped while the job ran",
    "node.stopping": "the node is shutting down",
    "node.not_running": "the node of this directory does not answer",
    "node.request": "a request to the node is malformed",
    "node.internal": "an error that nobody foresaw: a bug",
    # identities and what they sign
    "identity.card": "a card is malformed or contradicts itself",
    "identity.conflict": "the party is already trusted with another key or certificate",
    "identity.unknown_peer": "no card of this party is trusted here",
    "identity.untrusted": "this party is not trusted here any more",
    "identity.self": "the card is this node's own",
    "document.malformed": "a document is no JSON object of the expected form",
    "document.unknown_field": "a document has a field that this version does not know",
    "document.missing_field": "a document lacks a field",
    "document.type": "a field of a document has the wrong type or an impossible value",
    "document.signature": "a signature is missing, or does not belong to the document and the party",
    "document.expired": "a document's time is over",
    "document.clock": "a document comes from the future: the clocks of the two nodes differ too much",
    # agreements
    "agreement.unknown": "there is no agreement of this id between the two parties",
    "agreement.conflict": "an agreement of this id but with other terms is already stored",
    "agreement.party": "the agreement is not between these two parties in these roles",
    "agreement.expired": "the agreement has expired",
    "agreement.ended": "one of the two parties has ended the agreement before its time",
    "agreement.kind": "the agreement does not allow this kind of job",
    "agreement.purpose": "the agreement does not allow this purpose",
    "agreement.category": "the agreement does not allow one of the data categories",
    "agreement.column": "the agreement does not allow one of the columns or tags",
    "agreement.errors": "the agreement allows no standard errors",
    "agreement.malicious": "the agreement asks for security against deviating sides, the job for less",
    "agreement.suite": "the agreement does not allow this protocol suite",
    "agreement.privacy": "the job asks for less privacy than the agreement demands",
    "agreement.budget": "the agreement's total privacy budget does not allow one more such job",
    "agreement.minimum_rows": "fewer eligible people than the agreement's minimum",
    "agreement.minimum_seeds": "fewer seeds than the agreement's minimum",
    # jobs
    "job.unknown": "there is no job of this id",
    "job.kind": "this node knows no job of that kind",
    "job.spec": "the job's parameters are not what its kind needs",
    "job.changed": "a job of this id was proposed before with another content",
    "job.parameter": "a private parameter of the job is unknown, missing, or can't have this value",
    "job.people": "nobody of the brand's file fits what the job says about its people",
    "job.repeated": "the people of this fit without noise are nearly those of an earlier one",
    "job.daily": "the node has answered as many score jobs for this model in 24 hours as it allows",
    "job.labels": "too few of the brand's people with a label, or a label that can't be learned from",
    "job.state": "the job's state does not allow this",
    "job.rejected": "the provider declined the job",
    "job.cancelled": "the job was cancelled",
    "job.expired": "the job was not approved before its time was over",
    "job.busy": "too many jobs run on this node",
    "job.result": "the job has no such result",
    "job.audit": "the audit bundle could not be built",
    # data sets and consent
    "dataset.unknown": "no data set of this name is registered",
    "dataset.conflict": "a data set of this name is already registered with other settings",
    "dataset.changed": "the data set was given other settings since the job began",
    "dataset.category": "a column has no data category, so no consent covers it",
    "dataset.file": "the data set's file is not there",
    "consent.nobody": "nobody's consent covers this purpose and recipient",
    "consent.assessment": "no impact assessment in force covers this purpose and recipient",
    "consent.recipient_off": "the recipient was switched off while the job ran",
    "consent.purpose_off": "the purpose was switched off while the job ran",
    "consent.assessment_ended": "the impact assessment was withdrawn or lapsed while the job ran",
    "consent.unavailable": "the consent center does not answer, so nothing may be used",
    "consent.lease": "a stage lasted longer than one look at the consent is good for",
    "consent.snapshot": "the peer's consent snapshot is unsigned, signed by another key, or of another job",
    # the wire
    "transport.name": "the peer's host name can't be resolved",
    "transport.unreachable": "nothing answers at the peer's address",
    "transport.certificate": "the peer shows another certificate than the trusted one",
    "transport.refused": "the peer does not accept this node's certificate",
    "transport.tls": "no TLS connection with the peer comes about",
    "transport.role": "the certificate does not allow this call",
    "transport.version": "the peer speaks another version of the protocol",
    "transport.clock": "the clocks of the two nodes differ too much",
    "transport.lost": "the connection to the peer broke",
    "transport.silent": "the peer sent nothing for too long",
    "transport.truncated": "the peer's stream ended before the job did",
    "transport.replayed": "a frame came a second time",
    "transport.gap": "a frame is missing, or frames came out of order",
    "transport.stage": "a frame belongs to another stage",
    "transport.job": "a frame belongs to another job",
    "transport.too_large": "a frame or a control message is over the limit",
    "transport.flood": "the peer sent more than this side is ready to keep",
    "transport.malformed": "a frame can't be understood",
    "transport.chain": "the two sides disagree about the frames that were exchanged",
    "transport.binding": "the two sides disagree about job, stage or snapshots",
    "transport.nonce": "the session's nonce was used before",
    "transport.handshake": "a peer failed to connect: no TLS connection came about",
    "peer.failed": "the peer could not go on",
    # reading rows (parties.rows)
    "rows.unreadable": "a data file can't be read",
    "rows.empty": "a data file has no rows",
    "rows.column": "a data file does not have a column, or it can't be used",
    "rows.changed": "a data file was changed while the job ran",
    "rows.filter": "a filter expression is wrong, or uses what is not allowed",
    "rows.label": "a label column holds something else than yes and no",
    # the consent gate (parties.gate)
    "gate.nulls": "rows without a valid identifier, which the data set declares not to have",
    "gate.duplicates": "rows with a repeated identifier, which the data set declares not to have",
    "gate.identifiers": "a data set has no valid identifier in its id column",
    "gate.kind": "nearly all identifiers of a column are of another kind than the data set declares",
    "gate.assumed": "an evaluation assumed consent without a reason",
    "gate.snapshot": "the consent center's snapshot does not answer what the gate asked",
    "gate.column": "a column is not among those that the job was opened with",
    # features and tags (parties.features, parties.tags)
    "features.none": "no usable feature column is left",
    "features.many": "more feature columns than allowed",
    "features.changed": "a feature column changed its type while the job ran",
    "tags.schema": "the provider's tag schema is malformed or differs from the agreed tags",
    "tags.record": "a tag record does not fit its schema",
    "tags.wide": "a tag's text is too long",
    "tags.type": "a tag column's type can't be sent",
    # job kinds (parties.kinds)
    "kind.message": "the peer's control message of a stage is malformed",
    "joint.rows": "fewer labelled people of both sides than the agreement's minimum",
    "lookalike.seeds": "fewer matched seeds than the agreement's minimum",
    # models that jobs made (parties.models)
    "model.unknown": "there is no model of this name or job here",
    "model.expired": "the model's time is over",
    "model.retired": "the model was retired",
    "model.agreement": "the model belongs to another agreement or partner, or would outlive its agreement",
    "model.alias": "the alias can't be given",
    "model.share": "a share is not between 0 and 1",
    "model.unreadable": "a model's files or its entry in the registry can't be read",
    # audit bundles (parties.bundle)
    "bundle.unreadable": "an audit bundle is no zip file of the expected form",
    "bundle.incomplete": "an audit bundle can't be built from what the node has",
}

_CODE = re.compile(r"[a-z_]{1,40}\.[a-z_]{1,40}")


class NodeError(Exception):
    """`str` has code, detail and hint.

    `share`: the peer may see `detail`; `counts`, people by reason, are for this side's operator only.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        hint: str = "",
        *,
        share: bool = False,
        counts: dict[str, int] | None = None,
    ) -> None:
        self._check(code)
        super().__init__(f"{code}: {detail}" + (f" (hint: {hint})" if hint else ""))
        self.code = code
        self.detail = detail
        self.hint = hint
        self.share = share
        self.counts = counts or {}

    def _check(self, code: str) -> None:
        if code not in CODES:
            raise KeyError(f"unregistered error code {code!r}")


#: A column with more different values than this may identify people: errors and notes show none of it.
FEW_VALUES = 50


def examples(odd: Iterable[str], different: int) -> str:
    """Up to three values that nobody expected in an own column of `different` ones, for its own operator.

    Only for errors that are not shared. "" where the values may identify people.
    """
    shown = [repr(value if len(value) <= 30 else value[:29] + "…") for value in sorted(odd)[:3]]
    return f", such as {', '.join(shown)}" if shown and different <= FEW_VALUES else ""


#: The name under which the modules that read data raise the same error.
PartyError = NodeError


class RemoteError(NodeError):
    """What another node said: its code may be one that this version does not know."""

    def _check(self, code: str) -> None:
        if not _CODE.fullmatch(code):
            raise KeyError(f"{code!r} is no error code")


class PeerFailed(RemoteError):
    """The peer ended a job and told why; it needs no telling back."""


def is_code(text: object) -> bool:
    """Whether `text` has the form of an error code."""
    return isinstance(text, str) and bool(_CODE.fullmatch(text))
