"""The browser for tests: an installed Chromium, because Playwright's own may be missing."""

import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs an installed Chromium"),
    # Playwright doesn't close its pipes in time, so Python warns when it collects them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@contextmanager
def open_browser():
    """Starts a browser that makes no network requests of its own."""
    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()
