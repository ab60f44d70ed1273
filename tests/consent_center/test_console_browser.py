"""The console in a real browser: login, search, languages, the keyboard alone, phones, naughty strings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyotp
import pytest
from browser import chromium
from console_helpers import PASSWORD, add, cheap_passwords

from consent_center.center import Center
from consent_center.model import ConsentEvent, DecisionRequest, Notice, Purpose
from consent_center.rest import server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NUMBER = "13800138000"
ZH, EN = "我们将您的号码加密后提供给合作方甲。", "We give your number, encrypted, to partner A."
XSS = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e\u0007"


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
        values = pa.array([NUMBER, "13800138001"])
        made.snapshot(DecisionRequest("ads", "partner", ("contact",)), values, "phone", "job-1")
        yield made


@pytest.fixture(scope="module")
def url(center: Center, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        with server.start(tmp_path_factory.mktemp("served"), center=center) as running:
            yield running.address.url


@pytest.fixture(scope="module")
def secret(center: Center) -> str:
    with pytest.MonkeyPatch.context() as patch:
        cheap_passwords(patch)
        return add(center, "li.wei", "admin")


def by_css(driver: Any, css: str) -> Any:
    return driver.find_element("css selector", css)


def wait(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Keys are sent without waiting for the page that they lead to."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not come"
        time.sleep(0.1)


def type_code(driver: Any, secret: str, send: Callable[[str], None]) -> None:
    """A code counts once: wait for the next where another test has just used this one."""
    for _ in range(3):
        send(pyotp.TOTP(secret).now())
        wait(lambda: driver.find_elements("css selector", "nav.side, [role=alert]"))
        if not driver.find_elements("css selector", "input[name=code]"):
            return
        time.sleep(30 - time.time() % 30 + 0.2)
    pytest.fail("no code was taken")


def log_in(driver: Any, url: str, secret: str) -> None:
    driver.get(f"{url}/console/?lang=zh")
    by_css(driver, "#f-name").send_keys("li.wei")
    by_css(driver, "#f-password").send_keys(PASSWORD)
    by_css(driver, "button.primary").click()

    def send(code: str) -> None:
        by_css(driver, "#f-code").send_keys(code)
        by_css(driver, "button.primary").click()

    type_code(driver, secret, send)


def no_errors(driver: Any) -> None:
    """Nothing was blocked by the policy, nothing failed, and no script of the data ran."""
    said = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert said == []
    assert driver.title != "owned"


def test_login_search_and_languages(url: str, secret: str, center: Center, tmp_path: Path) -> None:
    with chromium(tmp_path) as driver:
        log_in(driver, url, secret)
        assert "概览" in driver.title and driver.find_elements("css selector", "svg.chart polyline")
        driver.get(f"{url}/console/people")
        by_css(driver, "#f-value").send_keys("+86 138-0013-8000")
        by_css(driver, "main button.primary").click()
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
        assert (
            by_css(driver, "html").get_attribute("lang") == "en" and "Timeline" in by_css(driver, "main").text
        )
        for path in (
            "registry",
            "registry/purpose/bad",
            "registry/notice/naughty",
            "jobs/job-1",
            "ledger",
            "",
        ):
            driver.get(f"{url}/console/{path}")
            no_errors(driver)
        driver.get(f"{url}/console/ledger")
        by_css(driver, "form[action$='/ledger/check'] button").click()
        for _ in range(60):  # htmx asks again every two seconds
            if "all records agree" in by_css(driver, "#check").text:
                break
            time.sleep(0.5)
        else:
            pytest.fail("the check did not end on the page")
        no_errors(driver)


def test_the_keyboard_alone(url: str, secret: str, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    with chromium(tmp_path) as driver:

        def press(*keys: str) -> None:
            ActionChains(driver).send_keys(*keys).perform()

        def focused() -> Any:
            return driver.switch_to.active_element

        driver.get(f"{url}/console/people")
        assert focused().get_attribute("name") == "name", "the first field has the focus"
        press("li.wei", Keys.TAB, PASSWORD, Keys.ENTER)
        wait(lambda: driver.find_elements("css selector", "#f-code"))
        assert focused().get_attribute("name") == "code"
        type_code(driver, secret, lambda code: press(code, Keys.ENTER))
        assert driver.current_url.endswith("/console/people"), "back to where one wanted to go"
        press(Keys.TAB)
        assert focused().get_attribute("class") == "skip"
        ring = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid", "the focus is visible"
        press(Keys.ENTER, Keys.TAB)
        assert focused().get_attribute("id") == "f-kind", "past the navigation"
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


def test_a_phone_needs_no_sideways_scrolling(url: str, secret: str, tmp_path: Path) -> None:
    with chromium(tmp_path, width=390, height=844) as driver:
        log_in(driver, url, secret)
        paths = [
            "",
            "people",
            "registry",
            "registry/purpose/bad",
            "registry/notice/naughty",
            "jobs",
            "jobs/job-1",
        ]
        paths += ["ledger", "exports", "activity", "accounts", "registry/new-notice", "nothing"]
        for path in paths:
            driver.get(f"{url}/console/{path}")
            width = driver.execute_script("return document.documentElement.scrollWidth")
            assert width <= 390, (path, width)
            assert not by_css(driver, "details.menu").get_attribute("open"), "the menu is folded"
        by_css(driver, "details.menu summary").click()
        assert by_css(driver, "details.menu a[href$='/console/jobs']").is_displayed()


def test_without_javascript(url: str, secret: str, tmp_path: Path) -> None:
    with chromium(tmp_path, script=False) as driver:
        log_in(driver, url, secret)
        driver.get(f"{url}/console/people")
        by_css(driver, "#f-value").send_keys(NUMBER)
        by_css(driver, "main button.primary").click()
        assert ZH in driver.page_source and by_css(driver, ".timeline").is_displayed()
