"""A headless Chromium for tests of pages; skips loudly where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium(profile: Path, width: int = 1280, height: int = 900, script: bool = True) -> Iterator[object]:
    """A selenium driver with a fresh profile; `script=False` runs no JavaScript of pages."""
    binary = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("NOT RUN: no Chromium with chromedriver on this machine, so the pages were not opened")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--window-size={width},{height}",
        f"--user-data-dir={profile}",
        "--lang=zh-CN",
    ):
        options.add_argument(flag)
    # A port for the resolver's sake: no page may reach anything but this machine.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not script:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})

    def started(tries: int) -> Chrome:
        """The driver looks for a free port and takes it a moment later, when another process may have it."""
        try:
            return Chrome(options=options, service=Service(driver))
        except WebDriverException:
            if tries == 1:
                raise
            return started(tries - 1)

    browser = started(3)
    try:
        # Headless windows are not narrower than 500 px; the emulated device is.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.set_page_load_timeout(180)
        yield browser
    finally:
        browser.quit()
