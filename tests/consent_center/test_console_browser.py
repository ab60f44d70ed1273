"""The console in a real browser: login, search, languages, the keyboard alone, phones, naughty strings."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyotp
import pytest
from browser import chromium
from console_helpers import PASSWORD, TOKEN, add, cheap_passwords, login

from consent_center.center import Center
from consent_center.model import Assessment, ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.preferences.model import Cap, Policy, Quiet, Term
from consent_center.records.assess import file_assessment
from consent_center.rest import server
from consent_center.rest.app import create_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NUMBER = "13800138000"
ZH, EN = "我们将您的号码加密后提供给合作方甲。", "We give your number, encrypted, to partner A."
XSS = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e\u0007"

RULES = f"""format = "pec.rules/1"
[[rule]]
id = "no-ads"
effect = "deny"
purposes = ["ads"]
reason = {json.dumps(XSS.replace(chr(0x202E), "").replace(chr(7), ""))}
"""
DESK = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Center]:
    with Center.create(tmp_path_factory.mktemp("browser") / "center", "品牌方") as made:
        made.put_purpose(Purpose("ads", 1, {"zh": "广告", "en": "Advertising"}, ("contact",)))
        made.put_purpose(Purpose("bad", 1, {"zh": XSS, "en": XSS}, ("contact",)))
        made.put_notice(Notice("text", 1, "ads", 1, {"zh": ZH, "en": EN}))
        made.put_notice(Notice("naughty", 1, "bad", 1, {"zh": XSS, "en": XSS}))
        for purpose, notice in (("ads", "text"), ("bad", "naughty")):
            event = ConsentEvent(
                (("phone", NUMBER),), purpose, 1, "granted", "partner", ("contact",), datetime.now(UTC)
            )
            seen = {
                "notice": notice,
                "notice_version": 1,
                "evidence": XSS.replace("\u0007", ""),
                "channel": "app",
            }
            made.record(ConsentEvent(**{**event.__dict__, **seen}))
            for n in range(60):  # enough in each of two weeks for a chart to be drawn
                at = datetime.now(UTC) - timedelta(days=7 * (n % 2))
                other = {
                    **event.__dict__,
                    **seen,
                    "identifiers": (("phone", f"1390013{n:04d}"),),
                    "occurred_at": at,
                }
                made.record(ConsentEvent(**other))
        values = pa.array([NUMBER, "13800138001"])
        file_assessment(made, "ads", "partner", "none: a test", "")
        made.snapshot(DecisionRequest("ads", "partner", ("contact",)), values, "phone", "job-1")
        _naughty(made)
        yield made


def _naughty(center: Center) -> None:
    """The same text in whatever else a page shows."""
    made: Any = center
    plain = XSS.replace("\u0007", "").replace("\u202e", "")
    made.notice_board.draft({"id": "naughty", "purpose": "bad", "text": {"zh": XSS + "2", "en": XSS}}, XSS)
    made.outbox.put_webhook("crm", "http://127.0.0.1:9/x", "*", ("purpose.switched",))
    made.switch_purpose("bad", True, "test")
    made.outbox.settle([(1, 13, False, XSS)])
    agreement = dict.fromkeys(("title", "party", "role", "purposes", "categories", "reference"), plain)
    made.records.put("agreement", "a", {**agreement, "signed_on": "2026-01-01", "expires_on": "2026-02-01"})
    activity = (
        "name",
        "purposes",
        "legal_basis",
        "subjects",
        "categories",
        "recipients",
        "retention",
        "security",
    )
    made.records.put("processing", "p", dict.fromkeys(activity, plain))
    made.put_assessment(Assessment("pia", "ads", plain))
    offers = [{"purpose": name, "recipient": "partner"} for name in ("ads", "bad")]
    made.collection.put_form({"id": "shop", "title": {"zh": XSS, "en": XSS}, "offers": offers})
    origins = ["https://shop-with-a-long-name.example", "https://www.other.example"]
    made.collection.put_site({"id": "web", "form": "shop", "origins": origins})
    made.preferences.declare(Term("topic", "news", {"zh": XSS, "en": XSS}))
    limits = {"caps": (Cap(1, "day"), Cap(9, "month")), "quiet": (Quiet("21:00", "08:00"),)}
    made.preferences.put_policy(Policy("sms", "news", purpose="ads", binding=True, **limits))
    made.witness.add_witness(made.witness.verifier_key(), "https://witness.partner.example/v1/witness")
    made.witness.trust_log(made.verifier_key())
    made.switch_recipient("media", False, "test")
    for kind in ("correction", "access"):
        id = made.rights.open(kind, [("phone", NUMBER)], text=plain, contact=plain, actor="test")["id"]
        made.rights.step(id, "identity.pass", "test", method="in_person", evidence=plain)
    first = min(entry["id"] for entry in made.rights.list())
    for task in ("check_accuracy", "tell_recipients"):
        made.rights.step(first, "task.done", "test", task=task)
    made.rights.step(first, "task.add", "test", task=plain[:128])
    made.rights.step(first, "task.done", "test", task=plain[:128])
    made.rights.step(first, "grant", "test", outcome="partly", grounds=["rights_of_others"], text=plain)


@pytest.fixture(scope="module")
def url(center: Center, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        with server.start(tmp_path_factory.mktemp("served"), center=center) as running:
            yield running.address.url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests of the file: starting it costs more than most of them."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def driver(browser: Any) -> Iterator[Any]:
    """The browser without a session, on a desk, with JavaScript."""
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    yield browser
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", DESK)
    browser.get("about:blank")
    browser.get_log("browser")


def account(center: Center, name: str) -> str:
    """An account of a test's own, because a code counts once; its second factor."""
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        return add(center, name, "admin")


@pytest.fixture(scope="module")
def session(center: Center) -> dict[str, str]:
    """Cookies of a login that was made without the browser; the center knows them whoever serves it."""
    client = create_app(center, TOKEN).test_client()
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        assert login(client, "ready", add(center, "ready", "admin")).status_code == 200
    return {c.key: c.value for c in client._cookies.values()}  # type: ignore[attr-defined]


def come_in(driver: Any, url: str, session: dict[str, str]) -> None:
    driver.get(f"{url}/console/static/icon.svg")
    for name, value in session.items():
        driver.add_cookie({"name": name, "value": value, "path": "/"})


def by_css(driver: Any, css: str) -> Any:
    return driver.find_element("css selector", css)


def wait(condition: Callable[[], Any], seconds: float = 120) -> None:
    """Keys are sent without waiting for the page that they lead to."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds

    def there() -> Any:
        try:
            return condition()
        except (NoSuchElementException, StaleElementReferenceException):  # between two pages
            return False

    while not there():
        assert time.monotonic() < end, "the page did not come"
        time.sleep(0.1)


def log_in(driver: Any, url: str, secret: str) -> None:
    driver.get(f"{url}/console/?lang=zh")
    by_css(driver, "#f-name").send_keys("li.wei")
    by_css(driver, "#f-password").send_keys(PASSWORD)
    by_css(driver, "button.primary").click()
    wait(lambda: driver.find_elements("css selector", "#f-code"))
    by_css(driver, "#f-code").send_keys(pyotp.TOTP(secret).now())
    by_css(driver, "button.primary").click()
    wait(lambda: driver.find_elements("css selector", "nav.side"))


def no_errors(driver: Any) -> None:
    """Nothing was blocked by the policy, nothing failed, and no script of the data ran."""
    said = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert said == []
    assert driver.title != "owned"


def test_login_search_and_languages(driver: Any, url: str, center: Center) -> None:
    log_in(driver, url, account(center, "li.wei"))
    assert "概览" in driver.title and driver.find_elements("css selector", "svg.chart polyline")
    driver.get(f"{url}/console/people")
    by_css(driver, "#f-value").send_keys("+86 138-0013-8000")
    by_css(driver, "main button.primary").click()
    wait(lambda: by_css(driver, ".timeline").is_displayed())
    assert "13800138000" not in driver.current_url and "8000" not in driver.current_url
    timeline = by_css(driver, ".timeline").text
    assert "同意" in timeline
    for summary in driver.find_elements("css selector", ".timeline details:not([open]) summary"):
        summary.click()
    shown = [e.text for e in driver.find_elements("css selector", ".notice-text")]
    assert ZH in shown and EN in shown, "the exact text that the person saw"
    assert sum("<img src=x onerror=" in text for text in shown) == 2, "naughty text as text"
    assert not driver.find_elements("css selector", "main img, main script")
    no_errors(driver)
    driver.find_element("link text", "English").click()
    wait(lambda: by_css(driver, "html").get_attribute("lang") == "en")
    wait(lambda: "Timeline" in by_css(driver, "main").text)
    driver.get(f"{url}/console/ledger")
    by_css(driver, "form[action$='/ledger/check'] button").click()
    # htmx asks again every two seconds
    wait(lambda: "all records agree" in by_css(driver, "#check").text)
    no_errors(driver)


def test_the_keyboard_alone(driver: Any, url: str, center: Center) -> None:
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(driver).send_keys(*keys).perform()

    def focused() -> Any:
        return driver.switch_to.active_element

    secret = account(center, "zhang.min")
    driver.get(f"{url}/console/people")
    wait(lambda: focused().get_attribute("name") == "name")  # the first field has the focus
    press("zhang.min", Keys.TAB, PASSWORD, Keys.ENTER)
    wait(lambda: driver.find_elements("css selector", "#f-code"))
    wait(lambda: focused().get_attribute("name") == "code")
    press(pyotp.TOTP(secret).now(), Keys.ENTER)
    wait(lambda: driver.find_elements("css selector", "nav.side"))
    wait(lambda: driver.execute_script("return document.readyState") == "complete")
    assert driver.current_url.endswith("/console/people"), "back to where one wanted to go"
    press(Keys.TAB)
    assert focused().get_attribute("class") == "skip"
    ring = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid", "the focus is visible"
    press(Keys.ENTER, Keys.TAB)
    wait(lambda: focused().get_attribute("id") == "f-kind")  # past the navigation
    press(Keys.TAB, NUMBER, Keys.ENTER)
    wait(lambda: driver.find_elements("css selector", ".timeline"))
    assert "/console/people/" in driver.current_url
    seen = set()
    for _ in range(60):
        press(Keys.TAB)
        seen.add((focused().tag_name, focused().text[:20]))
    assert any(tag == "summary" for tag, _text in seen) and any(tag == "div" for tag, _ in seen), (
        "details and wide tables can be reached"
    )
    driver.get(f"{url}/console/rules")
    press(Keys.TAB, Keys.ENTER, Keys.TAB)
    for _ in range(60):
        if focused().get_attribute("name") == "text":
            break
        press(Keys.TAB)
    press(Keys.TAB, Keys.ENTER)
    wait(lambda: driver.find_elements("css selector", "#trial"))


#: Every page of the console; `{request}` and `{done}` are rights requests.
PAGES = (
    *("", "analytics", "people", "requests", "requests/{request}", "requests/{done}"),
    *("registry", "registry/purpose/bad", "registry/notice/naughty", "registry/draft/naughty"),
    *("registry/new-notice", "registry/new-notice?draft=naughty", "registry/new-purpose", "rules"),
    *("registers", "registers?kind=assessment", "registers?kind=agreement", "registers/processing/new"),
    *("collection", "collection/form?from=shop", "contact", "recipients", "clocks", "witnesses"),
    *("webhooks", "webhooks?state=pending", "jobs", "jobs/job-1", "ledger", "ledger/leaf?index=1"),
    *("exports", "activity", "accounts", "nothing"),
)


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_runs_no_script_of_the_data(
    driver: Any, url: str, session: dict[str, str], center: Center, width: int
) -> None:
    """No sideways scrolling, nothing blocked or executed; PEC_SCREENSHOTS=DIR keeps pictures of all."""
    come_in(driver, url, session)
    ids = sorted(entry["id"] for entry in center.rights.list())
    phone = width < 600
    size = {"width": width, "height": 844 if phone else 900, "deviceScaleFactor": 1, "mobile": phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    keep, lang = os.environ.get("PEC_SCREENSHOTS"), "zh" if phone else "en"

    def looks_right(path: str) -> None:
        if path != "nothing":
            no_errors(driver)
        found = driver.execute_script("return [document.documentElement.scrollWidth, document.title]")
        assert found[0] <= width and found[1] != "owned", (path, found)
        assert not driver.find_elements("css selector", "main img, main script, main [onerror]"), path
        assert bool(by_css(driver, "details.menu").get_attribute("open")) != phone, "folded on phones"
        if keep:
            height = driver.execute_script("return document.documentElement.scrollHeight")
            whole = {**size, "height": min(height, 6_000)}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", whole)
            name = re.sub(r"\W+", "-", path) or "dashboard"
            driver.save_screenshot(f"{keep}/{name}-{width}-{lang}.png")
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    driver.get(f"{url}/console/?lang={lang}")
    for path in PAGES:
        driver.get(f"{url}/console/{path.format(request=ids[0], done=ids[1])}")
        looks_right(path)
    driver.get_log("browser")  # the page that does not exist is told there
    driver.get(f"{url}/console/rules")
    by_css(driver, "#f-text").clear()
    driver.execute_script("document.querySelector('#f-text').value = arguments[0]", RULES)
    by_css(driver, "form[action$='/rules'] button.primary").click()
    wait(lambda: by_css(driver, "#trial").is_displayed())
    assert "<img" in by_css(driver, "#trial pre").text
    looks_right("rules-tried")
    if phone:
        by_css(driver, "details.menu summary").click()
        assert by_css(driver, "details.menu a[href$='/console/jobs']").is_displayed()


def test_without_javascript(driver: Any, url: str, session: dict[str, str], center: Center) -> None:
    come_in(driver, url, session)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(f"{url}/console/people?lang=en")
    assert not by_css(driver, "html").get_attribute("class"), "no script ran"
    by_css(driver, "#f-value").send_keys(NUMBER)
    by_css(driver, "main button.primary").click()
    wait(lambda: by_css(driver, ".timeline").is_displayed() and ZH in driver.page_source)
    driver.get(f"{url}/console/webhooks")
    by_css(driver, "form[action$='/webhooks/requeue'] button.small").click()
    wait(lambda: "1 message goes out again" in by_css(driver, ".message").text)
    center.outbox.settle([(1, 13, False, XSS)])
    driver.get(f"{url}/console/registry/draft/naughty")
    by_css(driver, "form[action$='/publish'] button").click()
    wait(lambda: by_css(driver, "h1").text.startswith("Notice") and len(center.notices()) == 3)
    driver.get(f"{url}/console/rules")
    by_css(driver, "form[action$='/rules'] button.primary").click()
    wait(lambda: by_css(driver, "#trial").is_displayed())
