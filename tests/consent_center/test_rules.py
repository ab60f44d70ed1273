"""Rules of the house: what files say, whom they refuse, who would change, and that limits hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import REQUEST, Clock, event, make, phone, reason
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from consent_center.center import Center
from consent_center.errors import ConsentError
from consent_center.model import DecisionRequest
from consent_center.records.assess import file_assessment
from consent_center.rest.app import create_app
from consent_center.rules.document import DAYS, parse
from consent_center.rules.house import House
from consent_center.rules.regions import RegionIndex, universe
from consent_center.rules.tables import regions, rule_uses
from pec.cli_common import run
from pec.cli_consent import consent

HEAD = 'format = "pec.rules/1"\n'


def rule(**keys: Any) -> str:
    """One rule as TOML; values look the same in JSON, but `raw_` keys are written as they are."""
    lines = [
        f"{k.removeprefix('raw_').rstrip('_')} = {v if k.startswith('raw_') else json.dumps(v)}"
        for k, v in {"id": "r", "effect": "deny", **keys}.items()
    ]
    return "[[rule]]\n" + "\n".join(lines) + "\n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def center(tmp_path: Path, clock: Clock) -> Iterator[Center]:
    with make(tmp_path / "center", clock) as center:
        center.record_many([event(n) for n in range(10)])
        center.record(event(11, recipient="media"))
        yield center


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("format = ", 1, "no TOML"),
        ('format = "pec.rules/2"', 1, "format"),
        (HEAD + "colour = 1", 2, "colour"),
        (HEAD + rule(effect="forbid"), 4, "effect"),
        (HEAD + rule() + "\n" + rule(), 7, "second"),
        (HEAD + rule(id="a b"), 3, "id"),
        (HEAD + rule(purposes="ads"), 5, "purposes"),
        (HEAD + rule(purposes=[]), 5, "empty"),
        (HEAD + rule(recipients=["a,b"]), 5, "no name"),
        (HEAD + rule(regions=["China"]), 5, "regions"),
        (HEAD + rule(days=["monday"]), 5, "days"),
        (HEAD + rule(hours="8-9"), 5, "hours"),
        (HEAD + rule(zone="Mars/Base"), 5, "zone"),
        (HEAD + rule(raw_from='"2026-01-01"'), 5, "TOML date"),
        (HEAD + rule(raw_from="2026-02-01", raw_until="2026-01-01"), 6, "until"),
        (HEAD + rule(jobs=3), 5, "limit"),
        (HEAD + rule(effect="limit", jobs=3), 2, "per"),
        (HEAD + rule(effect="limit", per="day"), 4, "limit needs"),
        (HEAD + rule(effect="limit", per="day", jobs=-1), 6, "jobs"),
        (HEAD + rule(effect="limit", per="day", jobs=True), 6, "jobs"),
        (HEAD + rule(effect="limit", per="day", jobs=1, regions=["CN"]), 7, "regions"),
        (HEAD + rule(unknown_region=True), 5, "unknown_region"),
        (HEAD + rule(when="now"), 5, "unknown key"),
        (HEAD + 'rule = "x"', 1, "[[rule]]"),
    ],
)
def test_an_error_names_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(ConsentError) as caught:
        parse(text)
    assert caught.value.code == "rules.file"
    assert caught.value.detail.startswith(f"line {line}:"), caught.value.detail
    assert what in caught.value.detail


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    for candidate in (text, HEAD + text, HEAD + "[[rule]]\n" + text):
        try:
            parse(candidate)
        except ConsentError as error:
            assert error.code == "rules.file" and error.detail.startswith("line ")


def test_a_rule_refuses_from_the_next_decision_on(center: Center) -> None:
    before = center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job-1").document["rules_hash"]
    done = center.rules.apply(HEAD + rule(purposes=["ads"], recipients=["provider"]), "wang")
    assert reason(center, 1) == "blocked_by_rule"
    assert reason(center, 11, DecisionRequest("ads", "media", ("contact",))) == "eligible"
    after = center.snapshot(REQUEST, pa.array([phone(1)]), "phone", "job-2").document["rules_hash"]
    assert before != after and center.opening(done["leaf"])["payload"]["actor"] == "wang"
    assert center.rules.show()["version"] == 1
    center.rules.apply("")
    assert reason(center, 1) == "eligible" and center.rules.show()["rules"] == []
    assert center.fsck() is None


def test_a_running_job_drops_who_is_refused(center: Center) -> None:
    taken = center.snapshot(REQUEST, pa.array([phone(n) for n in range(3)]), "phone", "job-1")
    assert len(center.delta(taken.id).withdrawn) == 0
    center.rules.apply(HEAD + rule(categories=["contact"]))
    assert len(center.delta(taken.id).withdrawn) == 3


def test_another_process_sees_new_rules(center: Center, tmp_path: Path, clock: Clock) -> None:
    with Center.open(tmp_path / "center", clock) as other:
        assert reason(other, 1) == "eligible"
        center.rules.apply(HEAD + rule())
        assert reason(other, 1) == "blocked_by_rule"


def test_allow_rules_close_what_they_speak_of(center: Center) -> None:
    center.rules.set_regions(
        [("phone", phone(1), "CN-31"), ("phone", phone(2), "DE"), ("phone", phone(3), "HK")]
    )
    center.rules.apply(
        HEAD + rule(effect="allow", recipients=["provider"], regions=["CN"], categories=["contact"])
    )
    assert [reason(center, n) for n in (1, 2, 4)] == ["eligible", "blocked_by_rule", "blocked_by_rule"]
    both = DecisionRequest("ads", "provider", ("contact", "usage"))
    assert reason(center, 1, both) == "category_out_of_scope"
    assert reason(center, 11, DecisionRequest("ads", "media", ("contact",))) == "eligible"
    center.rules.apply(HEAD + rule(regions=["EU"]))  # a denial covers those of unknown region
    assert [reason(center, n) for n in (1, 2, 4)] == ["eligible", "blocked_by_rule", "blocked_by_rule"]
    center.rules.apply(HEAD + rule(regions=["EU"], unknown_region=False))
    assert [reason(center, n) for n in (1, 2, 4)] == ["eligible", "blocked_by_rule", "eligible"]
    center.rules.set_regions([("phone", phone(2), "CN")])
    assert reason(center, 2) == "eligible" and center.rules.show()["regions"] == {
        "CN": 1,
        "CN-31": 1,
        "HK": 1,
    }
    assert center.rules.set_regions([("phone", phone(77), "CN")]) == {"set": 0, "unknown": 1}
    with pytest.raises(ConsentError, match="rules.region"):
        center.rules.set_regions([("phone", phone(1), "Shanghai")])


def test_a_region_that_was_changed_is_not_believed(center: Center) -> None:
    center.rules.set_regions([("phone", phone(1), "DE")])
    center.rules.apply(HEAD + rule(regions=["EU"], unknown_region=False))
    assert center.fsck() is None
    with center.room.write() as connection:
        connection.execute(regions.update().values(region="CN"))
    assert reason(center, 1) == "stale"
    found = center.fsck()
    assert found is not None and found.where.startswith("regions")


def test_an_erased_person_has_no_region(center: Center) -> None:
    center.rules.set_regions([("phone", phone(1), "DE"), ("phone", phone(2), "CN")])
    center.erase("phone", phone(1), "dpo")
    assert center.rules.show()["regions"] == {"CN": 1} and center.fsck() is None


@pytest.mark.parametrize(
    ("keys", "times"),
    [
        ({"hours": "22:00-08:00"}, {"21:59": False, "22:00": True, "07:59": True, "08:00": False}),
        ({"hours": "09:00-17:00"}, {"08:59": False, "09:00": True, "16:59": True, "17:00": False}),
    ],
)
def test_hours_are_those_of_the_zone(keys: dict[str, Any], times: dict[str, bool]) -> None:
    found = parse(HEAD + rule(**keys)).rules[0]
    for clock, inside in times.items():
        hour, minute = map(int, clock.split(":"))
        there = datetime(2026, 3, 2, hour, minute, tzinfo=UTC) - timedelta(hours=8)
        assert found.applies_at(int(there.timestamp() * 1e6)) is inside, clock


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    found = parse(HEAD + rule(hours="22:00-08:00", days=["fri"])).rules[0]
    friday = datetime(2026, 3, 6, 23, 0, tzinfo=UTC) - timedelta(hours=8)
    for hours, inside in ((0, True), (8, True), (9, False), (-24, False), (24, False), (-20, False)):
        assert found.applies_at(int((friday + timedelta(hours=hours)).timestamp() * 1e6)) is inside, hours
    assert DAYS[friday.weekday()] == "fri"


def test_dates_are_the_zones(center: Center, clock: Clock) -> None:
    center.rules.apply(HEAD + rule(raw_from="2026-03-02", raw_until="2026-03-03"))
    clock.now = datetime(2026, 3, 1, 15, 59, tzinfo=UTC)
    assert reason(center, 1) == "eligible"
    clock.now = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)
    assert reason(center, 1) == "blocked_by_rule"
    clock.now = datetime(2026, 3, 2, 16, 0, tzinfo=UTC)
    assert reason(center, 1) == "eligible"


def test_a_dry_run_shows_who_would_change(center: Center) -> None:
    center.record(event(3, action="withdrawn"))
    center.rules.set_regions([("phone", phone(n), "DE") for n in (2, 3, 4)])
    told = center.rules.dry_run(HEAD + rule(regions=["DE"], unknown_region=False))
    assert told["base"] == "none" and told["people_blocked"] == 2 and told["people_freed"] == 0
    (change,) = told["changes"]
    assert (change["purpose"], change["recipient"], change["category"]) == ("ads", "provider", "contact")
    assert change["before"]["in"] == 9 and change["after"]["in"] == 7 and change["sample"] == [2, 4]
    assert change["after"]["out"]["blocked_by_rule"] == 2 and change["after"]["out"]["withdrawn"] == 1
    assert reason(center, 2) == "eligible"  # nothing was put in force
    center.rules.apply(HEAD + rule())
    with pytest.raises(ConsentError, match="rules.changed"):
        center.rules.apply("", "", told["base"])
    assert center.rules.dry_run("")["people_freed"] == 10


def test_limits_hold(center: Center, clock: Clock) -> None:
    center.rules.apply(HEAD + rule(effect="limit", per="day", jobs=2))
    values = pa.array([phone(n) for n in range(3)])
    first = center.snapshot(REQUEST, values, "phone", "job-1")
    clock.forward(hours=1)
    center.snapshot(REQUEST, values, "phone", "job-2")
    with pytest.raises(ConsentError, match=r"rules.limit.*at most 2 jobs a day for provider, 2 used"):
        center.snapshot(REQUEST, values, "phone", "job-3")
    assert len(center.delta(first.id).withdrawn) == 0  # a job that runs goes on
    media = DecisionRequest("ads", "media", ("contact",))
    file_assessment(center, "ads", "media", "none: a test", "")
    assert center.snapshot(media, values, "phone", "job-4").id  # another recipient's own account
    clock.forward(hours=23)
    assert center.snapshot(REQUEST, values, "phone", "job-5").id  # the first has left the window
    assert reason(center, 1) == "eligible" and center.fsck() is None


def test_limits_of_decisions_and_people(center: Center, clock: Clock) -> None:
    center.rules.apply(HEAD + rule(effect="limit", per="hour", decisions=2))
    assert [reason(center, 1) for _ in range(4)] == ["eligible"] * 2 + ["blocked_by_rule"] * 2
    clock.forward(hours=1)
    assert reason(center, 1) == "eligible"
    center.rules.apply(HEAD + rule(effect="limit", per="hour", people=5))
    with center.room.write() as connection:
        connection.execute(rule_uses.delete())
    many = pa.array([phone(n) for n in range(4)])
    assert center.decide(REQUEST, many, "phone").counts()["in"] == 4
    assert center.decide(REQUEST, many, "phone").counts()["in"] == 0
    assert reason(center, 1) == "eligible"  # one more fits


REGIONS = ("CN", "CN-31", "DE", "FR")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bitmaps_say_what_a_loop_over_people_says(data: st.DataObject) -> None:
    """The rules against a naive reading of them, person by person."""
    size = data.draw(st.integers(1, 12))
    where = {n: r for n in range(size) if (r := data.draw(st.sampled_from((*REGIONS, None))))}
    index = RegionIndex(1, {}, BitMap(where))
    for person, code in where.items():
        index.people.setdefault(code, BitMap()).add(person)
    names = {"purposes": ("ads", "care"), "recipients": ("a", "b"), "categories": ("x", "y")}
    text = HEAD
    for number in range(data.draw(st.integers(0, 4))):
        keys: dict[str, Any] = {"id": f"r{number}", "effect": data.draw(st.sampled_from(("deny", "allow")))}
        for name, values in {**names, "regions": ("CN", "DE", "EU")}.items():
            if chosen := data.draw(st.lists(st.sampled_from(values), max_size=2, unique=True)):
                keys[name] = chosen
        text += rule(**keys)
    rules = parse(text)
    asked = tuple(data.draw(st.lists(st.sampled_from(("x", "y")), min_size=1, max_size=2, unique=True)))
    request = DecisionRequest(
        data.draw(st.sampled_from(("ads", "care"))), data.draw(st.sampled_from("ab")), asked
    )

    def inside(one: Any, person: int) -> bool:
        if not one.regions:
            return True
        code = where.get(person)
        if code is None:
            return bool(one.unknown_region)
        country = code.partition("-")[0]
        return (
            country in one.regions or code in one.regions or ("EU" in one.regions and country in ("DE", "FR"))
        )

    wanted = set()
    for person in range(size):
        mine = [r for r in rules.rules if r.scope(request)]
        denied = any(
            r.effect == "deny" and (not r.categories or set(asked) & set(r.categories)) and inside(r, person)
            for r in mine
        )
        allows = [r for r in mine if r.effect == "allow"]
        allowed = any(
            (not r.categories or set(asked) <= set(r.categories)) and inside(r, person) for r in allows
        )
        if denied or (allows and not allowed):
            wanted.add(person)
    assert set(House(rules, 1, index, universe(size)).blocked(request, 0)) == wanted


def test_over_rest_and_by_command(center: Center, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = create_app(center, "t" * 43).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer " + "t" * 43
    text = HEAD + rule(purposes=["nobody"])
    assert client.post("/v1/rules/check", json={"text": text}).get_json()["warnings"]
    wrong = client.post("/v1/rules/check", json={"text": HEAD + rule(effect="x")})
    assert wrong.status_code == 422 and "line 4" in wrong.get_json()["detail"]
    assert client.post("/v1/rules/dry-run", json={"text": HEAD + rule()}).get_json()["people_blocked"] == 11
    assert client.put("/v1/rules", json={"text": HEAD + rule(), "base": "none"}).status_code == 200
    assert client.get("/v1/rules").get_json()["rules"][0]["id"] == "r"
    body = {"people": [{"kind": "phone", "value": phone(1), "region": "CN"}]}
    assert client.post("/v1/people/regions", json=body).get_json() == {"set": 1, "unknown": 0}
    file, places = tmp_path / "rules.toml", tmp_path / "regions.csv"
    file.write_text(HEAD + rule(effect="forbid"), encoding="utf-8")
    places.write_text(f"kind,value,region\nphone,{phone(2)},DE\n", encoding="utf-8")
    where = ["--center", str(tmp_path / "center")]
    assert run(consent, ["rules", "check", str(file), *where]) != 0
    assert "line 4" in capsys.readouterr().err
    file.write_text(HEAD + rule(regions=["DE"], unknown_region=False), encoding="utf-8")
    assert run(consent, ["region", str(places), *where]) == 0
    assert run(consent, ["rules", "dry-run", str(file), *where, "--json"]) == 0
    assert run(consent, ["rules", "check", str(file), *where]) == 0
    assert run(consent, ["rules", "apply", str(file), *where]) == 0
    assert run(consent, ["rules", "show", *where]) == 0
    assert [reason(center, n) for n in (1, 2)] == ["eligible", "blocked_by_rule"]
