"""One consent event as an ISO/IEC TS 27560 consent record in DPV terms.

Source: W3C DPVCG, "Implementing ISO/IEC TS 27560:2023 Consent Records and Receipts" (guides/consent-27560);
`pec:` terms are ours, for what the guide has no term for. The record has two layers: `core` follows from what
the ledger's leaf commits to, so a verifier can build it anew; `describe` adds the registry's texts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from consent_center.model import GRANTS, Notice, Purpose

CONTEXT: dict[str, str] = {
    "dct": "http://purl.org/dc/terms/",
    "dpv": "https://w3id.org/dpv#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "loc": "https://w3id.org/dpv/loc#",
    "pec": "urn:pec:term:",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "schema": "https://schema.org/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
}
RECEIPT_SCHEMA = "https://w3id.org/dpv/schema/dpv-27560#receipt"
RECORD_SCHEMA = "https://w3id.org/dpv/schema/dpv-27560#record"

#: An action's state; renewals and guardians' grants are grants of a kind.
STATUS: dict[str, list[str]] = {
    "granted": ["dpv:ConsentGiven"],
    "guardian_granted": ["dpv:ConsentGiven"],
    "renewed": ["dpv:RenewedConsentGiven"],
    "denied": ["dpv:ConsentRefused"],
    "withdrawn": ["dpv:ConsentWithdrawn"],
    "expired": ["dpv:ConsentExpired"],
}
#: Laws with a term; any other is named by its own text.
_LAWS = {"GDPR": ("eu-gdpr:GDPR", "loc:EU", "eu-gdpr:A6-1-a"), "PIPL": ("", "loc:CN", "")}
#: The right to take consent back, by law.
_RIGHTS = {
    "GDPR": (["dpv:DataSubjectRight", "eu-gdpr:A7-3"], "Right to Withdraw Consent"),
    "PIPL": (["dpv:DataSubjectRight"], "撤回同意的权利 (PIPL 15): Right to Withdraw Consent"),
}
_NEVER = -1
_WITHDRAW = {
    "en": "Consent can be withdrawn at any time, as easily as it was given: ask the controller.",
    "zh": "可随时撤回同意，撤回与同意同样方便：请联系个人信息处理者。",
}


def urn(kind: str, *names: object) -> str:
    """`urn:pec:kind:name:…`, with names in any script percent-encoded."""
    return ":".join(["urn:pec", kind, *(quote(str(name), safe="") for name in names)])


def moment(micros: int) -> str:
    """ISO 8601 UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)).isoformat()


def texts(translations: dict[str, str]) -> list[dict[str, str]]:
    """Translations as JSON-LD language-tagged strings."""
    return [{"@language": language, "@value": translations[language]} for language in sorted(translations)]


def core(opening: dict[str, Any], center: str) -> dict[str, Any]:
    """The record as far as the ledger's leaf says it. `opening`: see `verify`. Raises KeyError, TypeError."""
    told = opening["descriptor"]
    controller, recipient = told["controller"], told["recipient"]
    law, place, article = _LAWS.get(told["regulation"], ("", "", ""))
    record: dict[str, Any] = {
        "@id": urn("record", center, opening["sequence"]),
        "@type": "dpv:ConsentRecord",
        "dct:identifier": f"{center}/{opening['sequence']}",
        "dct:conformsTo": RECORD_SCHEMA,
        "dpv:hasDataController": {
            "@id": urn("party", controller),
            "@type": "dpv:DataController",
            "dpv:hasName": controller,
        },
        "dpv:hasApplicableLaw": law
        or {"@id": urn("law", told["regulation"]), "dct:title": told["regulation"]},
        "dpv:hasLegalBasis": article or "dpv:Consent",
        "dpv:hasProcess": {
            "@type": "dpv:Process",
            "dpv:hasPurpose": {
                "@id": urn("purpose", center, told["purpose"], told["purpose_version"]),
                "@type": "dpv:Purpose",
                "dct:identifier": told["purpose"],
                "schema:version": told["purpose_version"],
            },
            "dpv:hasPersonalData": [
                {"@type": "dpv:PersonalData", "dct:identifier": name} for name in told["categories"]
            ],
            "dpv:hasRecipient": {
                "@id": urn("party", recipient),
                "@type": "dpv:Recipient",
                "dpv:hasName": recipient,
            },
        },
        "dpv:hasConsentStatus": [_status(opening)],
        "dpv:hasConsentControl": {"@type": ["dpv:WithdrawConsent"], "dct:description": texts(_WITHDRAW)},
        "pec:channel": told["channel"],
        "pec:eventSequence": opening["sequence"],
        "pec:recordedAt": moment(opening["recorded_at"]),
        "pec:regulation": told["regulation"],
    }
    if told["regulation"] in _RIGHTS:
        kinds, title = _RIGHTS[told["regulation"]]
        record["dpv:hasRight"] = [{"@type": list(kinds), "dct:title": title}]
    if place:
        record["dpv:hasJurisdiction"] = place
    if told["notice"]:
        record["dpv:hasNotice"] = {
            "@id": urn("notice", center, told["notice"], told["notice_version"]),
            "@type": "dpv:ConsentNotice",
            "dct:identifier": told["notice"],
            "schema:version": told["notice_version"],
        }
    return record


def _status(opening: dict[str, Any]) -> dict[str, Any]:
    told = opening["descriptor"]
    guardian = told["action"] == "guardian_granted"
    kinds = list(STATUS[told["action"]])
    if told["action"] in GRANTS and told["method"] == "explicit":
        kinds.append("dpv:ExplicitlyExpressedConsent")
    status: dict[str, Any] = {
        "@type": kinds,
        "dpv:isIndicatedBy": "dpv:GuardianOfDataSubject" if guardian else "dpv:DataSubject",
        "dpv:hasIndicationMethod": told["method"],
        "dpv:isIndicatedAtTime": moment(opening["occurred_at"]),
        "pec:action": told["action"],
    }
    if opening["expires_at"] != _NEVER:
        status["dpv:hasDuration"] = {
            "@type": "dpv:UntilTimeDuration",
            "rdf:value": moment(opening["expires_at"]),
        }
    return status


def describe(record: dict[str, Any], purpose: Purpose | None, notice: Notice | None) -> None:
    """Add what the registry says about purpose and notice; changes nothing that `core` wrote."""
    if purpose is not None:
        entry = record["dpv:hasProcess"]["dpv:hasPurpose"]
        entry["dct:title"] = texts(purpose.title)
        if purpose.dpv:
            entry["skos:broader"] = purpose.dpv
        entry["pec:separateConsent"] = purpose.separate_consent
    if notice is not None and "dpv:hasNotice" in record:
        record["dpv:hasNotice"]["dct:language"] = sorted(notice.text)
        record["dpv:hasNotice"]["schema:sha256"] = notice.hash
