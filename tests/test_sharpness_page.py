"""The page about the head's sharpness: scores and weights under other gains, against PyTorch."""

import math

import pytest
import torch

from browser import needs_browser
from model_pages import (
    HOSTILE,
    as_stored,
    assert_fits_a_phone_in_the_dark,
    open_page,
    type_text,
    wait,
    weights_of,
)
from sharnn import InputError
from sharnn.web.sharpness import SharpnessPage, target_that_looks_far
from small import OPTIONS, small_model

TEXT = "abcabd abcabd abcabd <b>&amp;</b> café, abcabd abcabd and more of abcabd."


def collapsed(**settings):
    model = small_model(**settings)
    model.collapse()
    return model


@pytest.fixture(scope="module")
def model():
    return collapsed(shifted_keys=True, lstm_skip=0.5)


def effective(weights):
    return 2 ** float(-(weights * weights.log2()).sum())


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="needs a model with a head"):
        SharpnessPage(small_model(attention_layers=()))


def test_the_first_prediction_exists_in_every_text():
    assert target_that_looks_far(torch.eye(2)) == 1
    assert 1 <= target_that_looks_far(torch.full((90, 90), 0.01)) < 90


@pytest.mark.slow
class TestThePage:
    pytestmark = needs_browser

    @pytest.fixture
    def path(self, model, tmp_path):
        return SharpnessPage(model, "small", TEXT).save(tmp_path / "page.html")

    def start(self, page):
        page.click("#start")
        wait(page)
        self.rows(page, TEXT)

    def rows(self, page, text):
        page.wait_for_selector(f"body[data-rows='{len(text.encode())}']", timeout=60_000)

    def weights(self, page, target):
        page.evaluate(f"window.sharnn.choose({target})")
        weights = page.evaluate("Array.from(window.sharnn.found.weights)")
        return torch.tensor(weights, dtype=torch.float32)

    def test_the_prepared_text_has_the_models_weights(self, page, stored):
        # Its rows are in 8 bits.
        for target in (1, 2, 20, 40, 70):
            found = self.weights(page, target)
            torch.testing.assert_close(found, weights_of(stored, TEXT, target), rtol=0.1, atol=0.01)

    @pytest.mark.parametrize("options", [{}, *OPTIONS])
    def test_a_typed_text_has_the_models_weights(self, browser, tmp_path, options):
        model = collapsed(**options)
        stored = as_stored(model, tmp_path / "m.safetensors")
        with open_page(browser, SharpnessPage(model, text=TEXT).save(tmp_path / "p.html")) as page:
            self.start(page)
            text = "日本語 and " + TEXT  # longer than the memory
            type_text(page, text)
            self.rows(page, text)
            for target in (1, 30, 80):
                found = self.weights(page, target)
                expected = weights_of(stored, text, target)
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    def test_sliders_scale_gains_and_move_gates(self, page, model, tmp_path):
        self.start(page)
        page.evaluate(
            "window.sharnn.set({ queryGain: 1.5, rowGain: 2.5, gates: 0.7, shifted: false })"
        )
        changed = as_stored(model, tmp_path / "m.safetensors")
        block = changed.blocks[1]
        head = block.head
        head.shifted_keys = False
        with torch.no_grad():
            for norm, gain in ((head.query_norm, 1.5), (block.memory_norm, 2.5)):
                factor = gain / norm.weight.square().mean().sqrt()
                norm.weight *= factor
                norm.bias *= factor
            low, high = -40.0, 40.0
            for _ in range(60):
                middle = (low + high) / 2
                scales = torch.cat([head.query_scale, head.key_scale]).double()
                is_low = torch.sigmoid(scales + middle).mean() < 0.7
                low, high = (middle, high) if is_low else (low, middle)
            head.query_scale += low
            head.key_scale += low
        for target in (2, 20, 60):
            found = self.weights(page, target)
            expected = weights_of(changed, TEXT, target)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
            shown = page.inner_text("#numbers dd:last-of-type")
            assert float(shown.split()[0]) == pytest.approx(effective(expected), rel=0.01)
            described = page.get_attribute("#curve svg", "aria-label")
            assert described.startswith(
                f"Effective positions: {shown.split()[0]} of {min(target, 24)}"
            )

    def test_the_identity_is_the_head_of_a_start_with_a_query_gain(self, page, model, tmp_path):
        self.start(page)
        page.locator("#presets button").nth(3).click()
        changed = as_stored(model, tmp_path / "m.safetensors")
        block = changed.blocks[1]
        head = block.head
        head.init_query(4.0)
        with torch.no_grad():
            head.query_norm.bias.zero_()
            head.query_scale.zero_()
            head.key_scale.zero_()
            for norm in (block.memory_norm, block.middle_norm):
                norm.weight.fill_(1)
                norm.bias.zero_()
        for target in (2, 20, 60):
            found = self.weights(page, target)
            expected = weights_of(changed, TEXT, target)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    def test_a_row_that_fits_perfectly_has_the_score_of_the_chapter(self, page):
        page.locator("#presets button").nth(2).click()
        assert page.inner_text("#factors").endswith(f"= {math.sqrt(16) / 4:.2f}")
        # With the identity and no shift, the query's own row fits perfectly.
        page.select_option("#matrix", "identity")
        scores = page.evaluate("window.sharnn.choose(30) ?? Array.from(window.sharnn.found.scores)")
        assert scores[-1] == pytest.approx(1, abs=0.02)
        assert max(scores) == scores[-1]

    def test_everything_works_with_the_keyboard(self, page):
        page.focus("#start")
        page.keyboard.press("Enter")
        wait(page)
        self.rows(page, TEXT)
        page.focus("#bytes")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("window.sharnn.chosen") == len(TEXT.encode()) - 2
        for name in ("query-gain", "row-gain", "gates"):
            page.focus(f"#{name}")
            before = page.evaluate("window.sharnn.found.effective")
            for _ in range(5):
                page.keyboard.press("ArrowRight")
            assert page.evaluate("window.sharnn.found.effective") < before
        page.focus("#presets button")
        page.keyboard.press("Enter")
        assert page.get_attribute("#presets button", "aria-pressed") == "true"
        page.focus("#shifted")
        page.keyboard.press("Space")
        assert page.get_attribute("#presets button", "aria-pressed") == "false"

    def test_hostile_and_empty_texts(self, page):
        self.start(page)
        for text in (HOSTILE, "", "a", TEXT):
            type_text(page, text)
            self.rows(page, text)
            assert page.is_visible("#scoring") == (len(text) > 1)
            assert (page.inner_text("#under-bytes") == "There is no text.") == (text == "")
        page.evaluate("window.sharnn.choose(0)")
        assert not page.is_visible("#scoring")
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0

    def test_a_text_is_read_while_sliders_move(self, page, model, tmp_path):
        self.start(page)
        text = TEXT * 30
        page.fill("#text", text)
        page.wait_for_selector("body[data-reading]")
        for value in ("0", "1", "2"):
            page.fill("#row-gain", value)
        self.rows(page, text)
        page.locator("#presets button").first.click()
        found = self.weights(page, 100)
        stored = as_stored(model, tmp_path / "m.safetensors")
        torch.testing.assert_close(found, weights_of(stored, text, 100), rtol=1e-3, atol=1e-4)

    def test_it_fits_a_phone_in_the_dark(self, page):
        assert_fits_a_phone_in_the_dark(page)
