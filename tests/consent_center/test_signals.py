"""What signals mean for a center's purposes, and what is recorded of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from consent_helpers import START, Clock, make, phone
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent_center.center import Center
from consent_center.errors import CODES, ConsentError
from consent_center.model import REASONS, DecisionRequest, Purpose
from consent_center.rest.app import create_app
from consent_center.signals import events, mapping
from consent_center.signals.signal import Signal, read_any, read_gpc, read_gpp, read_request, read_tcf
from consent_center.signals.tcf import problems

#: iabtcf-java, TCStringV2Test: consent to purposes 2 and 10, updated 2021-02-02T17:01:00Z.
TWO_AND_TEN = "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA"
RULE: dict[str, Any] = {
    "purpose": "ads",
    "recipient": "provider",
    "categories": ["contact"],
    "purpose_version": 1,
    "notice": "ads-notice",
    "notice_version": 1,
    "tcf_consents": [2, 10],
    "opt_out": ["gpc", "us.SaleOptOut", "us.SensitiveDataProcessing.2", "uspv1.OptOutSale"],
}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def table(*rules: dict[str, Any]) -> mapping.Mapping:
    return mapping.parse({"format": "pec.signals/1", "rules": list(rules or (RULE,))})


def base64(bits: str) -> str:
    bits += "0" * (-len(bits) % 6)
    return "".join(ALPHABET[int(bits[i : i + 6], 2)] for i in range(0, len(bits), 6))


def numbered(numbers: tuple[int, ...], width: int) -> str:
    return "".join("1" if i in numbers else "0" for i in range(1, width + 1))


def tc_string(updated: datetime, **given: Any) -> str:
    """A TC string made here, field by field as the specification has them."""
    tenths = round((updated - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 10)
    vendors = given.get("vendors", ())
    bits = (
        f"{2:06b}"
        + f"{tenths:036b}" * 2
        + f"{given.get('cmp', 31):012b}{1:012b}{0:06b}{4:06b}{13:06b}{100:012b}"
    )
    bits += f"{given.get('policy', 5):06b}{given.get('service', 1):b}0" + numbered(
        given.get("features", ()), 12
    )
    bits += (
        numbered(given.get("purposes", ()), 24) + "0" * 24 + f"{given.get('one', 0):b}" + f"{3:06b}{4:06b}"
    )
    bits += f"{max(vendors, default=0):016b}0" + numbered(vendors, max(vendors, default=0)) + "0" * 17
    restricted = given.get("restricted", ())  # (purpose, type, vendor)
    bits += f"{len(restricted):012b}"
    for purpose, kind, vendor in restricted:
        bits += f"{purpose:06b}{kind:02b}{1:012b}0{vendor:016b}"
    parts = [base64(bits)]
    if "disclosed" in given:
        told = given["disclosed"]
        parts.append(base64(f"001{max(told, default=0):016b}0" + numbered(told, max(told, default=0))))
    return ".".join(parts)


NOW = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)


def outcome(rule: dict[str, Any], *signals: Signal) -> tuple[str, tuple[str, ...]]:
    (found,) = mapping.judge(signals, table({**RULE, **rule}))
    return found.outcome, found.because


@pytest.mark.parametrize(
    ("rule", "given", "wanted"),
    [
        ({}, {"purposes": (2, 10)}, "granted"),
        ({}, {"purposes": (2,)}, "denied"),
        ({}, {"purposes": ()}, "denied"),
        ({"tcf_special_features": [1]}, {"purposes": (2, 10)}, "denied"),
        ({"tcf_special_features": [1]}, {"purposes": (2, 10), "features": (1,)}, "granted"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (7,), "disclosed": (7,)}, "granted"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (8,), "disclosed": (7,)}, "denied"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (7,), "disclosed": (8,)}, "denied"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (7,), "restricted": ((2, 0, 7),)}, "denied"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (7,), "restricted": ((2, 1, 7),)}, "granted"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (7,), "restricted": ((2, 2, 7),)}, "denied"),
        ({"vendor": 7}, {"purposes": (2, 10), "vendors": (7,), "restricted": ((3, 0, 7),)}, "granted"),
        # what the policy calls invalid is no consent; its refusals stay refusals
        ({}, {"purposes": (2, 10), "disclosed": None}, "nothing"),
        ({}, {"purposes": (2,), "disclosed": None}, "denied"),
        ({}, {"purposes": (2, 10), "policy": 3}, "nothing"),
        ({}, {"purposes": (2, 10), "service": 0}, "nothing"),
        ({"tcf_consents": [1]}, {"one": 1}, "nothing"),
        ({"tcf_consents": [1]}, {"one": 0}, "denied"),
    ],
)
def test_what_a_tc_string_means(rule: dict[str, Any], given: dict[str, Any], wanted: str) -> None:
    given = {"disclosed": (7, 8), **given}
    if given["disclosed"] is None:
        del given["disclosed"]
    found, because = outcome(rule, read_tcf(tc_string(NOW, **given)))
    assert found == wanted, because
    assert because


def test_tcf_2_3_needs_disclosed_vendors_from_march_2026() -> None:
    for day, wanted in (
        (datetime(2026, 2, 28, tzinfo=UTC), ()),
        (datetime(2026, 3, 1, tzinfo=UTC), ("no_disclosed_vendors",)),
    ):
        signal = read_tcf(tc_string(day, purposes=(2, 10)))
        assert signal.tc is not None and problems(signal.tc) == wanted


@pytest.mark.parametrize(
    ("text", "wanted", "because"),
    [
        ("DBABTA~1YYN", "opted_out", "uspv1.OptOutSale = Y"),
        ("DBABTA~1YNN", "nothing", "no signal"),
        ("DBABRg~BaAAAAA", "nothing", "no signal"),  # go-gpp: notices were given, nothing opted out
        ("DBACTjw~1YNN~BSZZYgkA~BaRlkCSA.QA", "opted_out", "usct.SaleOptOut = 1"),
        ("DBABLA~BAAAAAAAAQA.YA", "opted_out", "usnat.Gpc = 1"),  # GPC relayed inside the string
        ("DBABLA~BAAAAAAAAQA.QA", "nothing", "no signal"),
    ],
)
def test_what_us_sections_mean(text: str, wanted: str, because: str) -> None:
    found, why = outcome({}, read_gpp(text))
    assert found == wanted and because in why[0]


def test_an_opt_out_outweighs_a_grant_and_a_section_of_sensitive_data_counts() -> None:
    grant = read_tcf(tc_string(NOW, purposes=(2, 10), disclosed=()))
    assert outcome({}, grant)[0] == "granted"
    control = read_gpc("1")
    assert control is not None
    assert outcome({}, grant, control) == ("opted_out", ("Sec-GPC: 1",))
    assert outcome({"opt_out": []}, grant, control)[0] == "granted"
    virginia = read_gpp("DBABRg~BSFgmiU")  # SensitiveDataProcessing 1, 2, 0 …: the first, not the second
    assert outcome({}, virginia)[0] == "nothing"
    assert outcome({"opt_out": ["us.SensitiveDataProcessing.1"]}, virginia)[0] == "opted_out"


def test_gpc_is_one_value() -> None:
    assert read_gpc("1") is not None and read_gpc(True) is not None
    for other in ("0", "", "true", "11", None, False):
        assert read_gpc(other) is None
    with pytest.raises(ConsentError, match="signal.request"):
        read_request(gpc="0")
    assert [s.kind for s in read_request(TWO_AND_TEN, "DBABTA~1YNN", "1")] == ["iab-tcf", "iab-gpp", "gpc"]
    assert read_any(" DBABTA~1YNN\n").kind == "iab-gpp" and read_any("Sec-GPC: 1").kind == "gpc"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"purpose": "a b"}, "purpose"),
        ({"recipient": "x,y"}, "recipient"),
        ({"tcf_consents": [25]}, "tcf_consents"),
        ({"tcf_consents": [True]}, "tcf_consents"),
        ({"tcf_consents": 3}, "tcf_consents"),
        ({"tcf_special_features": [13]}, "special"),
        ({"vendor": 70_000}, "vendor"),
        ({"vendor": 7, "tcf_consents": []}, "vendor"),
        ({"purpose_version": 0}, "purpose_version"),
        ({"notice": ""}, "notice"),
        ({"opt_out": ["usxx.SaleOptOut"]}, "usxx"),
        ({"opt_out": ["us.SaleOptOutNotice"]}, "SaleOptOutNotice"),
        ({"opt_out": ["us.MspaCoveredTransaction"]}, "Mspa"),
        ({"opt_out": ["GPC"]}, "GPC"),
        ({"opt_out": [], "tcf_consents": []}, "neither"),
        ({"colour": "red"}, "colour"),
        ({"categories": "contact"}, "categories"),
        ({"regulation": ""}, "regulation"),
    ],
)
def test_a_wrong_table_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConsentError, match="signal.mapping") as caught:
        table({**RULE, **change})
    assert "rule 1" in caught.value.detail and says in caught.value.detail


def test_a_table_as_a_whole() -> None:
    with pytest.raises(ConsentError, match="second rule"):
        table(RULE, RULE)
    for wrong in ("[]", "{", '{"format": "pec.signals/1", "rules": []}', '{"format": "other", "rules": [1]}'):
        with pytest.raises(ConsentError, match="signal.mapping"):
            mapping.loads(wrong)
    shipped = Path(mapping.__file__).with_name("example.json").read_text(encoding="utf-8")
    parsed = mapping.loads(shipped)
    assert len(parsed.rules) == 2 and mapping.parse(parsed.to_json()) == parsed


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["gpc", "us.SaleOptOut"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(RULE) + ["vendor", "regulation", "x"]), JSON))
def test_any_rule_is_taken_or_refused_with_the_code(change: dict[str, Any]) -> None:
    try:
        parsed = table({**RULE, **change})
    except ConsentError as error:
        assert error.code == "signal.mapping"
    else:
        assert mapping.parse(parsed.to_json()) == parsed and len(parsed.sha256) == 64


# ---- recorded in a center --------------------------------------------------------------------------------


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with make(tmp_path / "center") as made:
        made.put_signal_mapping(table().to_json(), "dpo")
        yield made


def record(center: Center, number: int, at: datetime, *signals: Signal) -> list[mapping.Outcome]:
    made, outcomes = events.to_events(
        signals,
        mapping.parse(center.signal_mapping()),
        [("phone", phone(number))],
        center.purposes(),
        center.notices(),
        at,
    )
    events.record(center, made)
    return outcomes


def reason(center: Center, number: int) -> str:
    request = DecisionRequest("ads", "provider", ("contact",))
    return REASONS[int(center.decide(request, pa.array([phone(number)]), "phone").codes[0])]


def test_a_grant_its_evidence_and_its_end(center: Center) -> None:
    day = (START - timedelta(days=1)).replace(hour=0)
    raw = tc_string(day, purposes=(2, 10), disclosed=())
    record(center, 1, START, read_tcf(raw))
    assert reason(center, 1) == "eligible"
    held = center.explain("phone", phone(1)).events[0]
    assert (held["method"], held["regulation"], held["notice"]) == ("iab-tcf", "GDPR", "ads-notice")
    assert datetime.fromisoformat(held["occurred_at"]) == day
    evidence = json.loads(held["evidence"])
    assert evidence["string"] == raw and evidence["sha256"] == read_tcf(raw).sha256
    assert evidence["mapping_sha256"] == table().sha256
    control = read_gpc("1")
    assert control is not None
    record(center, 1, START, control)
    assert reason(center, 1) == "withdrawn"
    record(center, 1, START, control)  # and with the next page once more: nothing new
    assert len(center.explain("phone", phone(1)).events) == 2
    record(center, 1, START, read_tcf(raw))  # the browser sends its old string again
    assert reason(center, 1) == "withdrawn"
    assert center.fsck() is None


def test_a_refusal_of_the_same_day_outweighs(center: Center) -> None:
    """Strings say the day only; a person who agreed this morning and refused at noon must be refused."""
    midnight = START.replace(hour=0)
    record(
        center, 1, START - timedelta(hours=3), read_tcf(tc_string(midnight, purposes=(2, 10), disclosed=()))
    )
    record(center, 1, START, read_tcf(tc_string(midnight, purposes=(2,), disclosed=())))
    assert reason(center, 1) == "denied"


def test_a_string_from_the_future_and_a_purpose_that_is_off(center: Center) -> None:
    with pytest.raises(ConsentError, match="signal.value"):
        record(
            center, 1, START, read_tcf(tc_string(START + timedelta(days=1), purposes=(2, 10), disclosed=()))
        )
    center.switch_purpose("ads", False, "dpo")
    found = record(center, 1, START, read_tcf(tc_string(START, purposes=(2, 10), disclosed=())))
    assert (found[0].outcome, found[0].because) == ("nothing", ("purpose ads is switched off",))
    found = record(center, 1, START, read_tcf(tc_string(START, purposes=(), disclosed=())))
    assert found[0].outcome == "denied"


def test_the_table_must_fit_the_registry(tmp_path: Path) -> None:
    with make(tmp_path / "center") as center:
        with pytest.raises(ConsentError, match="no table is stored"):
            center.signal_mapping()
        for change in (
            {"purpose": "other"},
            {"purpose_version": 2},
            {"notice_version": 9},
            {"categories": ["x"]},
        ):
            with pytest.raises(ConsentError, match="signal.mapping"):
                center.put_signal_mapping(table({**RULE, **change}).to_json())
        first = center.put_signal_mapping(table().to_json())
        assert center.put_signal_mapping(table().to_json())["leaf"] == first["leaf"]
        center.put_purpose(Purpose("more", 1, {"en": "More"}, ("contact",)))
        second = center.put_signal_mapping(
            table(RULE, {"purpose": "more", "recipient": "x", "opt_out": ["gpc"]}).to_json()
        )
        assert second["leaf"] > first["leaf"] and len(center.signal_mapping()["rules"]) == 2
        assert center.opening(second["leaf"])["payload"]["mapping"]["rules"][1]["purpose"] == "more"
        assert center.fsck() is None
        with pytest.raises(ConsentError, match="ledger.payload"):
            center.append("signals.mapping", {"mapping": table().to_json(), "actor": "somebody"})
        with closing(sqlite3.connect(tmp_path / "center" / "center.db")) as file, file:
            file.execute("UPDATE meta SET value = ? WHERE key = 'signals_mapping'", (str(first["leaf"]),))
        found = center.fsck()
        assert found is not None and found.where == "meta signals_mapping"


# ---- REST ------------------------------------------------------------------------------------------------


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    with make(tmp_path / "center", Clock()) as center:
        clock = Clock()
        clock.now = datetime.now(UTC) + timedelta(days=1)
        center._clock = clock
        client = create_app(center, "t" * 43).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = "Bearer " + "t" * 43
        answer = client.post("/v1/signals/mapping", json={"mapping": table().to_json(), "actor": "dpo"})
        assert answer.status_code == 200, answer.text
        yield client


def test_over_rest(client: FlaskClient) -> None:
    body = {"phone": phone(1), "tc_string": TWO_AND_TEN}
    answer = client.post("/v1/signals", json=body)
    assert answer.status_code == 201, answer.text
    found = answer.get_json()
    assert found["outcomes"][0]["outcome"] == "granted" and len(found["events"]) == 1
    assert found["understood"][0]["tcf"]["purposeConsents"] == [2, 10]
    answer = client.post("/v1/signals", json=body, headers={"Sec-GPC": "1"})
    assert answer.get_json()["outcomes"][0] == {
        "purpose": "ads",
        "recipient": "provider",
        "regulation": "GDPR",
        "outcome": "opted_out",
        "because": ["Sec-GPC: 1"],
        "signal": "gpc",
    }
    asked = {"purpose": "ads", "recipient": "provider", "categories": ["contact"], "kind": "phone"}
    decided = client.post("/v1/decisions", json={**asked, "values": [phone(1)]}).get_json()
    assert decided["reasons"] == ["withdrawn"]
    assert client.post("/v1/signals", json={"phone": phone(2), "gpc": True}).get_json()["events"]
    assert client.get("/v1/signals/mapping").get_json()["rules"][0]["purpose"] == "ads"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"phone": "13800138000"}, 422, "signal.request"),
        ({"phone": "13800138000", "gpc": False}, 422, "signal.request"),
        ({"tc_string": TWO_AND_TEN}, 422, "event.identifier"),
        ({"phone": "x", "tc_string": TWO_AND_TEN}, 422, "event.identifier"),
        ({"phone": "13800138000", "tc_string": "COtybn4"}, 422, "signal.encoding"),
        ({"phone": "13800138000", "tc_string": "B" * 17_000}, 400, "request.invalid"),
        ({"phone": "13800138000", "gpp_string": "DBABRg~bSFgmiU"}, 422, "signal.version"),
        ({"phone": "13800138000", "tc_string": 7}, 400, "request.invalid"),
    ],
)
def test_what_rest_refuses(client: FlaskClient, body: dict[str, Any], status: int, code: str) -> None:
    answer = client.post("/v1/signals", json=body)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


BODIES = st.fixed_dictionaries(
    {},
    optional={
        "phone": st.just(phone(3)) | JSON,
        "tc_string": st.just(TWO_AND_TEN) | st.text(max_size=30) | JSON,
        "gpp_string": st.sampled_from(["DBABTA~1YNN", "DBACTjw~1YYN~BSZZYgkA~BaRlkCSA.QA", "~"]) | JSON,
        "gpc": JSON,
        "channel": JSON,
        "mapping": JSON,
    },
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(BODIES, st.sampled_from(["1", "0", "", "\t", "é"]), st.sampled_from(["", "/mapping"]))
def test_no_body_makes_it_fail(client: FlaskClient, body: dict[str, Any], header: str, path: str) -> None:
    answer = client.post(f"/v1/signals{path}", json=body, headers={"Sec-GPC": header})
    assert answer.status_code < 500, answer.text
    assert answer.status_code < 300 or answer.get_json()["code"] in CODES
