"""Collection over HTTP: pages without JavaScript, the script's public calls, and who is kept out."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from test_collection import FORM

from consent_center.center import Center
from consent_center.model import Notice, Purpose
from consent_center.rest import embed
from consent_center.rest.app import create_app

TOKEN = "t" * 43
AUTH = {"Authorization": f"Bearer {TOKEN}"}
SHOP = "https://shop.example"
VISITOR = "v" * 32
HASH = "ab" * 32


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with Center.create(tmp_path / "center", "brand") as center:
        center.put_purpose(Purpose("ads", 1, {"en": "Advertising", "zh": "广告"}, ("contact", "usage")))
        center.put_notice(Notice("ads-notice", 1, "ads", 1, {"zh": "告知", "en": "The text <b>here</b>"}))
        center.collection.put_form(FORM)
        yield center


@pytest.fixture
def client(center: Center) -> FlaskClient:
    return create_app(center, TOKEN).test_client()


@pytest.fixture
def key(center: Center) -> str:
    return str(center.collection.put_site({"id": "shop", "form": "signup", "origins": [SHOP]})["key"])


def ok(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.get_json()


def make_link(client: FlaskClient, **more: Any) -> dict[str, Any]:
    body = {"phone": "13800138000", "form": "signup", **more}
    made: dict[str, Any] = ok(client.post("/v1/preference-links", json=body, headers=AUTH), 201)
    return made


def fields(text: str, which: int = 0) -> dict[str, str]:
    """The ticket and the buttons of the page's forms."""
    ticket = re.findall(r'name="ticket" value="([^"]+)"', text)[which]
    choices = re.findall(r'name="choice" value="((?:grant|refuse|withdraw):[^"]+)"', text)
    return {"ticket": html.unescape(ticket), **{c.partition(":")[0]: c for c in choices}}


def test_a_page_without_javascript(client: FlaskClient) -> None:
    link = make_link(client)
    assert link["url"] == "http://localhost" + link["path"]
    page = client.get(link["path"] + "?lang=en")
    assert page.status_code == 200 and "<script" not in page.text
    assert "The text &lt;b&gt;here&lt;/b&gt;" in page.text and "13800138000" not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
    assert page.headers["Referrer-Policy"] == "same-origin" and page.headers["Cache-Control"] == "no-store"
    form = fields(page.text)
    assert set(form) == {"ticket", "grant", "refuse"}
    done = client.post(link["path"] + "?lang=en", data={"ticket": form["ticket"], "choice": form["grant"]})
    assert done.status_code == 200 and "You agreed" in done.text
    form = fields(done.text)
    assert set(form) == {"ticket", "grant", "withdraw"}
    done = client.post(link["path"], data={"ticket": form["ticket"], "choice": form["withdraw"]})
    assert "已撤回" in done.text and 'lang="zh"' in done.text


def test_both_answers_are_alike(client: FlaskClient) -> None:
    text = client.get(make_link(client)["path"]).text
    pair = re.findall(r"<button ([^>]*)>", text)[:2]
    assert len(pair) == 2 and [re.sub(r'value="[^"]*"', "", b) for b in pair][0] == re.sub(
        r'value="[^"]*"', "", pair[1]
    )


def test_another_sites_form_is_refused(client: FlaskClient) -> None:
    link = make_link(client)
    form = fields(client.get(link["path"]).text)
    data = {"ticket": form["ticket"], "choice": form["grant"]}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post(link["path"], data=data, headers=headers).status_code == 403
    assert client.post(link["path"], data={"choice": form["grant"]}).status_code == 409
    assert client.post(link["path"], data=data, headers={"Origin": "http://localhost"}).status_code == 200


@pytest.mark.parametrize("path", ["/p/x", "/p/confirm/x", "/p/guardian/" + "A" * 78, "/p/" + "€" * 9])
def test_links_that_are_none(client: FlaskClient, path: str) -> None:
    for response in (client.get(path), client.post(path, data={"ticket": "x", "choice": "grant:y"})):
        assert response.status_code == 404 and "<form" not in response.text


def test_double_opt_in_over_http(client: FlaskClient) -> None:
    body = {"phone": "13800138000", "form": "signup", "purpose": "ads", "recipient": "provider"}
    made = ok(client.post("/v1/opt-ins", json=body, headers=AUTH), 201)
    form = fields(client.get(made["path"]).text)
    done = client.post(made["path"], data={"ticket": form["ticket"], "choice": form["grant"]})
    assert done.status_code == 200 and "<form" not in done.text
    assert client.get(made["path"]).status_code == 410


def test_a_guardians_page(client: FlaskClient) -> None:
    born = f"{datetime.now(UTC).year - 8}-02-28"
    body = {"phone": "13800138000", "form": "signup", "birth_date": born, "contact_checked": "met"}
    made = ok(client.post("/v1/guardian-links", json=body, headers=AUTH), 201)
    page = client.get(made["path"] + "?lang=en")
    form = fields(page.text)
    data = {"ticket": form["ticket"], "choice": form["grant"], "name": "<i>Wang</i>", "relation": "mother"}
    missing = client.post(made["path"] + "?lang=en", data=data)
    assert missing.status_code == 422 and "&lt;i&gt;Wang&lt;/i&gt;" in missing.text
    done = client.post(made["path"] + "?lang=en", data={**data, "declared": "yes"})
    assert done.status_code == 200 and "You agreed" in done.text


def post(client: FlaskClient, key: str, what: str, origin: str = SHOP, gpc: bool = False, **body: Any) -> Any:
    headers = {"Origin": origin, **({"Sec-GPC": "1"} if gpc else {})}
    body.setdefault("visitor", VISITOR)
    return client.post(f"/v1/public/{key}/{what}", json=body, headers=headers)


def test_the_scripts_calls(client: FlaskClient, key: str, center: Center) -> None:
    script = client.get("/v1/embed.js")
    assert script.status_code == 200 and len(script.data) < 15_000
    assert client.get("/v1/embed.js", headers={"If-None-Match": script.headers["ETag"]}).status_code == 304
    form = ok(post(client, key, "form", language="en"))
    offer = form["offers"][0]
    assert form["ask"] and offer["ask"] and offer["state"] == "none"
    assert ok(post(client, key, "shown", ticket=form["ticket"], offers=[offer["key"]])) == {"counted": 1}
    answers = {offer["key"]: "refuse"}
    done = ok(post(client, key, "answers", ticket=form["ticket"], answers=answers), 201)
    assert done["results"][offer["key"]]["state"] == "denied"
    again = ok(post(client, key, "form", language="en"))
    assert not again["ask"] and again["offers"][0]["reason"] == "cooldown"
    answers = {offer["key"]: "grant"}
    refused = post(client, key, "answers", ticket=again["ticket"], answers=answers)
    assert refused.status_code == 409 and refused.get_json()["code"] == "collection.cooldown"
    own = {"ticket": again["ticket"], "answers": answers, "own_initiative": True}
    assert ok(post(client, key, "answers", **own), 201)["results"][offer["key"]]["state"] == "granted"
    told = center.explain("opaque", f"web:shop:{VISITOR}").events
    assert [e["action"] for e in told] == ["denied", "granted"]
    assert json.loads(told[0]["evidence"])["layout_hash"] == form["layout_hash"]


def test_global_privacy_control_is_a_no(client: FlaskClient, key: str) -> None:
    form = ok(post(client, key, "form", language="en", gpc=True))
    offer = form["offers"][0]
    assert form["gpc"] and not form["ask"] and offer["reason"] == "gpc"
    own = {"ticket": form["ticket"], "answers": {offer["key"]: "grant"}, "own_initiative": True}
    done = ok(post(client, key, "answers", gpc=True, **own), 201)["results"][offer["key"]]
    assert (done["state"], done["method"]) == ("denied", "gpc")


def test_only_allowed_origins(client: FlaskClient, key: str) -> None:
    for origin in ("https://evil.example", "null", "", SHOP + ".evil.example", "http://shop.example"):
        refused = post(client, key, "form", origin=origin, language="en")
        assert refused.status_code == 403 and "Access-Control-Allow-Origin" not in refused.headers
    good = post(client, key, "form", language="en")
    assert good.headers["Access-Control-Allow-Origin"] == SHOP and "Origin" in good.headers["Vary"]
    asked = client.options(f"/v1/public/{key}/answers", headers={"Origin": SHOP})
    assert asked.status_code == 204 and asked.headers["Access-Control-Allow-Headers"] == "Content-Type"
    asked = client.options(f"/v1/public/{key}/answers", headers={"Origin": "https://evil.example"})
    assert asked.status_code == 403
    assert post(client, "nobody", "form", language="en").status_code == 404


@pytest.mark.parametrize("visitor", ["13800138000", "", "a@b.cn", "short", "v" * 65, "中" * 30])
def test_nobody_else_can_be_named(client: FlaskClient, key: str, visitor: str) -> None:
    refused = post(client, key, "form", language="en", visitor=visitor)
    assert refused.status_code in (400, 422), refused.text


def test_a_person_who_is_logged_in(client: FlaskClient, key: str, center: Center) -> None:
    token = make_link(client, kind="embed")["token"]
    form = ok(post(client, key, "form", language="zh", person=token))
    offer = form["offers"][0]
    answers = {offer["key"]: "grant"}
    elsewhere = ok(post(client, key, "form", language="zh"))
    mixed = post(client, key, "answers", person=token, ticket=elsewhere["ticket"], answers=answers)
    assert mixed.status_code == 409
    ok(post(client, key, "answers", person=token, ticket=form["ticket"], answers=answers), 201)
    assert center.explain("phone", "13800138000").states[0]["action"] == "granted"
    assert post(client, key, "form", language="zh", person=token[:-2]).status_code == 404


def test_the_rate_of_a_site(client: FlaskClient, key: str, center: Center) -> None:
    site = center.collection.sites()[0]
    document = {k: site[k] for k in ("id", "form", "origins")}
    assert center.collection.put_site({**document, "per_minute": 3})["key"] == key
    codes = [post(client, key, "form", language="en").status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    assert embed._PER_ADDRESS >= 30


def test_a_site_switched_off(client: FlaskClient, key: str, center: Center) -> None:
    center.collection.put_site({"id": "shop", "form": "signup", "origins": [SHOP], "active": False})
    assert post(client, key, "form", language="en").status_code == 404


def test_a_servers_event_says_what_was_shown(client: FlaskClient, center: Center) -> None:
    body: dict[str, Any] = {
        "phone": "13800138000",
        "purpose": "ads",
        "purpose_version": 1,
        "notice": "ads-notice",
        "notice_version": 1,
        "action": "granted",
        "recipient": "provider",
        "categories": ["contact"],
        "evidence": "form 9",
        "occurred_at": "2020-03-01T08:00:00+08:00",
        "shown": {"layout_hash": HASH, "language": "zh", "shown_at": "2020-03-01T07:59:00+08:00"},
    }
    ok(client.post("/v1/events", json=body, headers=AUTH), 201)
    evidence = json.loads(center.explain("phone", "13800138000").events[0]["evidence"])
    assert evidence["notice_hash"] == center.notices()[0].hash and evidence["note"] == "form 9"
    for change in (
        {"shown_at": datetime.now(UTC).isoformat()},
        {"language": "fr"},
        {"layout_hash": "x"},
        {"notice_hash": HASH},
    ):
        refused = client.post("/v1/events", json=body | {"shown": body["shown"] | change}, headers=AUTH)
        assert refused.status_code == 422 and refused.get_json()["code"] == "event.shown", refused.text


def test_servers_need_a_role(client: FlaskClient) -> None:
    for path in ("preference-links", "opt-ins", "guardian-links", "may-ask", "collection/forms"):
        assert client.post(f"/v1/{path}", json={}).status_code == 401
    asked = {"kind": "phone", "value": "13800138000", "purpose": "ads", "recipient": "provider"}
    told = ok(client.post("/v1/may-ask", json=asked, headers=AUTH))
    assert told == {"may_ask": True, "reason": "never_asked", "next_at": None}


def naughty(shared_data: Path) -> list[str]:
    listed: list[str] = json.loads((shared_data / "naughty" / "blns.json").read_text(encoding="utf-8"))
    return listed


def test_naughty_strings_stay_text(client: FlaskClient, center: Center, shared_data: Path) -> None:
    texts = [t for t in naughty(shared_data) if t.strip() and "\0" not in t]
    joined = "\n".join(texts)
    center.put_notice(Notice("ads-notice", 2, "ads", 1, {"zh": joined, "en": joined}))
    page = client.get(make_link(client)["path"])
    assert page.status_code == 200
    body = page.text.partition('<p class="text"')[2].partition(">")[2].partition("</p>")[0]
    assert html.unescape(body) == joined and "<" not in body
    app: Flask = client.application
    assert app is not None
