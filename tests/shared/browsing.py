"""The page of a server in headless Chromium (Debian's chromium and chromium-driver)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
from PIL import Image

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Page:
    """A browser and what tests do with it."""

    driver: Any
    downloads: Path

    def open(self, address: str, fragment: str = "") -> None:
        self.driver.get("about:blank")  # else a new fragment alone loads nothing
        self.driver.get(f"http://{address}/ui/{fragment}")
        self.idle()

    def __getitem__(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"it did not happen; {self['body'].text}"
            time.sleep(0.02)
        return found

    def idle(self) -> None:
        """Until nothing is under way: pictures are there, or a problem is told."""
        done = (
            "return document.readyState === 'complete' && !document.body.classList.contains('busy') && "
            "(document.getElementById('status').textContent !== '' || !document.getElementById('problem').hidden)"
        )
        self.until(lambda: self.script(done))

    def click(self, selector: str) -> None:
        self[selector].click()
        self.idle()

    def type(self, selector: str, text: str, *keys: str) -> None:
        """Replace a field's text, and press Enter or other keys."""
        from selenium.webdriver.common.keys import Keys

        field = self[selector]
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, *(keys or (Keys.ENTER,)))
        self.idle()

    def slide(self, selector: str, value: float) -> None:
        self.script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            self[selector],
            value,
        )
        self.idle()

    @property
    def link(self) -> dict[str, str]:
        """The state in the address."""
        return {k: v[0] for k, v in parse_qs(urlparse(self.driver.current_url).fragment).items()}

    @property
    def problem(self) -> str:
        """What is told in red; nothing where all is well."""
        found = self["#problem"]
        return self["#message"].text if found.is_displayed() else ""

    def saved(self, selector: str) -> np.ndarray:
        """The pixels of the PNG file that a button gives."""
        before = set(self.downloads.glob("*.png"))
        self[selector].click()
        (path,) = self.until(lambda: set(self.downloads.glob("*.png")) - before)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def console(self) -> list[str]:
        """Errors and warnings since the last call; without those of requests that the server refused."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if "the server responded with a status of" not in entry["message"]
        ]

    def emulate(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def accessible(self) -> list[tuple[str, str]]:
        """Role and name of everything that a screen reader meets."""
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser that keeps its profile and downloads in `folder`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    downloads = folder / "downloads"
    downloads.mkdir()
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield Page(driver, downloads)
    finally:
        driver.quit()
