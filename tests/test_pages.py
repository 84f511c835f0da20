"""The built pages in a real browser: nothing fails, no other host is asked, all is shown."""

import re
from pathlib import Path

import jupytext
import pytest
from playwright.sync_api import expect

from browser import needs_browser, open_browser

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"
PAGES = sorted(path.stem for path in HTML.glob("*.html") if path.stem not in ("genindex", "search"))
NOTEBOOKS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES, reason="the book is not built: make book"),
]


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(params=PAGES)
def page(browser, request):
    """An open page, and everything that went wrong while it opened."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.wrong = []
    page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("requestfailed", lambda r: page.wrong.append(f"failed: {r.url}"))
    page.on(
        "request",
        lambda r: r.url.startswith(("file:", "data:", "blob:")) or page.wrong.append(r.url),
    )
    page.goto((HTML / f"{request.param}.html").as_uri(), wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")  # typesetting goes on after loading
    yield page
    context.close()


class TestInABrowser:
    pytestmark = needs_browser

    def test_nothing_fails_and_no_other_host_is_asked(self, page):
        page.wait_for_timeout(500)  # for what a page asks late; idleness is not always reported
        assert page.wrong == []

    def test_formulas_are_typeset(self, page):
        formulas = page.locator("article .math")
        assert page.locator("mjx-merror").count() == 0
        for formula in formulas.all():
            assert formula.locator("mjx-container").count() > 0, formula.inner_text()

    def test_every_picture_is_there_and_described(self, page):
        for picture in page.locator("article img").all():
            picture.scroll_into_view_if_needed()
            assert picture.evaluate("img => img.complete && img.naturalWidth > 0")
            assert len(picture.get_attribute("alt") or "") > 3

    def test_a_phone_needs_no_sideways_scrolling(self, page):
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


class TestTheExplorer:
    """The page of the chapter on what the head remembers holds one, in a frame."""

    pytestmark = needs_browser

    @pytest.fixture
    def page(self, browser):
        context = browser.new_context(
            viewport={"width": 1200, "height": 900}, color_scheme="light", offline=True
        )
        page = context.new_page()
        page.wrong = []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
        page.goto((HTML / "14-what-the-head-remembers.html").as_uri(), wait_until="load")
        yield page
        context.close()

    @pytest.fixture
    def frame(self, page):
        frame = page.locator('iframe[title="Attention explorer"]').first
        frame.scroll_into_view_if_needed()
        frame.content_frame.locator("body[data-ready]").wait_for()
        return frame

    def test_it_works_without_kernel_and_network(self, page, frame):
        inside = frame.content_frame
        inside.locator("#watched i").nth(5).click()
        chosen = inside.locator("body").evaluate("() => sharnn.chosen")
        assert chosen == 5
        inside.locator("#watched").press("End")
        assert inside.locator("body").evaluate("() => sharnn.chosen") > 5
        assert inside.locator("#peaks button").count() > 1
        assert inside.locator("#live").is_hidden()
        assert inside.locator("#problem").is_hidden()
        assert page.wrong == []

    def test_the_frame_is_as_high_as_its_page(self, page, frame):
        for width in (1200, 390):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(500)
            own, wanted = frame.content_frame.locator("body").evaluate(
                "() => [innerHeight, document.body.scrollHeight]"
            )
            assert wanted <= own < wanted + 50

    def test_it_follows_the_theme_of_the_book(self, page, frame):
        root = frame.content_frame.locator("html")
        seen = set()
        for _ in range(3):  # auto, light, dark in some order
            page.locator(".theme-switch-button:visible").first.click()
            theme = page.locator("html").get_attribute("data-theme")
            expect(root).to_have_attribute("data-theme", theme)
            seen.add(theme)
        assert seen == {"light", "dark"}

    def test_a_phone_needs_no_sideways_scrolling(self, page, frame):
        page.set_viewport_size({"width": 390, "height": 800})
        page.wait_for_timeout(500)
        width = "() => document.documentElement.scrollWidth - innerWidth"
        assert page.evaluate(width) <= 0
        assert frame.content_frame.locator("body").evaluate(width) <= 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_shows_every_figure_of_its_notebook(name):
    cells = jupytext.read(ROOT / "book" / f"{name}.ipynb").cells
    figures = sum("figure" in cell.metadata.get("mystnb", {}) for cell in cells)
    html = (HTML / f"{name}.html").read_text()
    assert html.count("<figcaption>") == figures > 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_opens_its_notebook_on_colab_and_binder(name):
    html = (HTML / f"{name}.html").read_text()
    assert re.search(rf'href="https://colab\.research\.google\.com/[^"]+/book/{name}\.ipynb"', html)
    assert re.search(rf'href="https://mybinder\.org/[^"]+book/{name}\.ipynb"', html)


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name):
    html = (HTML / f"{name}.html").read_text()
    for link in re.findall(r'<a [^>]*href="([^"]*)"', html):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = HTML / target if target else HTML / f"{name}.html"
        assert path.exists(), link
        if anchor and path.suffix == ".html":
            text = path.read_text() if target else html
            assert f'id="{anchor}"' in text or f'name="{anchor}"' in text, link
