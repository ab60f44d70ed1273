"""`pec bench`: two node processes over gRPC with mutual TLS on loopback, on synthetic data.

Making the data, importing consent, starting the nodes and fitting the pooled model are outside the measured
time.
Measured is what an operator waits for: from submitting the job to its success at the brand, with the gate,
consent decisions, snapshots, ledger entries and audit bundle of both sides.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from consent_center.records.assess import file_assessment
from pec import consents, outcome, plan, supervised, usage
from pec.bench import data
from pec.errors import PecError
from pec.network import LocalNetwork
from pec.version import __version__

BRAND, PROVIDER = "brand", "provider"
CATEGORY = "benchmark"
AGREEMENT = "benchmark"
REASON = "synthetic data of a benchmark"
Show = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Bench:
    """What to measure. `request`: parts of the job beyond the kind; `columns` of the provider's file."""

    kind: str
    files: data.Files
    request: dict[str, Any]


def align(
    receiver: int, sender: int, suite: str = "ecdh", *, seed: int = 1, show: Show | None = None
) -> dict[str, Any]:
    """`overlap` of two synthetic sets: what align costs, count included."""
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        root, note = Path(scratch), show or silent
        note("making data", 0, 1)
        files = data.align_files(root, receiver, sender, seed=seed)
        made = {"params": {"suite": suite}, "private": {"where": "1 = 1"}}
        out, seen, _ = measure(root, Bench("overlap", files, made), note)
        count = seen["result"]["count"]
        out |= {"bench": "align", "receiver": receiver, "sender": sender, "suite": suite, "matched": count}
        out["expected"] = files.expected
        if count is None or abs(count - files.expected) > 5:
            raise PecError("pec.check", f"{count} people matched, {files.expected} are in both files")
        return out


def lookalike(
    rows: int,
    features: int,
    seeds: int,
    *,
    epsilon: float | None = None,
    seed: int = 1,
    pooled: bool = True,
    show: Show | None = None,
) -> dict[str, Any]:
    """A lookalike on normal features whose seeds follow a logistic model; `pooled`: scikit-learn beside."""
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        root, note = Path(scratch), show or silent
        note("making data", 0, 1)
        files = data.lookalike_files(root, rows, features, seeds, seed=seed)
        made = {"columns": ["*"], "private": {"where": "1 = 1", "holdout_seed": seed, "include_seeds": True}}
        out, seen, keep = measure(root, Bench("lookalike", files, made), note, epsilon, lines=pooled)
        note("pooled fit", 0, 1)
        lines = frame = None
        if pooled:
            lines = keep["lines"]
            frame = pq.read_table(files.provider).drop_columns(["phone"]).to_pandas(self_destruct=True)
        columns = [] if frame is None else list(frame.columns)
        figures = outcome.lookalike(keep["folder"], seen["result"], lines, frame, columns)
        out |= {
            "rows": rows,
            "features": features,
            "seeds": seeds,
            **outcome.learning_seconds(out["stages"], out["stages_provider"]),
            **{k: figures[k] for k in ("seeds_matched", "epsilon", "auc", "pooled_auc", "lift_at_5pct")},
        }
        return out


def joint_lr(
    rows: int,
    features_brand: int,
    features_provider: int,
    *,
    seed: int = 1,
    pooled: bool = True,
    show: Show | None = None,
) -> dict[str, Any]:
    """A joint logistic regression on `make_classification` data, the same people at both sides; `pooled`:
    scikit-learn beside it.
    """
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        root, note = Path(scratch), show or silent
        note("making data", 0, 1)
        files = data.joint_files(root, rows, features_brand, features_provider, seed=seed)
        made = {"columns": ["*"], "private": {"label": "y", "holdout_seed": seed}}
        out, seen, keep = measure(root, Bench("joint-lr", files, made), note, None)
        pooled_frame = labels = None
        if pooled:
            note("pooled fit", 0, 1)
            left = pq.read_table(files.brand).to_pandas(self_destruct=True)
            right = pq.read_table(files.provider).to_pandas(self_destruct=True).set_index("phone")
            pooled_frame, labels = left.join(right, on="phone").drop(columns=["phone", "y"]), left["y"]
        figures = outcome.joint_lr(keep["folder"], seen["result"], pooled_frame, labels)
        if not pooled:
            truth = pq.read_table(files.brand, columns=["y"])["y"].to_numpy() > 0
            figures["auc"] = supervised.held_out_auc(keep["folder"], seen["result"], truth, "score")
        out |= {
            "rows": rows,
            "features_brand": features_brand,
            "features_provider": features_provider,
            **outcome.learning_seconds(out["stages"], out["stages_provider"]),
            **{k: figures[k] for k in ("people_matched", "steps", "converged", "auc", "pooled_auc")},
        }
        return out


def measure(
    root: Path, bench: Bench, note: Show, epsilon: float | None = None, *, lines: bool = False
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(figures, the job as the brand saw it, {"folder": its results, "other": the provider's result, with
    `lines` "lines": the provider's lines of the file by row number}).
    """
    from parties.datasets import Dataset

    with LocalNetwork(root / "nodes", [BRAND, PROVIDER]) as network:
        sides = ((BRAND, PROVIDER, bench.files.brand), (PROVIDER, BRAND, bench.files.provider))
        for name, _, path in sides:
            columns = {c: CATEGORY for c in pq.read_schema(path).names if c != "phone"}
            network[name].home.add_dataset(Dataset("data", str(path), "phone", "phone", columns))
        _consents(network, sides, bench.kind, note)
        network.agree(
            plan.terms(
                id=AGREEMENT,
                brand=BRAND,
                provider=PROVIDER,
                categories=[CATEGORY],
                epsilon=epsilon,
                minimum_seeds=1,
                minimum_rows=1,
                suites=("ecdh", "vole"),
                preapproved=(*plan.KINDS, *plan.SUPERVISED),
                assessment="none: a benchmark",
            )
        )
        note("starting two nodes", 0, 1)
        network.start()
        request = plan.request(
            bench.kind,
            provider=PROVIDER,
            agreement=AGREEMENT,
            datasets=("data", "data"),
            categories=[CATEGORY],
            **bench.request,
        )
        before = {name: party.usage() for name, party in network.parties.items()}
        began = time.perf_counter()
        seen, other = network.run(BRAND, request, watch=_progress(note), timeout=3600)
        seconds = time.perf_counter() - began
        spent = {n: usage.between(before[n], p.usage()) for n, p in network.parties.items()}
        keep: dict[str, Any] = {"folder": root / "result", "other": other["result"]}
        if lines:
            keep["lines"] = network[PROVIDER].client.rows(seen["job_id"])
        network[BRAND].home.job(seen["job_id"]).rename(keep["folder"])
    out = {
        "bench": bench.kind,
        "version": __version__,
        "cores": os.cpu_count(),
        "seconds": round(seconds, 3),
        "bytes_sent": seen["bytes_sent"],
        "bytes_received": seen["bytes_received"],
        BRAND: spent[BRAND],
        PROVIDER: spent[PROVIDER],
        "cpu_seconds": {n: spent[n]["cpu_seconds"] for n in spent},
        "peak_rss_mb": {n: spent[n]["peak_rss_mb"] for n in spent},
        "stages": {s["name"]: round(s["seconds"], 3) for s in seen["stages"]},
        "stages_provider": {s["name"]: round(s["seconds"], 3) for s in other["stages"]},
    }
    return out, seen, keep


def consent(
    network: LocalNetwork,
    name: str,
    recipient: str,
    path: Path,
    purpose: str,
    show: Callable[[float, float], None] = lambda done, total: None,
) -> None:
    """Assume consent of everybody, in blocks, as `pec simulate` does."""
    ids = pq.read_table(path, columns=["phone"])["phone"]
    with network[name].home.center() as center:
        plan.register_purposes(center, [CATEGORY])
        file_assessment(center, purpose, recipient, "none: a measurement on made-up rows", "pec bench")
        consents.assume(center, ids, "phone", purpose, recipient, CATEGORY, REASON, "pec bench", show)


def _consents(
    network: LocalNetwork, sides: Sequence[tuple[str, str, Path]], purpose: str, note: Show
) -> None:
    """`consent` of both sides at once: most of it is SQLite's, which lets other threads run."""
    people = {name: pq.read_metadata(path).num_rows for name, _, path in sides}
    told, lock, stop = dict.fromkeys(people, 0.0), threading.Lock(), threading.Event()

    def one(name: str, recipient: str, path: Path) -> None:
        def show(done: float, total: float) -> None:
            if stop.is_set():
                raise PecError("pec.interrupted", "the other side's consents could not be recorded")
            with lock:
                told[name] = done
                note("consent of both sides' people", sum(told.values()), sum(people.values()))

        consent(network, name, recipient, path, purpose, show)

    with ThreadPoolExecutor(len(sides)) as pool:
        running = [pool.submit(one, *side) for side in sides]
        try:
            for future in as_completed(running):
                future.result()
        finally:
            stop.set()  # one that failed, or Ctrl-C, ends the other after its block


def _progress(show: Show) -> Callable[[dict[str, Any]], None]:
    def watch(seen: dict[str, Any]) -> None:
        step = seen.get("progress") or {}
        if step.get("total"):
            show(f"{step['stage']} {step.get('what', '')}".strip(), step["done"], step["total"])

    return watch


def silent(what: str, done: float, total: float) -> None:
    return None
