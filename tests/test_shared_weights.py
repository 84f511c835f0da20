"""The pages of a book share one model: frames in a page that loads the book's script."""

import pytest

from browser import needs_browser, open_browser
from model_pages import open_page
from sharnn import Playground, save
from sharnn.web.book import write_files
from sharnn.web.compressor import CompressorPage
from sharnn.web.gates import GatesPage
from sharnn.web.sampling import SamplingPage
from small import small_model

pytestmark = [pytest.mark.slow, *needs_browser]

TEXT = "abc [[def]] 1 2 3\n" * 3
PAGES = [Playground, GatesPage, SamplingPage, CompressorPage]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Writes a page with a frame for each kind, next to the scripts of a book."""
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save(small_model(), "small.safetensors")
        write_files("small.safetensors", folder / "_static")
        patch.setenv("SHARNN_SHARED_MODEL", "small.safetensors")
        frames = [page("small.safetensors", text=TEXT)._repr_html_() for page in PAGES]
    path = folder / "page.html"
    script = '<script src="_static/book.js"></script>'
    path.write_text(
        f"<!doctype html><html data-theme='dark'><head><meta charset='utf-8'>{script}</head>"
        f"<body data-ready='yes'>{''.join(frames)}</body></html>",
        encoding="utf-8",
    )
    return path


def test_each_frame_runs_the_model_of_the_book(book):
    with open_browser() as browser, open_page(browser, book) as page:
        frames = page.locator("iframe")
        assert frames.count() == len(PAGES)
        for i in range(len(PAGES)):
            frames.nth(i).scroll_into_view_if_needed()
            inside = frames.nth(i).content_frame
            inside.locator("body[data-ready]").wait_for()
            assert inside.locator("html").get_attribute("data-theme") == "dark"
            inside.locator("#start").click()
            inside.locator("body[data-started]:not([data-reading])").wait_for()
            assert inside.locator("#problem").is_hidden()
            assert inside.locator("#status").inner_text() == f"{len(TEXT)} bytes read"
        assert page.locator('head script[src*="small.js"]').count() == 1  # loaded once


def test_weights_that_could_not_be_loaded_are_loaded_at_the_next_start(book):
    weights = book.parent / "_static" / "small.js"
    away = weights.with_suffix(".away")
    weights.rename(away)
    try:
        with open_browser() as browser:
            page = browser.new_context(offline=True).new_page()
            errors = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(book.as_uri())
            frame = page.locator("iframe").first
            frame.scroll_into_view_if_needed()
            inside = frame.content_frame
            inside.locator("body[data-ready]").wait_for()
            inside.locator("#start").click()
            inside.locator("#problem:not([hidden])").wait_for()
            assert "start it again" in inside.locator("#problem").inner_text()
            assert inside.locator("#status").inner_text() == ""
            away.rename(weights)
            inside.locator("#start").click()
            inside.locator("body[data-started]:not([data-reading])").wait_for()
            assert inside.locator("#problem").is_hidden()
            assert errors == []
    finally:
        if away.exists():
            away.rename(weights)
