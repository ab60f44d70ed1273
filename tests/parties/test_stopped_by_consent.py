"""Between real processes: whoever switches a purpose or a recipient off stops the jobs that run on it."""

from __future__ import annotations

import json
import time

import nodes
import pytest

from pec.cli_common import run
from pec.cli_consent import consent

SETTINGS = "silence_seconds = 5.0\nheartbeat_seconds = 0.3\npoll_seconds = 0.2\n"


def _state(client, job_id, state, seconds=120):
    deadline = time.monotonic() + seconds
    while client.job(job_id)["state"] != state:
        assert time.monotonic() < deadline, client.job(job_id)
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_switching_off_stops_running_jobs_and_the_time_is_measured(tmp_path, capsys):
    brand = nodes.make_home(tmp_path, "brand", ("prov",), settings=SETTINGS)
    prov = nodes.make_home(tmp_path, "prov", ("brand",), settings=SETTINGS)
    brand.trust(prov.card())
    prov.trust(brand.card())
    nodes.agree(brand, prov)

    def pec(*words):
        """A command in another process's stead: it opens the provider's center while the node has it open."""
        assert run(consent, [*words, "--home", str(prov.path), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    switches = {
        "consent.recipient_off": (("recipient", "off", "brand"), ("recipient", "on", "brand")),
        "consent.purpose_off": (("purpose", "off", nodes.PURPOSE), ("purpose", "on", nodes.PURPOSE)),
    }
    with nodes.running(brand, prov) as pair, pair[0].client() as ours, pair[1].client() as theirs:
        for code, (off, on) in switches.items():
            job_id = ours.submit(nodes.request("brand-prov", hold_before="tell"))
            _state(ours, job_id, "held")
            pec(*off)
            ours.resume(job_id)
            ends = [client.wait(job_id, 120) for client in (ours, theirs)]
            pec(*on)
            assert [end["state"] for end in ends] == ["stopped_by_consent"] * 2, ends
            assert [end["error"]["code"] for end in ends] == [code] * 2
            assert not brand.work(job_id).exists() and not prov.job(job_id).exists()
        assert pec("recipient", "list") == {"brand": True}
        # A withdrawal while a job is held: dropped at the next check, and how long that took is shown.
        job_id = ours.submit(nodes.request("brand-prov", hold_before="tell"))
        _state(ours, job_id, "held")
        person = nodes.phones(3, 1)[0]
        pec("withdraw", "phone", person, "--purpose", nodes.PURPOSE, "--recipient", "brand")
        time.sleep(0.3)
        ours.resume(job_id)
        assert ours.wait(job_id, 120)["state"] == "succeeded"
    times = pec("enforcement")["jobs"]
    assert times["by_recipient"]["brand"]["count"] == times["count"] == 1, times
    assert times["p50_ms"] == times["max_ms"] >= 300
    assert pec("fsck")["ok"]
