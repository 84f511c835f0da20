"""Pages with a model in them, in a browser without a network."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from playwright.sync_api import expect

from sharnn import load, save

TEXT = "abcabd abcabd abcabd <b>&amp;</b> café"  # of the playground
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>\x00\x07\u202e"
)


def as_stored(model, path):
    """Returns the model with the weights that a page with it has."""
    save(model, path, storage="int8")
    return load(path)


@torch.no_grad()
def bits_of(model, text, **settings):
    """Returns the bits of each byte of a text; the first byte costs 8."""
    x = torch.tensor(list(text.encode()))
    logits, _ = model(x[None], **settings)
    bits = F.cross_entropy(logits[0, :-1], x[1:], reduction="none") / torch.log(torch.tensor(2.0))
    return torch.cat([torch.tensor([8.0]), bits])


@torch.no_grad()
def weights_of(model, text, target, block=1):
    """Returns the weights of a block's head when it predicted a byte of a text, as in a page."""
    state = None
    for symbol in text.encode()[:target]:
        x = torch.tensor([[symbol]])
        _, state, attention = model.forward_with_attention(x, state)
    return attention[block][0, 0]


@contextmanager
def open_page(browser, path, script=""):
    """Opens a page, and checks at the end that nothing went wrong in it.

    Args:
        script: a script that runs before those of the page.
    """
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    if script:
        page.add_init_script(script)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    yield page
    assert problems == []
    context.close()


def wait(page):
    """Waits until the text has been read."""
    page.wait_for_selector("body[data-started]:not([data-reading])", timeout=60_000)


def start(page):
    """Starts the model, and waits until the text has been read."""
    page.click("#start")
    wait(page)


def type_text(page, text):
    """Replaces the text, and waits until it has been read."""
    page.fill("#text", text)
    expect_read(page, len(text.encode()))


def expect_read(page, size):
    """Waits until the page reports that a text of this size has been read."""
    words = f"{size:,} byte{'' if size == 1 else 's'} read" if size else "There is no text."
    expect(page.locator("#status")).to_have_text(words, timeout=60_000)


def assert_fits_a_phone_in_the_dark(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.select_option("#theme", "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == "rgb(21, 24, 28)"


def until(page, expression):
    """Waits until an expression is true. Playwright's own wait is against the page's policy."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression}")
