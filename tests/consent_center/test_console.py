"""The console's pages: who gets in, what they show, and that nothing typed into them does harm."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from console_helpers import PASSWORD, TOKEN, add, cheap_passwords, csrf, login, post, secret_of
from flask import Flask
from flask.testing import FlaskClient

from consent_center.center import Center
from consent_center.console import references
from consent_center.console.charts import Series, bars, lines, nice_top, number
from consent_center.console.login import safe_next
from consent_center.console.registry_pages import compare
from consent_center.ledger import verify
from consent_center.model import ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.preferences.model import Cap
from consent_center.records.assess import file_assessment
from consent_center.rest.app import create_app

NUMBER = "13800138000"
HEADER = {"Authorization": f"Bearer {TOKEN}"}
SHOWN = "We give your number, encrypted, to partner A."


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Center]:
    with Center.create(tmp_path_factory.mktemp("console") / "center", "brand") as made:
        made.put_purpose(Purpose("ads", 1, {"zh": "广告", "en": "Advertising"}, ("contact", "usage")))
        made.put_notice(Notice("text", 1, "ads", 1, {"zh": "我们提供您的号码。", "en": SHOWN}))
        made.put_notice(Notice("text", 2, "ads", 1, {"zh": "我们提供。", "en": SHOWN + " Always."}, False))
        now = datetime.now(UTC)
        common: Any = {
            "purpose": "ads",
            "purpose_version": 1,
            "recipient": "partner",
            "categories": ("contact",),
        }
        for n in range(30):
            at, who = now - timedelta(days=2 * n), (("phone", f"138{n:08d}"),)
            seen = {"notice": "text", "notice_version": 1, "channel": "app", "evidence": "form 7"}
            made.record(ConsentEvent(who, action="granted", occurred_at=at, **common, **seen))
        for n in range(3):
            gone = now - timedelta(minutes=n + 1)
            made.record(
                ConsentEvent((("phone", f"138{n:08d}"),), action="withdrawn", occurred_at=gone, **common)
            )
        seen = {"notice": "text", "notice_version": 1, "actor": "shop 12", "evidence": "form 8"}
        made.record(ConsentEvent((("phone", NUMBER),), action="granted", occurred_at=now, **common, **seen))
        values = pa.array([f"138{n:08d}" for n in range(40)] + [NUMBER])
        file_assessment(made, "ads", "partner", "none: a test", "")
        made.snapshot(DecisionRequest("ads", "partner", ("contact",)), values, "phone", "job-1")
        for state in ("running", "succeeded"):
            made.append("job.state", {"job": "job-1", "state": state, "role": "brand", "peer": "partner"})
        check = {"stage": "align", "sequence": 34, "active": True, "dropped": 2, "reasons": {"withdrawn": 2}}
        made.append("job.recheck", {"job": "job-1", **check, "lag_seconds": 1.25})
        _draft(made)
        yield made


def _draft(center: Center) -> None:
    """A draft of a notice that pages can show."""
    if not any(n.id == "waiting" for n in center.notices()):
        center.put_notice(Notice("waiting", 1, "ads", 1, {"zh": "我们提供。", "en": SHOWN}))
    center.notice_board.draft(
        {"id": "waiting", "purpose": "ads", "text": {"zh": "新", "en": SHOWN}}, "a-officer"
    )


@pytest.fixture(scope="module")
def app(center: Center) -> Flask:
    return create_app(center, TOKEN)


@pytest.fixture(scope="module")
def secrets(center: Center) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        return {role: add(center, f"a-{role}", role) for role in ("viewer", "officer", "admin")}


@pytest.fixture(scope="module")
def clients(app: Flask, secrets: dict[str, str]) -> dict[str, FlaskClient]:
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        for role, secret in secrets.items():
            found[role] = app.test_client()
            page = login(found[role], f"a-{role}", secret)
            assert page.status_code == 200 and "Dashboard" in page.text
    return found


@pytest.fixture
def officer(clients: dict[str, FlaskClient]) -> FlaskClient:
    return clients["officer"]


def find_person(client: FlaskClient, value: str = NUMBER) -> str:
    found = post(client, "/console/people", {"kind": "phone", "value": value})
    assert found.status_code == 303, found.text
    return str(found.location)


def acts(center: Center) -> str:
    with center.room.read() as connection:
        rows = connection.exec_driver_sql("SELECT payload FROM entries WHERE kind = 'admin.action'")
        return "\n".join(bytes(row[0]).decode() for row in rows)


def test_login_through_the_pages(app: Flask, center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passwords(monkeypatch)
    _, first = center.accounts.add("new.one", "viewer", "root")
    client = app.test_client()
    assert client.get("/console/jobs?state=x").location == "/console/login?next=/console/jobs?state%3Dx"
    wrong = post(client, "/console/login", {"name": "new.one", "password": "wrong one here"})
    assert wrong.status_code == 403 and "account.refused" in wrong.text and "wrong one here" not in wrong.text
    step = client.post(
        "/console/login?next=/console/jobs",
        data={"csrf_token": csrf(client, "/console/login"), "name": "new.one", "password": first},
    )
    assert step.location == "/console/login/code"
    assert client.get("/console/").location == "/console/login/code", "the second factor is due"
    shown = client.get("/console/login/code").text
    assert "<svg" in shown and secret_of(shown)
    import pyotp

    done = post(client, "/console/login/code", {"code": pyotp.TOTP(secret_of(shown)).now()})
    assert done.location == "/console/password", "somebody else made the password"
    assert client.get("/console/").location == "/console/password"
    different = {"old": first, "new": PASSWORD, "again": PASSWORD + "x"}
    assert post(client, "/console/password", different).status_code == 422
    done = post(client, "/console/password", {"old": first, "new": PASSWORD, "again": PASSWORD})
    assert done.location == "/console/"
    assert client.get("/console/").status_code == 200
    assert post(client, "/console/logout", {}, page="/console/").location == "/console/login"
    assert client.get("/console/").status_code == 303


def test_cookies_headers_and_forged_forms(app: Flask, secrets: dict[str, str], center: Center) -> None:
    client = app.test_client()
    page = client.get("/console/login")
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    assert "Secure" in client.get("/console/login", base_url="https://center.example").headers["Set-Cookie"]
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"<style|<script(?! src=)|\sstyle=|\son\w+=|javascript:", page.text)
    forged = client.post("/console/login", data={"name": "a-viewer", "password": PASSWORD})
    assert forged.status_code == 400 and "request.csrf" in forged.text
    other = client.post("/console/login", data={"csrf_token": "x", "name": "a-viewer", "password": PASSWORD})
    assert other.status_code == 400


def test_a_session_calls_rest_only_with_its_token(clients: dict[str, FlaskClient]) -> None:
    """Another site can make a browser send the cookie, but not the header."""
    client = clients["officer"]
    assert client.get("/v1/purposes").status_code == 200
    body = {"kind": "phone", "value": NUMBER}
    refused = client.post("/v1/people/explain", json=body)
    assert refused.status_code == 400 and refused.get_json()["code"] == "request.csrf"
    token = csrf(client, "/console/people")
    assert client.post("/v1/people/explain", json=body, headers={"X-CSRFToken": token}).status_code == 200
    assert clients["viewer"].post(
        "/v1/people/explain", json=body, headers={"X-CSRFToken": csrf(clients["viewer"], "/console/")}
    ).status_code == 403  # fmt: skip


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/x",
        "https://evil.example",
        "/console",
        "javascript:alert(1)",
        "/\\evil",
        "/v1/x",
        None,
        7,
    ],
)
def test_nobody_is_sent_elsewhere_after_login(app: Flask, target: Any) -> None:
    with app.test_request_context("/console/login"):
        assert safe_next(target) == "/console/"
        assert safe_next("/console/jobs?page=2") == "/console/jobs?page=2"


def test_api_tokens_and_the_limit_of_attempts(
    center: Center, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap_passwords(monkeypatch)
    center.accounts.add("crm", "service", "root")
    _, text = center.accounts.new_token("crm", "mails", 1, "root")
    client, header = app.test_client(), {"Authorization": f"Bearer {text}"}
    assert client.get("/v1/purposes", headers=header).status_code == 200
    assert client.post("/v1/people/erase", json={}, headers=header).status_code == 403
    assert client.get("/console/", headers=header).status_code == 403
    center.accounts.set_active("crm", False, "root")
    assert client.get("/v1/purposes", headers=header).status_code == 401
    form = {"csrf_token": csrf(client, "/console/login"), "name": "nobody", "password": "x"}
    place = {"REMOTE_ADDR": "203.0.113.9"}
    codes = [client.post("/console/login", data=form, environ_base=place).status_code for _ in range(25)]
    assert set(codes[:20]) == {403} and set(codes[20:]) == {429}
    limited = client.post("/console/login", data=form, environ_base=place)
    assert "request.rate" in limited.text


PAGES = {
    "viewer": [
        "",
        "registry",
        "registry/purpose/ads",
        "registry/notice/text",
        "jobs",
        "jobs/job-1",
        "ledger",
        "requests",
        "rules",
        "webhooks",
        "collection",
        "contact",
        "recipients",
        "clocks",
        "witnesses",
        "webhooks?state=pending",
        "registers",
        "registers?kind=assessment",
        "registers?kind=agreement",
        "registry/draft/waiting",
    ],
    "officer": [
        "collection/form",
        "registers/processing/new",
        "registers/assessment/new",
        "registers/agreement/new",
        "registry/new-notice?draft=waiting",
        "people",
        "exports",
        "activity",
        "registry/new-purpose",
        "registry/new-notice?from=text",
    ],
    "admin": ["accounts"],
}


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_page_in_both_languages(clients: dict[str, FlaskClient], lang: str) -> None:
    for role, paths in PAGES.items():
        for path in paths:
            page = clients[role].get(f"/console/{path}", headers={"Accept-Language": lang})
            assert page.status_code == 200, path
            text = page.text
            assert f'<html lang="{"zh-CN" if lang == "zh" else "en"}">' in text
            title = re.search(r"<h1>(.*?)</h1>", text, re.S)
            assert title, path
            assert 'class="skip" href="#main"' in text and 'id="main"' in text
            assert not re.search(r"<style|<script(?! src=)|\sstyle=|\son\w+=|javascript:", text), path
            labels = set(re.findall(r'<label for="([^"]+)"', text))
            for kind, attributes in re.findall(r"<(input|select|textarea)\b([^>]*)>", text):
                if not re.search(r'type="(hidden|checkbox)"', attributes):
                    name = re.search(r'id="([^"]+)"', attributes)
                    assert name and name[1] in labels, f"{path}: {kind} without a label"
            if lang == "zh":
                main = re.sub(r"<[^>]+>", " ", text.partition("<main")[2])
                assert re.search(r"[\u4e00-\u9fff]", main), path


def test_a_viewer_sees_no_way_to_what_it_must_not_do(clients: dict[str, FlaskClient]) -> None:
    for path in PAGES["viewer"]:
        text = clients["viewer"].get(f"/console/{path}").text
        for hidden in ("/console/people", "/console/accounts", "new-purpose", "/switch", "/console/exports"):
            assert hidden not in text, (path, hidden)
    assert clients["viewer"].get("/console/people").status_code == 403
    refused = clients["viewer"].get("/console/accounts")
    assert refused.status_code == 403 and "request.forbidden" in refused.text and "nav" in refused.text


def test_search_and_timeline(officer: FlaskClient, center: Center) -> None:
    where = find_person(officer, "+86 138-0013-8000")
    assert NUMBER not in where and "8000" not in where
    page = officer.get(where).text
    assert SHOWN in page and "form 8" in page and "shop 12" in page and "text, version 1" in page
    assert page.index("Advertising") < page.index("Timeline")
    assert NUMBER not in page
    nobody = post(officer, "/console/people", {"kind": "phone", "value": "13900000000"})
    assert nobody.status_code == 200 and "Nobody with that identifier" in nobody.text
    for kind, value in (("phone", "12"), ("shoe", NUMBER)):
        wrong = post(officer, "/console/people", {"kind": kind, "value": value})
        assert wrong.status_code == 422 and f'value="{value}"' not in wrong.text
    written = acts(center)
    assert '"action":"person.search"' in written and NUMBER not in written and "13900000000" not in written


def test_references_are_for_one_account_and_an_hour(
    app: Flask, clients: dict[str, FlaskClient], center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = find_person(clients["officer"])
    assert clients["officer"].get(where).status_code == 200
    assert clients["admin"].get(where).status_code == 404, "another's reference"
    made_up = where[:-3] + ("AAA" if not where.endswith("AAA") else "BBB")
    for path in (made_up, "/console/people/x", "/console/people/" + "A" * 60):
        assert clients["officer"].get(path).status_code == 404
    monkeypatch.setattr(references, "_SECONDS", -1)
    assert clients["officer"].get(find_person(clients["officer"])).status_code == 404


def test_receipt_and_files(officer: FlaskClient, center: Center) -> None:
    where = find_person(officer)
    sequence = re.search(rf"{where}/receipt/(\d+)", officer.get(where).text)
    assert sequence
    receipt = officer.get(f"{where}/receipt/{sequence[1]}")
    assert json.loads(receipt.data)["@type"] == "dpv:ConsentReceipt"
    assert officer.get(f"{where}/receipt/1").status_code == 404, "another person's"
    everything = json.loads(officer.get(f"{where}/decisions").data)
    assert everything["events"][0]["evidence"] == "form 8" and NUMBER not in json.dumps(everything)
    evidence = officer.get(f"{where}/evidence")
    text = evidence.text
    assert "attachment" in evidence.headers["Content-Disposition"]
    assert SHOWN in text and "src=" not in text and "<script" not in text and NUMBER not in text
    assert "pec-consent/brand" in text and "leaf_hash" in text
    import hashlib

    assert hashlib.sha256(evidence.data).hexdigest() in acts(center), "the ledger has the file's hash"


def test_withdrawing_for_a_person(officer: FlaskClient, center: Center) -> None:
    where = find_person(officer, "13800000020")
    form = {
        "kind": "phone",
        "purpose": "ads",
        "recipient": "partner",
        "regulation": "PIPL",
        "evidence": "called",
    }
    wrong = post(officer, f"{where}/withdraw", {**form, "value": "13800000021"}, page=where)
    assert wrong.status_code == 404, "another person's identifier changes nothing"
    done = post(officer, f"{where}/withdraw", {**form, "value": "138 0000 0020"}, page=where)
    assert done.status_code == 303
    page = officer.get(where).text
    assert "withdrawn" in page and "called" in page and "a-officer" in page
    decided = center.decide(
        DecisionRequest("ads", "partner", ("contact",)), pa.array(["13800000020"]), "phone"
    )
    assert decided.counts() == {"in": 0, "out": {"withdrawn": 1}}


def test_jobs_tell_who_was_in_and_why(clients: dict[str, FlaskClient], center: Center) -> None:
    page = clients["viewer"].get("/console/jobs/job-1").text
    assert "eligible" in page and "unknown_subject" in page and "withdrawn" in page and "1.25 s" in page
    assert "not those that the snapshot" not in page
    assert clients["viewer"].get("/console/jobs?state=failed").text.count("job-1") == 0
    assert clients["viewer"].get("/console/jobs/none").status_code == 404
    asked = {"kind": "phone", "value": NUMBER}
    yes = post(clients["officer"], "/console/jobs/job-1", asked)
    no = post(clients["officer"], "/console/jobs/job-1", {"kind": "phone", "value": "13800000001"})
    assert "Yes: the person" in yes.text and "No: the person" in no.text and NUMBER not in yes.text
    evidence = clients["officer"].get("/console/jobs/job-1/evidence").text
    assert "token_root" in evidence and "leaf_hash" in evidence and "1.25 s" in evidence
    assert post(clients["viewer"], "/console/jobs/job-1", asked, page="/console/").status_code == 403


def test_purposes_and_notices(officer: FlaskClient, center: Center) -> None:
    form = {
        "id": "news",
        "title_zh": "资讯",
        "title_en": "News",
        "categories": "contact, usage",
        "legal_basis": "consent",
    }
    assert post(officer, "/console/registry/new-purpose", {**form, "id": "a b"}).status_code == 422
    assert post(officer, "/console/registry/new-purpose", {**form, "duration_days": "x"}).status_code == 422
    assert post(officer, "/console/registry/new-purpose", form).location == "/console/registry/purpose/news"
    text = {"id": "news-text", "purpose": "news", "text_zh": "一\r\n二", "material": "yes"}
    kept = post(officer, "/console/registry/new-notice", text)
    assert kept.location == "/console/registry/draft/news-text"
    shown = officer.get(kept.location).text
    assert "text in English is missing" in shown and "/publish" not in shown
    assert not any(n.id == "news-text" for n in center.notices()), "a draft is nobody's notice"
    again = post(officer, "/console/registry/new-notice", {**text, "purpose": "ads"})
    assert again.status_code == 422 and "notice.draft" in again.text, "no draft is lost by a second one"
    text["text_en"] = "One"
    assert post(officer, "/console/registry/new-notice?draft=news-text", text).status_code == 303
    shown = officer.get(kept.location).text
    base = re.search(r'name="base" value="([0-9a-f]{64})"', shown)
    assert base
    stale = post(officer, f"{kept.location}/publish", {"base": "0" * 64}, page=kept.location)
    assert stale.status_code == 409 and "notice.changed" in stale.text
    done = post(officer, f"{kept.location}/publish", {"base": base[1]}, page=kept.location)
    assert done.location == "/console/registry/notice/news-text"
    assert officer.get(kept.location).status_code == 404, "the draft is used up"
    stored = next(n for n in center.notices() if n.id == "news-text")
    assert stored.text == {"zh": "一\n二", "en": "One"} and stored.material
    path = "/console/registry/purpose/news/switch"
    post(officer, path, {"active": "no"}, page="/console/registry/purpose/news")
    assert not next(p for p in center.purposes() if p.id == "news").active
    assert "<ins>" in officer.get("/console/registry/notice/text?old=1&new=2").text
    for wrong in (
        "purpose/none",
        "notice/none",
        "new-notice?from=none",
        "notice/text?old=999999999999&new=x",
    ):
        assert officer.get(f"/console/registry/{wrong}").status_code in (200, 404)
    with center.room.read() as connection:
        last = connection.exec_driver_sql(
            "SELECT payload FROM entries WHERE kind = 'purpose.switch'"
        ).scalar_one()
    assert json.loads(last)["actor"] == "a-officer", "the act is in the ledger under the account's name"


def test_a_draft_shows_whom_it_would_ask_again(officer: FlaskClient, center: Center) -> None:
    form = officer.get("/console/registry/new-notice?draft=waiting").text
    assert 'name="methods"' in form and "contact, usage" in form
    new = {
        "text_zh": "我们不再提供。",
        "text_en": SHOWN + " Never.",
        "categories": "contact",
        "methods": "a，b",
    }
    where = post(officer, "/console/registry/new-notice?draft=waiting", new).location
    shown = officer.get(where).text
    assert "<ins>" in shown and "contact, usage" in shown and "a, b" in shown, "words and meaning"
    people = re.findall(r"<dd>([0-9,]+)</dd>", shown)
    assert int(people[0]) > int(people[1]) == 0, "whoever agreed to the older purpose"
    wrong = post(officer, "/console/registry/new-notice?draft=waiting", {**new, "duration_days": "soon"})
    assert wrong.status_code == 422 and "notice.draft" in wrong.text
    assert post(officer, f"{where}/discard", {}, page=where).status_code == 303
    assert center.notice_board.drafts() == [] and officer.get(where).status_code == 404
    _draft(center)


RULES = """format = "pec.rules/1"
[[rule]]
id = "no-contact"
effect = "deny"
reason = "<b>we said so"
purposes = ["ads"]
categories = ["contact"]
hours = "00:00-24:00"
"""


def test_rules_are_tried_before_an_admin_puts_them_in_force(
    clients: dict[str, FlaskClient], center: Center
) -> None:
    officer, admin = clients["officer"], clients["admin"]
    bad = post(officer, "/console/rules", {"text": RULES})
    assert bad.status_code == 422 and "line 8" in bad.text and "rules.file" in bad.text
    good = RULES.replace('hours = "00:00-24:00"\n', "").replace("\n", "\r\n")
    tried = post(officer, "/console/rules", {"text": good})
    row = re.search(
        r"blocked by a rule.*?num\">([0-9,]+)<.*?num\">([0-9,]+)<.*?\+([0-9,]+)<", tried.text, re.S
    )
    assert row and row[1] == "0" and int(row[2]) == int(row[3]) > 0, "counts by reason, before and after"
    assert "&lt;b&gt;we said so" in tried.text and "Put in force" not in tried.text
    assert center.rules.show()["text"] == "", "trying changes nothing"
    form = {"text": good, "base": "none"}
    assert post(officer, "/console/rules/apply", form, page="/console/rules").status_code == 403
    assert "Put in force" in post(admin, "/console/rules", {"text": good}).text
    assert post(admin, "/console/rules/apply", form, page="/console/rules").status_code == 303
    assert center.rules.show()["text"] == good.replace("\r\n", "\n"), "with the hash of the file on disk"
    again = post(admin, "/console/rules/apply", form, page="/console/rules")
    assert again.status_code == 409 and "rules.changed" in again.text
    assert "no-contact" in clients["viewer"].get("/console/rules").text
    gone = post(officer, "/console/rules", {"text": ""})
    assert "<del>" in gone.text and "People freed" in gone.text
    center.rules.apply("", "test")
    assert "Nobody's decision" in post(officer, "/console/rules", {"text": 'format = "pec.rules/1"\n'}).text


def test_webhooks_from_registration_to_dead_letter(clients: dict[str, FlaskClient], center: Center) -> None:
    admin, officer = clients["admin"], clients["officer"]
    form = {"id": "crm", "url": "http://127.0.0.1:9/x", "recipient": "*", "kinds": ["consent.withdrawn"]}
    assert post(officer, "/console/webhooks", form).status_code == 403
    assert "webhook.url" in post(admin, "/console/webhooks", {**form, "url": "http://example.com"}).text
    made = post(admin, "/console/webhooks", form)
    secret = re.search(r"<code>(whsec_[^<]+)</code>", made.text)
    assert secret and secret[1] not in admin.get("/console/webhooks").text, "shown this once"
    gone = ConsentEvent(
        (("phone", "13800000025"),), "ads", 1, "withdrawn", "partner", ("contact",), datetime.now(UTC)
    )
    center.record(gone)
    number = center.outbox.messages("pending")[0]["number"]
    center.outbox.settle([(number, 13, False, "HTTP 500 <script>")])
    page = officer.get("/console/webhooks").text
    assert "HTTP 500 &lt;script&gt;" in page and "Send again" in page
    assert "Send again" not in clients["viewer"].get("/console/webhooks").text
    front = create_app(center, TOKEN).test_client().get("/console/", headers=HEADER).text
    assert "dead letters: 1" in front
    for wrong in ("x", "-1", "9" * 30):
        bad = post(officer, "/console/webhooks/requeue", {"number": wrong}, page="/console/webhooks")
        assert bad.status_code == 400
    path = "/console/webhooks/requeue"
    assert post(officer, path, {"number": str(number)}, page="/console/webhooks").status_code == 303
    assert "1 message goes out again" in officer.get("/console/webhooks").text
    assert center.outbox.messages("dead") == []
    center.outbox.settle([(number, 0, True, "HTTP 204")])
    figures = officer.get("/console/webhooks?state=delivered").text
    assert re.search(
        r"<td><bdi>crm</bdi></td><td class=\"num\">1</td><td class=\"num\">[\d.]+ (ms|s|min)", figures
    )
    off = post(officer, "/console/webhooks/crm/switch", {"active": "no"}, page="/console/webhooks")
    assert off.status_code == 303 and not center.outbox.webhooks()[0]["active"]
    missing = post(officer, "/console/webhooks/none/switch", {"active": "no"}, page="/console/webhooks")
    assert missing.status_code == 404


def test_registers_are_kept_and_exported(clients: dict[str, FlaskClient], center: Center) -> None:
    officer, soon = clients["officer"], (datetime.now(UTC) + timedelta(days=9)).date().isoformat()
    form = {
        "id": "dpa-1",
        "title": "=Vertrag <i>",
        "party": "partner",
        "role": "processor",
        "purposes": "ads\r\nnews",
    }
    form |= {"categories": "contact", "reference": "safe 3", "signed_on": "2020-01-02", "expires_on": soon}
    new = "/console/registers/agreement/new"
    bad = post(officer, new, {**form, "party": ""})
    assert bad.status_code == 422 and "record.field" in bad.text and "safe 3" in bad.text
    assert post(officer, new, form).location == "/console/registers?kind=agreement"
    assert center.records.listing("agreement")[0]["purposes"] == ["ads", "news"]
    assert post(officer, f"{new}?from=dpa-1", {**form, "party": "partner ltd"}).status_code == 303
    assert center.records.listing("agreement")[0]["version"] == 2
    assessed = {"id": "pia-1", "purpose": "ads", "reference": "safe 4", "valid_until": "2020-01-01"}
    assert post(officer, "/console/registers/assessment/new", assessed).status_code == 303
    page = clients["viewer"].get("/console/registers?kind=agreement").text
    assert "=Vertrag &lt;i&gt;" in page and "lapsed" in page and "New entry" not in page
    assert post(clients["viewer"], new, form, page="/console/").status_code == 403
    table = clients["viewer"].get("/console/registers/agreement.csv?in=zh")
    assert table.data.startswith(b"\xef\xbb\xbf") and "'=Vertrag" in table.text and "协议名称" in table.text
    paper = clients["viewer"].get("/console/registers/agreement.html?in=en")
    assert "&lt;i&gt;" in paper.text and "attachment" in paper.headers["Content-Disposition"]
    import hashlib

    assert hashlib.sha256(paper.data).hexdigest() in acts(center)
    page, switch = "/console/registers?kind=assessment", "/console/registers/require"
    assert "Ask for none" not in officer.get(page).text
    assert post(officer, switch, {"required": "0"}, page=page).status_code == 403
    admin = clients["admin"]
    assert post(admin, switch, {"required": "x"}, page=page).status_code == 400
    assert post(admin, switch, {"required": "0"}, page=page).status_code == 303
    assert center.assessments_required() is False
    assert "run without an impact assessment" in clients["viewer"].get("/console/").text
    assert post(admin, switch, {"required": "1"}, page=page).status_code == 303
    assert "run without an impact assessment" not in clients["viewer"].get("/console/").text
    for wrong in ("agreement.pdf", "keys.csv", "keys/new"):
        assert officer.get(f"/console/registers/{wrong}").status_code == 404
    assert officer.get(f"{new}?from=none").status_code == 404
    told = post(officer, "/console/registers/remind", {}, page="/console/registers")
    assert told.status_code == 303 and "queued" in officer.get("/console/registers").text


def test_a_correction_in_the_pages(officer: FlaskClient, center: Center) -> None:
    form = {"kind": "correction", "regulation": "GDPR", "language": "en", "id_kind": "phone"}
    where = post(officer, "/console/requests", {**form, "value": "13800000026"}).location
    for given in (
        {"step": "identity.pass", "method": "in_person", "evidence": "card"},
        {"step": "task.done", "task": "check_accuracy"},
        {"step": "task.done", "task": "tell_recipients"},
        {"step": "grant", "outcome": "granted"},
    ):
        assert post(officer, where, given).status_code == 303, given
    page = officer.get(where).text
    assert "merge with the person of another identifier" in page and "tell the recipients" in page
    empty = post(officer, f"{where}/fulfil", {}, page=where)
    assert empty.status_code == 422 and "rights.fulfil" in empty.text
    wrong = {"action-1": "add", "kind-1": "email", "value-1": "no address"}
    assert "event.identifier" in post(officer, f"{where}/fulfil", wrong, page=where).text
    given = {"action-1": "add", "kind-1": "email", "value-1": "new@example.cn", "action-2": "merge"}
    given |= {"kind-2": "phone", "value-2": "13800000027"}
    assert post(officer, f"{where}/fulfil", given, page=where).status_code == 303
    for kind, value in (("email", "new@example.cn"), ("phone", "13800000027")):
        found = post(officer, "/console/people", {"kind": kind, "value": value})
        assert found.status_code == 303 and "13800000026" not in officer.get(found.location).text
    assert "new@example.cn" not in officer.get(where).text


def test_the_icon_is_for_everybody(app: Flask) -> None:
    icon = app.test_client().get("/favicon.ico")
    assert icon.status_code == 200 and icon.mimetype == "image/svg+xml" and b"<svg" in icon.data


def test_rights_requests_from_intake_to_letter(clients: dict[str, FlaskClient], center: Center) -> None:
    officer = clients["officer"]
    form = {"kind": "copy", "regulation": "PIPL", "language": "zh", "id_kind": "phone", "value": NUMBER}
    bad = post(officer, "/console/requests", {**form, "value": "12"})
    assert bad.status_code == 422 and "event.identifier" in bad.text
    where = post(officer, "/console/requests", {**form, "text": "all of it <b>"}).location
    page = officer.get(where).text
    assert "all of it &lt;b&gt;" in page and NUMBER not in page and "identity proven" in page
    assert clients["viewer"].get(where).status_code == 403
    assert where.rpartition("/")[2] in clients["viewer"].get("/console/requests").text

    def step(name: str, **more: str) -> Any:
        return post(officer, where, {"step": name, **more})

    assert step("identity.pass", method="in_person").status_code == 422, "what was seen is missing"
    assert step("identity.pass", method="in_person", evidence="identity card").status_code == 303
    assert step("grant", outcome="granted").status_code == 303
    early = post(officer, f"{where}/fulfil", {}, page=where)
    assert early.status_code == 422 and "rights." in early.text, "tasks are open"
    for task in ("collect_other_systems", "check_rights_of_others"):
        assert step("task.done", task=task).status_code == 303
    package = post(officer, f"{where}/fulfil", {}, page=where)
    assert package.headers["Content-Type"] == "application/json" and package.data
    letter = post(officer, f"{where}/letter", {"letter": "decision"}, page=where)
    assert letter.status_code == 200 and "attachment" in letter.headers["Content-Disposition"]
    assert officer.get("/console/").status_code == 200, "fulfilled, not closed: nothing is due"
    assert step("close").status_code == 303
    assert step("nonsense").status_code == 409 and officer.get("/console/requests/R1").status_code == 404


def test_ledger_page_checks_and_proves(officer: FlaskClient, center: Center) -> None:
    old = center.checkpoint()
    page = post(
        officer, "/console/ledger/check", {"checkpoint": old}, page="/console/ledger", follow_redirects=True
    )
    from consent_center.console.ledger_pages import CHECK

    officer.application.extensions[CHECK].wait(120)
    assert "all records agree" in officer.get("/console/ledger").text, page.text
    assert "all records agree" in officer.get("/console/ledger/check").text
    center.append("note", {"n": 1})
    proven = post(officer, "/console/ledger/consistency", {"old": old}, page="/console/ledger")
    assert "Proven: the log of" in proven.text
    forged = old.replace("\n", "\n1", 1)
    for text in (forged, "nonsense", ""):
        refused = post(officer, "/console/ledger/consistency", {"old": text}, page="/console/ledger")
        assert refused.status_code == 422 and "ledger." in refused.text
    leaf = officer.get("/console/ledger/leaf?index=1").text
    assert "Advertising" in leaf and "leaf_hash" in leaf
    for index in ("", "x", "-1", "9" * 30, "99999"):
        assert officer.get(f"/console/ledger/leaf?index={index}").status_code in (404, 422)
    assert verify.checkpoint(center.checkpoint(), center.verifier_key()).size > 0


def test_exports(officer: FlaskClient, center: Center) -> None:
    for table in ("consents", "events", "purposes", "notices", "jobs", "activity"):
        found = officer.get(f"/console/exports/{table}.csv")
        rows = list(csv.reader(io.StringIO(found.data.decode("utf-8-sig"))))
        assert found.data.startswith(b"\xef\xbb\xbf") and len(rows) > 1, table
        assert all(len(row) == len(rows[0]) for row in rows), table
        assert NUMBER not in found.text and "form 7" not in found.text
    today = datetime.now(UTC).date()
    rows = list(
        csv.reader(io.StringIO(officer.get(f"/console/exports/events.csv?from={today}&to={today}").text))
    )
    assert 1 < len(rows) < 12
    assert officer.get("/console/exports/events.csv?from=x").status_code == 400
    assert officer.get("/console/exports/keys.csv").status_code == 404


def test_accounts_page(clients: dict[str, FlaskClient], center: Center) -> None:
    admin = clients["admin"]
    made = post(admin, "/console/accounts", {"name": "zhao", "role": "viewer"})
    password = re.search(r"first password <code>([a-z0-9-]+)</code>", made.text)
    assert password and password[1] not in admin.get("/console/accounts").text, "shown this once"
    assert post(admin, "/console/accounts", {"name": "Zhao!", "role": "viewer"}).status_code == 422

    def change(what: str, **more: str) -> Any:
        return post(admin, "/console/accounts/zhao", {"what": what, **more}, page="/console/accounts")

    assert change("role", role="officer").status_code == 303
    assert center.accounts.get("zhao").role == "officer"
    token = re.search(r"<code>(pec_[^<]+)</code>", change("token", label="x", days="5").text)
    assert token and center.accounts.by_token(token[1])
    id = center.accounts.tokens("zhao")[0].id
    assert change("revoke", token=id).status_code == 303 and center.accounts.by_token(token[1]) is None
    assert change("disable").status_code == 303 and not center.accounts.get("zhao").active
    assert change("enable").status_code == 303
    assert "first password" in change("reset").text
    assert change("token", label="x", days="0").status_code == 422
    assert change("nonsense").status_code == 400
    assert "gave a role" in clients["officer"].get("/console/activity").text


class Elements(HTMLParser):
    """What a browser would make of a page: elements, event handlers, and the texts of notices."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.handlers += [value for _, value in attrs if value and value.lstrip().startswith("javascript:")]
        self._inside = dict(attrs).get("class") == "notice-text" or tag == "blockquote"
        if self._inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


_TAGS = (
    "html head meta title link script body a div nav details summary span p h1 h2 h3 ul li ol svg path "
    "circle rect form input button select option label main header section article table thead tbody tr "
    "th td dl dt dd small time code bdi footer style pre blockquote"
)
KNOWN_TAGS = set(_TAGS.split(" "))


def test_naughty_strings_go_in_and_come_out(officer: FlaskClient, center: Center, shared_data: Path) -> None:
    """As evidence, notice text and search: stored as they are, shown escaped, never taken as markup."""
    strings = json.loads((shared_data / "naughty" / "blns.json").read_text(encoding="utf-8"))
    usable = [s for s in strings if s.strip() and "\0" not in s]
    assert len(usable) > 400
    for start in range(0, len(usable), 120):
        text = "\n".join(usable[start : start + 120])
        id = f"naughty-{start}"
        center.put_notice(Notice(id, 1, "ads", 1, {"en": text}))
        number = f"1370000{start:04d}"
        at = datetime.now(UTC)
        shown = {"notice": id, "notice_version": 1, "evidence": text[:90_000], "channel": "app"}
        center.record(
            ConsentEvent((("phone", number),), "ads", 1, "granted", "partner", ("contact",), at, **shown)
        )
        where = find_person(officer, number)
        for page in (officer.get(where).text, officer.get(f"{where}/evidence").text):
            parsed = Elements()
            parsed.feed(page)
            assert parsed.tags <= KNOWN_TAGS, parsed.tags - KNOWN_TAGS
            assert not parsed.handlers and text in parsed.texts, "came out unharmed"
    for one in usable[::12]:
        answer = post(officer, "/console/people", {"kind": "opaque", "value": one[:1000]})
        assert answer.status_code in (200, 422), one
        if re.search(r"<\w+", one):
            assert one not in answer.text
        assert officer.get("/console/registry/notice/" + "x", query_string={"old": one}).status_code == 404
        assert officer.get("/console/jobs", query_string={"state": one, "page": one}).status_code == 200


def test_charts() -> None:
    assert [nice_top(v) for v in (0, 0.3, 1, 1.1, 23, 99, 101, 2400)] == [1, 0.5, 1, 2, 25, 100, 200, 2500]
    assert [number(v) for v in (0, 5, 1234, 12_345, 3_400_000, 0.25)] == [
        "0",
        "5",
        "1,234",
        "12.3k",
        "3.4M",
        "0.25",
    ]
    app = Flask("charts")
    from consent_center import i18n

    i18n.install(app)
    with app.test_request_context():
        drawn = lines([Series("<b>", [1, None, 3, 4]), Series("y", [0, 0, 0, 0])], list("abc<"), '"<x>')
        assert drawn.count("<polyline") == 2 and drawn.count("<circle") == 1 and "<b>" not in drawn
        assert "<x>" not in drawn and "&lt;</text>" in drawn
        assert "NaN" not in lines([], [], "empty") and "<rect" in bars([("<i>", 3), ("none", 0)], "t")
        assert "<i>" not in bars([("<i>", 3)], "t")


def test_differences_of_texts() -> None:
    assert str(compare("我们提供号码。", "我们不提供号码。")) == "我们<ins>不</ins>提供号码。"
    assert str(compare("a <b> c", "a <i> c")) == "a &lt;<del>b</del><ins>i</ins>&gt; c"
    assert str(compare("", "x")) == "<ins>x</ins>" and str(compare("same", "same")) == "same"


def test_forms_sites_and_comparisons(clients: dict[str, FlaskClient], center: Center) -> None:
    officer, here = clients["officer"], "/console/collection"
    form = {"id": "shop", "title-zh": "商店", "cooldown_days": "90", "preferences": "yes"}
    offer = {"purpose-0": "ads", "recipient-0": "partner", "categories-0": "contact\r\n", "gpc-0": "yes"}
    wrong = post(officer, f"{here}/form", {**form, **offer, "recipient-0": "a b"}, page=f"{here}/form")
    assert wrong.status_code == 422 and "collection.form" in wrong.text and 'value="a b"' in wrong.text
    assert post(officer, f"{here}/form", {**form, **offer}, page=f"{here}/form").status_code == 303
    (held,) = center.collection.forms()
    assert (held["title"], held["cooldown_days"], held["offers"][0]["categories"]) == (
        {"zh": "商店"},
        90,
        ["contact"],
    )
    more = {**form, **offer, "purpose-1": "ads", "recipient-1": "media"}
    assert post(officer, f"{here}/form?from=shop", more).status_code == 303
    assert [o["recipient"] for o in center.collection.forms()[0]["offers"]] == ["partner", "media"]
    site = {
        "id": "web",
        "form": "shop",
        "origins": "https://shop.example\n",
        "per_minute": "60",
        "active": "yes",
    }
    assert post(officer, f"{here}/site", {**site, "origins": "shop"}, page=here).status_code == 422
    assert post(officer, f"{here}/site", site, page=here).status_code == 303
    assert center.collection.sites()[0]["origins"] == ["https://shop.example"]
    pair = {"cid": "t", "purpose": "ads", "a": "text 2", "b": "text 2", "share": "50", "active": "yes"}
    assert "collection.experiment" in post(officer, f"{here}/experiment", pair, page=here).text
    for path in ("form", "site", "experiment"):
        assert post(clients["viewer"], f"{here}/{path}", form, page="/console/").status_code == 403
    assert officer.get(f"{here}/form?from=none").status_code == 404


def test_recipients_clocks_policies_and_witnesses(clients: dict[str, FlaskClient], center: Center) -> None:
    """Every change is a leaf with the name of whoever made it; a viewer changes nothing."""
    officer, admin = clients["officer"], clients["admin"]
    actions: list[tuple[Any, str, str, dict[str, str], str]] = [
        (officer, "recipients", "", {"id": "partner", "active": "no"}, "recipient.switch"),
        (officer, "recipients", "", {"id": "partner", "active": "yes"}, "recipient.switch"),
        (
            officer,
            "contact",
            "/term",
            {"kind": "topic", "id": "sale", "title-zh": "促销", "active": "yes"},
            "",
        ),
        (
            officer,
            "contact",
            "/policy",
            {"channel": "sms", "topic": "sale", "cap-day": "2"},
            "contact.policy",
        ),
        (admin, "clocks", "", {"regulation": "PIPL", "working_days": "10", "country": "cn"}, ""),
    ]
    for client, name, path, form, kind in actions:
        size = int(center.checkpoint().split("\n")[1])
        page = f"/console/{name}"
        assert post(client, page + path, form, page=page).status_code == 303, name
        opened = center.opening(size)
        assert kind in ("", opened["kind"]) and opened["payload"]["actor"] == (
            "a-officer" if client is officer else "a-admin"
        )
        assert post(clients["viewer"], page + path, form, page="/console/").status_code == 403
    assert center.recipients() == {"partner": True} and center.rights.rules()["PIPL"]["working_days"] == 10
    assert center.preferences.rulebook().policies[0].caps == (Cap(2, "day"),)
    assert post(officer, "/console/clocks", {"regulation": "PIPL"}, page="/console/clocks").status_code == 403
    bad = post(admin, "/console/clocks", {"regulation": "GDPR", "months": "9"}, page="/console/clocks")
    assert bad.status_code == 422 and "rights.clock" in bad.text
    here = "/console/witnesses"
    key = {"key": center.witness.verifier_key(), "url": "https://w.example/v1/witness"}
    assert post(admin, f"{here}/add", {**key, "key": "x"}, page=here).status_code == 422
    assert post(admin, f"{here}/add", key, page=here).status_code == 303
    assert post(admin, f"{here}/trust", {"key": center.verifier_key()}, page=here).status_code == 303
    assert [len(center.witness.witnesses()), len(center.witness.logs())] == [1, 1]
    assert center.fsck() is None
