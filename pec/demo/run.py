"""The main job on real data, through the public interfaces only: REST for consent, gRPC for jobs,
the command line for audits.

Three nodes run as separate processes, each with its own keys, certificate, databases and consent center.
What is known here and to nobody else (whose number is whose, who agreed to what) serves to check the results,
never to make them.
"""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from consent_center.client import open_center
from consent_center.records.assess import file_assessment
from parties.errors import NodeError
from pec import audits, jobs, oracle, outcome, plan, tables
from pec.demo import checks, data
from pec.demo.data import BRAND, PARTIES, PROVIDER_A, PROVIDER_B, DemoData
from pec.demo.rest import ConsentRest
from pec.errors import PecError
from pec.network import LocalNetwork
from pec.version import __version__

Show = Callable[[str], None]
AUDIENCE = 500
#: The jobs that the demonstration runs with each provider.
KINDS = ("overlap", "lookalike", "enrich")
EPSILON = {PROVIDER_A: 2.0, PROVIDER_B: None}
DELTA = 1e-6
#: The impact assessment (PIPL 55) that the agreements name and that is filed in each consent center.
ASSESSMENT = "PIA-2026-017"
CATEGORIES = {PROVIDER_A: ("household", "payment"), PROVIDER_B: ("services",)}
CATEGORY_OF = {
    **dict.fromkeys(["female", "senior_citizen", "partner", "dependents"], "household"),
    **dict.fromkeys(["paperless_billing", "payment_method"], "payment"),
    **dict.fromkeys(data.COLUMNS[PROVIDER_B], "services"),
    **dict.fromkeys([*data.COLUMNS[BRAND], "loyal", "lead"], "customer"),
}
ALL_CATEGORIES = ("household", "payment", "services")
UNASKED = "retargeting"
WITHDRAWN_EACH = 20
#: The bars of the product's own acceptance: how far the private AUC may be from the pooled one.
GAP = {None: 0.005, 2.0: 0.03}


@dataclass
class Demo:
    """What is gathered on the way."""

    out: Path
    show: Show
    network: LocalNetwork
    made: DemoData
    rest: dict[str, ConsentRest] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    bundles: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def agreement(self, provider: str) -> str:
        return f"{BRAND}-{provider}"


def run(out: Path, *, seed: int = 7, show: Show | None = None) -> dict[str, Any]:
    """The whole demonstration; the report that also stands in `out/report.json`."""
    began = time.monotonic()
    note = show or (lambda text: None)
    for old in ("nodes", "data", "audit"):
        shutil.rmtree(out / old, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    note("data: 7,043 real customers, three parties")
    made = _data(out / "data", seed)
    with LocalNetwork(out / "nodes", PARTIES, consent_rest=True) as network:
        demo = Demo(out, note, network, made)
        note("starting three nodes")
        network.start()
        _agreements(demo)
        preflight, imported = _imports(demo)
        for provider in (PROVIDER_A, PROVIDER_B):
            for kind in KINDS:
                _job(demo, kind, provider)
        midway = _withdraw_midway(demo, PROVIDER_B)
        refusals = _refusals(demo)
        cards = [network[party].client.card() for party in PARTIES]
    note("verifying the audit bundles, without the nodes")
    for found, job in zip(audits.verify_all_apart(demo.bundles, cards), demo.jobs, strict=True):
        job["audit_verified"] = bool(found["ok"])
    report = {
        "version": __version__,
        "generated_at": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": seed,
        "preflight": preflight,
        "imported": imported,
        "consent": _consent(demo),
        "jobs": demo.jobs,
        "withdrawn_midway": midway,
        "refusals": refusals,
    }
    failures = demo.failures + checks.failures(report, GAP)
    return {"ok": not failures, "seconds": round(time.monotonic() - began, 3), "failures": failures, **report}


# -- setting up ----------------------------------------------------------------------------------------------


def _data(folder: Path, seed: int) -> DemoData:
    purposes = [data.Purpose(k, 1, plan.notice_id(k), 1, ALL_CATEGORIES) for k in KINDS]
    return data.generate(folder, purposes=purposes, ids={p: p for p in PARTIES}, seed=seed)


def _agreements(demo: Demo) -> None:
    """Purposes and notices in each consent center (REST), one signed agreement with each provider (gRPC)."""
    titles = {**plan.PURPOSES, UNASKED: {"zh": "重定向广告", "en": "Show advertisements again"}}
    for party in PARTIES:
        node = demo.network[party]
        token = node.home.path / "consent" / "rest.token"
        demo.rest[party] = ConsentRest(node.rest, token)
        with open_center(f"{node.rest}#{token}") as center:
            plan.register_purposes(center, ALL_CATEGORIES, titles)
            others = (PROVIDER_A, PROVIDER_B) if party == BRAND else (BRAND,)
            for purpose, other in itertools.product(titles, others):
                file_assessment(center, purpose, other, ASSESSMENT, "pec demo")
    for provider in (PROVIDER_A, PROVIDER_B):
        demo.network.agree(
            plan.terms(
                id=demo.agreement(provider),
                brand=BRAND,
                provider=provider,
                purposes=[*KINDS, UNASKED],
                categories=CATEGORIES[provider],
                tags=data.TAGS[provider],
                epsilon=EPSILON[provider],
                delta=DELTA,
                # The first provider's operator approves every job, the second agreed to all kinds in advance.
                preapproved=() if provider == PROVIDER_A else KINDS,
                assessment=ASSESSMENT,
            )
        )


def _imports(demo: Demo) -> tuple[dict[str, Any], dict[str, Any]]:
    """Consent over REST, data sets over gRPC, and the pre-flight report on their identifiers."""
    preflight, imported = {}, {}
    for party in PARTIES:
        demo.show(f"consent events and data of {party}")
        node = demo.network[party]
        imported[party] = demo.rest[party].upload(demo.made.consent[party])
        if imported[party]["rejected"]:
            demo.failures.append(f"{party}: {imported[party]['rejected']} consent events were rejected")
        sets = {"people": demo.made.files[party]} | ({"leads": demo.made.leads} if party == BRAND else {})
        for name, path in sets.items():
            categories = {c: CATEGORY_OF[c] for c in tables.header(path) if c != "phone"}
            node.client.add_dataset(
                {
                    "name": name,
                    "path": str(path),
                    "id_column": "phone",
                    "id_kind": "phone",
                    "categories": categories,
                }
            )
        preflight[party] = node.client.preflight("people")
    return preflight, imported


# -- jobs ----------------------------------------------------------------------------------------------------


def _request(demo: Demo, kind: str, provider: str, **more: Any) -> dict[str, Any]:
    columns: list[str] = []
    private: dict[str, Any] = {}
    if kind == "lookalike":
        columns = data.COLUMNS[provider]
        private = {"label": "loyal", "audience_size": AUDIENCE, "holdout_seed": 1}
    elif kind == "enrich":
        columns = data.TAGS[provider]
    return plan.request(
        kind,
        provider=provider,
        agreement=more.pop("agreement", demo.agreement(provider)),
        datasets=("leads" if kind == "enrich" else "people", "people"),
        categories=CATEGORIES[provider],
        columns=more.pop("columns", columns),
        private=private,
        **more,
    )


def _job(demo: Demo, kind: str, provider: str) -> None:
    demo.show(f"{kind} with {provider}")
    seen, other = demo.network.run(BRAND, _request(demo, kind, provider))
    _gather(demo, provider, seen, other)


def _gather(demo: Demo, provider: str, seen: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    job = outcome.common(seen, other, provider)
    folder = demo.network[BRAND].home.job(seen["job_id"])
    if seen["kind"] == "overlap":
        job["count"] = seen["result"]["count"]
        job["expected"] = checks.expected_overlap(demo.made, provider)
    elif seen["kind"] == "enrich":
        job |= _enriched(demo, provider, seen["result"], folder)
    else:
        lines = demo.network[provider].client.rows(seen["job_id"])
        frame = tables.read(demo.made.files[provider])
        job |= outcome.lookalike(folder, seen["result"], lines, frame, data.COLUMNS[provider])
    bundle = audits.collect(demo.network[BRAND], seen["job_id"], demo.out / "audit")
    job["bundle"] = bundle.relative_to(demo.out).as_posix()
    demo.bundles.append(bundle)
    demo.jobs.append(job)
    return job


def _enriched(demo: Demo, provider: str, result: dict[str, Any], folder: Path) -> dict[str, Any]:
    found = pd.read_parquet(folder / "enriched.parquet")
    leads, held = tables.read(demo.made.leads), tables.read(demo.made.files[provider])
    pairs = oracle.join(leads["phone"], held["phone"], "phone")
    allowed = checks.allowed_leads(demo.made, provider)
    rows = found["row"].to_numpy()
    return {
        "asked": int(result["asked"]),
        "found": int(result["found"]),
        "wrong": oracle.wrong_tags(found, held, pairs, data.TAGS[provider]),
        "missed": int((~np.isin(allowed, rows)).sum()),
        "without_consent": int((~np.isin(rows, allowed)).sum()),
        "tags": data.TAGS[provider],
        "sample": found.head(3).drop(columns="row").astype(str).to_dict("records"),
    }


# -- withdrawal, refusals -----------------------------------------------------------------------------------


def _withdraw_midway(demo: Demo, provider: str) -> dict[str, Any]:
    """A lookalike that waits before it scores; meanwhile people withdraw on both sides; then it goes on."""
    demo.show(f"lookalike with {provider}, held; people withdraw meanwhile")
    brand, other = demo.network[BRAND].client, demo.network[provider].client
    request = _request(demo, "lookalike", provider, hold_before="score")
    job_id = brand.submit(request)
    held = jobs.until(brand, other, job_id, {jobs.HELD})
    if held["state"] != jobs.HELD:
        raise jobs.failure(held)
    people = checks.who_withdraws(demo.made, provider, WITHDRAWN_EACH)
    for party, recipient in ((BRAND, provider), (provider, BRAND)):
        for phone in people[party]:
            demo.rest[party].withdraw(phone, "lookalike", recipient)
    brand.resume(job_id)
    seen, theirs = jobs.finish(brand, other, job_id)
    job = _gather(demo, provider, seen, theirs)
    job["held_before"] = "score"
    folder = demo.network[BRAND].home.job(job_id)
    lines = other.rows(job_id)
    file = oracle.normalised(tables.read(demo.made.files[provider])["phone"], "phone")
    gone = {f"+86{p}" for phones in people.values() for p in phones}
    found: set[str] = set()
    for name in ("scores", "audience", "seeds"):
        rows = pd.read_parquet(folder / f"{name}.parquet")["row"].to_numpy()
        found |= gone & set(file.loc[lines[rows]])
    before = next(j for j in demo.jobs if j["kind"] == "lookalike" and j["provider"] == provider)
    return {
        "provider": provider,
        "job_id": job_id,
        "withdrawn": len(gone),
        "brand": len(people[BRAND]),
        "provider_side": len(people[provider]),
        "found_in_result": len(found),
        "rows_before": before["rows"],
        "rows_after": job["rows"],
    }


def _refusals(demo: Demo) -> list[dict[str, Any]]:
    """Jobs that must not run, and the reasons that the nodes give."""
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no_consent", _request(demo, "overlap", PROVIDER_B, purpose=UNASKED)),
        ("no_agreement", _request(demo, "overlap", PROVIDER_B, agreement="never-signed")),
        ("tag_not_agreed", _request(demo, "enrich", PROVIDER_B, columns=["multiple_lines"])),
        ("less_privacy", _request(demo, "lookalike", PROVIDER_A, params={"privacy": None})),
    ]
    out = []
    for case, request in cases:
        demo.show(f"a job that must be refused: {case.replace('_', ' ')}")
        brand, provider = demo.network[BRAND].client, demo.network[request["peer"]].client
        try:
            seen = jobs.until(brand, provider, brand.submit(request), jobs.FINAL)
        except NodeError as refused:  # by the brand's own node, which has the agreement too: no job was made
            told = {"code": refused.code, "detail": refused.detail}
            seen = {"state": "rejected", "error": told, "files": ()}
        error = seen["error"] or {}
        out.append(
            {
                "case": case,
                "kind": request["kind"],
                "provider": request["peer"],
                "state": seen["state"],
                "code": error.get("code", ""),
                "message": error.get("detail", ""),
                "files": len(seen["files"]),
            }
        )
    return out


def _consent(demo: Demo) -> dict[str, Any]:
    """People in and out by reason, as the lookalikes saw them."""
    out: dict[str, Any] = {}
    for provider in (PROVIDER_A, PROVIDER_B):
        job = next(j for j in demo.jobs if j["kind"] == "lookalike" and j["provider"] == provider)
        out.setdefault(BRAND, job["consent"]["brand"])
        out[provider] = job["consent"]["provider"]
        demo.failures += checks.consent_failures(demo.made, provider, job["consent"])
    if set(out) != set(PARTIES):
        raise PecError("pec.check", f"the report lacks a party: {sorted(out)}")
    return out
