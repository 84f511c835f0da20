"""A reader's text is kept for the tab: it is there again after a visit to another page."""

import pytest
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import TEXT, expect_read, start, type_text, wait
from sharnn import Playground
from sharnn.analysis.ablation_page import AblationPage
from sharnn.web.compressor import CompressorPage
from sharnn.web.gates import GatesPage
from sharnn.web.memory import MemoryPage
from sharnn.web.page import frame
from sharnn.web.sampling import SamplingPage
from sharnn.web.sharpness import SharpnessPage
from small import small_model

pytestmark = [pytest.mark.slow, *needs_browser]

OWN = "The reader's own text, naïve and short.\n"
PAGES = (
    Playground,
    AblationPage,
    CompressorPage,
    GatesPage,
    MemoryPage,
    SamplingPage,
    SharpnessPage,
)


def kept(page):
    """Returns the number of things that the tab keeps."""
    return page.evaluate("sessionStorage.length")


def assert_own(page):
    """The reader's text is in the field again, and has been read."""
    expect_read(page, len(OWN.encode()))
    assert page.input_value("#text") == OWN
    expect(page.locator("#to-example")).to_be_visible()
    assert bytes(page.evaluate("Array.from(sharnn.session.known.bytes)")).decode() == OWN


@pytest.mark.parametrize("kind", PAGES)
def test_it_is_there_after_a_reload_and_on_the_way_back(browser, tmp_path, kind):
    path = kind(small_model(), "small", TEXT).save(tmp_path / "page.html")
    context = browser.new_context(offline=True)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    type_text(page, OWN)
    page.reload()
    assert_own(page)
    page.goto("about:blank")
    page.go_back()
    assert_own(page)
    other_tab = context.new_page()
    other_tab.goto(path.as_uri())
    other_tab.wait_for_selector("body[data-ready]")
    assert other_tab.input_value("#text") == TEXT
    assert kept(other_tab) == 0
    assert problems == []
    context.close()


def test_a_text_typed_in_the_last_moment(page):
    """Before it is read, and before the model has been loaded."""
    page.evaluate("void (sharnn.session.start = () => new Promise(() => {}))")
    page.fill("#text", OWN)
    page.reload()
    assert_own(page)


def test_an_empty_text_is_a_text(page):
    start(page)
    type_text(page, "")
    page.reload()
    expect_read(page, 0)
    assert page.input_value("#text") == ""


def test_the_way_back_to_the_example(page):
    type_text(page, OWN)
    page.reload()
    assert_own(page)
    page.click("#to-example")
    expect_read(page, len(TEXT.encode()))
    assert kept(page) == 0
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.input_value("#text") == TEXT
    assert page.get_attribute("body", "data-started") is None


def test_the_example_alone_is_not_kept(page):
    start(page)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert kept(page) == 0
    assert page.get_attribute("body", "data-started") is None


def test_undo_shows_the_example(page):
    type_text(page, OWN)
    page.reload()
    assert_own(page)
    page.focus("#text")
    page.keyboard.press("Control+z")
    assert page.input_value("#text") == TEXT


def test_what_the_model_wrote_is_still_marked(page):
    start(page)
    type_text(page, OWN)
    page.click("#continue")
    expect(page.locator("#remove")).to_be_visible(timeout=60_000)
    wait(page)
    text = page.input_value("#text")
    marks = page.evaluate("sharnn.session.known.written.join('')")
    assert marks == "0" * len(OWN.encode()) + "1" * (len(text.encode()) - len(OWN.encode()))
    page.reload()
    expect_read(page, len(text.encode()))
    assert page.evaluate("sharnn.session.known.written.join('')") == marks
    page.click("#remove")
    assert_own(page)


def test_another_example_has_a_text_of_its_own(page, path, model):
    type_text(page, OWN)
    Playground(model, "small", "another example").save(path)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.input_value("#text") == "another example"


@pytest.mark.parametrize("script", ["throw new Error('full')", "return 'no JSON'"])
def test_a_browser_that_keeps_nothing(page, script):
    page.add_init_script(
        f"Storage.prototype.setItem = Storage.prototype.getItem = () => {{ {script} }}"
    )
    page.reload()
    page.wait_for_selector("body[data-ready]")
    type_text(page, OWN)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.input_value("#text") == TEXT


@pytest.mark.parametrize("sandboxed", [False, True])
def test_a_frame_keeps_a_text_if_it_may(browser, model, tmp_path, sandboxed):
    """A frame of another origin may not: it shows the example, without an error."""
    content = frame(Playground(model, "small", TEXT).page(), "Playground", 1300)
    if sandboxed:
        content = content.replace("<iframe", '<iframe sandbox="allow-scripts"')
    outer = tmp_path / "outer.html"
    outer.write_text(f'<!doctype html><html data-theme="dark"><body>{content}', "utf-8")
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.goto(outer.as_uri())
    inside = page.locator("iframe").content_frame
    inside.locator("#text").fill(OWN)
    expect_read(inside, len(OWN.encode()))
    page.goto("about:blank")
    page.go_back()
    inside = page.locator("iframe").content_frame
    inside.locator("body[data-ready]").wait_for()
    expect(inside.locator("#text")).to_have_value(TEXT if sandboxed else OWN)
    if not sandboxed:
        expect_read(inside, len(OWN.encode()))
    assert inside.locator("#problem").is_hidden()
    assert problems == []
    page.close()
