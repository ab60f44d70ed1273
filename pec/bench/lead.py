"""`pec bench lead`: how long one lead waits for its scores and grade by a model of two targets.

A model of `lead-score` is trained first. Then leads of the brand's file are scored one at a time, each by a
whole `score` job between two nodes: gate and consent of both sides, alignment padded so that one person looks
like 256, joint evaluation, ledger, audit bundle. Measured is what the brand's operator waits for.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pec import plan, usage
from pec.bench import data
from pec.bench.run import AGREEMENT, BRAND, CATEGORY, PROVIDER, Show, consent, silent
from pec.errors import PecError
from pec.network import LocalNetwork
from pec.version import __version__


def files(folder: Path, people: int, columns: tuple[int, int], seed: int) -> data.Files:
    """`people` at both: normal columns, `speed` by a logistic model of all, `value` by a linear one."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((people, sum(columns)), dtype=np.float32)
    weights = rng.standard_normal((sum(columns), 2)).astype(np.float32) / np.sqrt(sum(columns))
    signal = x @ weights
    speed = rng.random(people) < 1 / (1 + np.exp(1.5 - 2 * signal[:, 0]))
    value = 100 + 30 * signal[:, 1] + 10 * rng.standard_normal(people)
    ids, order = data.numbers(0, people, rng), rng.permutation(people)
    folder.mkdir(parents=True, exist_ok=True)
    made = data.Files(folder / "brand.parquet", folder / "provider.parquet", people)
    mine = {"phone": data.text(ids), "speed": pa.array(speed), "value": pa.array(value.astype(np.float32))}
    mine |= {f"b{k:03d}": pa.array(x[:, k]) for k in range(columns[0])}
    pq.write_table(pa.table(mine), made.brand)
    theirs = {"phone": data.text(ids[order])}
    theirs |= {f"p{k:03d}": pa.array(x[order, columns[0] + k]) for k in range(columns[1])}
    pq.write_table(pa.table(theirs), made.provider)
    return made


def run(
    people: int,
    columns: tuple[int, int],
    leads: int,
    method: str = "joint-lr",
    *,
    seed: int = 1,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train, then score `leads` people one after the other; seconds from submitting a job to its success."""
    from parties.datasets import Dataset

    note = show or silent
    with tempfile.TemporaryDirectory(prefix="pec-bench-") as scratch:
        root = Path(scratch)
        note("making data", 0, 1)
        made = files(root, people, columns, seed)
        limit = f"score_jobs_per_day = {leads}\n"
        with LocalNetwork(root / "nodes", [BRAND, PROVIDER], settings=limit) as network:
            for name, peer, path in ((BRAND, PROVIDER, made.brand), (PROVIDER, BRAND, made.provider)):
                note(f"consent of the {name}'s people", 0, 1)
                known = {c: CATEGORY for c in pq.read_schema(path).names if c != "phone"}
                network[name].home.add_dataset(Dataset("data", str(path), "phone", "phone", known))
                consent(network, name, peer, path, "lead-score")
            kinds = (*plan.KINDS, *plan.SUPERVISED, "score")
            network.agree(
                plan.terms(
                    id=AGREEMENT,
                    brand=BRAND,
                    provider=PROVIDER,
                    categories=[CATEGORY],
                    kinds=kinds,
                    epsilon=None,
                    minimum_seeds=1,
                    minimum_rows=1,
                    suites=("ecdh", "vole"),
                    preapproved=kinds,
                    assessment="none: a benchmark",
                )
            )
            note("starting two nodes", 0, 1)
            network.start()

            def job(
                kind: str, params: dict[str, Any], private: dict[str, Any]
            ) -> tuple[float, dict[str, Any]]:
                request = plan.request(
                    kind,
                    provider=PROVIDER,
                    agreement=AGREEMENT,
                    datasets=("data", "data"),
                    categories=[CATEGORY],
                    purpose="lead-score",
                    columns=["*"],
                    params=params,
                    private=private,
                )
                began = time.perf_counter()
                seen, _ = network.run(BRAND, request, timeout=3600)
                return time.perf_counter() - began, seen

            note("training", 0, 1)
            own = [f"b{k:03d}" for k in range(columns[0])]
            private = {"speed": "speed", "value": "value", "columns": own, "holdout_seed": seed}
            train, seen = job("lead-score", {"method": method}, private)
            asked = pq.read_table(made.brand, columns=["phone"])["phone"].to_pylist()[:leads]
            params, taken, last = {"method": method, "model": seen["job_id"]}, list[float](), seen
            before = {name: party.usage() for name, party in network.parties.items()}
            for k, phone in enumerate(asked):
                note("leads", k, len(asked))
                seconds, last = job("score", params, {"where": f"phone = '{phone}'"})
                if last["result"]["scored"] != 1:
                    raise PecError(
                        "pec.check", f"{last['result']['scored']} people scored where one was asked for"
                    )
                taken.append(seconds)
            spent = {n: usage.between(before[n], p.usage()) for n, p in network.parties.items()}
    ordered = np.array(taken)
    return {
        "bench": "lead",
        "version": __version__,
        "cores": os.cpu_count(),
        "people": people,
        "features_brand": columns[0],
        "features_provider": columns[1],
        "method": method,
        "leads": len(taken),
        "train_seconds": round(train, 3),
        "auc": seen["result"]["speed"].get("auc"),
        "first_seconds": round(taken[0], 3),
        "p50_seconds": round(float(np.quantile(ordered, 0.5)), 3),
        "p95_seconds": round(float(np.quantile(ordered, 0.95)), 3),
        "max_seconds": round(float(ordered.max()), 3),
        "bytes_sent": int(last["bytes_sent"]),
        "bytes_received": int(last["bytes_received"]),
        "cpu_seconds_a_lead": {n: round((spent[n]["cpu_seconds"] or 0.0) / len(taken), 3) for n in spent},
        "peak_rss_mb": {n: spent[n]["peak_rss_mb"] for n in spent},
        "stages": {s["name"]: round(s["seconds"], 3) for s in last["stages"]},
    }
