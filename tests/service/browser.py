"""A real Chromium, without a window. Skips the test where it is not installed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

INSTALL = "Chromium is not installed: apt-get install chromium chromium-driver"


_TRANSIENT = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)


class Browser:
    """What a person does with one."""

    def __init__(self, driver: webdriver.Chrome, screenshots: Path | None) -> None:
        self._driver = driver
        self._screenshots = screenshots

    @property
    def url(self) -> str:
        return self._driver.current_url

    @property
    def text(self) -> str:
        return self._driver.find_element(By.TAG_NAME, "body").text

    def open(self, url: str) -> None:
        self._driver.get(url)

    def wait(self, done: Callable[[], Any], seconds: float = 150) -> Any:
        """Wait for something to be so; what React draws again meanwhile is looked up again."""
        waiting = WebDriverWait(self._driver, seconds, ignored_exceptions=_TRANSIENT)
        try:
            return waiting.until(lambda _driver: done())
        except TimeoutException:
            raise AssertionError(f"{self.url}: {self.text[:2000]}") from None

    def find(self, xpath: str, seconds: float = 150) -> WebElement:
        """The first such element, once it is there."""
        found: WebElement = self.wait(lambda: next(iter(self._driver.find_elements(By.XPATH, xpath)), None), seconds)
        return found

    def click(self, xpath: str) -> None:
        def click() -> bool:
            element = self.find(xpath)
            self._driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        self.wait(click)

    def submit(self, xpath: str) -> None:
        """Click a form's button until its page is left: a click before the form has read its fields does nothing."""
        form = self.url

        def leave() -> bool:
            self.click(xpath)
            with contextlib.suppress(TimeoutException):
                WebDriverWait(self._driver, 10).until(lambda _driver: self.url != form)
            return self.url != form

        self.wait(leave)

    def pictures(self) -> list[tuple[int, bool]]:
        """Width in pixels and completeness of every picture with a source."""
        script = (
            "return [...document.querySelectorAll('img')].filter(i => i.src).map(i => [i.naturalWidth, i.complete])"
        )
        return [(width, complete) for width, complete in self._driver.execute_script(script)]

    def screenshot(self, name: str, *, height: int = 1000) -> None:
        """Keep what is to be seen, where screenshots are asked for."""
        if self._screenshots is not None:
            self._driver.set_window_size(1400, height)
            self._driver.save_screenshot(str(self._screenshots / f"{name}.png"))


@contextlib.contextmanager
def chromium(screenshots: Path | None) -> Iterator[Browser]:
    """Start one with a profile of its own."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip(INSTALL)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    try:
        yield Browser(driver, screenshots)
    finally:
        driver.quit()
