"""Rates, funnels, A/B: the figures against counting by hand, the statistics against published numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from consent_helpers import START, Clock, ads, event, make, notice, phone
from hypothesis import given, settings
from hypothesis import strategies as st
from test_collection import FORM

from consent_center.analytics.statistics import Proportion, compare, sample_size
from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.model import Notice
from consent_center.rest.app import create_app
from pec.cli_common import run
from pec.cli_consent import consent


def test_wilson_and_newcombe_are_the_published_numbers() -> None:
    """Newcombe, Stat. Med. 17 (1998): 857-872 (81/263) and 873-890, table II (56/70 against 48/80)."""
    low, high = Proportion(81, 263).interval()
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    found = compare(Proportion(48, 80), Proportion(56, 70))
    assert round(found.difference, 4) == 0.2
    assert [round(v, 4) for v in found.interval] == [0.0524, 0.3339]


@settings(max_examples=100, deadline=None)
@given(a=st.integers(0, 400), n=st.integers(1, 400), b=st.integers(0, 400), m=st.integers(1, 400))
def test_the_numbers_are_those_of_scipy(a: int, n: int, b: int, m: int) -> None:
    """Wilson's interval; the pooled z test, which is the chi-square test of the table; Fisher's."""
    from scipy import stats

    one, two = Proportion(min(a, n), n), Proportion(min(b, m), m)
    theirs = stats.binomtest(one.successes, one.trials).proportion_ci(method="wilson")
    assert one.interval() == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    table = [[x.successes, x.trials - x.successes] for x in (one, two)]
    found = compare(one, two)
    if found.test == "Fisher exact":
        assert found.p_value == pytest.approx(min(1.0, stats.fisher_exact(table).pvalue))
        if 0 < one.successes + two.successes < n + m:
            assert stats.contingency.expected_freq(table).min() < 5
    else:
        assert stats.contingency.expected_freq(table).min() >= 5 - 1e-9
        assert found.p_value == pytest.approx(
            stats.chi2_contingency(table, correction=False).pvalue, abs=1e-12
        )


def test_few_people_get_the_exact_test() -> None:
    """Fisher's tea: 3 of 4 against 1 of 4, two-sided p = 0.4857."""
    found = compare(Proportion(1, 4), Proportion(3, 4))
    assert found.test == "Fisher exact" and round(found.p_value, 4) == 0.4857


def test_sample_sizes() -> None:
    """Two proportions at alpha 0.05 and power 0.8, without continuity correction."""
    assert sample_size(0.5, 0.1) == 388
    assert sample_size(0.1, 0.05) == 686
    assert sample_size(0.5, 0.0) is None and sample_size(0.97, 0.05) is None


@settings(max_examples=200, deadline=None)
@given(a=st.integers(0, 200), n=st.integers(1, 200), b=st.integers(0, 200), m=st.integers(1, 200))
def test_intervals_hold_their_rates(a: int, n: int, b: int, m: int) -> None:
    one, two = Proportion(min(a, n), n), Proportion(min(b, m), m)
    low, high = one.interval()
    assert 0 <= low <= one.rate <= high <= 1
    found, back = compare(one, two), compare(two, one)
    assert found.interval[0] - 1e-12 <= found.difference <= found.interval[1] + 1e-12
    assert 0 <= found.p_value <= 1 and abs(found.p_value - back.p_value) < 1e-9


def test_a_test_of_equals_is_rarely_significant() -> None:
    """5 % of tests of two equal notices are: the share over 400 draws lies near that."""
    rng = random.Random(7)
    hits = 0
    for _ in range(400):
        a, b = (sum(rng.random() < 0.4 for _ in range(300)) for _ in range(2))
        hits += compare(Proportion(a, 300), Proportion(b, 300)).significant
    assert hits <= 20 + 4 * (400 * 0.05 * 0.95) ** 0.5


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with make(tmp_path / "center", Clock()) as center:
        yield center


def fill(center: Center) -> None:
    made = [event(n, channel="web") for n in range(30)]
    made += [event(n, action="denied", channel="web", notice_version=1) for n in range(30, 40)]
    made += [event(n, channel="shop", occurred_at=START - timedelta(days=40)) for n in range(40, 52)]
    made += [event(n, action="withdrawn", channel="web", occurred_at=START) for n in range(12)]
    made += [event(n, action="denied", channel="fax") for n in range(60, 63)]
    center.record_many(made)


def test_rates_are_what_was_decided(center: Center) -> None:
    fill(center)
    told = center.analytics.rates("channel")
    groups = {g["key"]: g for g in told["groups"]}
    assert (groups["web"]["granted"], groups["web"]["denied"], groups["web"]["withdrawn"]) == (30, 10, 12)
    assert groups["web"]["consent_rate"] == 0.75 and groups["web"]["withdrawal_rate"] == 0.4
    assert groups["fax"]["suppressed"] and groups["fax"]["denied"] is None
    # The total is told, so one more group is not: it would say how many the fax had.
    assert told["total"]["granted"] == 42 and told["total"]["denied"] == 13 and not told["withheld"]
    assert groups["shop"]["suppressed"] and groups["shop"]["consent_rate"] is None
    groups = {
        g["key"]: g for g in center.analytics.rates("channel", since=START - timedelta(days=60))["groups"]
    }
    assert groups["shop"]["granted"] is None
    assert (
        center.analytics.rates("channel", until=START - timedelta(days=30))["groups"][0]["consent_rate"]
        == 1.0
    )
    assert center.analytics.rates("notice")["groups"][0]["key"] == "ads-notice 1"
    months = {g["key"]: g["granted"] for g in center.analytics.rates("month")["groups"]}
    assert months == {"2026-01": 12, "2026-02": 30, "2026-03": 0}
    late = center.analytics.rates("purpose", since=START - timedelta(days=2))
    assert late["groups"][0]["granted"] == 30
    assert center.analytics.rates("purpose", purpose="nobody")["groups"] == []


def test_assumed_consent_is_no_decision(center: Center) -> None:
    import pyarrow as pa

    values = pa.array([phone(n) for n in range(20)])
    center.assume(values, "phone", "ads", "provider", ["contact"], "trial", "me")
    assert center.analytics.rates()["groups"] == []


def test_where_people_stand(center: Center) -> None:
    fill(center)
    (group,) = center.analytics.standing()["groups"]
    assert group == {
        "purpose": "ads",
        "recipient": "provider",
        "regulation": "PIPL",
        "people": 55,
        "granted": 30,
        "outdated": 0,
        "ended": 0,
        "denied": 13,
        "withdrawn": 12,
        "suppressed": False,
    }
    center.put_purpose(ads(2))
    (group,) = center.analytics.standing()["groups"]
    assert (group["granted"], group["outdated"]) == (0, 30)


def test_the_funnel_counts_displays_and_decisions(center: Center) -> None:
    center.collection.put_form(FORM)
    for number in range(12):
        link = center.collection.link([("phone", phone(number))], "signup")
        page = center.collection.view(link["token"], "page", "en")
        if number < 11:
            action = "grant" if number < 6 else "refuse"
            key = page["offers"][0]["key"]
            center.collection.answer(link["token"], "page", page["ticket"], key, action)
    (group,) = center.analytics.funnel()["groups"]
    assert (group["shown"], group["decided"], group["granted"]) == (12, 11, 6)
    (channel,) = center.analytics.funnel(by="channel")["groups"]
    assert channel == {
        "channel": "preference_page",
        **{"shown": 12, "decided": 11, "granted": 6, "suppressed": False},
    }
    token = center.collection.link([("phone", phone(10))], "signup")["token"]
    again = center.collection.view(token, "page", "en")  # who refused and then agrees is one person
    for action in ("grant", "withdraw", "grant"):
        center._clock.forward(minutes=1)
        center.collection.answer(token, "page", again["ticket"], again["offers"][0]["key"], action)
    (group,) = center.analytics.funnel()["groups"]
    assert (group["decided"], group["granted"]) == (11, 7)
    few = center.analytics.funnel(least=12)["groups"][0]
    assert (few["shown"], few["decided"], few["granted"]) == (13, None, None)
    assert group["channel"] == "preference_page" and group["notice"] == "ads-notice"
    assert center.analytics.funnel(until=START - timedelta(days=2))["groups"] == []
    assert center.analytics.funnel(least=14)["groups"][0]["shown"] is None


def test_an_experiment_counts_each_person_once(center: Center) -> None:
    center.put_notice(Notice("ads-short", 1, "ads", 1, {"en": "short"}))
    center.collection.put_experiment(
        {
            "id": "short",
            "purpose": "ads",
            "a": {"notice": "ads-notice", "version": 1},
            "b": {"notice": "ads-short", "version": 1},
        }
    )
    made = [event(n, action="granted" if n < 40 else "denied") for n in range(100)]
    made += [
        event(n, notice="ads-short", notice_version=1, action="granted" if n < 160 else "denied")
        for n in range(100, 200)
    ]
    center.record_many(made)
    center.record_many([event(n, occurred_at=START) for n in range(40, 60)])  # changed their minds later
    told = center.analytics.experiment("short")
    assert (told["arms"]["a"]["people"], told["arms"]["a"]["rate"]) == (100, 0.4)
    assert (told["arms"]["b"]["people"], told["arms"]["b"]["rate"]) == (100, 0.6)
    assert told["comparison"]["significant"] and round(told["comparison"]["p_value"], 4) == 0.0047
    assert told["needed_per_arm"] == sample_size(0.4, 0.05) and not told["enough"]
    assert center.analytics.experiment("short", 0.2)["enough"]
    assert center.analytics.experiment("short", least=101)["comparison"] is None


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda a: a.rates("colour"), "analytics.request"),
        (lambda a: a.rates(least=1), "analytics.request"),
        (lambda a: a.funnel(by="week"), "analytics.request"),
        (lambda a: a.experiment("none"), "collection.unknown"),
        (lambda a: a.experiment("none", effect=0), "analytics.request"),
    ],
)
def test_what_is_refused(center: Center, call: Any, code: str) -> None:
    with pytest.raises(ConsentError, match=code):
        call(center.analytics)


def test_over_rest_and_by_command(center: Center, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(center)
    center.put_notice(notice(2, material=False))
    client = create_app(center, "t" * 43).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer " + "t" * 43
    told = client.get("/v1/analytics/rates?by=channel&since=2026-02-01T00:00:00%2B08:00").get_json()
    assert [g["key"] for g in told["groups"]] == ["fax", "web"]
    assert client.get("/v1/analytics/rates?by=colour").status_code == 400
    assert client.get("/v1/analytics/standing").get_json()["groups"][0]["people"] == 55
    assert client.get("/v1/analytics/funnel?by=channel").get_json()["groups"] == []
    assert client.get("/v1/analytics/experiments/x").status_code == 404
    where = ["--center", str(tmp_path / "center")]
    assert run(consent, ["analytics", "rates", "--by", "channel", *where]) == 0
    assert "75.0%" in capsys.readouterr().out
    for name in ("standing", "funnel"):
        assert run(consent, ["analytics", name, *where, "--json"]) == 0
        json.loads(capsys.readouterr().out)
    assert run(consent, ["analytics", "experiment", "x", *where]) != 0
