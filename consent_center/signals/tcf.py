"""Transparency & Consent strings of the IAB (TCF v2.0 to v2.3) and their segments.

Source: IAB Tech Lab, "Consent string and vendor list formats v2", field names and order as there. Decoding
says what stands in the string; `problems` says why a well-formed string still is no consent under the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consent_center.errors import ConsentError
from consent_center.signals.bits import MAX_CHARS, Bits, Ids, malformed, not_allowed

_PURPOSES, _SPECIAL_FEATURES, _RESTRICTIONS = 24, 12, 3
_DISCLOSED, _ALLOWED, _PUBLISHER = 1, 2, 3
#: Restriction types of a publisher: not allowed, require consent, require legitimate interest.
NOT_ALLOWED, REQUIRE_CONSENT, REQUIRE_LEGITIMATE_INTEREST = 0, 1, 2
#: TCF v2.2: strings made after this need policy version 4 ("Managing conflicting string versions").
_POLICY_4_FROM = datetime(2023, 10, 1, tzinfo=UTC)
#: TCF v2.3: the disclosed-vendors segment is mandatory in strings made after 28 February 2026.
_DISCLOSED_FROM = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Restriction:
    """A publisher's restriction on one purpose for some vendors."""

    purpose: int
    kind: int
    vendors: Ids


@dataclass(frozen=True)
class PublisherTC:
    """What the person told the publisher for its own purposes, standard and custom ones, by number."""

    consents: tuple[int, ...]
    legitimate_interests: tuple[int, ...]
    custom_purposes: int
    custom_consents: tuple[int, ...]
    custom_legitimate_interests: tuple[int, ...]


@dataclass(frozen=True)
class TcString:
    """A decoded TC string. Purposes and special features are the numbers whose bit is set; vendors likewise.

    `disclosed`, `allowed` and `publisher` are None when the string has no such segment.
    """

    version: int
    created: datetime
    last_updated: datetime
    cmp_id: int
    cmp_version: int
    consent_screen: int
    consent_language: str
    vendor_list_version: int
    policy_version: int
    is_service_specific: bool
    use_non_standard_texts: bool
    special_feature_opt_ins: tuple[int, ...]
    purpose_consents: tuple[int, ...]
    purpose_legitimate_interests: tuple[int, ...]
    purpose_one_treatment: bool
    publisher_country: str
    vendor_consents: Ids
    vendor_legitimate_interests: Ids
    restrictions: tuple[Restriction, ...]
    disclosed: Ids | None
    allowed: Ids | None
    publisher: PublisherTC | None

    def restricted(self, purpose: int, vendor: int) -> frozenset[int]:
        """The types of restriction that the publisher set on that purpose for that vendor."""
        return frozenset(r.kind for r in self.restrictions if r.purpose == purpose and vendor in r.vendors)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; names as the IAB's JavaScript library has them, vendors as ranges of text."""
        publisher = self.publisher
        return {
            "version": self.version,
            "created": _iso(self.created),
            "lastUpdated": _iso(self.last_updated),
            "cmpId": self.cmp_id,
            "cmpVersion": self.cmp_version,
            "consentScreen": self.consent_screen,
            "consentLanguage": self.consent_language,
            "vendorListVersion": self.vendor_list_version,
            "policyVersion": self.policy_version,
            "isServiceSpecific": self.is_service_specific,
            "useNonStandardTexts": self.use_non_standard_texts,
            "purposeOneTreatment": self.purpose_one_treatment,
            "publisherCountryCode": self.publisher_country,
            "specialFeatureOptins": list(self.special_feature_opt_ins),
            "purposeConsents": list(self.purpose_consents),
            "purposeLegitimateInterests": list(self.purpose_legitimate_interests),
            "vendorConsents": self.vendor_consents.texts(),
            "vendorLegitimateInterests": self.vendor_legitimate_interests.texts(),
            "publisherRestrictions": [
                {"purposeId": r.purpose, "restrictionType": r.kind, "vendors": r.vendors.texts()}
                for r in self.restrictions
            ],
            "vendorsDisclosed": None if self.disclosed is None else self.disclosed.texts(),
            "vendorsAllowed": None if self.allowed is None else self.allowed.texts(),
            "publisher": None
            if publisher is None
            else {
                "consents": list(publisher.consents),
                "legitimateInterests": list(publisher.legitimate_interests),
                "numCustomPurposes": publisher.custom_purposes,
                "customConsents": list(publisher.custom_consents),
                "customLegitimateInterests": list(publisher.custom_legitimate_interests),
            },
            "problems": list(problems(self)),
        }


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decode_tc(text: str, cmp_needed: bool = True) -> TcString:
    """Decode a TC string. Raises ConsentError `signal.encoding`, `signal.value`, `signal.version`.

    `cmp_needed`: refuse a string that names no consent management platform (id 0 or 1), as the IAB's library
    for TC strings does; its library for GPP strings does not.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise malformed("the TC string", f"it is no text of at most {MAX_CHARS} characters")
    core, *others = text.split(".")
    fields = _core(core, cmp_needed)
    segments: dict[int, Any] = {}
    for other in others:
        bits = Bits(other, "a segment of the TC string")
        kind = bits.number(3, "SegmentType")
        if kind not in (_DISCLOSED, _ALLOWED, _PUBLISHER):
            raise not_allowed("a segment of the TC string", f"SegmentType {kind} is not known")
        if kind in segments:
            # Two lists of one kind contradict each other: the reader must not choose.
            raise not_allowed("the TC string", f"two segments have the SegmentType {kind}")
        segments[kind] = _publisher(bits) if kind == _PUBLISHER else bits.optimised("the vendor list")
        bits.end()
    return TcString(
        **fields,
        disclosed=segments.get(_DISCLOSED),
        allowed=segments.get(_ALLOWED),
        publisher=segments.get(_PUBLISHER),
    )


def _numbers(flags: tuple[bool, ...]) -> tuple[int, ...]:
    return tuple(number for number, flag in enumerate(flags, 1) if flag)


def _core(text: str, cmp_needed: bool) -> dict[str, Any]:
    bits = Bits(text, "the core of the TC string")
    version = bits.number(6, "Version")
    if version != 2:
        raise ConsentError("signal.version", f"the TC string has version {version}; only version 2 is read")
    fields: dict[str, Any] = {
        "version": version,
        "created": bits.moment("Created"),
        "last_updated": bits.moment("LastUpdated"),
        "cmp_id": bits.number(12, "CmpId"),
        "cmp_version": bits.number(12, "CmpVersion"),
        "consent_screen": bits.number(6, "ConsentScreen"),
        "consent_language": bits.letters("ConsentLanguage"),
        "vendor_list_version": bits.number(12, "VendorListVersion"),
        "policy_version": bits.number(6, "TcfPolicyVersion"),
        "is_service_specific": bits.flag("IsServiceSpecific"),
        "use_non_standard_texts": bits.flag("UseNonStandardTexts"),
        "special_feature_opt_ins": _numbers(bits.flags(_SPECIAL_FEATURES, "SpecialFeatureOptIns")),
        "purpose_consents": _numbers(bits.flags(_PURPOSES, "PurposesConsent")),
        "purpose_legitimate_interests": _numbers(bits.flags(_PURPOSES, "PurposesLITransparency")),
        "purpose_one_treatment": bits.flag("PurposeOneTreatment"),
        "publisher_country": bits.letters("PublisherCC"),
        "vendor_consents": bits.optimised("the vendors' consents"),
        "vendor_legitimate_interests": bits.optimised("the vendors' legitimate interests"),
        "restrictions": _restrictions(bits),
    }
    if cmp_needed and fields["cmp_id"] < 2:
        raise not_allowed(bits.what, f"CmpId {fields['cmp_id']} is nobody's, so nobody stands for the string")
    bits.end()
    return fields


def _restrictions(bits: Bits) -> tuple[Restriction, ...]:
    found = []
    for _ in range(bits.number(12, "NumPubRestrictions")):
        purpose = bits.number(6, "PubRestrictions")
        kind = bits.number(2, "PubRestrictions")
        if not 1 <= purpose <= _PURPOSES or kind >= _RESTRICTIONS:
            raise not_allowed(bits.what, f"a publisher restriction has purpose {purpose} and type {kind}")
        found.append(Restriction(purpose, kind, bits.ranges("PubRestrictions", 65_535)))
    return tuple(found)


def _publisher(bits: Bits) -> PublisherTC:
    consents = _numbers(bits.flags(_PURPOSES, "PubPurposesConsent"))
    interests = _numbers(bits.flags(_PURPOSES, "PubPurposesLITransparency"))
    count = bits.number(6, "NumCustomPurposes")
    custom = _numbers(bits.flags(count, "CustomPurposesConsent"))
    return PublisherTC(
        consents, interests, count, custom, _numbers(bits.flags(count, "CustomPurposesLITransparency"))
    )


def problems(tc: TcString) -> tuple[str, ...]:
    """Why the policy does not take this string for consent; its refusals stay refusals.

    `no_cmp`, `not_service_specific` (since v2.2 a string for several services is invalid), `old_policy`,
    `no_disclosed_vendors` (v2.3).
    """
    found = []
    if tc.cmp_id < 2:
        found.append("no_cmp")
    if not tc.is_service_specific and tc.last_updated >= _POLICY_4_FROM:
        found.append("not_service_specific")
    if tc.policy_version < 4 and tc.last_updated >= _POLICY_4_FROM:
        found.append("old_policy")
    if tc.disclosed is None and tc.last_updated >= _DISCLOSED_FROM:
        found.append("no_disclosed_vendors")
    return tuple(found)
