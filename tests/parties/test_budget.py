"""The privacy account of an agreement: composition, refusals on both sides, races, kills, failed jobs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import nodes
import pytest
import real_job
from click.testing import CliRunner
from pair import agreement

from parties import budget
from parties.budget import Account, Spend
from parties.documents import Agreement
from parties.errors import NodeError
from parties.store import Store, read_account
from pec.cli import cli
from protocols.lookalike import noise

LOOKALIKE = Spend("lookalike", "gaussian", 2.0, 1e-6)
JOIN = Spend("overlap", "laplace", 2.0, 1e-6)


def terms(epsilon: float, delta: float, **changes) -> Agreement:
    privacy = {"epsilon": 2.0, "delta": 1e-6, "clip": 5.0}
    total = {"epsilon": epsilon, "delta": delta}
    return agreement(privacy=privacy, privacy_total=total, **changes)


# -- composition ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-9), (1.0, 1e-5), (2.0, 1e-6), (8.0, 1e-6)])
def test_the_rho_of_a_gaussian_is_what_opendp_proves(epsilon, delta):
    scale = noise.noise_scale(epsilon, delta, 1e6)
    rho = 1e12 / (2 * scale * scale)
    charged = budget.gaussian_rho(epsilon, delta)
    # Never less than the noise that is drawn gives away, and hardly more.
    assert rho <= charged * (1 + 1e-9) and charged < 1.001 * rho
    assert budget.epsilon_of(charged, delta) == pytest.approx(epsilon, rel=1e-6)
    assert noise.epsilon_of(scale, delta, 1e6) <= budget.epsilon_of(charged, delta) * (1 + 1e-6)


def test_a_refusal_names_the_parameter_with_which_less_is_asked_for():
    spent = Account(terms(2.0, 1e-6), [LOOKALIKE])
    with pytest.raises(NodeError) as caught:
        spent.check(LOOKALIKE)
    assert """--param 'privacy={"epsilon": …, "delta": 1e-06}'""" in caught.value.hint
    with pytest.raises(NodeError) as caught:
        spent.check(JOIN)
    assert "--param" not in caught.value.hint and "privacy_total" in caught.value.hint


def test_a_total_of_one_job_holds_that_job_and_no_other():
    account = Account(terms(2.0, 1e-6), ())
    assert account.jobs_left(LOOKALIKE) == 1 and account.epsilon_spent() == 0
    assert account.epsilon_left(1e-6) == pytest.approx(2.0, rel=1e-6)
    account.check(LOOKALIKE)
    spent = Account(account.agreement, [LOOKALIKE])
    assert spent.epsilon_spent() == pytest.approx(2.0) and spent.jobs_left(LOOKALIKE) == 0
    with pytest.raises(
        NodeError, match=r"agreement\.budget.*total of ε 2.*1 jobs have spent ε 2 .*asks for ε 2"
    ):
        spent.check(replace(LOOKALIKE, epsilon=2.0))
    with pytest.raises(NodeError, match=r"agreement\.budget"):
        spent.check(replace(LOOKALIKE, epsilon=0.01))


@pytest.mark.parametrize("total", [(10.0, 1e-5), (30.0, 1e-6), (4.0, 1e-6)])
def test_what_is_let_through_keeps_the_total_and_beats_plain_addition(total):
    """The count of jobs against OpenDP's own conversion of all their noise together."""
    account, count = Account(terms(*total), ()), 0
    while account.jobs_left(LOOKALIKE):
        account.check(LOOKALIKE)
        count += 1
        account = Account(account.agreement, [LOOKALIKE] * count)
    scale = noise.noise_scale(2.0, 1e-6, 1e6)
    # `count` Gaussians are one with sqrt(count) times the sensitivity.
    assert noise.epsilon_of(scale, total[1], 1e6 * math.sqrt(count)) <= total[0]
    assert noise.epsilon_of(scale, total[1], 1e6 * math.sqrt(count + 1)) > total[0]
    assert count >= total[0] / 2
    assert account.epsilon_spent() <= total[0] * (1 + 1e-9)
    left = account.epsilon_left(1e-6)
    assert left is not None and left < 2
    if left > 0.01:
        Account(account.agreement, [*account.spends]).check(replace(LOOKALIKE, epsilon=left * 0.999))


def test_a_join_costs_its_epsilon_at_the_most_and_a_delta_of_its_own():
    account = Account(terms(10.0, 4e-6, suites=["ecdh", "private_join"]), ())
    assert account.jobs_left(JOIN) == 2  # half of δ is set aside: 2e-6
    two = Account(account.agreement, [JOIN, JOIN])
    with pytest.raises(NodeError, match=r"agreement\.budget"):
        two.check(JOIN)
    two.check(LOOKALIKE)
    assert two.epsilon_spent() <= 4.0 + 1e-9  # plain addition is the bound that fits here
    assert Account(terms(10.0, 4e-6), ()).jobs_left(JOIN) == 0  # no suite for it: nothing set aside


def test_without_a_total_it_is_counted_and_nothing_refused():
    privacy = {"epsilon": 2.0, "delta": 1e-6, "clip": 5.0}
    account = Account(agreement(privacy=privacy), [LOOKALIKE] * 50)
    account.check(LOOKALIKE)
    assert account.to_document()["epsilon_spent"] == 100 and account.jobs_left(LOOKALIKE) is None


def test_agreements_signed_before_there_was_a_total_keep_their_hash():
    old = agreement(privacy={"epsilon": 2.0, "delta": 1e-6, "clip": 5.0})
    assert "privacy_total" not in old.to_json()
    assert Agreement.from_json(old.to_json()) == old
    new = terms(10.0, 1e-5)
    assert Agreement.from_json(json.loads(json.dumps(new.to_json()))) == new and new.hash != old.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy_total": {"epsilon": 2.0, "delta": 1e-6}},  # without noise there is nothing finite to count
        {
            "privacy": {"epsilon": 1.0, "delta": 1e-6, "clip": 1.0},
            "privacy_total": {"epsilon": 0.0, "delta": 1e-6},
        },
        {
            "privacy": {"epsilon": 1.0, "delta": 1e-6, "clip": 1.0},
            "privacy_total": {"epsilon": 1.0, "delta": 0.5},
        },
        {"privacy": {"epsilon": 1.0, "delta": 1e-6, "clip": 1.0}, "privacy_total": {"epsilon": 1.0}},
    ],
)
def test_totals_that_mean_nothing_are_refused(changes):
    with pytest.raises(NodeError, match=r"document\."):
        agreement(**changes)


# -- the books -----------------------------------------------------------------------------------------------


def test_of_jobs_that_race_only_as_many_spend_as_fit(tmp_path):
    store, agreed = Store(tmp_path / "node.db"), terms(2.0, 1e-6)
    start, errors = threading.Barrier(8), []

    def one(n: int) -> None:
        start.wait()
        try:
            store.spend(agreed, replace(LOOKALIKE, job_id=f"job-{n}"))
        except NodeError as error:
            errors.append(error.code)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["agreement.budget"] * 7
    assert len(store.account(agreed).spends) == 1
    store.close()
    # Another agreement has an account of its own, and so has the same one read from outside.
    assert read_account(tmp_path / "node.db", replace(agreed, id="a2")).spends == ()
    assert len(read_account(tmp_path / "node.db", agreed).spends) == 1
    assert read_account(tmp_path / "none.db", agreed).spends == ()


def test_a_spend_outlives_a_kill(tmp_path):
    """The process is killed the moment `spend` has returned; nothing closes the database."""
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
from pathlib import Path
from test_budget import LOOKALIKE, terms
from parties.store import Store
Store(Path({str(tmp_path / "node.db")!r})).spend(terms(2.0, 1e-6), LOOKALIKE)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=240)
    assert killed.returncode == -9, killed.stderr
    store = Store(tmp_path / "node.db")
    with pytest.raises(NodeError, match=r"agreement\.budget"):
        store.spend(terms(2.0, 1e-6), LOOKALIKE)
    store.close()


# -- whole jobs ----------------------------------------------------------------------------------------------


@pytest.fixture
def homes(tmp_path):
    brand, provider = real_job.people(420)
    made = {
        "brand": real_job.make_home(tmp_path, "acme", "dataco", brand, "手机"),
        "provider": real_job.make_home(tmp_path, "dataco", "acme", provider, "phone"),
    }
    real_job.introduce(made["brand"], made["provider"], terms(2.0, 1e-6).to_json())
    return made


def _run(homes, job_id, before=lambda role, stage, center: None):
    spec = real_job.spec_of("lookalike", job_id, columns=["*"])
    return real_job.run(homes, spec, {"label": "loyal", "holdout": 0.2}, before=before)


@pytest.mark.slow
def test_a_job_that_fails_after_the_fit_has_spent_and_the_next_is_refused_by_both(homes):
    def fail(role, stage, center):
        if role == "provider" and stage == "score":
            raise NodeError("rows.unreadable", "the disk is gone")

    broken = _run(homes, "job-1", before=fail)
    assert all(isinstance(outcome, Exception) for outcome in broken.values())
    agreed = terms(2.0, 1e-6)
    for home in homes.values():
        account = read_account(home.path / "node.db", agreed)
        assert [s.job_id for s in account.spends] == ["job-1"] and account.jobs_left(LOOKALIKE) == 0
        store = Store(home.path / "node.db")
        (leaf,) = (number for kind, number in store.leaves("job-1") if kind == "job.spend")
        store.close()
        with home.center() as center:
            payload = center.opening(leaf)["payload"]
        assert (payload["epsilon"], payload["total"]["epsilon"]) == (2.0, 2.0)
    refused = _run(homes, "job-2")
    assert refused["provider"].code == "agreement.budget" and refused["provider"].share
    assert refused["brand"].code == "agreement.budget"
    shown = CliRunner().invoke(
        cli, ["node", "agreement", "show", "a1", "--home", str(homes["brand"].path), "--json"]
    )
    account = json.loads(shown.stdout)["account"]
    assert account["jobs_left"] == 0 and account["epsilon_spent"] == pytest.approx(2.0)
    assert [s["job_id"] for s in account["spends"]] == ["job-1"]
    words = CliRunner().invoke(cli, ["node", "agreement", "show", "a1", "--home", str(homes["brand"].path)])
    assert "lookalikes left" in words.stdout and "job-1" in words.stdout


def test_a_spent_budget_is_refused_when_the_job_is_proposed(tmp_path, monkeypatch):
    spends = replace(LOOKALIKE, kind="probe")
    monkeypatch.setattr(nodes, "PROBE", replace(nodes.PROBE, spends=lambda spec, agreed: spends))
    homes = [nodes.make_home(tmp_path, "brand", ("prov",)), nodes.make_home(tmp_path, "prov", ("brand",))]
    pair = [nodes.LocalNode(home) for home in homes]
    try:
        nodes.introduce(*pair)
        signed = terms(2.0, 1e-6, brand="brand", provider="prov").to_json() | {
            "id": "total",
            "kinds": ["probe"],
            "purposes": [nodes.PURPOSE],
            "categories": [nodes.CATEGORY],
            "preapproved": ["probe"],
            "minimum_rows": 1,
        }
        countersigned = homes[1].sign_agreement(homes[0].sign_agreement(signed))
        for home in homes:
            home.add_agreement(countersigned)
        agreed = pair[1].home.agreement("total")
        pair[1].store.spend(agreed, replace(LOOKALIKE, job_id="earlier"))
        with pair[0].client() as brand, pair[1].client() as prov:
            job_id = brand.submit(nodes.request("total"))
            ours, theirs = brand.wait(job_id), prov.wait(job_id)
            assert ours["error"]["code"] == theirs["error"]["code"] == "agreement.budget"
            assert "1 jobs have spent" in ours["error"]["detail"] and ours["state"] == "rejected"
            assert theirs["privacy"]["jobs_left"] == 0 and ours["privacy"]["jobs_left"] == 1
            (listed,) = prov.agreements()
            assert listed["account"]["spends"][0]["job_id"] == "earlier"
    finally:
        for node in pair:
            node.stop()
