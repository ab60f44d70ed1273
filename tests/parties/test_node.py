"""The node as a program: starting, refusing to start, serving its operator, stopping."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import nodes
import pytest

from parties.client import NodeClient
from parties.errors import NodeError
from parties.home import Home
from parties.node import Log, _why

ROOT = Path(__file__).resolve().parents[2]


def _run(home: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "parties.node", "--home", str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    home = nodes.make_home(
        tmp_path_factory.mktemp("one"), "brand", ("prov",), settings='consent_listen = "127.0.0.1:0"\n'
    )
    process = nodes.NodeProcess(home).start()
    yield process
    process.stop()


def test_a_running_node_tells_its_operator_how_it_is(node):
    with node.client() as client:
        status = client.status()
        assert status["party"] == "brand" and status["pid"] == node.process.pid
        assert status["address"] == json.loads((node.home.path / "ready.json").read_text())["address"]
        assert status["cpu_seconds"] > 0 and status["peak_rss_mb"] > 10 and status["jobs_running"] == 0
        report = client.preflight("people")
        assert (report["read"], report["normalised"], report["duplicate"]) == (20, 20, 0)
        assert [d["name"] for d in client.datasets()] == ["people"]
        assert client.jobs() == [] and client.peers() == [] and client.agreements() == []
        with pytest.raises(NodeError, match="node.request"):
            client._call("format_disk")
        with pytest.raises(NodeError, match="job.unknown"):
            client.job("none")
        with pytest.raises(NodeError, match="dataset.unknown"):
            client.preflight("none")


def test_the_consent_center_is_served_where_node_toml_says(node):
    with node.client() as client:
        url = client.status()["consent_url"]
    assert url.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/no-such-page", timeout=120)  # noqa: S310
    assert caught.value.code in (401, 404)
    caught.value.close()


def test_a_second_process_of_the_same_node_refuses_to_start(node):
    done = _run(node.home.path)
    assert done.returncode == 2 and "node.locked" in done.stderr and "hint:" in done.stderr


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        home = Home.create(tmp_path / "h", "brand", f"127.0.0.1:{port}")
        done = _run(home.path)
    assert done.returncode == 2 and "node.port" in done.stderr and str(port) in done.stderr
    assert not (home.path / "node.run.json").exists()


def test_a_directory_that_is_no_node_and_a_node_without_consent_are_named(tmp_path):
    done = _run(tmp_path)
    assert done.returncode == 2 and "node.home" in done.stderr
    home = Home.create(tmp_path / "h", "brand")
    os.rename(home.path / "consent", home.path / "elsewhere")
    done = _run(home.path)
    assert done.returncode == 2 and "consent.unavailable" in done.stderr


def test_a_client_without_a_running_node_is_told_to_start_it(tmp_path):
    home = Home.create(tmp_path / "h", "brand")
    with pytest.raises(NodeError) as caught:
        NodeClient(home)
    assert caught.value.code == "node.not_running" and "pec node run" in caught.value.hint
    (home.path / "node.run.json").write_text('{"address": "127.0.0.1:1"}')  # left by a killed process
    with NodeClient(home) as client, pytest.raises(NodeError, match="transport.unreachable"):
        client.status()


def test_a_node_stops_cleanly_and_takes_its_files_with_it(tmp_path):
    process = nodes.NodeProcess(nodes.make_home(tmp_path, "brand")).start()
    assert process.stop() == 0
    assert not (process.home.path / "node.run.json").exists()
    log = [json.loads(line) for line in process.log().splitlines()]
    assert [log[0]["code"], log[-1]["code"]] == ["node.started", "node.stopping"]
    assert (process.home.path / "log" / "node.log").stat().st_mode & 0o777 == 0o600


def test_the_log_is_json_lines_and_rotates(tmp_path, monkeypatch):
    import io

    monkeypatch.setattr("parties.node.MAX_LOG_BYTES", 400)
    stream = io.StringIO()
    log = Log(tmp_path / "node.log", stream)
    for number in range(12):
        log("job.state", f"line {number}\nsecond", job="j")
    log("node.internal", "x", level="error", trace=ValueError("inside"))
    log.close()
    assert len(stream.getvalue().splitlines()) == 13 and (tmp_path / "node.log.1").exists()
    assert "ValueError: inside" in json.loads(stream.getvalue().splitlines()[-1])["trace"]
    assert "trace" not in log.recent()[-1]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("… OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed", "not trusted here"),
        ("… OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE", "without a certificate"),
        ("… TLSV1_ALERT_UNKNOWN_CA", "does not trust this node"),
        ("… WRONG_VERSION_NUMBER", "no TLS"),
        ("Handshake failed for another reason", "handshake failed"),
    ],
)
def test_handshake_lines_become_sentences(line, cause):
    assert cause in _why(line)


def test_a_node_process_never_loads_pandas() -> None:
    code = (
        "import sys; from consent_center import no_pandas; no_pandas.settle(); import pyarrow as pa\n"
        "import parties.engine, parties.operator, parties.transport.server, consent_center.center\n"
        "from parties.kinds import KINDS\n"
        "assert all(KINDS.values()) and pa.array(['a', None]).null_count == 1\n"
        "print('pandas' in sys.modules); import pandas; print(pandas.Series([1]).sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]
