"""The console's page of figures: shows what was counted, in both languages, and looks right in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from consent_helpers import phone
from console_helpers import TOKEN, add, cheap_passwords, login, post
from test_collection import FORM

from consent_center.center import Center
from consent_center.model import ConsentEvent, Notice, Purpose
from consent_center.preferences.model import Cap, Preference, Quiet
from consent_center.rest.app import create_app

EVIL = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Center]:
    now = datetime.now(UTC)
    with Center.create(tmp_path_factory.mktemp("figures") / "center", "brand") as center:
        center.put_purpose(Purpose("ads", 1, {"zh": "广告", "en": f"Advertising {EVIL}"}, ("contact",)))
        for name in ("ads-long", "ads-short"):
            center.put_notice(Notice(name, 1, "ads", 1, {"zh": "告知", "en": "text"}))
        center.collection.put_form(FORM)
        arms = {"a": {"notice": "ads-long", "version": 1}, "b": {"notice": "ads-short", "version": 1}}
        center.collection.put_experiment({"id": "shorter", "purpose": "ads", **arms})
        common: Any = {"purpose": "ads", "purpose_version": 1, "recipient": "provider"}
        common |= {"categories": ("contact",), "notice_version": 1, "channel": "preference_page"}
        made = []
        for n in range(480):
            short = n % 2 == 0
            yes = n % 20 < (15 if short else 12)
            made.append(
                ConsentEvent(
                    (("phone", phone(n)),),
                    action="granted" if yes else "denied",
                    notice="ads-short" if short else "ads-long",
                    occurred_at=now - timedelta(hours=4 * n + 1),
                    **common,
                )
            )
        center.record_many(made)
        made = [
            ConsentEvent(
                (("phone", phone(n)),),
                action="granted",
                notice="ads-long",
                **{**common, "recipient": "tiny", "occurred_at": now},
            )
            for n in range(500, 503)
        ]
        center.record_many(made)
        for n in range(600, 640):
            link = center.collection.link([("phone", phone(n))], "signup")
            center.collection.view(link["token"], "page", "zh")
        yield center


def test_the_page_shows_the_figures(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passwords(monkeypatch)
    secret = add(center, "viewer", "viewer")
    client = create_app(center, TOKEN).test_client()
    assert client.get("/console/analytics").status_code in (302, 303)
    login(client, "viewer", secret)
    page = client.get("/console/analytics?lang=en")
    assert page.status_code == 200
    for text in ("Consent rate by week", "ads-short", "B − A:", "two notices", "preference_page"):
        assert text.lower() in page.text.lower(), text
    assert EVIL not in page.text and 'aria-current="page"' in page.text
    assert "同意率" in client.get("/console/analytics?lang=zh").text
    for query in ("days=30", "days=x", "purpose=ads", "purpose=%3Cscript%3E", "days=999999999"):
        assert client.get(f"/console/analytics?{query}").status_code == 200


def test_few_people_are_no_number_on_the_dashboard_and_in_exports(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap_passwords(monkeypatch)
    secret = add(center, "officer", "officer")
    client = create_app(center, TOKEN).test_client()
    login(client, "officer", secret)
    assert '<bdi>tiny</bdi></td><td class="num">&lt; 10</td>' in client.get("/console/").text
    rows = client.get("/console/exports/consents.csv").text
    assert "ads,tiny,<10,0" in rows and "ads,provider,3" in rows


def test_an_outdated_consent_is_not_called_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a new version of the purpose: on the dashboard, in the export, on the person's page."""
    cheap_passwords(monkeypatch)
    now = datetime.now(UTC)
    with Center.create(tmp_path / "c", "brand") as made:
        made.put_purpose(Purpose("ads", 1, {"en": "Ads"}, ("contact",)))
        made.put_notice(Notice("text", 1, "ads", 1, {"en": "text"}))
        common: Any = {"purpose": "ads", "purpose_version": 1, "recipient": "provider", "action": "granted"}
        common |= {"categories": ("contact",), "notice": "text", "notice_version": 1, "occurred_at": now}
        made.record_many([ConsentEvent((("phone", phone(n)),), **common) for n in range(12)])
        wish = Preference("sms", "*", False, (Cap(1, "week"),), (Quiet("22:00", "08:00"),))
        made.preferences.set_many([("phone", phone(1))], [wish])
        secret = add(made, "officer", "officer")
        client = create_app(made, TOKEN).test_client()
        login(client, "officer", secret)

        def person() -> str:
            told = post(
                client, "/console/people", {"kind": "phone", "value": phone(1)}, follow_redirects=True
            )
            return str(told.text)

        page = person()
        assert "eligible" in page and "1 in 7 days" in page and "22:00–08:00" in page and "stopped" in page
        assert "ads,provider,12,0" in client.get("/console/exports/consents.csv").text
        assert "provider" in client.get("/console/recipients").text
        made.put_purpose(Purpose("ads", 2, {"en": "Ads"}, ("contact",), methods=("lookalike",)))
        page = person()
        assert "given under an outdated notice or purpose" in page and "eligible" not in page
        client = create_app(made, TOKEN).test_client()  # the dashboard's figures are kept for a minute
        login(client, "another", add(made, "another", "officer"))
        assert "ads,provider,0,12" in client.get("/console/exports/consents.csv").text
        assert "12 consents are outdated" in client.get("/console/").text


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_looks_right(center: Center, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fits 1280 and 390 px; PEC_SCREENSHOTS=DIR keeps the pictures."""
    from consent_center.rest import server

    cheap_passwords(monkeypatch)
    secret = add(center, "looker", "viewer")
    client = create_app(center, TOKEN).test_client()
    login(client, "looker", secret)
    cookies = {c.key: c.value for c in client._cookies.values()}  # type: ignore[attr-defined]
    keep = os.environ.get("PEC_SCREENSHOTS")
    (tmp_path / "served").mkdir()
    with server.start(tmp_path / "served", center=center) as running:
        for width in (1280, 390):
            with chromium(tmp_path / f"profile{width}", width, 1500) as browser:
                page: Any = browser
                page.get(running.address.url + "/console/static/icon.svg")
                for name, value in cookies.items():
                    page.add_cookie({"name": name, "value": value, "path": "/"})
                page.get(running.address.url + "/console/analytics?lang=zh")
                assert "分析" in page.title and page.title != "owned"
                inside = page.execute_script("return document.documentElement.scrollWidth")
                assert inside <= width
                severe = [e["message"] for e in page.get_log("browser") if e["level"] == "SEVERE"]
                assert [message for message in severe if "favicon" not in message] == []
                if keep:
                    page.save_screenshot(f"{keep}/analytics-{width}.png")
