"""What goes wrong between real processes: each fault ends in a clear error on both sides within seconds."""

from __future__ import annotations

import json
import signal
import time

import nodes
import pytest

from parties.errors import NodeError

SETTINGS = "silence_seconds = 4.0\nheartbeat_seconds = 0.3\npoll_seconds = 0.2\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def processes(folder):
    brand = nodes.make_home(folder, "brand", ("prov",), settings=SETTINGS)
    prov = nodes.make_home(folder, "prov", ("brand",), settings=SETTINGS)
    brand.trust(prov.card())
    prov.trust(brand.card())
    nodes.agree(brand, prov)
    with nodes.running(brand, prov) as both:
        yield both


@pytest.fixture
def pair(processes):
    """Both nodes, running again if an earlier test ended one."""
    if any(node.process.poll() is not None for node in processes):
        for node in processes:
            if node.process.poll() is not None:
                node.start()
        nodes.introduce(*processes)
    return processes


def _submit_and_reach(pair, folder, stage, **params):
    """A job that has entered `stage`, and the folder where a file `go` lets it go on if it waits there."""
    nodes.introduce(*pair)  # a node that was started again listens elsewhere
    mark = folder / f"mark-{time.monotonic_ns()}"
    mark.mkdir()
    with pair[0].client() as brand:
        job_id = brand.submit(nodes.request("brand-prov", params={"mark": str(mark), **params}))
    deadline = time.monotonic() + 240  # the first job waits for imports, which a busy machine makes long
    while not (mark / stage).exists():
        assert time.monotonic() < deadline, f"the job never came to {stage}"
        time.sleep(0.02)
    return job_id, mark


def _final(node, job_id, seconds=120):
    with node.client() as client:
        return client.wait(job_id, seconds)


def _nothing_left(node, job_id):
    return not node.home.work(job_id).exists() and not node.home.job(job_id).exists()


def _events(node, code, patience=15.0):
    """The node's log lines of this code. The log is another process's: on a busy machine it comes late."""
    until = time.monotonic() + patience
    while True:
        found = [e for e in map(json.loads, node.log().splitlines()) if e["code"] == code]
        if found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def test_a_killed_provider_is_noticed_and_knows_it_after_a_restart(pair, folder):
    brand, prov = pair
    job_id, _ = _submit_and_reach(pair, folder, "provider-swap", wait_in="provider.swap")
    prov.kill()
    ours = _final(brand, job_id)
    assert (ours["state"], ours["error"]["code"]) == ("failed", "transport.lost")
    assert _nothing_left(brand, job_id)
    prov.start()
    theirs = _final(prov, job_id)
    assert (theirs["state"], theirs["error"]["code"]) == ("failed", "node.interrupted")
    assert _nothing_left(prov, job_id)


def test_a_killed_brand_is_noticed(pair, folder):
    brand, prov = pair
    job_id, _ = _submit_and_reach(pair, folder, "brand-swap", wait_in="brand.swap")
    brand.kill()
    theirs = _final(prov, job_id)
    assert (theirs["state"], theirs["error"]["code"]) == ("failed", "transport.lost")
    assert _nothing_left(prov, job_id)
    brand.start()
    assert _final(brand, job_id)["error"]["code"] == "node.interrupted"


def test_a_provider_that_hangs_is_noticed(pair, folder):
    brand, prov = pair
    job_id, mark = _submit_and_reach(pair, folder, "provider-tell", wait_in="provider.tell")
    prov.signal(signal.SIGSTOP)
    try:
        ours = _final(brand, job_id)
    finally:
        (mark / "go").touch()
        prov.signal(signal.SIGCONT)
    assert (ours["state"], ours["error"]["code"]) == ("failed", "transport.silent")
    theirs = _final(prov, job_id)
    assert theirs["state"] == "failed" and theirs["error"]["code"].startswith("transport.")
    assert _nothing_left(brand, job_id) and _nothing_left(prov, job_id)


def test_a_provider_that_stops_says_so(pair, folder):
    brand, prov = pair
    job_id, _ = _submit_and_reach(pair, folder, "provider-swap", wait_in="provider.swap")
    assert prov.stop() == 0
    ours = _final(brand, job_id)
    assert (ours["state"], ours["error"]["code"]) == ("failed", "node.stopping")
    prov.start()
    assert _final(prov, job_id)["error"]["code"] == "node.stopping"


def test_an_unknown_peer_is_refused_and_both_sides_say_why(pair, folder):
    """The stranger trusts the provider; the provider has never heard of the stranger."""
    _, prov = pair
    home = nodes.make_home(folder, "stranger", ("prov",))
    with prov.client() as client:
        home.trust(client.card())
    stranger = nodes.LocalNode(home)
    try:
        with stranger.client() as client:
            job_id = client.submit(nodes.request("none", peer="prov"))
            ours = client.wait(job_id, 120)
    finally:
        stranger.stop()
    assert (ours["state"], ours["error"]["code"]) == ("failed", "transport.refused")
    seen = _events(prov, "transport.handshake")
    assert seen and "not trusted here" in seen[-1]["text"]
    with prov.client() as client, pytest.raises(NodeError, match="job.unknown"):
        client.job(job_id)


def test_a_wrong_certificate_at_the_peers_address_is_named_and_both_sides_say_why(pair, folder):
    """The brand's card for `prov` says where another node listens: a man in the middle, or an old address."""
    brand, prov = pair
    other = nodes.NodeProcess(nodes.make_home(folder, "other", ("brand",))).start()
    try:
        with other.client() as client:
            address = client.status()["address"]
        with prov.client() as client:
            right = client.status()["address"]
        brand.home.trust(prov.home.card(address))
        with brand.client() as client:
            job_id = client.submit(nodes.request("brand-prov"))
            ours = client.wait(job_id, 120)
        brand.home.trust(prov.home.card(right))
        assert (ours["state"], ours["error"]["code"]) == ("failed", "transport.certificate")
        assert other.home.identity.fingerprint in ours["error"]["detail"]
        assert prov.home.identity.fingerprint in ours["error"]["detail"]
        assert _events(other, "transport.handshake")
    finally:
        other.stop()


def test_a_peer_that_is_not_there_is_named_at_once(pair):
    brand, prov = pair
    brand.home.trust(prov.home.card("127.0.0.1:1"))
    with brand.client() as client:
        ours = client.wait(client.submit(nodes.request("brand-prov")), 30)
    nodes.introduce(*pair)
    assert (ours["state"], ours["error"]["code"]) == ("failed", "transport.unreachable")
    assert "127.0.0.1:1" in ours["error"]["detail"] and ours["error"]["hint"]
