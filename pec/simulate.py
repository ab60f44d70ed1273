"""Both parties on this machine, on two files of the user's: two node processes with throw-away identities.

Consent is assumed, said so, and recorded in both ledgers as an assumption with its reason. Everything else
is the real thing: gate, agreement, mutual TLS, protocols, audit bundle, verification by a separate process.
Because one
person holds both files here, the result is compared with the truth: the plain join, and scikit-learn on the
pooled rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from consent_center.records.assess import file_assessment
from pec import audits, consents, leads, oracle, outcome, plan, supervised, tables, usage
from pec.errors import PecError
from pec.network import LocalNetwork, Party
from pec.version import __version__

BRAND, PROVIDER = "brand", "provider"
CATEGORY = "evaluation"
#: What stands where an impact assessment is asked for.
ASSESSMENT = "none: a simulation"
AGREEMENT = "simulation"
DELTA, CLIP = 1e-6, 5.0
ID_KINDS = ("auto", "phone", "email", "device", "opaque")
#: The node compares counts with 10 as its unit.
ROUNDED_TO = 10
#: A job below this many seeds would say little; the agreement that a simulation signs has this minimum.
MINIMUM_SEEDS = 20


@dataclass(frozen=True)
class Inputs:
    """What the user gave. `provider_id` is the provider's id column, `tags` the columns that enrich asks
    for.
    """

    kind: str
    brand: Path
    provider: Path
    id: str
    reason: str
    provider_id: str = ""
    id_kind: str = "auto"
    label: str = ""
    #: The second label of lead-score; `label` is its first.
    value: str = ""
    tags: tuple[str, ...] = ()
    #: Columns of either file that no model may use.
    leave_out: tuple[str, ...] = ()
    audience_size: int | None = None
    epsilon: float | None = None
    #: Of the noise that `epsilon` asks for; None: DELTA and CLIP.
    delta: float | None = None
    clip: float | None = None
    method: str = ""
    family: str = "logistic"
    minimum_seeds: int = MINIMUM_SEEDS
    #: Of the kinds that learn from labels: parameters that both sides sign, and the brand's own.
    params: dict[str, Any] = field(default_factory=dict)
    learning: dict[str, Any] = field(default_factory=dict)


@dataclass
class Prepared:
    """Both files read, columns found, the truth known."""

    inputs: Inputs
    brand: pd.DataFrame
    provider: pd.DataFrame
    id_kind: str
    pairs: oracle.Join
    seeds: np.ndarray | None


def prepare(inputs: Inputs) -> Prepared:
    """Read and check everything that can be wrong before a process starts. Raises `pec.file`, `pec.column`,
    `pec.input`."""
    if inputs.brand.exists() and inputs.provider.exists() and inputs.brand.samefile(inputs.provider):
        raise PecError("pec.input", "--brand and --provider are the same file", "give two files")
    id_ = tables.find(tables.header(inputs.brand), inputs.id, inputs.brand)
    wanted = inputs.provider_id or inputs.id
    try:
        provider_id = tables.find(tables.header(inputs.provider), wanted, inputs.provider)
    except PecError as error:
        if inputs.provider_id or error.code != "pec.column":
            raise
        hint = f"name the provider's own id column with --provider-id; {error.hint}"
        raise PecError(error.code, error.detail, hint) from error
    # Identifiers stay text: numbers lose leading zeros and the last of many digits.
    left, right = tables.read(inputs.brand, (id_,)), tables.read(inputs.provider, (provider_id,))
    label = tables.find(left.columns, inputs.label, inputs.brand) if inputs.label else ""
    tags = tuple(dict.fromkeys(tables.find(right.columns, tag, inputs.provider) for tag in inputs.tags))
    if provider_id in tags:
        raise PecError("pec.input", f"{provider_id!r} identifies people and is no tag", "name other columns")
    if inputs.kind == "enrich":
        tags = tags or tuple(str(c) for c in right.columns if c != provider_id)
        if not tags:
            raise PecError(
                "pec.input", f"{inputs.provider.name} has no column but the id", "there is no tag to ask for"
            )
    value = tables.find(left.columns, inputs.value, inputs.brand) if inputs.value else ""
    if monotone := inputs.learning.get("monotone"):
        both = [*left.columns, *right.columns]
        signs = {tables.find(both, name, inputs.brand): sign for name, sign in monotone.items()}
        inputs = replace(inputs, learning={**inputs.learning, "monotone": signs})
    inputs = replace(inputs, id=id_, provider_id=provider_id, label=label, value=value, tags=tags)
    left, right = _left_out(inputs, left, right)
    if inputs.kind != "overlap" and len(right.columns) < 2:
        raise PecError(
            "pec.input", f"{inputs.provider.name} has no column but the id", "a model needs columns"
        )
    kind = inputs.id_kind if inputs.id_kind != "auto" else _detect(left[id_])
    pairs = oracle.join(left[id_], right[provider_id], kind)
    if not pairs.size:
        raise PecError(
            "pec.input",
            f"nobody is in both files by {kind} in {id_!r} and {provider_id!r}: "
            f"{_samples(left[id_], right[provider_id])}",
            "check the id columns, --provider-id and --id-kind (phone, email, device, opaque)",
        )
    seeds = None
    if inputs.kind == "lead-score":
        leads.check(left, label, value, pairs.brand, inputs.brand.name)
        kind_of_value = "flag" if leads.is_flag(left[value]) else "number"
        inputs = replace(inputs, params={**inputs.params, "value": kind_of_value})
    elif inputs.kind in plan.SUPERVISED:
        if inputs.kind == "joint-lr" and label:
            values = joint_labels(left[label].iloc[pairs.brand], inputs.family)
            if not values.nunique() > 1:
                raise PecError(
                    "pec.input",
                    f"{inputs.brand.name}: {label!r} has no two values among the people in both files",
                    "a model needs people that differ",
                )
        else:
            supervised.check(left, label, pairs.brand, inputs.brand.name, inputs.params.get("objective"))
    if inputs.kind == "retarget" and label:
        seeds = tables.flags(left[label], label).to_numpy(bool)
    if inputs.kind == "lookalike":
        seeds = tables.flags(left[label], label).to_numpy(bool) if label else np.ones(len(left), dtype=bool)
        matched = int(seeds[pairs.brand].sum())
        if matched < inputs.minimum_seeds:
            raise PecError(
                "pec.input",
                f"{matched} seeds are in both files, a lookalike needs {inputs.minimum_seeds} or more",
                "use more seeds, another label, or a larger provider file",
            )
    return Prepared(inputs, left, right, kind, pairs, seeds)


def _left_out(inputs: Inputs, left: pd.DataFrame, right: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both files without the columns of `leave_out`, in whichever they are; ids and labels stay."""
    for wanted in inputs.leave_out:
        tables.find([*left.columns, *right.columns], wanted, inputs.brand)
        key = wanted.strip().casefold()
        named = [[c for c in frame.columns if str(c).casefold() == key] for frame in (left, right)]
        mine = [c for c in named[0] if c not in (inputs.id, inputs.label, inputs.value)]
        theirs = [c for c in named[1] if c != inputs.provider_id]
        if not mine and not theirs:
            raise PecError(
                "pec.usage",
                f"--leave-out {wanted}: it identifies people or is what is learned",
                "no model uses it; leave out other columns",
            )
        if ordered := {*mine, *theirs} & set(inputs.learning.get("monotone") or ()):
            raise PecError("pec.usage", f"--leave-out and --monotone both name {min(ordered)!r}")
        left, right = left.drop(columns=mine), right.drop(columns=theirs)
    return left, right


def _writable(out: Path) -> None:
    """`pec.output` if no file can be made in that folder, which is made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise PecError("pec.output", f"--out {out}: {error.strerror}", "name another folder") from error


def _detect(values: pd.Series) -> str:
    from consent_center import identifiers

    sample = values.dropna().head(2000)
    return identifiers.detect(pa.array(sample.astype("string"), pa.string()))


def _samples(*columns: pd.Series) -> str:
    """The shape of the first values, not the values: an error message may end in a log."""
    shapes = []
    for column in columns:
        text = str(column.dropna().iloc[0]) if column.notna().any() else ""
        shapes.append(
            "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in text)[:40] or "(empty)"
        )
    return f"the brand's look like {shapes[0]!r}, the provider's like {shapes[1]!r}"


def run(
    inputs: Inputs, *, out: Path | None = None, watch: Callable[[str, float, float], None] | None = None
) -> dict[str, Any]:
    """The whole simulation; what `pec simulate --json` prints. With `out`, files and bundle stay in that
    folder.
    """
    began = time.monotonic()
    show = watch or (lambda what, done, total: None)
    show("reading", 0, 1)
    ready = prepare(inputs)
    if out is not None:
        _writable(out)
    with tempfile.TemporaryDirectory(prefix="pec-simulate-") as scratch:
        root = Path(scratch)
        with LocalNetwork(root / "nodes", [BRAND, PROVIDER]) as network:
            show("consent", 0, 1)
            _set_up(network, ready)
            show("starting two nodes", 0, 1)
            network.start()
            preflight = {name: network[name].client.preflight("data") for name in (BRAND, PROVIDER)}
            before = {name: party.usage() for name, party in network.parties.items()}
            seen, other = network.run(BRAND, _request(ready), watch=_progress(show))
            spent = {n: usage.between(before[n], p.usage()) for n, p in network.parties.items()}
            job = outcome.common(seen, other, PROVIDER)
            job |= {name: {n: spent[n][name] for n in spent} for name in ("cpu_seconds", "peak_rss_mb")}
            job |= _figures(ready, network, seen, preflight)
            bundle = audits.collect(network[BRAND], seen["job_id"], out or root / "out")
            show("verifying", 0, 1)
            cards = {name: party.client.card() for name, party in network.parties.items()}
        job["audit_verified"] = audits.verify_apart(bundle, cards.values())
    if out is not None:
        job["bundle"] = str(bundle)
    report = _report(ready, job, preflight, time.monotonic() - began)
    if out is not None:
        from pec import report as pages

        name = inputs.brand.name, inputs.provider.name
        pages.write(report, out, ("模拟报告", "Simulation"), (f"{name[0]} × {name[1]}",) * 2)
    return report


def _set_up(network: LocalNetwork, ready: Prepared) -> None:
    from parties.datasets import Dataset

    inputs = ready.inputs
    sides = (
        (network[BRAND], PROVIDER, inputs.brand, inputs.id, ready.brand),
        (network[PROVIDER], BRAND, inputs.provider, inputs.provider_id, ready.provider),
    )
    for party, recipient, path, id_column, frame in sides:
        others = {str(c): CATEGORY for c in frame.columns if c != id_column}
        party.home.add_dataset(Dataset("data", str(path.absolute()), id_column, ready.id_kind, others))
        assume(party, recipient, frame[id_column], ready.id_kind, inputs.kind, inputs.reason)
    network.agree(
        plan.terms(
            id=AGREEMENT,
            brand=BRAND,
            provider=PROVIDER,
            categories=[CATEGORY],
            kinds=[inputs.kind],
            tags=inputs.tags or ["*"],
            epsilon=inputs.epsilon,
            delta=DELTA if inputs.delta is None else inputs.delta,
            clip=CLIP if inputs.clip is None else inputs.clip,
            minimum_seeds=min(inputs.minimum_seeds, max(1, ready.pairs.size)),
            minimum_rows=1,
            preapproved=[inputs.kind],
            suites=("ecdh", "vole", "private_join"),
            standard_errors=bool(inputs.params.get("errors")),
            assessment=ASSESSMENT,
        )
    )


def assume(party: Party, recipient: str, values: pd.Series, kind: str, purpose: str, reason: str) -> int:
    """Record in the party's ledger that consent of everybody in `values` is assumed, and why; returns the
    people.
    """
    with party.home.center() as center:
        plan.register_purposes(center, [CATEGORY])
        text = pa.array(values.dropna().astype("string"), pa.string())
        file_assessment(center, purpose, recipient, ASSESSMENT, "pec simulate")
        return consents.assume(center, text, kind, purpose, recipient, CATEGORY, reason, "pec simulate")


def _request(ready: Prepared) -> dict[str, Any]:
    inputs = ready.inputs
    private: dict[str, Any] = {}
    columns: Sequence[str] = ()
    if inputs.kind == "retarget":
        private["where"] = _where(ready)
    elif inputs.kind == "lookalike":
        private = {"where": _where(ready), "holdout_seed": 1, **inputs.learning}
        if inputs.audience_size is not None:
            private["audience_size"] = inputs.audience_size
        columns = ["*"]
    elif inputs.kind == "joint-lr":
        private = {"label": inputs.label, "holdout_seed": 1}
        columns = ["*"]
    elif inputs.kind == "enrich":
        columns = inputs.tags
    elif inputs.kind in plan.SUPERVISED:
        columns = ["*"]
        private = {"label": inputs.label, **inputs.learning}
        if inputs.kind == "lead-score":
            private = {"speed": inputs.label, "value": inputs.value, **inputs.learning}
        if inputs.kind != "feature-report":
            labels = (inputs.id, inputs.label, inputs.value)
            own = [str(c) for c in ready.brand.columns if c not in labels]
            private |= {"columns": own, "holdout_seed": 1}
    params = {**inputs.params, **({"method": inputs.method} if inputs.method else {})}
    if inputs.kind == "joint-lr":
        params["family"] = inputs.family
    return plan.request(
        inputs.kind,
        provider=PROVIDER,
        agreement=AGREEMENT,
        datasets=("data", "data"),
        categories=[CATEGORY],
        columns=columns,
        params=params,
        private=private,
    )


def _where(ready: Prepared) -> str:
    """An SQL condition on the brand's file for the rows that `tables.flags` calls seeds."""
    label = ready.inputs.label
    if not label:
        return "1 = 1"
    name = '"' + label.replace('"', '""') + '"'
    values = ready.brand[label]
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return f"{name} > 0"
    words = ", ".join("'" + w + "'" for w in sorted(tables.TRUE))
    return f"lower(trim({name})) IN ({words}) OR try_cast({name} AS DOUBLE) > 0"


def _figures(
    ready: Prepared, network: LocalNetwork, seen: dict[str, Any], preflight: dict[str, Any]
) -> dict[str, Any]:
    inputs, folder = ready.inputs, network[BRAND].home.job(seen["job_id"])
    result = seen["result"]
    if inputs.kind == "overlap":
        # With noise the count may be off by so much, and by no more.
        allowed = ROUNDED_TO // 2 + int(result.get("noise_at_most", 0))
        return {
            "count": result["count"],
            "count_text": result["text"],
            "count_plain_join": ready.pairs.size,
            "method": result.get("method", "align"),
            "noise_scale": result.get("noise_scale"),
            "wrong": int(
                abs((result["count"] or 0) - ready.pairs.size) > allowed and result["count"] is not None
            ),
        }
    if inputs.kind == "retarget":
        segment = ready.seeds if ready.seeds is not None else np.ones(len(ready.brand), dtype=bool)
        audience = pd.read_parquet(network[PROVIDER].home.job(seen["job_id"]) / "audience.parquet")
        due = ready.pairs.provider[segment[ready.pairs.brand]]
        off = abs((result["count"] or 0) - len(due)) > ROUNDED_TO // 2 and result["count"] is not None
        return {
            "count": result["count"],
            "count_text": result["text"],
            "count_plain_join": len(due),
            "wrong": len(np.setxor1d(audience["row"].to_numpy(), due)) + int(off),
        }
    if inputs.kind == "enrich":
        found = pd.read_parquet(folder / "enriched.parquet")
        wrong = oracle.wrong_tags(found, ready.provider, ready.pairs, inputs.tags)
        missed = int((~np.isin(ready.pairs.brand, found["row"].to_numpy())).sum())
        return {
            "asked": int(result["asked"]),
            "found": int(result["found"]),
            "wrong": wrong + missed,
            "missed": missed,
            "tags": list(inputs.tags),
        }
    if inputs.kind == "joint-lr":
        return _joint_figures(ready, network, seen["job_id"], result, preflight)
    if inputs.kind in plan.SUPERVISED:
        learned = network[PROVIDER].client.job(seen["job_id"])["result"]
        frames = (ready.brand, ready.provider, ready.pairs)
        if inputs.kind == "lead-score":
            labels = {"speed": inputs.label, "value": inputs.value}
            return leads.figures(folder, result, learned, labels, frames)
        if inputs.kind == "feature-report":
            return supervised.report_figures(result, inputs.label, frames)
        return supervised.figures(inputs.kind, folder, result, learned, inputs.label, frames)
    frame = ready.provider
    lines: np.ndarray | None = network[PROVIDER].client.rows(seen["job_id"])
    if len(frame) != preflight[PROVIDER]["read"]:
        # The two readers disagree about the lines of an odd file: no figure is better than a wrong one.
        lines = None
    learned = network[PROVIDER].client.job(seen["job_id"])["result"]
    used = list(learned["used"])
    left_out = [str(c) for c in frame.columns if str(c) not in used and c != inputs.provider_id]
    penalty = inputs.params.get("l2", 1.0) + inputs.params.get("l1", 0.0)
    out = outcome.lookalike(folder, result, lines, frame, used, left_out, penalty)
    out |= {
        name: inputs.params.get(name, usual)
        for name, usual in (("features", "linear"), ("l1", 0.0), ("l2", 1.0), ("bags", 1))
    }
    weights = np.array(list(learned["weights"].values()))
    out |= {"columns": len(weights), "columns_zero": int(np.count_nonzero(weights == 0))}
    out |= {"columns_used": used, "columns_left_out": left_out, "notes": list(learned["notes"])}
    expected = int(ready.seeds[ready.pairs.brand].sum()) if ready.seeds is not None else None
    return {**out, "seeds_in_plain_join": expected, "wrong": int(expected != out["seeds_matched"])}


def _joint_figures(
    ready: Prepared, network: LocalNetwork, job_id: str, result: dict[str, Any], preflight: dict[str, Any]
) -> dict[str, Any]:
    """The joint model beside plain scikit-learn on the pooled rows."""
    inputs, frame = ready.inputs, None
    labels = joint_labels(ready.brand[inputs.label], inputs.family)
    if len(ready.brand) == preflight[BRAND]["read"]:
        left = ready.brand.drop(columns=[inputs.id, inputs.label]).add_prefix("brand: ")
        right = ready.provider.drop(columns=[inputs.provider_id]).add_prefix("provider: ")
        right = right.iloc[ready.pairs.provider].set_index(ready.pairs.brand)
        frame = left.join(right)
    out = outcome.joint_lr(network[BRAND].home.job(job_id), result, frame, labels)
    learned = network[PROVIDER].client.job(job_id)["result"]
    out["notes"] = [*(result.get("notes") or []), *learned["notes"]]
    if "errors" in result:
        out["weights"] = {
            side: {
                name: {"weight": weight, "error": found["errors"][name], "p_value": found["p_values"][name]}
                for name, weight in found["weights"].items()
            }
            for side, found in ((BRAND, result), (PROVIDER, learned))
        }
    return {**out, "wrong": int(out["people_matched"] != ready.pairs.size)}


def joint_labels(values: pd.Series, family: str) -> pd.Series:
    """A label column as float, NaN where missing: words for yes and no count as 1 and 0 for logistic."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return values.astype("float64")
    text = values.astype("string").str.strip().str.lower()
    if family == "logistic":
        text = text.map(lambda w: "1" if w in tables.TRUE else "0" if w in tables.FALSE else w, "ignore")
    return pd.to_numeric(text, errors="coerce").astype("float64")


def _progress(show: Callable[[str, float, float], None]) -> Callable[[dict[str, Any]], None]:
    def watch(seen: dict[str, Any]) -> None:
        step = seen.get("progress") or {}
        if step.get("total"):
            show(f"{step.get('stage', '')} {step.get('what', '')}".strip(), step["done"], step["total"])
        else:
            show(str(seen["state"]).replace("_", " "), 0, 1)

    return watch


def _report(
    ready: Prepared, job: dict[str, Any], preflight: dict[str, Any], seconds: float
) -> dict[str, Any]:
    failures = []
    if not job["audit_verified"]:
        failures.append("the audit bundle does not verify")
    if job.get("wrong"):
        failures.append("the result differs from the plain join")
    flat = {k: v for k, v in job.items() if k not in ("charts", "learned", "consent", "stages")}
    return {
        "ok": not failures,
        "failures": failures,
        "version": __version__,
        "generated_at": pd.Timestamp.now("UTC").strftime("%Y-%m-%dT%H:%M:%SZ"),
        **flat,
        "total_seconds": round(seconds, 3),
        "stages": job["stages"],
        "assumed_consent": ready.inputs.reason,
        **({"leave_out": list(ready.inputs.leave_out)} if ready.inputs.leave_out else {}),
        "id_kind": ready.id_kind,
        "consent": job["consent"],
        "preflight": preflight,
        "jobs": [job],
    }
