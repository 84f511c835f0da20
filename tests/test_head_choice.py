"""Pages with a model that has several heads: they show the one that the reader chooses."""

import pytest
import torch
from playwright.sync_api import expect

from browser import needs_browser
from model_pages import (
    TEXT,
    assert_fits_a_phone_in_the_dark,
    open_page,
    start,
    type_text,
    until,
    weights_of,
)
from sharnn import Playground
from sharnn.analysis.ablation import ablate
from sharnn.analysis.ablation_page import COUNTS, AblationPage
from sharnn.analysis.replay import Replay
from sharnn.analysis.trace import trace_attention
from sharnn.web.sharpness import SharpnessPage
from small import small_model

pytestmark = [pytest.mark.slow, *needs_browser]

BLOCKS = {0: "0, the first", 1: "1, the second", 2: "2, the third"}
OWN = "cab, " + TEXT * 2
PAGES = (Playground, SharpnessPage, AblationPage)
LOOSE = {"rtol": 0.1, "atol": 0.01}  # the prepared numbers are in 8 bits
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def model():
    """A model whose three heads look at different rows."""
    model = small_model(memory=100, attention_layers=(0, 1, 2), shifted_keys=True)
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.head.query_norm.parameters():
                parameter *= 6
    model.collapse()
    return model


@pytest.fixture(scope="module")
def paths(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        kind: kind(model, "small", TEXT).save(folder / f"{kind.__name__}.html") for kind in PAGES
    }


@pytest.fixture(params=PAGES)
def kind(request):
    return request.param


@pytest.fixture
def path(paths, kind):
    return paths[kind]


def weights(page, kind, target):
    """Returns the weights of the chosen head when it predicted a byte."""
    name = "found" if kind is SharpnessPage else "attention"
    page.evaluate(f"sharnn.choose({target})")
    until(page, f"sharnn.{name}?.weights.length === {target}")
    return torch.tensor(page.evaluate(f"Array.from(sharnn.{name}.weights)"), dtype=torch.float32)


def choose_head(page, kind, block):
    """Chooses the head of a block, and waits until the page shows it."""
    name = "found" if kind is SharpnessPage else "attention"
    page.evaluate(f"void (sharnn.{name} = null)")
    page.select_option("#head", label=BLOCKS[block])
    until(page, f"sharnn.{name}")


def test_the_weights_of_each_head_are_pytorchs(page, kind, stored):
    """Of the prepared text, and of the reader's own."""
    assert page.locator("#head option").all_inner_texts() == list(BLOCKS.values())
    for text, within in ((TEXT, LOOSE), (OWN, CLOSE)):
        if text == OWN:
            start(page)
            type_text(page, text)
        for block in (2, 0, 1):
            page.evaluate("sharnn.choose(20)")
            choose_head(page, kind, block)
            assert page.evaluate("sharnn.chosen") == 20
            for target in (1, 7, 30):
                found = weights(page, kind, target)
                expected = weights_of(stored, text, target, block)
                torch.testing.assert_close(found, expected, **within)
    at = [weights_of(stored, OWN, 30, block) for block in BLOCKS]
    assert not torch.allclose(at[0], at[1], **LOOSE)
    assert not torch.allclose(at[1], at[2], **LOOSE)


def test_a_new_text_is_shown_with_the_same_head(page, kind, stored):
    choose_head(page, kind, 2)
    start(page)
    type_text(page, OWN)
    assert page.locator("#head").evaluate("(select) => select.value") == "2"
    found = weights(page, kind, 30)
    torch.testing.assert_close(found, weights_of(stored, OWN, 30, 2), **CLOSE)


def test_keyboard_phone_and_screen_reader(page, kind, stored):
    choice = page.get_by_label("Head in block", exact=False)
    assert choice.get_attribute("id") == "head"
    page.focus("#head")
    page.keyboard.press("ArrowDown")
    found = weights(page, kind, 30)
    torch.testing.assert_close(found, weights_of(stored, TEXT, 30, 1), **LOOSE)
    assert_fits_a_phone_in_the_dark(page)
    box = choice.bounding_box()
    assert box["height"] >= 40
    assert box["x"] + box["width"] <= 390


def test_one_head_leaves_no_choice(browser, kind, tmp_path):
    path = kind(small_model(), "small", TEXT).save(tmp_path / "page.html")
    with open_page(browser, path) as page:
        expect(page.locator("#head-choice")).to_be_hidden()


@pytest.mark.parametrize("kind", [Playground], indirect=True)
def test_no_head_leaves_no_choice(browser, kind, tmp_path):
    path = kind(small_model(attention_layers=()), "small", TEXT).save(tmp_path / "page.html")
    with open_page(browser, path) as page:
        expect(page.locator("#head-choice")).to_be_hidden()


@pytest.mark.parametrize("kind", [Playground], indirect=True)
def test_the_cut_is_that_of_each_head(page, kind):
    words = "the memory of each head is cut to the newest byte; the LSTMs keep their state."
    assert words in page.inner_text("#comparison")


@pytest.mark.parametrize("kind", [AblationPage], indirect=True)
def test_rows_are_removed_from_the_chosen_head(page, stored, kind):
    for text in (TEXT, OWN):
        if text == OWN:
            start(page)
            type_text(page, text)
        data = text.encode()
        replay = Replay(
            stored, trace_attention(stored, data, start=1, targets=len(data), segment_length=1)
        )
        for block in (2, 0):
            choose_head(page, kind, block)
            expected = ablate(replay, block, COUNTS).top
            for target in (7, 30):
                page.evaluate(f"sharnn.choose({target})")
                effects = page.evaluate("sharnn.effects.at(-1)")
                found = [effects[k]["bits"] for k in range(len(COUNTS))]
                assert found == pytest.approx(expected[target - 1].tolist(), abs=2e-3)


@pytest.mark.parametrize("kind", [SharpnessPage], indirect=True)
def test_each_head_has_its_own_gains(browser, kind, tmp_path):
    gains = (0.5, 2.0, 8.0)
    model = small_model(attention_layers=(0, 1, 2))
    with torch.no_grad():
        for block, gain in zip(model.blocks, gains, strict=True):
            block.head.query_norm.weight.fill_(gain)
    with open_page(browser, kind(model, "small", TEXT).save(tmp_path / "page.html")) as page:
        for block, gain in enumerate(gains):
            choose_head(page, kind, block)
            assert float(page.inner_text("#query-gain-value")) == pytest.approx(gain)
            assert page.get_attribute("#presets button", "aria-pressed") == "true"
