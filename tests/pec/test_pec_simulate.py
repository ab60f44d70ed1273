"""Each kind once, end to end: two node processes, mutual TLS, gate, bundle, and the truth beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pec_command import ROOT, pec, pec_here

from consent_center.records.assess import file_assessment
from pec import jobs, plan
from pec import simulate as run
from pec.errors import PecError
from pec.network import LocalNetwork


def nodes_below(folder: Path) -> list[int]:
    """Process ids of running nodes whose home is below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"parties.node" in line and str(folder).encode() in line:
                found.append(int(entry.name))
    return found


def simulate(kind: str, files: tuple[Path, Path], *more: str | Path, run: Any = pec_here) -> dict:
    answer = run(
        *("simulate", kind, "--brand", files[0], "--provider", files[1], "--id", "phone"),
        *("--assume-consent", "a test on synthetic people", "--json", *more),
    )
    assert answer.code == 0, answer.out + answer.err
    report = answer.json
    assert report["ok"] and report["audit_verified"] and report["kind"] == kind
    assert report["seconds"] > 0 and report["bytes_sent"] > 0 and report["bytes_received"] > 0
    assert all(30 < report["peak_rss_mb"][side] < 2000 for side in ("brand", "provider"))
    assert report["consent"]["brand"] == {"in": 500, "out": {}}
    assert report["preflight"]["provider"]["read"] == 600
    return report


@pytest.mark.slow
def test_lookalike_with_files(two_files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = simulate("lookalike", two_files, "--label", "loyal", "--audience-size", "50", "--out", out)
    assert report["rows"] == 600 and report["audience_size"] == 50 and report["epsilon"] is None
    assert report["seeds_matched"] == report["seeds_in_plain_join"] > 100
    assert abs(report["auc"] - report["pooled_auc"]) < 0.005
    assert report["auc"] > 0.6
    assert 0 < report["train_seconds"] + report["score_seconds"] <= report["seconds"]
    stored = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert stored["auc"] == report["auc"] and (out / "report.html").stat().st_size > 10_000
    bundle = Path(report["bundle"])
    with zipfile.ZipFile(bundle) as archive:
        leaves = archive.read("ledger.json") + archive.read("log.json")
    assert b"job.stage" in leaves
    changed = tmp_path / "changed.zip"
    raw = bytearray(bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    changed.write_bytes(raw)
    answer = pec_here("audit", "verify", changed, "--json")
    assert answer.code == 3 and answer.json["ok"] is False
    assert pec_here("audit", "verify", bundle, "--json").json["ok"] is True


@pytest.mark.slow
def test_overlap_and_enrich(two_files: tuple[Path, Path]) -> None:
    report = simulate("overlap", two_files, run=pec)
    assert report["count"] == 400 and report["count_plain_join"] == 400
    report = simulate("overlap", two_files, "--method", "private_join", "--epsilon", "2")
    assert abs(report["count"] - 400) <= 15 and report["wrong"] == 0
    assert (report["method"], report["noise_scale"]) == ("private_join", 0.5)
    assert set(report["stages"]) == {"join"} and report["audit_verified"] and "train_seconds" not in report
    assert any("noise" in english for _, english in report["jobs"][0]["learned"]["provider"])
    # Without --tags all columns but the id are tags; so these are the same request, and one run shows it.
    brand, provider = two_files
    everything = run.prepare(run.Inputs("enrich", brand, provider, "phone", "a test")).inputs.tags
    assert everything == ("score", "城市", "constant")
    report = simulate("enrich", two_files, "--tags", "score, 城市,constant")
    assert report["tags"] == list(everything)
    assert (report["asked"], report["found"], report["wrong"], report["missed"]) == (500, 400, 0, 0)


@pytest.mark.slow
def test_a_network_runs_holds_refuses_and_stops(two_files: tuple[Path, Path], tmp_path: Path) -> None:
    """One start of two nodes for all that needs running ones."""
    import pyarrow as pa

    from parties.datasets import Dataset

    numbers = pd.read_csv(two_files[0])["Phone"].astype(str)
    with LocalNetwork(tmp_path / "nodes", ["shop", "bank"], consent_rest=True) as network:
        for party, other, path in (("shop", "bank", two_files[0]), ("bank", "shop", two_files[1])):
            columns = {"shop": {"loyal": "profile"}, "bank": {"score": "profile"}}[party]
            home = network[party].home
            home.add_dataset(Dataset("people", str(path), "phone", "phone", columns))
            with home.center() as center:
                plan.register_purposes(center, ["profile"])
                center.assume(pa.array(numbers), "phone", "overlap", other, ["profile"], "test", "test")
                file_assessment(center, "overlap", other, "none: a test", "test")
        network.agree(plan.terms(id="a1", brand="shop", provider="bank", categories=["profile"]))
        network.start()
        pids = [p.process.pid for p in network.parties.values() if p.process]
        assert network["bank"].rest.startswith("http://127.0.0.1:")
        base = {
            "provider": "bank",
            "agreement": "a1",
            "datasets": ("people", "people"),
            "categories": ["profile"],
        }
        seen, other = network.run("shop", plan.request("overlap", **base))
        assert seen["result"]["count"] == 400 and other["state"] == "succeeded"
        answer = pec_here("job", "show", seen["job_id"], "--home", network["shop"].home.path, "--json")
        assert answer.json["state"] == "succeeded" and answer.json["counts"]["own"]["in"] == 500
        answer = pec_here("job", "rows", seen["job_id"], "--home", network["bank"].home.path, "--json")
        rows = answer.json["lines"]
        assert len(rows) == 400 and np.unique(rows).size == 400
        with pytest.raises(PecError) as refused:
            network.run("shop", plan.request("enrich", **base, columns=["score"]))
        assert refused.value.code == "pec.job_refused" and "agreement." in refused.value.detail
        job_id = network["shop"].client.submit(plan.request("overlap", **base))
        waiting = network["shop"].client.wait(job_id, 120, until=(jobs.WAITING,))
        assert waiting["state"] == jobs.WAITING
        answer = pec_here(
            "job", "reject", job_id, "--reason", "not now", "--home", network["bank"].home.path, "--json"
        )
        assert answer.code == 0
        ended = network["shop"].client.wait(job_id, 120)
        assert ended["state"] == "rejected" and "not now" in ended["error"]["detail"]
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(
    number: signal.Signals, two_files: tuple[Path, Path], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pec.cli", "simulate", "overlap", "--brand", str(two_files[0])),
            *("--provider", str(two_files[1]), "--id", "phone", "--assume-consent", "test", "--json"),
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while len(nodes_below(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = nodes_below(tmp_path)
    assert len(pids) == 2 and process.poll() is None
    process.send_signal(number)
    out, _ = process.communicate(timeout=300)
    assert (
        process.returncode == 130 and json.loads(out.splitlines()[-1])["error"]["code"] == "pec.interrupted"
    )
    assert not nodes_below(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_can_not_start_says_why(tmp_path: Path) -> None:
    with LocalNetwork(tmp_path, ["shop", "bank"]) as network:
        (network["bank"].home.path / "node.toml").write_text("party = 7\n", encoding="utf-8")
        with pytest.raises(PecError) as error:
            network.start()
    assert (
        error.value.code == "pec.node" and "bank" in error.value.detail and "node.toml" in error.value.detail
    )
    assert all(p.process is None for p in network.parties.values())


@pytest.mark.slow
def test_joint_lr(two_files: tuple[Path, Path], tmp_path: Path) -> None:
    report = simulate("joint-lr", two_files, "--label", "loyal", "--out", tmp_path / "out")
    assert report["people_matched"] == report["rows"] == 400 and report["wrong"] == 0
    assert report["auc"] > 0.7 and abs(report["auc"] - report["pooled_auc"]) < 0.01
    assert report["rows_fit"] + report["rows_held_out"] == 400 and report["steps"] >= 2
    assert report["converged"] is True and report["train_seconds"] > 0 and report["score_seconds"] > 0
    assert any("gradient" in english for _, english in report["jobs"][0]["learned"]["provider"])
