"""The built pages in a browser: no errors, no requests to other hosts, everything displayed."""

import re
import time
from functools import cache
from pathlib import Path

import jupytext
import pytest
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import expect_read, until

ROOT = Path(__file__).parent.parent
HTML = ROOT / "_build" / "html"
PAGES = sorted(path.stem for path in HTML.glob("*.html") if path.stem not in ("genindex", "search"))
NOTEBOOKS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
DESKTOP = {"width": 1200, "height": 900}
PHONE = {"width": 390, "height": 800}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES, reason="the book is not built: run make book"),
]


def record_errors(page):
    """Collects console errors and uncaught exceptions of a page in ``page.errors``."""
    page.errors = []
    page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
    page.on("pageerror", lambda error: page.errors.append(str(error)))


@pytest.fixture(scope="module")
def tab(browser):
    """Yields a tab that records errors, failed requests and requests to other hosts."""
    context = browser.new_context(viewport=DESKTOP)
    tab = context.new_page()
    record_errors(tab)
    tab.on("requestfailed", lambda r: tab.errors.append(f"failed: {r.url}"))
    tab.on(
        "request",
        lambda r: r.url.startswith(("file:", "data:", "blob:")) or tab.errors.append(r.url),
    )
    yield tab
    context.close()


# The scope makes pytest run all tests of one page before the next page: each is loaded once.
@pytest.fixture(scope="module", params=PAGES)
def page(tab, request):
    """Yields the tab with one page loaded."""
    tab.errors.clear()
    tab.goto((HTML / f"{request.param}.html").as_uri(), wait_until="load")
    tab.loaded = time.monotonic()
    tab.evaluate("window.MathJax?.startup?.promise")  # typesetting continues after loading
    yield tab
    # The next page starts without this page's storage and pending requests.
    tab.evaluate("localStorage.clear(); sessionStorage.clear()")
    tab.goto("about:blank")


class TestEveryPage:
    pytestmark = needs_browser

    def test_formulas_are_typeset(self, page):
        assert page.locator("mjx-merror").count() == 0
        not_typeset = page.locator("article .math").evaluate_all(
            "all => all.filter(m => !m.querySelector('mjx-container')).map(m => m.innerText)"
        )
        assert not_typeset == []

    def test_every_image_is_shown_and_described(self, page):
        pictures = page.locator("article img")
        missing = pictures.evaluate_all(
            """async images => {
                const missing = [];
                for (const image of images) {
                    image.scrollIntoView();
                    await image.decode().catch(() => {});
                    if (!image.complete || image.naturalWidth === 0) missing.push(image.src);
                }
                return missing;
            }"""
        )
        assert missing == []
        for text in pictures.evaluate_all("images => images.map(i => i.getAttribute('alt') || '')"):
            assert len(text) > 3

    def test_nothing_fails_and_no_other_host_is_contacted(self, page):
        # Late requests count too, and the browser doesn't always report that a page is idle.
        page.wait_for_timeout(1000 * max(0, page.loaded + 0.5 - time.monotonic()))
        assert page.errors == []

    def test_a_phone_needs_no_sideways_scrolling(self, page):
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        page.set_viewport_size(DESKTOP)
        assert width <= PHONE["width"]

    def test_a_phone_can_scroll_to_everything(self, page):
        page.set_viewport_size(PHONE)
        cut_off = page.evaluate(
            """() => {
                const scrolls = (box) => /auto|scroll/.test(getComputedStyle(box).overflowX);
                const ancestors = (box) => {
                    const found = [];
                    while ((box = box.parentElement)) found.push(box);
                    return found;
                };
                const wide = (box) => box.getBoundingClientRect().right > innerWidth + 1;
                const hides = (box) =>
                    box.clientWidth > 20 && box.scrollWidth > box.clientWidth + 2
                    && getComputedStyle(box).overflowX === "hidden";
                return [...document.querySelectorAll("article *")]
                    .filter((box) => (wide(box) && !ancestors(box).some(scrolls)) || hides(box))
                    .map((box) => box.outerHTML.slice(0, 80));
            }"""
        )
        page.set_viewport_size(DESKTOP)
        assert cut_off == []

    def test_one_search_box_is_visible(self, page):
        boxes = page.locator(".search-button-field, .search-button, .bd-search")
        assert sum(box.is_visible() for box in boxes.all()) == 1


class TestPaper:
    pytestmark = needs_browser

    def test_it_is_light_and_has_no_folded_cells(self, browser):
        context = browser.new_context(viewport=DESKTOP, color_scheme="dark")
        page = context.new_page()
        page.goto((HTML / f"{NOTEBOOKS[0]}.html").as_uri(), wait_until="load")
        html = page.locator("html")
        expect(html).to_have_attribute("data-theme", "dark")
        page.emulate_media(media="print")
        expect(html).to_have_attribute("data-theme", "light")
        assert not any(box.is_visible() for box in page.locator("details:not([open])").all())
        page.emulate_media(media="screen")
        expect(html).to_have_attribute("data-theme", "dark")
        context.close()


@pytest.fixture(scope="module")
def chapter(browser):
    """Yields the page of chapter 14, which shows an explorer in a frame."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light", offline=True)
    page = context.new_page()
    record_errors(page)
    page.goto((HTML / "14-what-the-head-remembers.html").as_uri(), wait_until="load")
    yield page
    context.close()


@pytest.fixture
def frame(chapter):
    """Returns the explorer's frame, ready to use, on a page of the original size."""
    chapter.set_viewport_size(DESKTOP)
    frame = chapter.locator('iframe[title="Attention explorer"]').first
    frame.scroll_into_view_if_needed()
    frame.content_frame.locator("body[data-ready]").wait_for()
    return frame


class TestExplorer:
    pytestmark = needs_browser

    def test_it_works_without_a_kernel_or_a_network(self, chapter, frame):
        inside = frame.content_frame
        inside.locator("#targets i").nth(5).click()
        assert inside.locator("body").evaluate("() => sharnn.chosen") == 5
        inside.locator("#targets").press("End")
        assert inside.locator("body").evaluate("() => sharnn.chosen") > 5
        assert inside.locator("#peaks button").count() > 1
        assert inside.locator("#live").is_hidden()
        assert inside.locator("#problem").is_hidden()
        assert chapter.errors == []

    def test_the_frame_is_as_high_as_its_content(self, chapter, frame):
        for width in (1200, 390):
            chapter.set_viewport_size({"width": width, "height": 800})
            chapter.wait_for_timeout(500)
            inside = frame.element_handle().content_frame()
            excess = "innerHeight - document.body.scrollHeight"
            until(inside, f"{excess} >= 0 && {excess} < 50")

    def test_it_follows_the_theme_of_the_book(self, chapter, frame):
        root = frame.content_frame.locator("html")
        seen = set()
        for _ in range(3):  # auto, light, dark in some order
            chapter.locator(".theme-switch-button:visible").first.click()
            theme = chapter.locator("html").get_attribute("data-theme")
            expect(root).to_have_attribute("data-theme", theme)
            seen.add(theme)
        assert seen == {"light", "dark"}

    def test_a_phone_needs_no_sideways_scrolling(self, chapter, frame):
        chapter.set_viewport_size(PHONE)
        chapter.wait_for_timeout(500)
        fits = "document.documentElement.scrollWidth <= innerWidth"
        for page in (chapter, frame.element_handle().content_frame()):
            until(page, fits)

    def test_it_is_wider_than_the_text(self, chapter, frame):
        text = chapter.locator("article p").first.bounding_box()
        assert frame.bounding_box()["width"] > 1.2 * text["width"]

    def test_the_address_of_the_chapter_names_a_byte(self, chapter, frame):
        body = frame.content_frame.locator("body")
        body.evaluate("() => sharnn.choose(33)")
        assert chapter.url.endswith(".html#byte-33")
        chapter.reload()
        body.and_(frame.content_frame.locator("[data-ready]")).wait_for()
        assert body.evaluate("() => sharnn.chosen") == 33
        until(chapter, "scrollY > 1000")


class TestPagesWithAModel:
    pytestmark = needs_browser

    @pytest.mark.parametrize(
        ("name", "title"),
        [
            ("14-what-the-head-remembers", "Explorer: remove rows from the memory"),
            ("19-compress-wikipedia", "Compressor"),
        ],
    )
    def test_they_run_the_model_of_the_book(self, browser, name, title):
        context = browser.new_context(viewport=DESKTOP, offline=True)
        page = context.new_page()
        record_errors(page)
        page.goto((HTML / f"{name}.html").as_uri(), wait_until="load")
        frame = page.locator(f'iframe[title="{title}"]')
        assert len(frame.get_attribute("srcdoc")) < 1_000_000, "the weights are not in the page"
        inside = frame.content_frame
        inside.locator("#start").click()
        inside.locator("body[data-started]:not([data-reading])").wait_for(timeout=60_000)
        inside.locator("#text").fill("A text, and the same text.")
        expect_read(inside, 26)
        assert page.errors == []
        context.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_shows_every_figure_of_its_notebook(name):
    cells = jupytext.read(ROOT / "book" / f"{name}.ipynb").cells
    figures = sum("figure" in cell.metadata.get("mystnb", {}) for cell in cells)
    figures += sum(cell.source.count("](diagrams/") for cell in cells)
    html = (HTML / f"{name}.html").read_text()
    assert html.count("<figcaption>") == figures > 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_page_links_to_its_notebook_on_colab_and_binder(name):
    html = (HTML / f"{name}.html").read_text()
    assert re.search(rf'href="https://colab\.research\.google\.com/[^"]+/book/{name}\.ipynb"', html)
    assert re.search(rf'href="https://mybinder\.org/[^"]+book/{name}\.ipynb"', html)


@cache
def anchors(path):
    """Returns the names in a page that a link can point to."""
    return set(re.findall(r'\b(?:id|name)="([^"]*)"', path.read_text()))


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_have_targets(name):
    page = HTML / f"{name}.html"
    for link in re.findall(r'<a [^>]*href="([^"]*)"', page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = HTML / target if target else page
        assert path.exists(), link
        if anchor and path.suffix == ".html":
            assert anchor in anchors(path), link
