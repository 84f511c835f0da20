"""Pages with a model in them: in a file, and in a frame as an output of a notebook and on Colab."""

import html

import pytest
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import expect_read
from sharnn.analysis.ablation_page import AblationPage
from sharnn.web.compressor import CompressorPage
from sharnn.web.playground import Playground
from small import small_model

pytestmark = [pytest.mark.slow, *needs_browser]

TEXT = "The lamp of the old tower, and the lamp of the new tower.\n"
PAGES = (Playground, CompressorPage, AblationPage)


@pytest.fixture(scope="module")
def model():
    return small_model(memory=200)


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page around a frame, without a network."""
    problems = []
    context = browser.new_context(
        offline=True, color_scheme="dark", viewport={"width": 900, "height": 800}
    )
    page = context.new_page()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))

    def open_page(content):
        path = tmp_path / "outer.html"
        path.write_text(content, "utf-8")
        page.goto(path.as_uri())
        return page

    yield open_page
    context.close()
    assert problems == []


def use(inside):
    """Starts the model and lets it read another text."""
    inside.locator("#start").click()
    inside.locator("body[data-started]:not([data-reading])").wait_for(timeout=60_000)
    inside.locator("#text").fill(TEXT + "Another line.")
    expect_read(inside, len(TEXT) + 13)
    known = inside.locator("body").evaluate("() => sharnn.known.bits")
    assert len(known) == len(TEXT) + 13
    assert inside.locator("#problem").is_hidden()


def assert_headings(page, title, level):
    """The title has a level of its own, and all other headings are below it."""
    headings = page.locator("body").evaluate(
        """() => [...document.querySelectorAll("h1, h2, h3")].map((heading) =>
          [heading.textContent, Number(heading.ariaLevel ?? heading.tagName[1])])"""
    )
    (first, highest), *others = headings
    assert (first, highest) == (title, level)
    assert {found for _, found in others} <= {level + 1, level + 2}
    assert others


@pytest.mark.parametrize("kind", PAGES)
def test_in_a_file_of_its_own(show, model, kind):
    page = show(kind(model, "small", TEXT).page())
    page.locator("body[data-ready]").wait_for()
    assert_headings(page, kind.title, 1)


@pytest.mark.parametrize("kind", PAGES)
def test_of_the_same_origin(show, model, kind):
    content = kind(model, "small", TEXT)._repr_html_()
    page = show(f'<!doctype html><html data-theme="light"><body>{content}')
    inside = page.locator("iframe").content_frame
    inside.locator("body[data-ready]").wait_for()
    expect(inside.locator("html")).to_have_attribute("data-theme", "light")
    expect(inside.locator("#theme")).to_be_hidden()  # the page around has its own
    assert_headings(inside, kind.title, 2)  # and its own title
    use(inside)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(inside.locator("html")).to_have_attribute("data-theme", "dark")
    missing = inside.locator("body").evaluate("() => document.body.scrollHeight - innerHeight")
    assert -50 < missing <= 0, "the frame has the height of the page"


@pytest.mark.parametrize("kind", PAGES)
def test_of_another_origin(show, model, kind):
    """As on Colab: the page can neither read nor resize its surroundings."""
    content = html.escape(kind(model, "small", TEXT)._repr_html_())
    sandbox = 'sandbox="allow-scripts" style="width: 100%; height: 1500px"'
    page = show(f'<!doctype html><iframe {sandbox} srcdoc="{content}"></iframe>')
    inside = page.locator("iframe").content_frame.locator("iframe").content_frame
    inside.locator("body[data-ready]").wait_for()
    expect(inside.locator("html")).to_have_attribute("data-theme", "dark")
    assert_headings(inside, kind.title, 2)
    use(inside)
    assert inside.locator("body").evaluate("() => innerHeight") == kind.height
    inside.locator("#theme").select_option("light")
    expect(inside.locator("html")).to_have_attribute("data-theme", "light")
