"""The sections for the United States (national and by state) as a table of fields in their order.

Every field but the version has two bits: 0 not applicable, 1 and 2 as its page says (for opt-outs 1 is
"opted out", for consents and sensitive data 1 is "no consent", for notices 1 is "given"); 3 is not allowed.
`Name*8` is a list of eight. Source: the section pages of IAB Tech Lab's Global Privacy Platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from consent_center.errors import ConsentError
from consent_center.signals.bits import Bits, malformed, not_allowed

_TARGETED = "SaleOptOutNotice TargetedAdvertisingOptOutNotice SaleOptOut TargetedAdvertisingOptOut"
_MSPA = "MspaCoveredTransaction MspaOptOutOptionMode MspaServiceProviderMode"
_SHARING, _PROCESSING = f"SharingNotice {_TARGETED}", f"ProcessingNotice {_TARGETED}"
_ADDITIONAL = f"AdditionalDataProcessingConsent {_MSPA}"
_CHILD = "KnownChildSensitiveDataConsents"
_MODE = f"MspaCoveredTransaction MspaMode ProcessingNotice {_TARGETED}"

#: What a section may have after its core: the GPC bit, or the sensitive data of the newest states.
_GPC, _SENSITIVE, _NONE = "gpc", "sensitive", ""


@dataclass(frozen=True)
class Layout:
    """One section: its name, the versions that are known, its core's fields, its second segment."""

    name: str
    fields: tuple[tuple[str, int], ...]  # (name, how many; 1 is a single value)
    second: str
    versions: tuple[int, ...] = (1,)
    version_field: str = "Version"


def _layout(name: str, fields: str, second: str = _GPC, **more: Any) -> Layout:
    pairs = [part.partition("*")[::2] for part in fields.split()]
    return Layout(name, tuple((field, int(count or 1)) for field, count in pairs), second, **more)


def _modern(name: str, fields: str, second: str) -> Layout:
    return _layout(name, f"{_MODE} {fields}", second, version_field="MspaVersion")


_NATIONAL = (
    "SharingNotice SaleOptOutNotice SharingOptOutNotice TargetedAdvertisingOptOutNotice "
    "SensitiveDataProcessingOptOutNotice SensitiveDataLimitUseNotice SaleOptOut SharingOptOut "
    "TargetedAdvertisingOptOut SensitiveDataProcessing*16 KnownChildSensitiveDataConsents*3 "
    f"PersonalDataConsents {_MSPA}"
)
_CALIFORNIA = (
    "SaleOptOutNotice SharingOptOutNotice SensitiveDataLimitUseNotice SaleOptOut SharingOptOut "
    f"SensitiveDataProcessing*9 {_CHILD}*2 PersonalDataConsents {_MSPA}"
)
_UTAH = (
    "SharingNotice SaleOptOutNotice TargetedAdvertisingOptOutNotice SensitiveDataProcessingOptOutNotice "
    f"SaleOptOut TargetedAdvertisingOptOut SensitiveDataProcessing*8 {_CHILD} {_MSPA}"
)
_IOWA = (
    "ProcessingNotice SaleOptOutNotice TargetedAdvertisingOptOutNotice SensitiveDataOptOutNotice SaleOptOut "
    f"TargetedAdvertisingOptOut SensitiveDataProcessing*8 {_CHILD} {_MSPA}"
)

#: By section id.
LAYOUTS: dict[int, Layout] = {
    7: _layout("usnat", _NATIONAL, versions=(1, 2)),
    8: _layout("usca", _CALIFORNIA),
    9: _layout("usva", f"{_SHARING} SensitiveDataProcessing*8 {_CHILD} {_MSPA}", _NONE),
    10: _layout("usco", f"{_SHARING} SensitiveDataProcessing*7 {_CHILD} {_MSPA}"),
    11: _layout("usut", _UTAH, _NONE),
    12: _layout("usct", f"{_SHARING} SensitiveDataProcessing*8 {_CHILD}*3 {_MSPA}"),
    13: _layout("usfl", f"{_PROCESSING} SensitiveDataProcessing*8 {_CHILD}*3 {_ADDITIONAL}", _NONE),
    14: _layout("usmt", f"{_SHARING} SensitiveDataProcessing*8 {_CHILD}*3 {_ADDITIONAL}"),
    15: _layout("usor", f"{_PROCESSING} SensitiveDataProcessing*11 {_CHILD}*3 {_ADDITIONAL}"),
    16: _layout("ustx", f"{_PROCESSING} SensitiveDataProcessing*8 {_CHILD} {_ADDITIONAL}"),
    17: _layout("usde", f"{_PROCESSING} SensitiveDataProcessing*9 {_CHILD}*5 {_ADDITIONAL}"),
    18: _layout("usia", _IOWA),
    19: _layout("usne", f"{_PROCESSING} SensitiveDataProcessing*8 {_CHILD} {_ADDITIONAL}"),
    20: _layout("usnh", f"{_PROCESSING} SensitiveDataProcessing*8 {_CHILD}*3 {_ADDITIONAL}"),
    21: _layout("usnj", f"{_PROCESSING} SensitiveDataProcessing*10 {_CHILD}*5 {_ADDITIONAL}"),
    22: _layout("ustn", f"{_PROCESSING} SensitiveDataProcessing*8 {_CHILD} {_ADDITIONAL}"),
    23: _layout("usmn", f"{_PROCESSING} SensitiveDataProcessing*8 {_CHILD} {_ADDITIONAL}"),
    24: _modern("usmd", "AdditionalDataProcessingConsent", _GPC),
    25: _modern("usin", f"{_CHILD} AdditionalDataProcessingConsent", _SENSITIVE),
    26: _modern("usky", f"{_CHILD} AdditionalDataProcessingConsent", _SENSITIVE),
    27: _modern("usri", f"{_CHILD} AdditionalDataProcessingConsent", _SENSITIVE),
}
NAMES: frozenset[str] = frozenset(layout.name for layout in LAYOUTS.values())


def decode(layout: Layout, text: str) -> dict[str, Any]:
    """The fields of one section; of the second segment only what is there. ConsentError `signal.*`."""
    core, *others = text.split(".")
    if len(others) > (1 if layout.second else 0):
        raise malformed(f"section {layout.name}", f"it has {len(others) + 1} segments")
    bits = Bits(core, f"the core of section {layout.name}")
    version = bits.number(6, layout.version_field)
    if version not in layout.versions:
        # The fields of another version stand elsewhere: an opt-out could be read as none.
        known = " and ".join(map(str, layout.versions))
        raise ConsentError("signal.version", f"section {layout.name} has version {version}; known: {known}")
    fields: dict[str, Any] = {layout.version_field: version}
    if layout.name == "usnat":
        _as_newest(bits)
    for name, count in layout.fields:
        values = tuple(_value(bits, name) for _ in range(count))
        fields[name] = values if count > 1 else values[0]
    bits.end()
    if layout.name == "usnat" and version == 1:
        _as_first(fields)
    for other in others:
        fields |= _second(layout, other)
    return fields


def _value(bits: Bits, field: str) -> int:
    value = bits.number(2, field)
    if value == 3:
        raise not_allowed(bits.what, f"{field} is 3; allowed are 0, 1 and 2")
    return value


def _second(layout: Layout, text: str) -> dict[str, Any]:
    bits = Bits(text, f"the second segment of section {layout.name}")
    if layout.second == _SENSITIVE:
        name = "SensitiveDataProcessing"
        found: dict[str, Any] = {name: tuple(_value(bits, name) for _ in range(8))}
    else:
        kind = bits.number(2, "SegmentType")
        if kind != 1:
            raise not_allowed(bits.what, f"its type is {kind}; known is 1, GPC")
        found = {"GpcSegmentType": kind, "Gpc": bits.flag("Gpc")}
    bits.end()
    return found


#: The first layout of `usnat` had 12 and 2 members in its lists, and so 60 bits (66 with padding).
_OLD_BITS, _OLD_SENSITIVE_END, _OLD_CHILD_END = (60, 66), 48, 52


def _as_newest(bits: Bits) -> None:
    """Libraries wrote either layout under either version, so the length decides, as in the IAB's library."""
    if bits.left() + 6 in _OLD_BITS:
        bits.widen(_OLD_CHILD_END, 2)
        bits.widen(_OLD_SENSITIVE_END, 8)


def _as_first(fields: dict[str, Any]) -> None:
    """Version 1 has shorter lists. What a library wrote beyond them is kept: it may be an opt-out."""
    for name, count in (("SensitiveDataProcessing", 12), ("KnownChildSensitiveDataConsents", 2)):
        if not any(fields[name][count:]):
            fields[name] = fields[name][:count]
