"""Strings of the IAB's Global Privacy Platform: header, and the sections of the EU, Canada and the US.

Source: IAB Tech Lab, "Global Privacy Platform", consent string specification and its section pages; field
names as in the IAB's library. A section that is not known here stays closed (`unknown`) and means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from consent_center.errors import ConsentError
from consent_center.signals import us_layouts
from consent_center.signals.bits import MAX_CHARS, Bits, Ids, malformed, not_allowed
from consent_center.signals.tcf import TcString, decode_tc

_HEADER_TYPE, _HEADER_VERSION = 3, 1
_TCFEU, _TCFCA, _USP = 2, 5, 6
_TEXT = re.compile(r"[A-Za-z0-9_.~-]*")
_USP_TEXT = re.compile(r"1[YN-]{3}")
_MAX_SECTION_ID = 4_095


@dataclass(frozen=True)
class GppString:
    """A decoded GPP string. `sections` maps a section's name to its fields, in the string's order.

    `tcfeuv2` is a TcString, the others are dicts by the specification's field names; vendors are `Ids`.
    """

    section_ids: tuple[int, ...]
    sections: dict[str, Any] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        plain = {
            name: body.to_json() if isinstance(body, TcString) else {k: _plain(v) for k, v in body.items()}
            for name, body in self.sections.items()
        }
        return {
            "sectionIds": list(self.section_ids),
            "sections": plain,
            "unknownSections": {str(number): text for number, text in self.unknown.items()},
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Ids):
        return value.texts()
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else value


def decode_gpp(text: str) -> GppString:
    """Decode a GPP string. Raises ConsentError `signal.encoding`, `signal.value`, `signal.version`."""
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise malformed("the GPP string", f"it is no text of at most {MAX_CHARS} characters")
    if not _TEXT.fullmatch(text):
        raise malformed("the GPP string", "it has other characters than letters, digits and - _ . ~")
    head, *parts = text.split("~")
    numbers = _header(head, len(parts))
    result = GppString(numbers)
    for number, part in zip(numbers, parts, strict=True):
        if not part:
            raise malformed("the GPP string", f"section {number} is empty")
        if number == _TCFEU:
            # A GPP string may carry an EU section of a publisher without a platform; `tcf.problems` tells.
            result.sections["tcfeuv2"] = decode_tc(part, cmp_needed=False)
        elif number == _TCFCA:
            result.sections["tcfcav1"] = _canada(part)
        elif number == _USP:
            result.sections["uspv1"] = _us_privacy(part)
        elif number in us_layouts.LAYOUTS:
            layout = us_layouts.LAYOUTS[number]
            result.sections[layout.name] = us_layouts.decode(layout, part)
        else:
            result.unknown[number] = part
    return result


def _header(text: str, parts: int) -> tuple[int, ...]:
    bits = Bits(text, "the header of the GPP string")
    kind, version = bits.number(6, "Type"), bits.number(6, "Version")
    if kind != _HEADER_TYPE:
        raise malformed(bits.what, f"its type is {kind}, not {_HEADER_TYPE}: this is no GPP string")
    if version != _HEADER_VERSION:
        raise ConsentError("signal.version", f"the GPP string has version {version}; only 1 is read")
    listed = bits.fibonacci_ranges("the section ids", _MAX_SECTION_ID)
    bits.end()
    if len(listed) != parts:
        raise malformed("the GPP string", f"its header announces {len(listed)} sections, it has {parts}")
    return tuple(listed)


def _us_privacy(text: str) -> dict[str, Any]:
    if not _USP_TEXT.fullmatch(text):
        raise not_allowed("section uspv1", "it must be 1 and three of Y, N and -")
    return {"Version": 1, "Notice": text[1], "OptOutSale": text[2], "LspaCovered": text[3]}


def _canada(text: str) -> dict[str, Any]:
    core, *others = text.split(".")
    fields = _either("the core of section tcfcav1", core, _canada_core)
    seen: set[int] = set()
    for other in others:
        kind = Bits(other, "a segment of section tcfcav1").number(3, "SegmentType")
        if kind in seen:
            raise not_allowed("section tcfcav1", f"two segments have the SegmentType {kind}")
        seen.add(kind)
        if kind == 1:
            fields |= _either("the disclosed vendors of section tcfcav1", other, _canada_disclosed)
        elif kind == 3:
            fields |= _either("the publisher segment of section tcfcav1", other, _canada_publisher)
        else:
            raise not_allowed("section tcfcav1", f"SegmentType {kind} is not known")
    return fields


def _either(what: str, text: str, read: Callable[[Bits, bool], dict[str, Any]]) -> dict[str, Any]:
    """By the specification vendor ranges are Fibonacci-coded; older libraries wrote 16-bit numbers.

    Whichever fits to the last bit is meant, the specification's first.
    """
    failed: ConsentError | None = None
    for fibonacci in (True, False):
        bits = Bits(text, what)
        try:
            fields = read(bits, fibonacci)
            bits.end()
            return fields
        except ConsentError as error:
            failed = failed or error
    raise failed or malformed(what, "it can't be read")


def _canada_core(bits: Bits, fibonacci: bool) -> dict[str, Any]:
    version = bits.number(6, "Version")
    if version != 1:
        raise ConsentError("signal.version", f"section tcfcav1 has version {version}; only 1 is read")
    fields: dict[str, Any] = {
        "Version": version,
        "Created": bits.moment("Created"),
        "LastUpdated": bits.moment("LastUpdated"),
        "CmpId": bits.number(12, "CmpId"),
        "CmpVersion": bits.number(12, "CmpVersion"),
        "ConsentScreen": bits.number(6, "ConsentScreen"),
        "ConsentLanguage": bits.letters("ConsentLanguage"),
        "VendorListVersion": bits.number(12, "VendorListVersion"),
        "TcfPolicyVersion": bits.number(6, "TcfPolicyVersion"),
        "UseNonStandardStacks": bits.flag("UseNonStandardStacks"),
        "SpecialFeatureExpressConsent": bits.flags(12, "SpecialFeatureExpressConsent"),
        "PurposesExpressConsent": bits.flags(24, "PurposesExpressConsent"),
        "PurposesImpliedConsent": bits.flags(24, "PurposesImpliedConsent"),
        "VendorExpressConsent": bits.optimised("VendorExpressConsent", fibonacci),
        "VendorImpliedConsent": bits.optimised("VendorImpliedConsent", fibonacci),
    }
    restrictions = []
    # The field came later than the rest; strings without it are in use.
    if bits.left() >= 12:
        for _ in range(bits.number(12, "PubRestrictions")):
            entry: dict[str, Any] = {
                "purpose": bits.number(6, "PubRestrictions"),
                "type": bits.number(2, "PubRestrictions"),
            }
            if not 1 <= entry["purpose"] <= 24:
                raise not_allowed(bits.what, f"a publisher restriction names purpose {entry['purpose']}")
            entry["vendors"] = (
                bits.optimised("PubRestrictions", True)
                if fibonacci
                else bits.ranges("PubRestrictions", 65_535)
            )
            restrictions.append(entry)
    fields["PubRestrictions"] = tuple(restrictions)
    return fields


def _canada_disclosed(bits: Bits, fibonacci: bool) -> dict[str, Any]:
    return {
        "DisclosedVendorsSegmentType": bits.number(3, "SegmentType"),
        "DisclosedVendors": bits.optimised("DisclosedVendors", fibonacci),
    }


def _canada_publisher(bits: Bits, _fibonacci: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "PubPurposesSegmentType": bits.number(3, "SegmentType"),
        "PubPurposesExpressConsent": bits.flags(24, "PubPurposesExpressConsent"),
        "PubPurposesImpliedConsent": bits.flags(24, "PubPurposesImpliedConsent"),
        "NumCustomPurposes": bits.number(6, "NumCustomPurposes"),
    }
    count = fields["NumCustomPurposes"]
    fields["CustomPurposesExpressConsent"] = bits.flags(count, "CustomPurposesExpressConsent")
    fields["CustomPurposesImpliedConsent"] = bits.flags(count, "CustomPurposesImpliedConsent")
    return fields
