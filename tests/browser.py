"""The browser that tests drive: an installed Chromium. Playwright brings none."""

import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs an installed Chromium"),
    # Playwright closes its pipes late; Python says so when it collects them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@contextmanager
def open_browser():
    """A browser that asks nobody for anything by itself."""
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()
