"""The preference page and the embedded script in a real browser: mouse, keyboard, without JavaScript."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from test_collection import FORM
from werkzeug.serving import make_server

from consent_center.center import Center
from consent_center.model import Notice, Purpose
from consent_center.preferences.model import Cap, Quiet, Term
from consent_center.rest import server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOP_POLICY = "default-src 'none'; script-src {0}; connect-src {0}"
XSS = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Center]:
    with Center.create(tmp_path_factory.mktemp("browser") / "center", "品牌方") as center:
        for number, (zh, en) in enumerate((("相似人群扩量", "Similar audiences"), (XSS, XSS))):
            center.put_purpose(
                Purpose(f"ads{number}", 1, {"zh": zh, "en": en}, ("contact", "usage"), duration_days=365)
            )
            texts = {"zh": "我们将您的合同信息提供给甲公司，用于相似人群扩量。" * 4, "en": f"We give … {XSS}"}
            center.put_notice(Notice(f"notice{number}", 1, f"ads{number}", 1, texts))
        offers = [{"purpose": f"ads{n}", "recipient": "provider", "categories": ["contact"]} for n in (0, 1)]
        center.collection.put_form(FORM | {"offers": offers})
        center.preferences.declare(Term("topic", "news", {"zh": "资讯", "en": f"News {XSS}"}))
        yield center


@pytest.fixture(scope="module")
def base(center: Center, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server.start(tmp_path_factory.mktemp("served"), center=center) as running:
        yield running.address.url


@pytest.fixture(scope="module")
def shop(center: Center, base: str) -> Iterator[str]:
    """Somebody else's page, with a strict policy, that embeds the script."""
    held: dict[str, bytes] = {}

    def app(environ: Any, start: Any) -> list[bytes]:
        policy = SHOP_POLICY.format(base)
        start("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", policy)])
        return [held["page"]]

    served = make_server("127.0.0.1", 0, app, threaded=True)
    origin = f"http://127.0.0.1:{served.server_port}"
    key = center.collection.put_site({"id": "shop", "form": "signup", "origins": [origin]})["key"]
    held["page"] = (
        '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">'
        "<title>Shop</title><h1>Shop</h1><button id=privacy data-pec-open>Privacy</button>"
        f'<script src="{base}/v1/embed.js" data-site="{key}" data-signals="tcf gpp" defer></script></html>'
    ).encode()
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield origin
    served.shutdown()
    thread.join(10)
    served.server_close()


def problems(browser: Any) -> list[str]:
    told = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    return [message for message in told if "favicon" not in message]


@pytest.mark.parametrize(("width", "script"), [(1280, True), (390, False)])
def test_the_page(center: Center, base: str, tmp_path: Path, width: int, script: bool) -> None:
    from selenium.webdriver.common.by import By

    person = f"1380013{width:04d}"
    made = center.collection.link([("phone", person)], "signup")
    with chromium(tmp_path / "profile", width, script=script) as browser:
        browser.get(base + made["path"] + "?lang=zh")
        assert browser.title == "订阅" or "我的" in browser.title
        pair = browser.find_elements(By.CSS_SELECTOR, "section .pair button")[:2]
        sizes = [(b.size["width"], b.size["height"]) for b in pair]
        looks = [
            [b.value_of_css_property(p) for p in ("color", "background-color", "font-weight", "border-color")]
            for b in pair
        ]
        assert sizes[0] == sizes[1] and looks[0] == looks[1] and sizes[0][1] >= 44
        wide = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["width"]
        assert wide <= width
        pair[1].click()

        def shows(text: str) -> Any:
            return until(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".state").text == text)

        shows("已同意")
        assert "已保存" in browser.page_source
        browser.find_element(By.CSS_SELECTOR, "section .pair button").click()
        shows("已撤回")
        browser.find_element(By.CSS_SELECTOR, "header a").click()
        shows("You withdrew")
        assert browser.title != "owned" and XSS in browser.find_element(By.TAG_NAME, "body").text
        contact_preferences(browser)
        assert problems(browser) == []
    assert [e["action"] for e in center.explain("phone", person).events] == ["granted", "withdrawn"]
    held = {(w.channel, w.topic): w for _, w in center.preferences.get("phone", person).in_force}
    assert held["*", "news"].allowed is False and held["email", "news"].allowed is True
    assert held["sms", "*"].caps == (Cap(1, "week"),) and held["sms", "*"].allowed is None
    assert held["sms", "*"].quiet == (Quiet("21:15", "08:00"),)


def contact_preferences(browser: Any) -> None:
    """A topic, a channel of it, a limit, quiet hours: each one click (or Enter), buttons look alike."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def found(channel: str, topic: str, value: str) -> Any:
        inside = (
            f"//form[input[@name='channel'][@value='{channel}'] and input[@name='topic'][@value='{topic}']]"
        )
        return browser.find_element(By.XPATH, f"{inside}//button[@value='{value}']")

    def says(id: str, text: str) -> None:
        def there() -> bool:
            whole = browser.execute_script("return document.readyState") == "complete"
            return whole and text in browser.find_element(By.CSS_SELECTOR, f"#{id} small").text

        until(browser, there)  # unfolded, too

    def unfold(channel: str, topic: str, value: str) -> None:
        """Opens, with Enter, what is folded around it."""
        folded = found(channel, topic, value).find_elements(By.XPATH, "ancestor::details[not(@open)]")
        for one in folded:
            one.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)

    stop, allow = found("*", "news", "stop"), found("*", "news", "allow")
    assert stop.size == allow.size and stop.size["height"] >= 44
    stop.click()
    says("t-1", "Stopped")
    unfold("email", "news", "allow")
    found("email", "news", "allow").send_keys(Keys.ENTER)
    says("t-1-2", "Allowed")
    assert "broader choice" in browser.find_element(By.CSS_SELECTOR, "#t-1-1 small").get_attribute(
        "textContent"
    )
    unfold("sms", "*", "limit:1:week")
    sizes = {str(found("sms", "*", v).size) for v in ("limit:1:week", "limit:none", "limit:usual")}
    assert len(sizes) == 1
    found("sms", "*", "limit:1:week").send_keys(Keys.ENTER)
    says("c-1", "1 a week at most")
    unfold("sms", "*", "quiet")
    begin = found("sms", "*", "quiet").find_element(By.XPATH, "ancestor::form//input[@name='start']")
    assert begin.get_attribute("value") == "22:00"
    begin.send_keys("0915PM")
    found("sms", "*", "quiet").send_keys(Keys.ENTER)
    says("c-1", "Quiet hours 21:15–08:00")
    assert found("sms", "*", "limit:1:week").get_attribute("aria-current") == "true"


def shadow(browser: Any, selector: str) -> list[Any]:
    from selenium.webdriver.common.by import By

    hosts = browser.find_elements(By.CSS_SELECTOR, "[data-pec-host]")
    return hosts[0].shadow_root.find_elements(By.CSS_SELECTOR, selector) if hosts else []


def until(browser: Any, condition: Any) -> Any:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    # The dialog may go while it is looked at: then look again.
    waiting = WebDriverWait(browser, 30, ignored_exceptions=[WebDriverException])
    return waiting.until(lambda _: condition())


@pytest.mark.parametrize("width", [1280, 390])
def test_the_script(center: Center, shop: str, tmp_path: Path, width: int) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    with chromium(tmp_path / "profile", width) as browser:
        browser.get(shop)
        buttons = until(browser, lambda: shadow(browser, ".pair button"))
        assert [b.text for b in buttons[:2]] == ["Do not agree", "Agree"] and len(buttons) == 4
        assert buttons[0].size == buttons[1].size
        assert browser.title == "Shop"
        assert shadow(browser, "[role=dialog]")[0].get_attribute("aria-labelledby") == "pec-title"
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        buttons[1].send_keys(Keys.ENTER)  # by keyboard
        until(browser, lambda: len(shadow(browser, ".offer")) == 1)
        shadow(browser, ".offer button")[0].click()
        until(browser, lambda: not shadow(browser, ".offer"))
        state = browser.execute_script("return window.pecConsent.state()")
        assert state == {"ads0": {"provider": "granted"}, "ads1": {"provider": "denied"}}
        browser.refresh()  # the earlier choice is respected
        browser.execute_async_script("window.pecConsent.ready.then(arguments[0])")
        assert not shadow(browser, "[role=dialog]")
        browser.find_element(By.ID, "privacy").click()
        until(browser, lambda: len(shadow(browser, ".offer")) == 2)
        shadow(browser, ".offer button")[0].click()  # withdraw: one click
        until(browser, lambda: "You withdrew" in shadow(browser, ".offer")[0].text)
        shadow(browser, ".offer button")[0].send_keys(Keys.ESCAPE)
        until(browser, lambda: not shadow(browser, "[role=dialog]"))
        kept = json.loads(browser.execute_script("return Object.values(localStorage)[0]"))
        assert browser.title == "Shop" and problems(browser) == []
    told = center.explain("opaque", f"web:shop:{kept['visitor']}").events
    assert [e["action"] for e in told] == ["granted", "denied", "withdrawn"]


def test_global_privacy_control_in_the_browser(center: Center, shop: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    signal = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})"
    with chromium(tmp_path / "profile") as browser:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": signal})
        browser.get(shop)
        browser.execute_async_script("window.pecConsent.ready.then(arguments[0])")
        assert not shadow(browser, "[role=dialog]")
        state = browser.execute_script("return window.pecConsent.state()")
        assert state["ads0"]["provider"] == "denied"
        browser.find_element(By.ID, "privacy").click()
        until(browser, lambda: len(shadow(browser, ".offer")) == 2)
        shadow(browser, ".offer button")[1].click()  # agrees all the same: the signal stands
        until(browser, lambda: "Privacy Control" in shadow(browser, "[role=status]")[0].text)
        assert "You did not agree" in shadow(browser, ".offer")[0].text


def test_strings_of_a_consent_platform_are_passed_on(
    center: Center, shop: str, tmp_path: Path, shared_data: Path
) -> None:
    """The page's own platform answers `__tcfapi` and `__gpp` with strings that the reference wrote; what they
    say is recorded for the visitor, with the raw strings as evidence, once and not again on the next page.
    """

    def strings(file: str) -> list[dict[str, Any]]:
        with gzip.open(shared_data / "vectors" / file) as packed:
            return list(json.load(packed)["strings"])

    tcf = next(
        entry["tc_string"]
        for entry in strings("tcf/tc_strings_reference_decode.json.gz")
        if entry["ok"] and {3, 4} <= set(entry["decoded"]["purposeConsents"])
    )
    gpp = next(
        entry["gpp_string"]
        for entry in strings("gpp/gpp_strings_reference_decode.json.gz")
        if entry["ok"] and '"SaleOptOut": 1' in json.dumps(entry["sections"])
    )
    common = {"recipient": "cmp", "regulation": "GDPR", "categories": ["contact"]}
    agrees = {
        "purpose": "ads0",
        "purpose_version": 1,
        "notice": "notice0",
        "notice_version": 1,
        "tcf_consents": [3, 4],
    }
    sold = {"purpose": "ads1", "opt_out": ["us.SaleOptOut"]}
    rules = [{**common, **agrees}, {**common, **sold}]
    center.put_signal_mapping({"format": "pec.signals/1", "rules": rules}, "dpo")
    platform = f"""
        window.__tcfapi = (command, version, callback) =>
            callback({{eventStatus: "tcloaded", tcString: "{tcf}"}}, command === "addEventListener");
        window.__gpp = (command, callback) =>
            callback({{gppString: "{gpp}"}}, command === "ping");
    """
    with chromium(tmp_path / "profile") as browser:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": platform})
        browser.get(shop)
        kept: dict[str, Any] = {}

        def passed() -> bool:
            found = browser.execute_script("return Object.values(localStorage)[0] || '{}'")
            kept.update(json.loads(found))
            return gpp in kept.get("signals", "")

        until(browser, passed)
        told = center.explain("opaque", f"web:shop:{kept['visitor']}").events
        found = {(e["purpose"], e["action"]) for e in told}
        assert found == {("ads0", "granted"), ("ads1", "withdrawn")}
        evidence = " ".join(str(e["evidence"]) for e in told)
        assert tcf in evidence and gpp in evidence
        browser.refresh()
        browser.execute_async_script("window.pecConsent.ready.then(arguments[0])")
        assert problems(browser) == []
    assert len(center.explain("opaque", f"web:shop:{kept['visitor']}").events) == len(told)


def test_the_pages_look(center: Center, base: str, shop: str, tmp_path: Path) -> None:
    """Nothing overflows at 1280 and 390 px; PEC_SCREENSHOTS=DIR keeps the pictures."""
    keep = os.environ.get("PEC_SCREENSHOTS")
    guardian = center.collection.guardian_link(
        [("phone", "13900139000")], date(datetime.now(UTC).year - 8, 1, 1), "signup", "met"
    )
    confirm = center.collection.request_opt_in([("phone", "13900139001")], "signup", "ads0", "provider")
    page = center.collection.link([("phone", "13900139002")], "signup")
    for width in (1280, 390):
        with chromium(tmp_path / f"profile{width}", width, 1000) as browser:
            for name, made in (("page", page), ("guardian", guardian), ("confirm", confirm)):
                for lang in ("zh", "en"):
                    browser.get(f"{base}{made['path']}?lang={lang}")
                    inside = browser.execute_script("return document.documentElement.scrollWidth")
                    assert inside <= width, (name, width)
                    if keep:
                        height = browser.execute_script("return document.documentElement.scrollHeight")
                        browser.execute_cdp_cmd(
                            "Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
                        )
                        browser.save_screenshot(f"{keep}/{name}-{lang}-{width}.png")
            browser.get(shop)
            until(browser, lambda b=browser: shadow(b, ".pair button"))
            if keep:
                browser.save_screenshot(f"{keep}/script-{width}.png")
