"""A headless Chromium for the tests of pages; they skip where it is not installed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_CHROMIUM, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """A driver that logs each request and saves downloads to folder / "saved"."""
    if not (_CHROMIUM and _DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1280,800",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "saved")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    environment = {**os.environ, "no_proxy": "*"}  # the driver is on this machine
    driver = webdriver.Chrome(options, webdriver.ChromeService(_DRIVER, env=environment))
    try:
        yield driver
    finally:
        driver.quit()


def requests(driver: Any) -> list[str]:
    """The addresses that pages have asked for, without those of the browser's own first page."""
    rows = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    urls = [row["params"]["request"]["url"] for row in rows if row["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("chrome")]
