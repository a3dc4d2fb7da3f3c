"""Chromium, headless, and what a person does and sees in it."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.end_to_end.machine import POLL_SECONDS, until

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
WIDE, NARROW = (1280, 860), (360, 760)
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
_MISSING = (NoSuchElementException, StaleElementReferenceException)


class Browser:
    """One Chromium with one window. `close` ends it."""

    def __init__(self) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="ub", dir="/tmp"))
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={self._profile}", "--window-size=1280,860"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(DRIVER, log_output=str(self._profile / "driver.log"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.messages: list[str] = []  # of the console
        self.hosts: set[str] = set()  # that were asked for anything

    def close(self) -> None:
        """End it."""
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def fresh(self, url: str) -> None:
        """As if the site had never been seen: light, wide, online, nothing stored, nothing logged."""
        self.driver.get("about:blank")
        self.command("Storage.clearDataForOrigin", origin=url, storageTypes="all")
        self.size(*WIDE)
        self.scheme("light")
        self.online(True)
        self.listen()
        self.messages, self.hosts = [], set()

    def listen(self) -> None:
        """Take what the console and the network have told since."""
        self.messages += [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.hosts.add(urlsplit(message["params"]["request"]["url"]).netloc)

    # What the machine is like.

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def size(self, width: int, height: int) -> None:
        """Of the window."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def scheme(self, name: str) -> None:
        """What the system prefers: light or dark."""
        features = [
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.command("Emulation.setEmulatedMedia", features=features)

    def online(self, is_online: bool) -> None:
        """Cut the network, or join it."""
        self.command(
            "Network.emulateNetworkConditions",
            offline=not is_online,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    # What a person does.

    def go(self, url: str) -> None:
        """To a page."""
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What JavaScript says."""
        return self.driver.execute_script(script, *arguments)

    def find(self, css: str, text: str = "") -> WebElement | None:
        """The first visible element of that kind whose text, or label, begins so; of an open dialog if there is one."""
        scope = "dialog[open] " if self.driver.find_elements(By.CSS_SELECTOR, "dialog[open]") else ""
        for element in self.driver.find_elements(By.CSS_SELECTOR, f"{scope}:is({css})"):
            try:
                said = (element.text.strip(), element.get_attribute("aria-label") or "")
                if element.is_displayed() and any(each.startswith(text) for each in said):
                    return element
            except StaleElementReferenceException:
                continue
        return None

    def wait(self, css: str, text: str = "", seconds: float = 15.0) -> WebElement:
        """The same, as soon as there is one."""
        return until(f"{css} {text!r} is there", lambda: self.find(css, text), seconds)

    def press(self, text: str, css: str = "button, a") -> None:
        """Press a button or a link, as soon as it is there and can be pressed."""

        def pressed() -> bool:
            try:
                element = self.find(css, text)
                if element is None or not element.is_enabled():
                    return False
                element.click()
                return True
            except WebDriverException as error:
                if isinstance(error, _MISSING) or "click intercepted" in str(error):
                    return False
                raise

        until(f"{text!r} is pressed", pressed)

    def write(self, css: str, text: str) -> None:
        """Into a field."""
        field = self.wait(css)
        field.clear()
        field.send_keys(text)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def choose(self, label: str, text: str) -> None:
        """One of several words, as a keyboard does."""
        field = self.wait("label", label).find_element(By.CSS_SELECTOR, "select")
        field.send_keys(text)

    def tab_to(self, text: str, most: int = 60) -> WebElement:
        """Go there with the tab key alone."""
        for _ in range(most):
            self.keys(Keys.TAB)
            element = self.driver.switch_to.active_element
            if text in (element.text.strip(), element.get_attribute("aria-label"), element.get_attribute("name")):
                return element
        raise AssertionError(f"{most} times the tab key, and never on {text!r}")

    # What a person sees.

    def text(self, css: str = "main") -> str:
        """Of an element, in one line; "" if there is none."""
        try:
            return " ".join(self.driver.find_element(By.CSS_SELECTOR, css).text.split())
        except _MISSING:
            return ""

    def sees(self, text: str, css: str = "main", seconds: float = 15.0) -> None:
        """Wait until the page shows it."""
        deadline = time.monotonic() + seconds
        while text not in (shown := self.text(css)):
            assert time.monotonic() < deadline, f"{css} does not show {text!r} within {seconds:g} s, but {shown!r}"
            time.sleep(POLL_SECONDS)

    def until(self, what: str, look: Callable[[], Any], seconds: float = 15.0) -> Any:
        """The first true value."""
        return until(what, look, seconds)
