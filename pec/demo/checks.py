"""Checks of the demonstration against the truth that only it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pec.demo.data import BRAND, PROVIDER_A, DemoData, loyal

#: Reasons of the gate that are about identifiers and not about consent.
IDENTIFIERS = {"identifier_null", "identifier_invalid", "identifier_duplicate", "identifier_conflict"}
EXPECTED_CODES = {
    "no_consent": {"consent.nobody", "gate.nobody"},
    "no_agreement": {"agreement.unknown"},
    "tag_not_agreed": {"agreement.column"},
    "less_privacy": {"agreement.privacy"},
}


def agreed(made: DemoData, party: str, recipient: str) -> npt.NDArray[np.bool_]:
    """bool[people]: whom `party` may use for `recipient`, by what was generated."""
    granted: npt.NDArray[np.bool_] = made.fates[party][recipient] == "granted"
    return granted


def both(made: DemoData, provider: str) -> npt.NDArray[np.bool_]:
    """bool[people]: in both files, with consent on both sides."""
    return np.logical_and(agreed(made, BRAND, provider), agreed(made, provider, BRAND))


def expected_overlap(made: DemoData, provider: str) -> int:
    return int(both(made, provider).sum())


def allowed_leads(made: DemoData, provider: str) -> npt.NDArray[np.int64]:
    """Lines of the list of leads whose tags the brand may get and the provider has."""
    return np.flatnonzero(both(made, provider)[made.lead_people])


def who_withdraws(made: DemoData, provider: str, each: int) -> dict[str, list[str]]:
    """`each` seeds who are in the job, to withdraw at the brand, and as many others at the provider."""
    rng = np.random.default_rng(11)
    seeds = np.flatnonzero(both(made, provider) & loyal(made.people))
    at_brand = rng.choice(seeds, each, replace=False)
    rest = np.setdiff1d(np.flatnonzero(agreed(made, provider, BRAND)), at_brand)
    at_provider = rng.choice(rest, each, replace=False)
    return {BRAND: made.phones[at_brand].tolist(), provider: made.phones[at_provider].tolist()}


def consent_failures(made: DemoData, provider: str, consent: Mapping[str, Any]) -> list[str]:
    """Where a job's counts by reason differ from what was generated."""
    out = []
    for side, party, recipient in (("brand", BRAND, provider), ("provider", provider, BRAND)):
        fates = made.fates[party][recipient]
        want = int((fates == "granted").sum())
        got = consent[side]["in"]
        if got != want:
            out.append(f"{party} for {recipient}: {got} people in, {want} agreed")
        refused = sum(n for reason, n in consent[side]["out"].items() if reason not in IDENTIFIERS)
        held = int(made.held[party].sum())
        if refused != held - want:
            out.append(f"{party} for {recipient}: {refused} people out, {held - want} did not agree")
    return out


def failures(report: Mapping[str, Any], gap: Mapping[float | None, float]) -> list[str]:
    """Every promise of the demonstration that its own report does not keep."""
    out = []
    for job in report["jobs"]:
        name = f"{job['kind']} with {job['provider']}"
        if not job["audit_verified"]:
            out.append(f"{name}: the audit bundle does not verify")
        if job["kind"] == "enrich" and (job["wrong"] or job["missed"] or job["without_consent"]):
            figures = ", ".join(f"{job[k]} {k}" for k in ("wrong", "missed", "without_consent"))
            out.append(f"{name}: {figures}")
        if job["kind"] == "overlap" and abs(job["count"] - job["expected"]) > 5:
            out.append(f"{name}: {job['count']} counted, {job['expected']} expected")
        if job["kind"] == "lookalike":
            far = abs(job["auc"] - job["pooled_auc"])
            if far > gap[job["epsilon"]]:
                out.append(f"{name}: AUC {job['auc']:.4f} is {far:.4f} from pooled {job['pooled_auc']:.4f}")
    if report["withdrawn_midway"]["found_in_result"]:
        out.append(f"{report['withdrawn_midway']['found_in_result']} withdrawn people are in the result")
    for refusal in report["refusals"]:
        case = refusal["case"]
        if refusal["code"] not in EXPECTED_CODES[case] or refusal["files"]:
            out.append(f"{case}: ended as {refusal['state']} with {refusal['code'] or 'no error'}")
    if report["consent"][PROVIDER_A]["in"] < 1:
        out.append("nobody took part")
    return out
