"""The table from signals to this center's purposes, and what a signal means under it.

The table is data (`example.json` beside this file; docs/consent.md explains every member). A rule is for one
purpose and one recipient, as every consent is. What it can conclude:

    granted      every TCF condition of the rule holds, and the string is valid under the policy
    denied       a TCF condition does not hold
    opted_out    a GPC signal or an opt-out field that the rule names is set; outweighs a grant
    nothing      the signal says nothing about the purpose, or a grant that the policy does not let count
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from consent_center.errors import ConsentError
from consent_center.ledger.verify import canonical
from consent_center.model import Notice, Purpose
from consent_center.registry import is_name
from consent_center.signals import us_layouts
from consent_center.signals.signal import GPC, Signal
from consent_center.signals.tcf import NOT_ALLOWED, REQUIRE_LEGITIMATE_INTEREST, TcString, problems

GRANTED, DENIED, OPTED_OUT, NOTHING = "granted", "denied", "opted_out", "nothing"
_MAX_RULES = 1_000
#: `section.Field`, `us.Field` for every US section, with a position (from 1) in lists; or `gpc`.
_OPT_OUT = re.compile(r"gpc|(?P<section>[a-z0-9]+)\.(?P<field>[A-Z][A-Za-z]+)(?:\.(?P<place>[1-9][0-9]?))?")
_FIELDS = frozenset(name for layout in us_layouts.LAYOUTS.values() for name, _ in layout.fields) | {"Gpc"}
#: Fields in which 1 means that the person says no; in notices and MSPA fields it means something else.
_REFUSING = re.compile(r"(Sale|Sharing|TargetedAdvertising)OptOut|SensitiveDataProcessing|Gpc|.*Consents?")


@dataclass(frozen=True)
class Rule:
    """One line of the table. `vendor` 0: the string's purposes alone decide."""

    purpose: str
    recipient: str
    categories: tuple[str, ...] = ()  # empty: all of the purpose's
    regulation: str = "GDPR"
    purpose_version: int = 0  # what a grant is for; needed where the rule can grant
    notice: str = ""
    notice_version: int = 0
    tcf_consents: tuple[int, ...] = ()
    tcf_special_features: tuple[int, ...] = ()
    vendor: int = 0
    canada_express: tuple[int, ...] = ()
    opt_out: tuple[str, ...] = ()

    @property
    def grants(self) -> bool:
        return bool(self.tcf_consents or self.tcf_special_features or self.canada_express)


@dataclass(frozen=True)
class Mapping:
    """A checked table."""

    rules: tuple[Rule, ...]

    @property
    def sha256(self) -> str:
        """Of the canonical JSON; stands in the evidence of every event made by this table."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        rules = [
            {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(r).items()} for r in self.rules
        ]
        return {"format": "pec.signals/1", "rules": rules}


@dataclass(frozen=True)
class Outcome:
    """What the signals mean for one rule: `because` in words, `source` the signal that decided."""

    rule: Rule
    outcome: str
    because: tuple[str, ...]
    source: Signal | None = None


def _wrong(where: str, why: str) -> ConsentError:
    return ConsentError("signal.mapping", f"{where}: {why}")


def parse(document: object) -> Mapping:
    """Check a table's JSON. Raises ConsentError `signal.mapping` naming the rule and the member."""
    if not isinstance(document, dict) or document.get("format") != "pec.signals/1":
        raise _wrong("the table", 'it must be a JSON object with "format": "pec.signals/1"')
    strange = set(document) - {"format", "rules", "comment"}
    listed = document.get("rules")
    if strange or not isinstance(listed, list) or not 1 <= len(listed) <= _MAX_RULES:
        raise _wrong("the table", f"it has `rules` (1 to {_MAX_RULES}), `comment`, and nothing else")
    rules = tuple(_rule(entry, f"rule {number}") for number, entry in enumerate(listed, 1))
    seen: set[tuple[str, str, str]] = set()
    for number, rule in enumerate(rules, 1):
        key = (rule.purpose, rule.recipient, rule.regulation)
        if key in seen:
            raise _wrong(f"rule {number}", f"a second rule for {', '.join(key)}; they could contradict")
        seen.add(key)
    return Mapping(rules)


def loads(text: str) -> Mapping:
    """Parse a table's text. ConsentError `signal.mapping`."""
    try:
        return parse(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _wrong("the table", f"it is no JSON: {error}") from None


def _rule(entry: object, where: str) -> Rule:
    names = set(Rule.__dataclass_fields__)
    if not isinstance(entry, dict) or set(entry) - names - {"comment"}:
        strange = ", ".join(sorted(set(entry) - names)) if isinstance(entry, dict) else "no object"
        raise _wrong(where, f"unknown: {strange}; known: {', '.join(sorted(names))}, comment")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k != "comment"}
    for name in ("purpose", "recipient"):
        if not is_name(fields.get(name)):
            raise _wrong(where, f"`{name}` must name exactly one, without blanks and , ; | * +")
    rule = Rule(**fields)  # type: ignore[arg-type]
    if not is_name(rule.regulation) or (rule.notice and not is_name(rule.notice)):
        raise _wrong(where, "`regulation` and `notice` are names")
    if not isinstance(rule.categories, tuple) or not all(is_name(name) for name in rule.categories):
        raise _wrong(where, "`categories` is a list of names")
    for name, most in (("tcf_consents", 24), ("tcf_special_features", 12), ("canada_express", 24)):
        _numbers(getattr(rule, name), most, f"{where}, `{name}`")
    for name, most in (("vendor", 65_535), ("purpose_version", 1 << 31), ("notice_version", 1 << 31)):
        _number(getattr(rule, name), 0, most, f"{where}, `{name}`")
    if rule.vendor and not rule.grants:
        raise _wrong(where, "`vendor` needs `tcf_consents`, `tcf_special_features` or `canada_express`")
    if rule.grants and not (rule.purpose_version and rule.notice and rule.notice_version):
        raise _wrong(where, "a rule that can grant names purpose_version, notice and notice_version")
    _check_opt_out(rule, where)
    if not rule.grants and not rule.opt_out:
        raise _wrong(where, "it neither grants nor opts out")
    return rule


def _number(value: object, least: int, most: int, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(where, f"{value!r} is no whole number from {least} to {most}")


def _numbers(values: object, most: int, where: str) -> None:
    if not isinstance(values, tuple) or len(values) > most:
        raise _wrong(where, "it is a list of numbers")
    for value in values:
        _number(value, 1, most, where)


def _check_opt_out(rule: Rule, where: str) -> None:
    if not isinstance(rule.opt_out, tuple):
        raise _wrong(where, "`opt_out` is a list of texts")
    for text in rule.opt_out:
        match = _OPT_OUT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise _wrong(where, f"`opt_out` {text!r} is neither gpc nor like us.SaleOptOut or usnat.Gpc")
        section, field = match["section"], match["field"]
        if section is None or (section, field) == ("uspv1", "OptOutSale"):
            continue
        if section != "us" and section not in us_layouts.NAMES:
            raise _wrong(where, f"`opt_out` {text!r}: no section {section!r}; `us` stands for all of the US")
        if field not in _FIELDS or not _REFUSING.fullmatch(field):
            raise _wrong(where, f"`opt_out` {text!r}: {field} is no field by which a person says no")


def check(mapping: Mapping, purposes: Sequence[Purpose], notices: Sequence[Notice]) -> None:
    """Whether all that the table names is registered. ConsentError `signal.mapping`."""
    known = {(p.id, p.version): p for p in purposes}
    texts = {(n.id, n.version): n for n in notices}
    for number, rule in enumerate(mapping.rules, 1):
        versions = [version for id, version in known if id == rule.purpose]
        if not versions:
            raise _wrong(f"rule {number}", f"no purpose {rule.purpose!r} is registered")
        version = rule.purpose_version or max(versions)
        purpose = known.get((rule.purpose, version))
        if purpose is None:
            raise _wrong(f"rule {number}", f"{rule.purpose} has no version {version}")
        strange = set(rule.categories) - set(purpose.categories)
        if strange:
            raise _wrong(f"rule {number}", f"{rule.purpose} has no category {', '.join(sorted(strange))}")
        if rule.notice:
            notice = texts.get((rule.notice, rule.notice_version))
            if notice is None or (notice.purpose, notice.purpose_version) != (purpose.id, purpose.version):
                raise _wrong(
                    f"rule {number}",
                    f"notice {rule.notice!r} version {rule.notice_version} is not one of "
                    f"{purpose.id} version {purpose.version}",
                )


# ---- what signals mean --------------------------------------------------------------------------------


def judge(signals: Sequence[Signal], mapping: Mapping) -> list[Outcome]:
    """One outcome a rule. An opt-out in any signal outweighs all; a refusal outweighs another's grant."""
    return [_judge_rule(signals, rule) for rule in mapping.rules]


def _judge_rule(signals: Sequence[Signal], rule: Rule) -> Outcome:
    for signal in signals:
        hits = _opt_outs(signal, rule)
        if hits:
            return Outcome(rule, OPTED_OUT, tuple(hits), signal)
    found: list[Outcome] = []
    for signal in signals:
        found += [Outcome(rule, *result, signal) for result in _tcf(signal, rule)]
    for wanted in (DENIED, GRANTED, NOTHING):
        for outcome in found:
            if outcome.outcome == wanted:
                return outcome
    return Outcome(rule, NOTHING, ("no signal speaks of this purpose",))


def _opt_outs(signal: Signal, rule: Rule) -> list[str]:
    hits: list[str] = []
    for text in rule.opt_out:
        match = _OPT_OUT.fullmatch(text)
        if match is None or match["section"] is None:
            hits += ["Sec-GPC: 1"] if signal.kind == GPC else []
        elif signal.gpp is not None:
            hits += _field_hits(signal.gpp.sections, match["section"], match["field"], match["place"])
    if "gpc" in rule.opt_out and signal.gpp is not None:
        # The same wish as the header, relayed inside the string.
        hits += [h for h in _field_hits(signal.gpp.sections, "us", "Gpc", None) if h not in hits]
    return hits


def _field_hits(sections: dict[str, Any], section: str, field: str, place: str | None) -> list[str]:
    hits = []
    for name, body in sections.items():
        if name != section and not (section == "us" and name in us_layouts.NAMES):
            continue
        value = body.get(field)
        if isinstance(value, tuple):
            asked = range(1, len(value) + 1) if place is None else [int(place)]
            hits += [f"{name}.{field}.{i} = 1" for i in asked if i <= len(value) and value[i - 1] == 1]
        elif value is True or value == "Y" or (value == 1 and not isinstance(value, bool)):
            hits.append(f"{name}.{field} = {1 if value is True else value}")
    return hits


def _tcf(signal: Signal, rule: Rule) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    if signal.tc is not None and (rule.tcf_consents or rule.tcf_special_features):
        found.append(_europe(signal.tc, rule))
    canada = None if signal.gpp is None else signal.gpp.sections.get("tcfcav1")
    if canada is not None and rule.canada_express:
        found.append(_canada(canada, rule))
    return found


def _europe(tc: TcString, rule: Rule) -> tuple[str, tuple[str, ...]]:
    missing = [f"no consent to TCF purpose {n}" for n in rule.tcf_consents if n not in tc.purpose_consents]
    if missing == ["no consent to TCF purpose 1"] and tc.purpose_one_treatment:
        return NOTHING, ("TCF purpose 1 was not disclosed (PurposeOneTreatment)",)
    wanted = rule.tcf_special_features
    missing += [f"no opt-in to special feature {n}" for n in wanted if n not in tc.special_feature_opt_ins]
    if rule.vendor:
        missing += _vendor(tc, rule)
    if missing:
        return DENIED, tuple(missing)
    wrong = problems(tc)
    if wrong:
        # What the policy calls invalid is no consent; that is no refusal by the person either.
        return NOTHING, tuple(f"not valid under the TCF policy: {name}" for name in wrong)
    return GRANTED, tuple(
        [f"consent to TCF purpose {n}" for n in rule.tcf_consents]
        + [f"opt-in to special feature {n}" for n in wanted]
        + ([f"consent to vendor {rule.vendor}"] if rule.vendor else [])
    )


def _vendor(tc: TcString, rule: Rule) -> list[str]:
    missing = []
    if rule.vendor not in tc.vendor_consents:
        missing.append(f"no consent to vendor {rule.vendor}")
    if tc.disclosed is not None and rule.vendor not in tc.disclosed:
        missing.append(f"vendor {rule.vendor} was not disclosed")
    for purpose in rule.tcf_consents:
        if tc.restricted(purpose, rule.vendor) & {NOT_ALLOWED, REQUIRE_LEGITIMATE_INTEREST}:
            missing.append(f"the publisher restricts purpose {purpose} for vendor {rule.vendor}")
    return missing


def _canada(section: dict[str, Any], rule: Rule) -> tuple[str, tuple[str, ...]]:
    express = section["PurposesExpressConsent"]
    missing = [
        f"no express consent to purpose {n} (Canada)" for n in rule.canada_express if not express[n - 1]
    ]
    if rule.vendor and rule.vendor not in section["VendorExpressConsent"]:
        missing.append(f"no express consent to vendor {rule.vendor} (Canada)")
    if missing:
        return DENIED, tuple(missing)
    if section["CmpId"] < 2:
        return NOTHING, ("the string names no consent management platform",)
    return GRANTED, tuple(f"express consent to purpose {n} (Canada)" for n in rule.canada_express)
